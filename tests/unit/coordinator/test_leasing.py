"""Queues, leases and timers, without agents that speak."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import COORDINATOR_KEY, TOPICS, ManualClock, digits, klass, of_type, records, scan
from fakes import key as make_key

from edge_agent.coordinator.events import Command, EndAttempt, EndJob, InsertAttempt, Publish
from edge_agent.coordinator.jobs import Attempt, Blame, Job, JobError, JobEvent, JobState
from edge_agent.coordinator.leasing import Leasing
from edge_agent.coordinator.registry import Agent, Presence, Registry
from edge_agent.coordinator.retries import BACKOFF_FIRST_SECONDS
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.timers import Kind
from edge_agent.wire.messages import Offer

RULES = Rules(lease_seconds=10.0, max_attempts=3)
VARIANTS = [variant.digest_bytes for variant in digits().variants]


class Bench:
    """A table of live jobs, with agents that are there."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.registry = Registry(admit_anyone=True)
        self.leasing = Leasing(self.registry, Statements(COORDINATOR_KEY, TOPICS), RULES)

    def agent(self, name: str, *, room: int = 2, variant: int = 0, latency_us: int = 100) -> Agent:
        """Add an agent that offers one variant of `digits`."""
        public = make_key(name).public
        offer = Offer(
            family="digits",
            variant=VARIANTS[variant],
            variant_name="v",
            klass=klass(VARIANTS[variant]),
            latency_us=latency_us,
            max_in_flight=room,
            loaded=True,
        )
        agent = Agent(public.id, public, presence=Presence.ONLINE, session=1, offers={"digits": offer})
        self.registry.agents[agent.id] = agent
        return agent

    def job(self, number: int, **options: Any) -> Job:  # noqa: ANN401 as `make` takes them
        """Add a queued job."""
        job = self.make(number, **options)
        self.leasing.add(job)
        return job

    def make(self, number: int, *, deadline: float = 60.0, variant: bytes | None = None, **fields: Any) -> Job:  # noqa: ANN401 any field
        """Make a queued job."""
        return Job(
            id=number.to_bytes(16, "big"),
            family="digits",
            inputs=(scan(number),),
            outputs=(),
            salt=bytes(32),
            submitted_ms=0,
            deadline=self.clock.monotonic + deadline,
            max_attempts=RULES.max_attempts,
            variant=variant,
            **fields,
        )

    def dispatch(self) -> list[bytes]:
        """Lease what can be leased; return the jobs in the order of their leases."""
        commands = self.leasing.dispatch(self.clock.now, 100)
        return [record.job_id for record in records(commands, InsertAttempt)]

    def due(self) -> list[tuple[bytes, Kind, int]]:
        """Return what is due by now."""
        return [(job.id, timer.kind, timer.epoch) for job, timer in self.leasing.due(self.clock.now)]

    def lose(self, job: Job, why: str) -> list[Command]:
        """Let the only attempt of a job end without a result."""
        (attempt,) = job.attempts
        return self.leasing.lose(job, attempt, why, self.clock.now)

    def wait(self) -> None:
        """Let the longest wait before a second attempt pass."""
        self.clock.advance(BACKOFF_FIRST_SECONDS)
        assert self.due() == []


@pytest.fixture
def bench() -> Bench:
    """Return an empty bench."""
    return Bench()


def test_jobs_are_leased_oldest_first_up_to_the_room_there_is(bench: Bench) -> None:
    """Nobody overtakes, and nobody gets more than asked for."""
    agent = bench.agent("a", room=2)
    jobs = [bench.job(number) for number in range(3)]
    assert bench.dispatch() == [jobs[0].id, jobs[1].id]
    assert set(agent.in_flight) == {jobs[0].id, jobs[1].id}
    assert jobs[2].state is JobState.QUEUED
    assert bench.dispatch() == []


def test_a_lease_is_sent_and_recorded_with_its_epoch(bench: Bench) -> None:
    """One message to the agent and one row."""
    agent = bench.agent("a")
    job = bench.job(1)
    commands = bench.leasing.dispatch(bench.clock.now, 100)
    (sent,) = of_type(commands, Publish)
    (row,) = records(commands, InsertAttempt)
    assert sent.topic == TOPICS.jobs(agent.id)
    assert (row.epoch, row.agent_id, row.agent_session, row.coordinator_session) == (1, agent.id, 1, 100)
    (attempt,) = job.attempts
    assert attempt.lease_until == bench.clock.monotonic + RULES.lease_seconds


def test_a_job_for_a_variant_that_nobody_offers_does_not_block_those_behind_it(bench: Bench) -> None:
    """The head of the queue may have to wait alone, and keeps its place."""
    bench.agent("a", room=1, variant=0)
    waiting = [bench.job(1, variant=VARIANTS[1]), bench.job(2, variant=VARIANTS[1])]
    plain = bench.job(3)
    assert bench.dispatch() == [plain.id]
    bench.agent("b", room=5, variant=1)
    assert bench.dispatch() == [job.id for job in waiting]


def test_a_job_whose_variant_is_full_does_not_hide_one_that_failed_elsewhere(bench: Bench) -> None:
    """What was found hopeless for one job is not assumed of a job with other possibilities."""
    bench.agent("a", room=1)
    first, second = bench.job(1), bench.job(2, variant=VARIANTS[0])
    assert bench.dispatch() == [first.id]
    other = bench.agent("b", room=1, variant=1)
    third = bench.job(3)
    assert bench.dispatch() == [third.id]
    assert set(other.in_flight) == {third.id}
    assert second.state is JobState.QUEUED


