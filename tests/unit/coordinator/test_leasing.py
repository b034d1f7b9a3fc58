"""Queues, leases and timers, without agents that speak."""

from __future__ import annotations

import pytest
from fakes import COORDINATOR_KEY, TOPICS, ManualClock, digits, klass, of_type, records, scan
from fakes import key as make_key

from edge_agent.coordinator.events import EndAttempt, EndJob, InsertAttempt, Publish
from edge_agent.coordinator.jobs import Attempt, Blame, Job, JobError, JobEvent, JobState
from edge_agent.coordinator.leasing import DEADLINE, Leasing, Rules
from edge_agent.coordinator.registry import Agent, Presence, Registry
from edge_agent.coordinator.statements import Statements
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

    def job(self, number: int, *, deadline: float = 60.0, variant: bytes | None = None) -> Job:
        """Add a queued job."""
        job = Job(
            id=number.to_bytes(16, "big"),
            family="digits",
            inputs=(scan(number),),
            outputs=(),
            salt=bytes(32),
            submitted_ms=0,
            deadline=self.clock.monotonic + deadline,
            max_attempts=RULES.max_attempts,
            variant=variant,
        )
        self.leasing.add(job)
        return job

    def dispatch(self) -> list[bytes]:
        """Lease what can be leased; return the jobs in the order of their leases."""
        commands = self.leasing.dispatch_all(self.clock.now, 100)
        return [record.job_id for record in records(commands, InsertAttempt)]

    def expired(self) -> list[tuple[bytes, int]]:
        """Return what has run out by now."""
        return [(job.id, epoch) for job, epoch in self.leasing.expired(self.clock.now)]


@pytest.fixture
def bench() -> Bench:
    """Return an empty bench."""
    return Bench()


def test_jobs_are_leased_oldest_first_up_to_the_room_there_is(bench: Bench) -> None:
    """Nobody overtakes, and nobody gets more than asked for."""
    agent = bench.agent("a", room=2)
    jobs = [bench.job(number) for number in range(3)]
    assert bench.dispatch() == [jobs[0].id, jobs[1].id]
    assert agent.in_flight == {jobs[0].id, jobs[1].id}
    assert jobs[2].state is JobState.QUEUED
    assert bench.dispatch() == []


def test_a_lease_is_sent_and_recorded_with_its_epoch(bench: Bench) -> None:
    """One message to the agent and one row."""
    agent = bench.agent("a")
    job = bench.job(1)
    commands = bench.leasing.dispatch("digits", bench.clock.now, 100)
    (sent,) = of_type(commands, Publish)
    (row,) = records(commands, InsertAttempt)
    assert sent.topic == TOPICS.jobs(agent.id)
    assert (row.epoch, row.agent_id, row.agent_session, row.coordinator_session) == (1, agent.id, 1, 100)
    assert job.attempt is not None
    assert job.attempt.lease_until == bench.clock.monotonic + RULES.lease_seconds


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
    first, second = bench.job(1), bench.job(2)
    assert bench.dispatch() == [first.id]
    other = bench.agent("b", room=1, variant=1)
    second.variant = VARIANTS[0]
    third = bench.job(3)
    assert bench.dispatch() == [third.id]
    assert other.in_flight == {third.id}


def test_a_lease_that_is_renewed_runs_out_later_and_only_once(bench: Bench) -> None:
    """A timer that rings too early is set again."""
    bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    bench.clock.advance(6.0)
    assert job.attempt is not None
    bench.leasing.renew(job.attempt, bench.clock.now)
    bench.clock.advance(4.0)
    assert bench.expired() == []
    bench.clock.advance(6.0)
    assert bench.expired() == [(job.id, 1)]
    assert bench.expired() == []


def test_a_lease_that_is_shortened_and_renewed_again_runs_its_whole_time(bench: Bench) -> None:
    """An agent that comes back in time keeps its attempt."""
    bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    assert job.attempt is not None
    bench.leasing.shorten(job, bench.clock.monotonic + 3.0)
    assert bench.leasing.next_deadline() == bench.clock.monotonic + 3.0
    bench.leasing.renew(job.attempt, bench.clock.now)
    bench.clock.advance(9.9)
    assert bench.expired() == []
    bench.clock.advance(0.1)
    assert bench.expired() == [(job.id, 1)]


def test_a_lease_is_never_shortened_to_a_later_time(bench: Bench) -> None:
    """Shortening does not lengthen."""
    bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    assert job.attempt is not None
    before = job.attempt.lease_until
    bench.leasing.shorten(job, before + 5.0)
    assert job.attempt.lease_until == before


