"""The agent's spans of a job's trace: the attempt as it is held here, and the worker's run inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_agent.agent.attempts import Held
from edge_agent.agent.events import Event
from edge_agent.clock import Now
from edge_agent.inference.events import RunDone, RunFailed
from edge_agent.telemetry import Tracer, span_id


class Traces:
    """Makes spans of what the worker says.

    Args:
        tracer: takes them; None where nobody wants traces.
        running: gives the attempt of a run.
    """

    def __init__(self, tracer: Tracer | None, running: Callable[[int], Held | None]) -> None:
        self._tracer = tracer
        self._running = running

    def saw(self, events: Iterable[Event], now: Now) -> None:
        """Take note of events before the core does: then their attempts are still known."""
        if self._tracer is None:
            return
        for event in events:
            if isinstance(event, RunDone | RunFailed) and (held := self._running(event.token)) is not None:
                self._ended(self._tracer, event, held, now)

    @staticmethod
    def _ended(tracer: Tracer, event: RunDone | RunFailed, held: Held, now: Now) -> None:
        job_id, epoch = held.key
        failed = event.code if isinstance(event, RunFailed) else None
        here = span_id(job_id, epoch, "agent")
        tracer.span(
            "at the machine",
            job_id,
            own=here,
            parent=span_id(job_id, epoch),
            start_ms=held.received_ms,
            end_ms=now.wall_ms,
            failed=failed,
            attributes={"edge_agent.epoch": epoch, "edge_agent.family": held.job.family},
        )
        if isinstance(event, RunDone):
            own = span_id(job_id, epoch, "run")
            began = now.wall_ms - event.run_us / 1000
            tracer.span("the model runs", job_id, own=own, parent=here, start_ms=began, end_ms=now.wall_ms)

    def stop(self) -> None:
        """Send what has not been sent."""
        if self._tracer is not None:
            self._tracer.stop()
