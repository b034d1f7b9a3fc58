"""The table of held attempts, and that its parts agree whatever happens."""

from __future__ import annotations

import pytest
from fakes import ManualClock, chosen_variant, job_id, key, scan
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_agent.agent.attempts import MIN_RENEW_SECONDS, MIN_RUN_SECONDS, Attempts, Held, Stage, renew_seconds
from edge_agent.agent.unsettled import REDELIVER_FIRST_SECONDS
from edge_agent.wire.messages import Job, TensorDigest

AGENT_ID = key("agent").public.id


def _job(number: int, epoch: int = 1, lease_ms: int = 30_000) -> Job:
    return Job(
        network="home",
        issued_ms=0,
        job=job_id(number),
        epoch=epoch,
        agent_id=AGENT_ID,
        session=1,
        family="digits",
        variant=chosen_variant(),
        inputs=(TensorDigest.of(scan(number), bytes(32)),),
        salt=bytes(32),
        outputs=(),
        lease_ms=lease_ms,
        max_output_bytes=1000,
    )


class Bench:
    """A table and a clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = Attempts()

    def add(self, number: int, epoch: int = 1) -> Held:
        """Take an attempt in."""
        return self.table.add(_job(number, epoch), (scan(number),), self.clock.now)

    def start(self) -> Held:
        """Start the next one, which there must be."""
        held = self.table.start_next(self.clock.now)
        assert held is not None
        return held


@pytest.fixture
def bench() -> Bench:
    """Return an empty table."""
    return Bench()


def test_attempts_run_in_the_order_in_which_they_came(bench: Bench) -> None:
    """First come, first served."""
    added = [bench.add(number) for number in range(3)]
    assert [bench.start() for _ in range(3)] == added
    assert bench.table.start_next(bench.clock.now) is None


def test_a_finished_attempt_gives_its_inputs_back_and_keeps_its_answer(bench: Bench) -> None:
    """Memory is for work; the answer stays until it is settled."""
    held = bench.add(1)
    bench.start()
    assert bench.table.held_bytes == len(scan(1).data)
    answer = bench.table.finish(held, b"answer", bench.clock.now)
    assert (answer.key, answer.payload) == ((job_id(1), 1), b"answer")
    assert list(bench.table.unsettled) == [answer]
    assert bench.table.held_bytes == len(b"answer")
    assert (bench.table.active(), bench.table.unfinished(), len(bench.table)) == (0, 0, 1)
    assert (job_id(1), 1) in bench.table
    assert bench.table.drop((job_id(1), 1))
    assert not bench.table.drop((job_id(1), 1))
    assert len(bench.table) == 0


def test_a_run_that_is_dropped_keeps_the_worker_busy_but_counts_for_nobody(bench: Bench) -> None:
    """The coordinator has forgotten it, the worker has not."""
    held = bench.add(1)
    bench.start()
    bench.table.drop((job_id(1), 1))
    assert bench.table.running(held.token) is None
    assert (bench.table.active(), bench.table.unfinished()) == (1, 0)
    bench.table.forget_run(held.token, bench.clock.now)
    assert bench.table.active() == 0


def test_the_outcome_of_a_dropped_run_does_not_end_the_attempt_that_came_again(bench: Bench) -> None:
    """The same job and epoch, taken in anew, is another run with another token."""
    old = bench.add(1)
    bench.start()
    bench.table.drop((job_id(1), 1))
    new = bench.add(1)
    assert bench.table.running(old.token) is None
    bench.table.back_to_waiting([old.token])
    assert bench.start() is new
    assert bench.table.start_next(bench.clock.now) is None


def test_runs_that_never_began_go_back_to_the_head_of_the_queue(bench: Bench) -> None:
    """In their order, before those that came later."""
    first, second, third = (bench.add(number) for number in range(3))
    bench.start()
    bench.start()
    bench.table.back_to_waiting([first.token, second.token])
    assert bench.table.waiting() == [first, second, third]
    assert [held.stage for held in (first, second, third)] == [Stage.WAITING] * 3


def test_a_run_has_its_whole_time_from_when_the_one_before_it_is_over(bench: Bench) -> None:
    """Who waits in the worker's queue is not computing."""
    first, second = bench.add(1), bench.add(2)
    bench.start()
    bench.start()
    bench.clock.advance(29.0)
    bench.table.finish(first, b"answer", bench.clock.now)
    bench.table.forget_run(first.token, bench.clock.now)
    bench.clock.advance(29.9)
    assert bench.table.overdue_run(bench.clock.now) is None
    bench.clock.advance(0.2)
    assert bench.table.overdue_run(bench.clock.now) == 30.0
    assert bench.table.overdue_run(bench.clock.now) is None
    assert bench.table.running_tokens() == [second.token]


def test_a_run_that_was_dropped_is_watched_like_any_other(bench: Bench) -> None:
    """A cancelled run that hangs would take the worker from everybody behind it."""
    bench.add(1)
    bench.start()
    bench.table.drop((job_id(1), 1))
    assert bench.table.next_deadline() == bench.clock.monotonic + 30.0
    bench.clock.advance(30.0)
    assert bench.table.overdue_run(bench.clock.now) == 30.0


