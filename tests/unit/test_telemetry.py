"""Traces: one tree of a job from two processes that never spoke of it; and nothing at all unless somebody wants it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from fakes import AgentScript, CoordinatorScript, FakeAgent, ManualClock, job_id, of_type
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from edge_agent.agent.events import RunModel
from edge_agent.agent.tracing import Traces as AgentTraces
from edge_agent.coordinator.events import Commit
from edge_agent.coordinator.tracing import Traces
from edge_agent.inference.events import RunDone
from edge_agent.telemetry import Tracer, span_id


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Keep spans."""
    return InMemorySpanExporter()


def tracer(exporter: InMemorySpanExporter, share: float = 1.0) -> Tracer:
    """Make spans that are kept."""
    return Tracer(SimpleSpanProcessor(exporter), "test", share)


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Return the spans."""
    return {span.name: span for span in exporter.get_finished_spans()}


def test_coordinator_and_agent_make_one_tree(exporter: InMemorySpanExporter) -> None:
    """Each alone, from the job's id and epoch; the trace's id is the job's."""
    script, clock = CoordinatorScript(), ManualClock()
    script.connect()
    traces = Traces(tracer(exporter))
    agent = FakeAgent("agent", script.clock)
    script.join(agent)

    def commit(commands: list[object]) -> None:
        for command in of_type(commands, Commit):
            for record in command.records:
                traces.saw(record)

    job, commands = script.submit()
    commit(commands)
    opened = next(agent.open(c, type(o.statement)) for c, o in _leased(agent, commands))
    script.clock.advance(0.05)
    commit(script.tell(agent.result(opened)))

    here = AgentScript(clock)
    here.ready()
    traced = AgentTraces(tracer(exporter), here.core.attempts.running)
    (run,) = of_type(here.tell(here.coordinator.job(1)), RunModel)
    traced.saw([RunDone(run.token, (), 250)], clock.now)

    spans = by_name(exporter)
    assert set(spans) == {"job", "attempt", "at the machine", "the model runs"}
    assert spans["job"].context.trace_id == int.from_bytes(job, "big")
    assert spans["job"].parent is None
    assert spans["attempt"].parent.span_id == spans["job"].context.span_id == span_id(job)
    other = job_id(1)
    assert spans["at the machine"].parent.span_id == span_id(other, 1)  # the coordinator's attempt of that job
    assert spans["at the machine"].context.trace_id == int.from_bytes(other, "big")
    assert spans["the model runs"].parent.span_id == spans["at the machine"].context.span_id
    assert spans["attempt"].end_time - spans["attempt"].start_time == pytest.approx(50e6, abs=2e6)


def _leased(agent: FakeAgent, commands: list[object]) -> Iterator[tuple[object, object]]:
    from fakes import jobs_for, published  # noqa: PLC0415 only here

    return zip([c for c in published(commands) if c.topic.endswith("/jobs")], jobs_for(agent, commands), strict=True)


def test_all_choose_the_same_jobs(exporter: InMemorySpanExporter) -> None:
    """By the id alone; a tenth of them is about a tenth."""
    one, two = tracer(exporter, 0.1), tracer(InMemorySpanExporter(), 0.1)
    jobs = [job_id(number) for number in range(2000)]
    chosen = [job for job in jobs if one.wants(job)]
    assert chosen == [job for job in jobs if two.wants(job)]
    assert 150 < len(chosen) < 250
    assert all(tracer(exporter).wants(job) for job in jobs)


def test_spans_go_to_the_address_that_was_set_and_nowhere_else() -> None:
    """As OTLP over HTTP, which any collector takes."""
    got: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        made = Tracer.connect(f"http://127.0.0.1:{server.server_address[1]}/v1/traces", "edge-agent", 1.0)
        made.span("job", job_id(1), own=span_id(job_id(1)), parent=None, start_ms=1, end_ms=2, failed="deadline")
        made.stop()
        server.shutdown()
        thread.join()
    request = ExportTraceServiceRequest.FromString(got[0])
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert (span.trace_id, span.name, span.status.message) == (job_id(1), "job", "deadline")


def test_nothing_of_it_is_imported_unless_it_is_wanted() -> None:
    """Neither by the agent nor by the coordinator: it would cost memory, and could phone home."""
    code = (
        "import sys, edge_agent.agent.assemble, edge_agent.coordinator.daemon, edge_agent.coordinator.tracing\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