def test_a_lease_that_is_renewed_runs_out_later_and_only_once(bench: Bench) -> None:
    """A timer that rings too early is set again."""
    bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    bench.clock.advance(6.0)
    (attempt,) = job.attempts
    bench.leasing.renew(attempt, bench.clock.now)
    bench.clock.advance(4.0)
    assert bench.due() == []
    bench.clock.advance(6.0)
    assert bench.due() == [(job.id, Kind.LEASE, 1)]
    assert bench.due() == []


def test_a_lease_that_is_shortened_and_renewed_again_runs_its_whole_time(bench: Bench) -> None:
    """An agent that comes back in time keeps its attempt."""
    bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    (attempt,) = job.attempts
    bench.leasing.shorten(job, attempt, bench.clock.monotonic + 3.0)
    assert bench.leasing.next_deadline() == bench.clock.monotonic + 3.0
    bench.leasing.renew(attempt, bench.clock.now)
    bench.clock.advance(9.9)
    assert bench.due() == []
    bench.clock.advance(0.1)
    assert bench.due() == [(job.id, Kind.LEASE, 1)]


def test_a_lease_is_never_shortened_to_a_later_time(bench: Bench) -> None:
    """Shortening does not lengthen."""
    bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    (attempt,) = job.attempts
    before = attempt.lease_until
    bench.leasing.shorten(job, attempt, before + 5.0)
    assert attempt.lease_until == before


def test_a_lease_that_ran_out_can_be_extended(bench: Bench) -> None:
    """It rings again after another lease."""
    bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    (attempt,) = job.attempts
    bench.clock.advance(10.0)
    assert bench.due() == [(job.id, Kind.LEASE, 1)]
    bench.leasing.extend(job, attempt, bench.clock.now)
    assert bench.due() == []
    bench.clock.advance(10.0)
    assert bench.due() == [(job.id, Kind.LEASE, 1)]


def test_the_timer_of_an_older_epoch_takes_nothing_away(bench: Bench) -> None:
    """Only the present attempt's lease counts."""
    agent = bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    bench.clock.advance(5.0)
    bench.lose(job, "not-held")
    bench.dispatch()
    bench.clock.advance(5.0)
    assert bench.due() == []
    assert set(agent.in_flight) == {job.id}
    bench.clock.advance(5.0)
    assert bench.due() == [(job.id, Kind.LEASE, 2)]


def test_the_deadline_rings_in_every_state_but_not_after_the_end(bench: Bench) -> None:
    """Queued and leased jobs have a deadline; jobs that ended have none."""
    bench.agent("a", room=1)
    leased, queued, ended = (bench.job(n, deadline=5.0) for n in range(3))
    assert bench.dispatch() == [leased.id]
    bench.leasing.end(ended, JobEvent.CANCEL, JobError("cancelled", "", Blame.CANCELLED), bench.clock.now)
    bench.clock.advance(5.0)
    assert bench.due() == [(leased.id, Kind.DEADLINE, 0), (queued.id, Kind.DEADLINE, 0)]


def test_a_job_that_is_requeued_is_first_in_its_queue(bench: Bench) -> None:
    """It has waited already."""
    agent = bench.agent("a", room=1)
    first, second = bench.job(1), bench.job(2)
    bench.dispatch()
    commands = bench.lose(first, "worker-died")
    assert [(r.epoch, r.outcome, r.state) for r in records(commands, EndAttempt)] == [
        (1, "worker-died", JobState.QUEUED)
    ]
    assert agent.in_flight == {}
    bench.wait()
    assert bench.dispatch() == [first.id]
    assert second.state is JobState.QUEUED


def test_a_job_whose_attempts_are_used_up_ends_instead_of_being_requeued(bench: Bench) -> None:
    """It ends once, with the last cause in words, and gives its place back."""
    agent = bench.agent("a")
    job = bench.job(1)
    for _ in range(RULES.max_attempts - 1):
        bench.dispatch()
        bench.lose(job, "worker-died")
        bench.clock.advance(1.0)
        assert bench.due() == []
    bench.dispatch()
    commands = bench.lose(job, "worker-hung")
    (ended,) = records(commands, EndJob)
    assert ended.outcome.error == JobError(
        "attempts-exhausted", "gave up after 3 attempts; the last one ended with worker-hung", Blame.AGENT
    )
    assert [(r.epoch, r.outcome, r.state) for r in records(commands, EndAttempt)] == [(3, "worker-hung", None)]
    assert bench.leasing.jobs == {}
    assert agent.in_flight == {}


def test_a_job_from_before_a_restart_keeps_its_lease_and_its_place_with_the_agent(bench: Bench) -> None:
    """A restored attempt counts as in flight and can run out."""
    agent = bench.agent("a", room=1)
    job = bench.make(1)
    job.state, job.epoch = JobState.LEASED, 4
    job.attempts = [Attempt(4, agent.id, VARIANTS[0], 1, 99, bench.clock.monotonic + 10.0)]
    bench.leasing.add(job)
    bench.job(2)
    assert set(agent.in_flight) == {job.id}
    assert bench.dispatch() == []
    bench.clock.advance(10.0)
    assert bench.due() == [(job.id, Kind.LEASE, 4)]


def test_an_idle_table_asks_for_no_ticks_once_its_timers_have_rung(bench: Bench) -> None:
    """Timers of jobs that ended are cleared away, not kept for ever."""
    bench.agent("a", room=5)
    for number in range(5):
        job = bench.job(number)
        bench.dispatch()
        (attempt,) = job.attempts
        bench.leasing.succeed(job, attempt, bench.clock.now)
    bench.clock.advance(60.0)
    assert bench.due() == []
    assert bench.leasing.next_deadline() is None
    assert bench.leasing.jobs == {}