def test_absurdly_short_leases_busy_nobody(bench: Bench) -> None:
    """A lease of a millisecond neither makes us spin nor ends the worker at once."""
    job = _job(1, lease_ms=1)
    assert renew_seconds(job) == MIN_RENEW_SECONDS
    bench.table.add(job, (scan(1),), bench.clock.now)
    bench.start()
    assert bench.table.overdue_run(bench.clock.advance(MIN_RUN_SECONDS - 0.01)) is None
    assert bench.table.overdue_run(bench.clock.advance(0.02)) == MIN_RUN_SECONDS


def test_older_epochs_are_dropped_and_the_newest_is_known(bench: Bench) -> None:
    """Of one job only; other jobs are untouched."""
    bench.add(1, epoch=1)
    bench.add(1, epoch=2)
    bench.add(2, epoch=1)
    bench.table.drop_older(job_id(1), 2)
    assert bench.table.keys() == [(job_id(1), 2), (job_id(2), 1)]
    assert [bench.table.newest_epoch(job_id(number)) for number in (1, 2, 3)] == [2, 1, 0]


def test_something_is_due_as_long_as_something_is_held(bench: Bench) -> None:
    """Renewal while there is work, redelivery while there is an answer, and nothing after that."""
    assert bench.table.next_deadline() is None
    held = bench.add(1)
    assert bench.table.next_deadline() == bench.clock.monotonic + 10.0
    bench.start()
    assert bench.table.next_deadline() == bench.clock.monotonic + 10.0
    bench.table.finish(held, b"", bench.clock.now)
    assert bench.table.next_deadline() == bench.clock.monotonic + REDELIVER_FIRST_SECONDS
    bench.table.drop((job_id(1), 1))
    assert bench.table.next_deadline() is None


class Table(RuleBasedStateMachine):
    """Anything may happen in any order: the parts of the table must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()

    @rule(number=st.integers(0, 3), epoch=st.integers(1, 3))
    def add(self, number: int, epoch: int) -> None:
        """Take in what is not held."""
        if self.bench.table.get((job_id(number), epoch)) is None:
            self.bench.table.drop((job_id(number), epoch))
            self.bench.add(number, epoch)

    @rule()
    def start(self) -> None:
        """Start the next."""
        self.bench.table.start_next(self.bench.clock.now)

    @rule(number=st.integers(0, 3), epoch=st.integers(1, 3))
    def drop(self, number: int, epoch: int) -> None:
        """Forget one."""
        self.bench.table.drop((job_id(number), epoch))

    @rule(number=st.integers(0, 3), epoch=st.integers(1, 3))
    def drop_older(self, number: int, epoch: int) -> None:
        """Fence a job."""
        self.bench.table.drop_older(job_id(number), epoch)

    @rule(number=st.integers(0, 3), epoch=st.integers(1, 3))
    def finish(self, number: int, epoch: int) -> None:
        """Answer one that waits or runs."""
        held = self.bench.table.get((job_id(number), epoch))
        if held is not None:
            self.bench.table.finish(held, b"answer", self.bench.clock.now)

    @rule()
    def worker_ends_a_run(self) -> None:
        """The worker is through with the oldest run, as the core takes note of it."""
        tokens = self.bench.table.running_tokens()
        if tokens:
            held = self.bench.table.running(tokens[0])
            self.bench.table.forget_run(tokens[0], self.bench.clock.now)
            if held is not None:
                self.bench.table.finish(held, b"answer", self.bench.clock.now)

    @rule()
    def worker_dies(self) -> None:
        """The first run is over, the others never began."""
        tokens = self.bench.table.running_tokens()
        if tokens:
            self.worker_ends_a_run()
            self.bench.table.back_to_waiting(tokens[1:])

    @invariant()
    def every_attempt_is_in_exactly_one_place(self) -> None:
        """Waiting, running or finished; and every number follows from that."""
        table = self.bench.table
        held = table.renewable()
        stages = [attempt.stage for attempt in held]
        running = [attempt for token in table.running_tokens() if (attempt := table.running(token)) is not None]
        assert table.keys() == [*table.unsettled.keys(), *(attempt.key for attempt in held)]
        assert len(set(table.keys())) == len(table)
        assert len(table.waiting()) == stages.count(Stage.WAITING)
        assert len({id(attempt) for attempt in table.waiting()}) == len(table.waiting())
        assert len(running) == stages.count(Stage.RUNNING)
        assert table.unfinished() == len(table.waiting()) + len(running) == len(held)
        assert table.held_bytes == sum(len(scan(0).data) for _ in held) + len(b"answer") * len(table.unsettled)
        for number in range(4):
            epochs = [epoch for job, epoch in table.keys() if job == job_id(number)]  # noqa: SIM118 no mapping
            assert table.newest_epoch(job_id(number)) == max(epochs, default=0)
        assert table.active() == len(table.waiting()) + len(table.running_tokens())
        assert (table.next_deadline() is None) == (not len(table) and not table.running_tokens())


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
