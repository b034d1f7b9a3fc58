"""What the coordinator did of late, counted from the commands that its core gives: for /metrics and the dashboard.

Everything here is bounded: labels are names of the catalogue's families and codes of ours, both up to a number, after
which the rest is called `other`; agents are counted, and single ones shown up to `MAX_AGENTS_SHOWN`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_agent import __version__
from edge_agent.coordinator.events import (
    Command,
    Commit,
    EndAttempt,
    EndJob,
    InsertAttempt,
    InsertJob,
    Record,
    SaveAgent,
    Submit,
    SubmitRefused,
)
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.registry import Presence, Registry
from edge_agent.coordinator.window import Window
from edge_agent.notes import Note

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.clock import Now
    from edge_agent.coordinator.leasing import Leasing

NAMESPACE: Final = "edge_agent"
OTHER: Final = "other"
MAX_LABELS: Final = 64
"""So many different names a label may have."""
MAX_AGENTS_SHOWN: Final = 256
"""So many agents have time series of their own; more are counted only."""
MAX_GLANCES: Final = 60
"""So many of the latest jobs are kept for people, and as many of the latest that failed."""
MAX_INCIDENTS: Final = 40
COUNTED_ONLY: Final = frozenset({"refused", "attempt-failed", "not-enrolled"})
"""Strangers decide how often these happen; `refused` is shown by its codes."""
MAX_WATCHED_JOBS: Final = 100_000
"""Of so many live jobs it is remembered when they came; more are counted, but not timed."""

JOB_BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds: from a digit on a fast machine to the deadline of a long job; five steps each two decades."""
RUN_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
"""Seconds of the model's own time."""
HTTP_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)


class Labels:
    """Keeps a label's values within bounds: the first `most` names are themselves, all later ones are `other`."""

    def __init__(self, most: int = MAX_LABELS) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        """Return the name, or `other`."""
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name


