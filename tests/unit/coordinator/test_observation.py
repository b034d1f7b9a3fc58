"""What is counted of the core's commands, and how Prometheus is shown it."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from fakes import COORDINATOR_KEY, NETWORK, TOPICS, FakeAgent, ManualClock, scan
from gateways import FakeService, call
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.coordinator.events import (
    Commit,
    EndAttempt,
    EndJob,
    InsertAttempt,
    InsertJob,
    Outcome,
    Submit,
    SubmitRefused,
)
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.leasing import Leasing
from edge_agent.coordinator.observation import MAX_AGENTS_SHOWN, MAX_LABELS, Observation
from edge_agent.coordinator.registry import Agent, Presence, Registry
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.window import SLOT_SECONDS, Window
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.status import Status


class Scene:
    """An observation of a coordinator that is not there."""

    def __init__(self, counters: Mapping[str, int] | None = None) -> None:
        self.clock = ManualClock()
        self.registry = Registry(admit_anyone=True)
        leasing = Leasing(self.registry, Statements(COORDINATOR_KEY, TOPICS), Rules())
        self.observed = Observation(lambda: self.clock.now, self.registry, leasing, counters or {}, lambda: True)

    def job(
        self,
        number: int,
        family: str = "digits",
        *,
        wait: float = 0.0,
        run: float = 0.0,
        checks: bytes | None = None,
    ) -> None:
        """Let a job come, be leased, and succeed."""
        job_id = number.to_bytes(16, "big")
        submit = Submit(job_id, bytes(32), family, (scan(1),), (), None, None, b"", False, 10.0, checks=checks)
        self.observed.saw(Commit((InsertJob(submit, 0, 0, 5),)))
        self.clock.advance(wait)
        self.observed.saw(Commit((InsertAttempt(job_id, 1, "a", b"v", 1, 1, 0),)))
        self.clock.advance(run)
        outcome = Outcome(job_id, JobState.SUCCEEDED, receipt=b"r", agent_id="a", run_us=int(run * 1e6))
        self.observed.saw(Commit((EndJob(outcome, 1, 0),)))

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample."""
        return self.observed.metrics.get_sample_value(f"edge_agent_{name}", labels)


def test_jobs_are_counted_and_timed() -> None:
    """Each job once, its wait until the first lease, its whole duration, and the model's own time."""
    scene = Scene()
    scene.job(1, wait=0.3, run=0.5)
    scene.job(2, wait=0.0, run=0.004)
    assert scene.value("jobs_submitted_total", family="digits") == 2
    assert scene.value("jobs_ended_total", family="digits", state="succeeded") == 2
    assert scene.value("job_duration_seconds_sum", family="digits") == pytest.approx(0.804)
    assert scene.value("job_wait_seconds_sum", family="digits") == pytest.approx(0.3)
    assert scene.value("job_run_seconds_bucket", family="digits", le="0.005") == 1


def test_a_retry_counts_as_an_attempt_and_not_as_a_wait() -> None:
    """The wait is that for the first lease; what ended without a result is counted by its code."""
    scene = Scene()
    scene.job(1)
    scene.observed.saw(Commit((EndAttempt(b"j", 1, "lease-expired", 0), InsertAttempt(b"j", 2, "b", b"v", 1, 1, 0))))
    scene.observed.saw(SubmitRefused(b"t", "queue-full", "", 1.0))
    assert scene.value("attempts_lost_total", code="lease-expired") == 1
    assert scene.value("job_wait_seconds_count", family="digits") == 1
    assert scene.value("jobs_refused_total", code="queue-full") == 1


def test_a_check_is_no_job_that_somebody_asked_for() -> None:
    """It is counted by itself; the jobs, their times and the list of the latest are those of clients."""
    scene = Scene()
    scene.job(1)
    scene.job(2, run=0.5, checks=(1).to_bytes(16, "big"))
    assert scene.value("checks_started_total", family="digits") == 1
    assert scene.value("jobs_submitted_total", family="digits") == 1
    assert scene.value("jobs_ended_total", family="digits", state="succeeded") == 1
    assert scene.value("job_duration_seconds_count", family="digits") == 1
    assert list(scene.observed.latest) == [(1).to_bytes(16, "big")]
    assert (scene.observed.accepted, scene.observed.checks) == (1, 1)


