"""The queue of waiting jobs: fair between clients, in order for each, and nothing left behind."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.coordinator import queues
from edge_agent.coordinator.jobs import Job
from edge_agent.coordinator.queues import MAX_SAVED_US, FairQueue, shape_of


def job(number: int, client: str = "", *, priority: int = 0, deadline: float = 60.0, family: str = "digits") -> Job:
    """Make a job that waits."""
    return Job(
        id=number.to_bytes(16, "big"),
        family=family,
        inputs=(),
        outputs=(),
        salt=bytes(32),
        submitted_ms=0,
        deadline=deadline,
        max_attempts=5,
        client=client,
        priority=priority,
        number=number,
    )


def serve(queue: FairQueue, times: int, cost_us: float = 1.0) -> list[int]:
    """Serve so many jobs; return their numbers."""
    served = []
    for _ in range(times):
        found = queue.first()
        if found is None:
            break
        served.append(int.from_bytes(found[1], "big"))
        queue.take(found[1], cost_us)
    return served


def filled(*jobs: Job) -> FairQueue:
    """Return a queue in which these wait."""
    queue = FairQueue()
    for waiting in jobs:
        queue.put(waiting)
    return queue


def test_a_client_with_one_job_does_not_wait_for_one_with_ten_thousand() -> None:
    """It is next but one, however many were there before."""
    queue = filled(*(job(number, "many") for number in range(10_000)))
    serve(queue, 5)
    queue.put(job(20_000, "one"))
    assert 20_000 in serve(queue, 2)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(1, 100))
def test_clients_whose_jobs_cost_the_same_are_served_in_turns(waiting: list[int], times: int) -> None:
    """As long as all of them wait, nobody is ahead of another by more than one job."""
    queue = FairQueue()
    number = 0
    for client, count in enumerate(waiting):
        for _ in range(count):
            number += 1
            queue.put(job(number, f"client {client}", priority=number % 3))
    had: Counter[str] = Counter()
    for _ in range(min(times, number)):
        found = queue.first()
        assert found is not None
        had[queue._where[found[1]][2]] += 1
        queue.take(found[1], 1.0)
        busy = [had[f"client {client}"] for client, count in enumerate(waiting) if had[f"client {client}"] < count]
        assert not busy or max(busy) - min(busy) <= 1


@given(st.integers(1, 100), st.integers(1, 100))
def test_machine_time_is_shared_and_not_the_number_of_jobs(cheap_us: int, dear_us: int) -> None:
    """Who sends jobs that take long gets fewer of them done."""
    queue = filled(*(job(n, "cheap") for n in range(500)), *(job(n, "dear") for n in range(500, 1000)))
    time: Counter[str] = Counter()
    for _ in range(500):
        found = queue.first()
        assert found is not None
        client = queue._where[found[1]][2]
        cost = cheap_us if client == "cheap" else dear_us
        queue.take(found[1], cost)
        time[client] += cost
    assert abs(time["cheap"] - time["dear"]) <= max(cheap_us, dear_us)


def test_the_jobs_of_a_client_go_by_priority_then_deadline_then_age() -> None:
    """Priority says nothing to the jobs of others."""
    queue = filled(
        job(1, "a"),
        job(2, "a", deadline=5.0),
        job(3, "a", priority=1),
        job(4, "a"),
        job(5, "a", priority=-1, deadline=1.0),
        job(6, "b", priority=-100),
    )
    served = serve(queue, 10)
    assert [number for number in served if number != 6] == [3, 2, 1, 4, 5]
    assert served.index(6) <= 1


def test_a_job_that_comes_back_has_its_old_place() -> None:
    """It is older than the others, and has waited already."""
    queue = filled(job(1), job(2), job(3))
    assert serve(queue, 1) == [1]
    queue.put(job(1))
    assert serve(queue, 3) == [1, 2, 3]


def test_a_shape_that_nobody_has_room_for_hides_no_other() -> None:
    """The head of the queue may have to wait alone."""
    first, second = job(1, family="letters"), job(2)
    queue = filled(first, second)
    assert queue.first({shape_of(first)}) == (shape_of(second), second.id)
    assert queue.first({shape_of(first), shape_of(second)}) is None
    assert queue.waiting(shape_of(first)) == 1


def test_who_was_away_saves_nothing_up() -> None:
    """Nobody gets the machines alone for having sent nothing for an hour."""
    queue = filled(*(job(n, "busy") for n in range(100)))
    serve(queue, 50, cost_us=1e9)
    for number in range(200, 220):
        queue.put(job(number, "idle"))
    served = serve(queue, 10, cost_us=1e9)
    assert sum(number >= 200 for number in served) <= 6


def test_who_could_not_be_served_catches_up_a_little_only() -> None:
    """A client whose machine was away for an hour does not have it alone for the next."""
    blocked = job(1000, "waits", family="letters")
    queue = filled(blocked, *(job(n, "busy") for n in range(100)))
    for _ in range(50):
        found = queue.first({shape_of(blocked)})
        assert found is not None
        queue.take(found[1], MAX_SAVED_US)
    for number in range(1001, 1020):
        queue.put(job(number, "waits"))
    served = serve(queue, 10, cost_us=MAX_SAVED_US)
    assert 5 <= sum(number >= 1000 for number in served) <= 7


def test_what_is_taken_out_leaves_nothing_behind() -> None:
    """A client that submits and cancels without end fills no memory."""
    queue = filled(job(1, "a"))
    for number in range(2, 5000):
        queue.put(job(number, f"client {number % 7}"))
        queue.discard(number.to_bytes(16, "big"))
    (lane,) = queue._lanes.values()
    assert sum(map(len, lane.jobs.values())) < 100
    assert len(queue._clients) == 1
    assert serve(queue, 5) == [1]
    assert (queue._lanes, queue._where) == ({}, {})


def test_clients_that_are_ahead_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names cost nothing to make up."""
    monkeypatch.setattr(queues, "MAX_RESTING", 10)
    queue = FairQueue()
    for number in range(1, 100):
        queue.put(job(number, f"client {number}"))
        serve(queue, 1, cost_us=1e6)
    assert len(queue._clients) <= 11