@dataclass(slots=True)
class Glance:
    """A job in one line, for people.

    Attributes:
        seconds: from its submission to its end, once it has one.
    """

    id: bytes
    family: str
    client: str
    submitted_ms: int
    at: float
    state: str = JobState.QUEUED.value
    attempts: int = 0
    agent_id: str | None = None
    seconds: float | None = None
    run_us: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that an operator may want to look into."""

    at_ms: int
    action: str
    text: str
    agent_id: str | None
    job_id: str | None


class Observation:
    """Counts and times what passes by.

    Args:
        clock: reads the clocks.
        registry: the agents.
        leasing: the live jobs.
        counters: how often each thing happened, by its action and code.
        connected: whether the broker is.

    Attributes:
        metrics: what Prometheus is shown.
        window: the last minutes, for people.
        latest: the latest jobs, oldest first.
        failed: the latest that failed or were cancelled, oldest first.
        incidents: the latest things that an operator may want to look into, oldest first.
        listeners: are told of each record that is committed.
        newcomers: grows with each agent that is saved.
        checks: so many results were given to a second machine.
        accepted: so many jobs of clients ended with a result.
        http_calls: by route, method and status; the gateway counts.
        http_seconds: by route.
        dashboard_seconds: processor time for dashboards; the gateway counts.
    """

    def __init__(
        self,
        clock: Callable[[], Now],
        registry: Registry,
        leasing: Leasing,
        counters: Mapping[str, int],
        connected: Callable[[], bool],
    ) -> None:
        # One more series for each, which the text format makes a gauge of.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.metrics = CollectorRegistry()
        self.window = Window()
        self.latest: dict[bytes, Glance] = {}
        self.failed: deque[Glance] = deque(maxlen=MAX_GLANCES)
        self.newcomers = self.checks = self.accepted = 0
        self.incidents: deque[Incident] = deque(maxlen=MAX_INCIDENTS)
        self.listeners: list[Callable[[Record], None]] = []
        self.clock = clock
        self._submitted_at: dict[bytes, tuple[float, str]] = {}
        self._checking: set[bytes] = set()
        self._family, self._code = Labels(), Labels()
        self._submitted = self._counter("jobs_submitted", "Jobs taken on.", "family")
        self._refused = self._counter("jobs_refused", "Submissions refused, by code.", "code")
        self._ended = self._counter("jobs_ended", "Jobs that ended, by state.", "family", "state")
        text = "Results that a second machine was asked to compute again."
        self._checks = self._counter("checks_started", text, "family")
        self._leased = self._counter("attempts_started", "Attempts leased to agents.", "family")
        self._lost = self._counter("attempts_lost", "Attempts without an accepted result, by code.", "code")
        text = "From a job's submission to its stored end."
        self._duration = self._histogram("job_duration_seconds", text, JOB_BUCKETS, "family")
        text = "From a job's submission to its first lease."
        self._wait = self._histogram("job_wait_seconds", text, JOB_BUCKETS, "family")
        text = "The model's own time, as the agent signed it."
        self._run = self._histogram("job_run_seconds", text, RUN_BUCKETS, "family")
        self.http_calls = self._counter("http_requests", "HTTP calls answered.", "route", "method", "status")
        text = "From an HTTP call's head to its answer's end."
        self.http_seconds = self._histogram("http_request_duration_seconds", text, HTTP_BUCKETS, "route")
        text = "Processor time for dashboards: looking at everything, and saying what changed."
        self.dashboard_seconds = Counter("dashboard_cpu_seconds", text, namespace=NAMESPACE, registry=self.metrics)
        self.metrics.register(_State(registry, leasing, counters, connected))
        ProcessCollector(registry=self.metrics)

    def _counter(self, name: str, about: str, *labels: str) -> Callable[..., Counter]:
        return cache(Counter(name, about, labels, namespace=NAMESPACE, registry=self.metrics).labels)

    def _histogram(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Callable[..., Histogram]:
        of = Histogram(name, about, labels, namespace=NAMESPACE, registry=self.metrics, buckets=buckets)
        return cache(of.labels)

    def saw(self, command: Command) -> None:
        """Take note of a command of the core, as it is carried out."""
        match command:
            case Commit():
                for record in command.records:
                    self._saw_record(record)
                    for listener in self.listeners:
                        listener(record)
            case SubmitRefused():
                self._refused(self._code(command.code)).inc()
            case Note() if command.level >= logging.WARNING and command.action not in COUNTED_ONLY:
                fields = dict(command.fields)
                where = (str(fields.get(name) or "") or None for name in ("agent_id", "job_id"))
                self.incidents.append(Incident(self.clock().wall_ms, command.action, command.sentence, *where))

    def _saw_record(self, record: Record) -> None:
        match record:
            case InsertJob(submit=submit) if submit.checks is not None:  # nobody asked for it
                self._checks(self._family(submit.family)).inc()
                self.checks += 1
                if len(self._checking) < MAX_WATCHED_JOBS:
                    self._checking.add(submit.job_id)
            case InsertJob(submit=submit):
                self._saw_job(submit, record.submitted_ms)
            case InsertAttempt():
                self._saw_lease(record)
            case EndAttempt():
                self._lost(self._code(record.outcome)).inc()
                if record.state is not None and (glance := self.latest.get(record.job_id)) is not None:
                    glance.state = record.state.value
            case EndJob() if record.outcome.job_id in self._checking:
                self._checking.remove(record.outcome.job_id)
            case EndJob():
                self._saw_end(record)
            case SaveAgent():
                self.newcomers += 1

    def _saw_job(self, submit: Submit, submitted_ms: int) -> None:
        family, now = self._family(submit.family), self.clock().monotonic
        self._submitted(family).inc()
        if len(self._submitted_at) < MAX_WATCHED_JOBS:
            self._submitted_at[submit.job_id] = (now, family)
        self.latest[submit.job_id] = Glance(submit.job_id, submit.family, submit.client, submitted_ms, now)
        if len(self.latest) > MAX_GLANCES:
            del self.latest[next(iter(self.latest))]

    def _saw_lease(self, record: InsertAttempt) -> None:
        at, family = self._submitted_at.get(record.job_id, (None, OTHER))
        self._leased(family).inc()
        if at is not None and record.epoch == 1:
            self._wait(family).observe(self.clock().monotonic - at)
        if (glance := self.latest.get(record.job_id)) is not None:
            glance.state, glance.agent_id, glance.attempts = record.state.value, record.agent_id, record.epoch

    def _saw_end(self, record: EndJob) -> None:
        outcome, now = record.outcome, self.clock().monotonic
        at, family = self._submitted_at.pop(outcome.job_id, (None, OTHER))
        self._ended(family, outcome.state.value).inc()
        seconds = None if at is None else now - at
        if seconds is not None:
            self._duration(family).observe(seconds)
        self.accepted += outcome.receipt is not None
        if outcome.run_us is not None:
            self._run(family).observe(outcome.run_us / 1e6)
        self.window.add(now, outcome.state.value, seconds if outcome.receipt is not None else None)
        glance = self.latest.get(outcome.job_id)
        if glance is None and outcome.error is not None:
            glance = Glance(outcome.job_id, family, "", record.ended_ms, now)
        if glance is not None:
            glance.state, glance.attempts, glance.run_us = outcome.state.value, record.epoch, outcome.run_us
            glance.agent_id = outcome.agent_id or glance.agent_id
            glance.seconds = seconds
            if outcome.error is not None:
                glance.error = outcome.error.code
                self.failed.append(glance)


class _State(Collector):
    """What is so at the moment of the question."""

    def __init__(
        self, registry: Registry, leasing: Leasing, counters: Mapping[str, int], connected: Callable[[], bool]
    ) -> None:
        self._registry = registry
        self._leasing = leasing
        self._counters = counters
        self._connected = connected

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: what there is depends on who is there."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give every metric."""
        yield _gauge("build_info", "The version that runs.", [((__version__,), 1)], ["version"])
        yield _gauge("broker_connected", "Whether the broker is connected.", [((), float(self._connected()))])
        states: dict[str, int] = {"queued": 0, "leased": 0, "hedged": 0}
        for job in self._leasing.jobs.values():
            states[job.state.value] = states.get(job.state.value, 0) + 1
        yield _gauge("jobs", "Live jobs, by state.", [((state,), n) for state, n in states.items()], ["state"])
        yield _gauge("jobs_input_bytes", "Inputs of the live jobs.", [((), self._leasing.input_bytes)])
        yield from self._agents()
        yield self._events()

    def _agents(self) -> Iterator[Metric]:
        agents = list(self._registry.agents.values())
        presences = dict.fromkeys((presence.value for presence in Presence), 0)
        families: dict[str, int] = {}
        label = Labels()
        for agent in agents:
            presences[agent.presence.value] += 1
            for family in agent.offers:
                name = label(family)
                families[name] = families.get(name, 0) + 1
        yield _gauge("agents", "Agents, by presence.", [((p,), n) for p, n in presences.items()], ["presence"])
        yield _gauge("family_agents", "Agents that offer it now.", [((f,), n) for f, n in families.items()], ["family"])
        shown = sorted(agents, key=lambda agent: (agent.presence is not Presence.ONLINE, agent.id))[:MAX_AGENTS_SHOWN]
        left_out = len(agents) - len(shown)
        yield _gauge("agents_without_series", "Agents beyond those shown one by one.", [((), left_out)])
        up = [((a.id,), float(a.presence is Presence.ONLINE)) for a in shown]
        yield _gauge("agent_online", "Whether this agent is online.", up, ["agent"])
        held = [((a.id,), len(a.in_flight)) for a in shown]
        yield _gauge("agent_attempts", "Attempts that this agent holds.", held, ["agent"])
        # What a machine said last is no reading of one that is away, and its owner may keep either to itself.
        said = [(a.id, a.status) for a in shown if a.presence is Presence.ONLINE and a.status is not None]
        heat = [((agent_id,), status.celsius) for agent_id, status in said if status.celsius is not None]
        yield _gauge("agent_temperature_celsius", "Of its processor, as this agent says.", heat, ["agent"])
        load = [((agent_id,), status.cpu_percent / 100) for agent_id, status in said if status.cpu_percent is not None]
        yield _gauge("agent_cpu_ratio", "Of its processors' time that is in use, as this agent says.", load, ["agent"])
        rests = [((a.id,), float(s.mode == "rest")) for a, s in ((a, a.status) for a in shown) if s is not None]
        yield _gauge("agent_resting", "Whether this agent rests, as it says.", rests, ["agent"])

    def _events(self) -> Metric:
        found = CounterMetricFamily(
            f"{NAMESPACE}_coordinator_events", "What happened, as the log has it.", labels=["event", "code"]
        )
        coded: dict[str, int] = {}
        plain: dict[str, int] = {}
        for name, count in self._counters.items():
            event, colon, code = name.partition(":")
            if colon:
                coded[event] = coded.get(event, 0) + count
                found.add_metric([event, code], count)
            else:
                plain[event] = count
        for event, count in plain.items():  # each coded one was counted without its code, too
            if (rest := count - coded.get(event, 0)) > 0:
                found.add_metric([event, ""], rest)
        return found


def _gauge(
    name: str, about: str, values: Sequence[tuple[tuple[str, ...], float]], labels: Sequence[str] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{NAMESPACE}_{name}", about, labels=list(labels))
    for names, value in values:
        family.add_metric(list(names), value)
    return family