def test_a_lease_that_ran_out_can_be_extended(bench: Bench) -> None:
    """It rings again after another lease."""
    bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    bench.clock.advance(10.0)
    assert bench.expired() == [(job.id, 1)]
    bench.leasing.extend(job, bench.clock.now)
    assert bench.expired() == []
    bench.clock.advance(10.0)
    assert bench.expired() == [(job.id, 1)]


def test_the_timer_of_an_older_epoch_takes_nothing_away(bench: Bench) -> None:
    """Only the present attempt's lease counts."""
    agent = bench.agent("a")
    job = bench.job(1)
    bench.dispatch()
    bench.clock.advance(5.0)
    bench.leasing.requeue(job, "worker-died", bench.clock.now)
    bench.dispatch()
    bench.clock.advance(5.0)
    assert bench.expired() == []
    assert agent.in_flight == {job.id}
    bench.clock.advance(5.0)
    assert bench.expired() == [(job.id, 2)]


def test_the_deadline_rings_in_every_state_but_not_after_the_end(bench: Bench) -> None:
    """Queued and leased jobs have a deadline; jobs that ended have none."""
    bench.agent("a", room=1)
    leased, queued, ended = (bench.job(n, deadline=5.0) for n in range(3))
    assert bench.dispatch() == [leased.id]
    bench.leasing.end(ended, JobEvent.CANCEL, JobError("cancelled", "", Blame.CANCELLED), bench.clock.now)
    bench.clock.advance(5.0)
    assert bench.expired() == [(leased.id, DEADLINE), (queued.id, DEADLINE)]


def test_a_job_that_is_requeued_is_first_in_its_queue(bench: Bench) -> None:
    """It has waited already."""
    agent = bench.agent("a", room=1)
    first, second = bench.job(1), bench.job(2)
    bench.dispatch()
    commands = bench.leasing.requeue(first, "worker-died", bench.clock.now)
    assert [(r.epoch, r.outcome) for r in records(commands, EndAttempt)] == [(1, "worker-died")]
    assert agent.in_flight == set()
    assert bench.dispatch() == [first.id]
    assert second.state is JobState.QUEUED


def test_a_job_whose_attempts_are_used_up_ends_instead_of_being_requeued(bench: Bench) -> None:
    """It ends once, with the last cause in words, and gives its place back."""
    agent = bench.agent("a")
    job = bench.job(1)
    for _ in range(RULES.max_attempts - 1):
        bench.dispatch()
        bench.leasing.requeue(job, "worker-died", bench.clock.now)
    bench.dispatch()
    commands = bench.leasing.requeue(job, "worker-hung", bench.clock.now)
    (ended,) = records(commands, EndJob)
    assert ended.outcome.error == JobError(
        "attempts-exhausted", "gave up after 3 attempts; the last one ended with worker-hung", Blame.AGENT
    )
    assert records(commands, EndAttempt) == []
    assert bench.leasing.jobs == {}
    assert agent.in_flight == set()


def test_only_a_leased_job_can_be_requeued(bench: Bench) -> None:
    """Anything else is a defect and raises."""
    with pytest.raises(AssertionError, match="only a leased job"):
        bench.leasing.requeue(bench.job(1), "x", bench.clock.now)


def test_a_job_from_before_a_restart_keeps_its_lease_and_its_place_with_the_agent(bench: Bench) -> None:
    """A restored attempt counts as in flight and can run out."""
    agent = bench.agent("a", room=1)
    job = bench.job(1)
    bench.leasing.jobs.clear()
    job.state, job.epoch = JobState.LEASED, 4
    job.attempt = Attempt(4, agent.id, VARIANTS[0], 1, 99, bench.clock.monotonic + 10.0)
    bench.leasing.add(job)
    bench.job(2)
    assert agent.in_flight == {job.id}
    assert bench.dispatch() == []
    bench.clock.advance(10.0)
    assert bench.expired() == [(job.id, 4)]


def test_an_idle_table_asks_for_no_ticks_once_its_timers_have_rung(bench: Bench) -> None:
    """Timers of jobs that ended are cleared away, not kept for ever."""
    bench.agent("a", room=5)
    for number in range(5):
        job = bench.job(number)
        bench.dispatch()
        bench.leasing.succeed(job)
    bench.clock.advance(60.0)
    assert bench.expired() == []
    assert bench.leasing.next_deadline() is None
    assert bench.leasing.jobs == {}