def test_codes_of_agents_cannot_make_series_without_end() -> None:
    """An agent chooses the code of its failures; beyond a number they are all `other`."""
    scene = Scene()
    for number in range(10 * MAX_LABELS):
        scene.observed.saw(Commit((EndAttempt(b"j", 1, f"made-up-{number}", 0),)))
    lost = next(m for m in scene.observed.metrics.collect() if m.name == "edge_agent_attempts_lost")
    totals = {s.labels["code"]: s.value for s in lost.samples if s.name.endswith("_total")}
    assert len(totals) == MAX_LABELS + 1
    assert sum(totals.values()) == 10 * MAX_LABELS
    assert totals["other"] == 9 * MAX_LABELS


def test_a_thousand_agents_do_not_have_a_thousand_series() -> None:
    """Those online come first; how many are left out is said."""
    scene = Scene()
    key = FakeAgent("someone", scene.clock).key.public
    for number in range(1000):
        scene.registry.agents[f"{number:032}"] = Agent(f"{number:032}", key)
    online = next(m for m in scene.observed.metrics.collect() if m.name == "edge_agent_agent_online")
    assert len(online.samples) == MAX_AGENTS_SHOWN
    assert scene.value("agents_without_series") == 1000 - MAX_AGENTS_SHOWN
    assert scene.value("agents", presence="gone") == 1000


def test_each_machine_of_a_small_fleet_has_its_temperature_and_load() -> None:
    """As it said last, while it is online and where its owner lets it be told."""
    scene = Scene()
    said = FakeAgent("someone", scene.clock)
    for name, presence, celsius in (("a", Presence.ONLINE, 61), ("b", Presence.ONLINE, None), ("c", Presence.GONE, 70)):
        message = said.status(celsius=celsius, cpu_percent=25, mode="rest" if name == "b" else "work")
        opened = open_envelope(message.payload, said.key.public, Status, network=NETWORK, max_bytes=1 << 16)
        scene.registry.agents[name] = Agent(name, said.key.public, presence=presence, status=opened.statement)
    assert [scene.value("agent_temperature_celsius", agent=name) for name in "abc"] == [61, None, None]
    assert [scene.value("agent_cpu_ratio", agent=name) for name in "abc"] == [0.25, 0.25, None]
    assert [scene.value("agent_resting", agent=name) for name in "abc"] == [0, 1, 0]


def test_events_are_split_at_the_colon_and_add_up() -> None:
    """The journal counts an action with and without its code; Prometheus must be able to sum them."""
    scene = Scene({"refused": 5, "refused:bad-signature": 3, "refused:stale-epoch": 1, "defect": 2})
    name = "coordinator_events_total"
    assert scene.value(name, event="refused", code="bad-signature") == 3
    assert scene.value(name, event="refused", code="") == 1
    assert scene.value(name, event="defect", code="") == 2


def test_metrics_over_http_are_what_prometheus_reads() -> None:
    """The text parses; calls are counted by route, never by path."""
    service = FakeService()
    for path in ("/v2/models/digits", "/v2/models/nothing", "/surprise/one", "/surprise/two"):
        call(service, "GET", path)
    answer = call(service, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert "edge_agent_broker_connected" in found
    assert "edge_agent_build_info" in found
    calls = {
        (s.labels["route"], s.labels["status"]): s.value
        for s in found["edge_agent_http_requests"].samples
        if s.name.endswith("_total")
    }
    assert calls["/v2/models/{family}", "200"] == 1
    assert calls["/v2/models/{family}", "404"] == 1
    assert calls["none", "404"] == 2


def test_percentiles_are_near_the_exact_ones() -> None:
    """Within the width of a bucket, whatever the latencies."""
    window, draw = Window(), random.Random(3)
    seconds = sorted(draw.lognormvariate(-4, 1.5) for _ in range(5000))
    for one in seconds:
        window.add(10.0, "succeeded", one)
    found = window.summary(10.0).percentiles
    for percent in (50, 95, 99):
        exact = seconds[-(-5000 * percent // 100) - 1]
        assert found[percent] == pytest.approx(exact, rel=0.05)


def test_the_window_forgets_and_has_no_gaps() -> None:
    """Slots without jobs are shown as nothing; after five minutes nothing is left."""
    window = Window()
    window.add(0.0, "succeeded", 0.1)
    window.add(3 * SLOT_SECONDS, "failed", None)
    summary = window.summary(4 * SLOT_SECONDS)
    assert summary.per_second[-4:] == (1 / SLOT_SECONDS, 0.0, 0.0, 1 / SLOT_SECONDS)
    assert summary.failed_per_second[-1] == 1 / SLOT_SECONDS
    assert summary.states == {"succeeded": 1, "failed": 1}
    later = window.summary(1000 * SLOT_SECONDS)
    assert (later.states, later.percentiles, set(later.per_second)) == ({}, {}, {0.0})