class QueueMachine(RuleBasedStateMachine):
    """Any sequence of calls, against a list that is searched from its head."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.waiting: dict[bytes, Job] = {}
        self.number = 0

    @rule(client=st.sampled_from("abc"), priority=st.integers(-1, 1), family=st.sampled_from(["digits", "letters"]))
    def put(self, client: str, priority: int, family: str) -> None:
        """A job comes."""
        self.number += 1
        new = job(self.number, client, priority=priority, family=family)
        self.queue.put(new)
        self.waiting[new.id] = new

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        """A job is cancelled."""
        chosen = data.draw(st.sampled_from(sorted(self.waiting)))
        self.queue.discard(chosen)
        self.queue.discard(chosen)
        del self.waiting[chosen]

    @rule(cost_us=st.integers(0, 1000))
    def take(self, cost_us: int) -> None:
        """A job is served: never one behind a better one of the same client."""
        found = self.queue.first()
        assert (found is None) == (not self.waiting)
        if found is None:
            return
        taken = self.waiting.pop(found[1])
        assert shape_of(taken) == found[0]
        self.queue.take(taken.id, cost_us)
        same = [other for other in self.waiting.values() if other.client == taken.client]
        assert all((-taken.priority, taken.number) < (-other.priority, other.number) for other in same)

    @invariant()
    def counts_are_right(self) -> None:
        """What waits is what was put and not taken."""
        assert len(self.queue) == len(self.waiting)
        assert all(identifier in self.queue for identifier in self.waiting)
        shapes = Counter(shape_of(waiting) for waiting in self.waiting.values())
        assert {shape: self.queue.waiting(shape) for shape in shapes} == dict(shapes)


TestQueueMachine = QueueMachine.TestCase
