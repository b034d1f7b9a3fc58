"""Traces for OpenTelemetry, if somebody wants them: the whole way of a job over all machines, as one trace.

Nothing of a trace travels with a message: the trace's id *is* the job's, which is random, 16 bytes, and in every signed
statement already; the ids of its spans follow from job and epoch. So coordinator and agent, who export on their own,
agree on the tree without a word, and a client finds the trace by the job's id. Off unless an endpoint is set; the
library is imported only then.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from edge_agent import __version__
from edge_agent.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

MAX_WAITING_SPANS: Final = 2048
EXPORT_SECONDS: Final = 5.0


def span_id(job_id: bytes, *what: int | str) -> int:
    """Return the id of a span of a job's trace: the first 8 bytes of a SHA-256, never 0.

    Args:
        job_id: 16 bytes.
        what: names the span inside the trace; nothing for its root.
    """
    text = "/".join(str(part) for part in ("edge-agent", *what)).encode()
    return int.from_bytes(hashlib.sha256(job_id + text).digest()[:8], "big") or 1


class Tracer:
    """Makes spans of what has happened, with ids that others come to as well.

    Args:
        processor: takes finished spans.
        service: whose they are.
        share: of the jobs that are traced, chosen by their ids, so that all who use the same share choose alike.
    """

    def __init__(self, processor: SpanProcessor, service: str, share: float = 1.0) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 only where traces are wanted

        self._processor = processor
        self._resource = Resource({"service.name": service, "service.version": __version__})
        self._below = int(share * 2**64)

    @classmethod
    def connect(cls, endpoint: str, service: str, share: float) -> Tracer:
        """Export to this address, OTLP over HTTP, from a thread of its own; what it does not take is dropped.

        Raises:
            SettingsError: the library is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as error:
            raise SettingsError(
                "telemetry.endpoint is set, but OpenTelemetry is not installed",
                hint="Install the extra: pip install 'edge-agent[telemetry]'",
            ) from error
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
        return cls(BatchSpanProcessor(exporter, max_queue_size=MAX_WAITING_SPANS), service, share)

    def wants(self, job_id: bytes) -> bool:
        """Whether a job is traced."""
        return int.from_bytes(job_id[:8], "big") < self._below

    def span(  # noqa: PLR0913 what a span consists of
        self,
        name: str,
        job_id: bytes,
        *,
        own: int,
        parent: int | None,
        start_ms: float,
        end_ms: float,
        failed: str | None = None,
        attributes: dict[str, str | int] | None = None,
    ) -> None:
        """Tell of something that has ended.

        Args:
            name: what it was.
            job_id: whose trace it is in.
            own: its id.
            parent: that of the span around it; None for the root.
            start_ms: Unix milliseconds.
            end_ms: as above.
            failed: why it ended badly, if it did.
            attributes: names and values.
        """
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 as above
        from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 as above
        from opentelemetry.trace.status import Status, StatusCode  # noqa: PLC0415 as above

        if not self.wants(job_id):
            return

        def context(span: int) -> SpanContext:
            trace = int.from_bytes(job_id, "big") or 1
            return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        self._processor.on_end(
            ReadableSpan(
                name,
                context=context(own),
                parent=None if parent is None else context(parent),
                resource=self._resource,
                attributes={"edge_agent.job_id": job_id.hex(), **(attributes or {})},
                status=Status(StatusCode.OK) if failed is None else Status(StatusCode.ERROR, failed),
                start_time=int(start_ms * 1e6),
                end_time=int(max(start_ms, end_ms) * 1e6),
            )
        )

    def stop(self) -> None:
        """Export what waits, and end."""
        self._processor.shutdown()
