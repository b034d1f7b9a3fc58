"""The queue of jobs that wait for an agent: fair between clients, by priority and deadline for each. Pure.

Jobs that the same agents may have are of one *shape* and wait in one *lane*: when nobody has room for the first of a
lane, nobody has for the others, so that a long queue is passed over quickly and blocks no other shape.

Between clients, machine time is shared by start-time fair queueing (Goyal, Vin, Cheng, 1996): each client has a
*turn*, the machine time that it has had, and the least goes first. Who was away starts where the others are now, and
who waited for a machine that was not there has saved up no more than `MAX_SAVED_US`.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_agent.coordinator.jobs import Job
from edge_agent.wire.job_options import Placement

MAX_SAVED_US = 1_000_000
"""So much machine time, microseconds, a client that could not be served may catch up at once."""

MAX_LANES = 1000
"""So many different shapes may wait before jobs of further ones are refused."""

MAX_RESTING = 1024
"""So many clients without waiting jobs are remembered because they are ahead of the others."""


class Shape(NamedTuple):
    """What decides which agents may have a job.

    Attributes:
        client: whose it is, where some owner's terms name that client; all others are alike.
        refused_by: owners whose machines said that it can never succeed.
        killed: agents whose workers died over it.
    """

    family: str
    variant: bytes | None
    placement: Placement
    shunned: frozenset[str]
    client: str | None = None
    refused_by: frozenset[str] = frozenset()
    killed: frozenset[str] = frozenset()


class Place(NamedTuple):
    """Where a job stands among those of its client and its shape: least first."""

    urgency: int  # the priority, negated
    deadline: float
    number: int


class Head(NamedTuple):
    """The first job of a shape: its client's turn, since when the client is there, its place; the least goes first."""

    turn: float
    joined: int
    place: Place
    job_id: bytes


def shape_of(job: Job, named: Container[str] = ()) -> Shape:
    """Return the shape of a job, where these clients are named in owners' terms."""
    client = job.client if job.client in named else None
    failed_on, refused_by, killed = map(frozenset, (job.failed_on, job.refusals, job.killed))
    return Shape(job.family, job.variant, job.placement, failed_on, client, refused_by, killed)


@dataclass(slots=True)
class _Client:
    """Who has had how much machine time, microseconds, and how many jobs of his wait."""

    turn: float
    joined: int
    waiting: int = 0


@dataclass(slots=True)
class _Lane:
    """The waiting jobs of one shape: a heap for each client, and a heap of those clients by their turns."""

    jobs: dict[str, list[tuple[Place, bytes]]] = field(default_factory=dict)
    order: list[tuple[float, int, str]] = field(default_factory=list)
    dead: int = 0  # entries of jobs that were taken out
    living: int = 0


class FairQueue:
    """Jobs that wait, by shape and client."""

    def __init__(self) -> None:
        self._lanes: dict[Shape, _Lane] = {}
        self._where: dict[bytes, tuple[Shape, Place, str]] = {}
        self._clients: dict[str, _Client] = {}
        self._resting: dict[str, None] = {}
        self._named: frozenset[str] = frozenset()
        self._turn = 0.0  # of the client that was served last
        self._joined = 0

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, job_id: bytes) -> bool:
        return job_id in self._where

    def waiting(self, shape: Shape) -> int:
        """How many jobs of a shape wait."""
        lane = self._lanes.get(shape)
        return lane.living if lane else 0

    def put(self, job: Job) -> None:
        """Let a job wait; a job that comes back takes the place that it had."""
        shape, place = self.shape_of(job), Place(-job.priority, job.deadline, job.number)
        self._enter(job.client)
        self._line_up(job, shape, place)

    def shape_of(self, job: Job) -> Shape:
        """Return the shape of a job."""
        return shape_of(job, self._named)

    def tell_apart(self, named: frozenset[str], jobs: Mapping[bytes, Job]) -> None:
        """Let the jobs of these clients wait by themselves: not every agent may have them that may have others'.

        Args:
            named: clients that some owner's terms name.
            jobs: those that wait, by id.
        """
        new, self._named = named - self._named, named
        if not any(name in self._clients for name in new):
            return
        for job_id, (shape, place, client) in list(self._where.items()):
            if client in new and (now := self.shape_of(jobs[job_id])) != shape:
                self._line_up(jobs[job_id], now, place)
                self._step_out(shape)

    def apart(self, names: Iterable[str]) -> list[Shape]:
        """Return the shapes of the jobs that wait of some clients that are told apart."""
        wanted = frozenset(name for name in names if name in self._clients)
        return [shape for shape in self._lanes if shape.client in wanted] if wanted else []

    def _line_up(self, job: Job, shape: Shape, place: Place) -> None:
        client = self._clients[job.client]
        lane = self._lanes.setdefault(shape, _Lane())
        heap = lane.jobs.get(job.client)
        if heap is None:
            heap = lane.jobs[job.client] = []
            heapq.heappush(lane.order, (client.turn, client.joined, job.client))
        heapq.heappush(heap, (place, job.id))
        lane.living += 1
        self._where[job.id] = (shape, place, job.client)

    def lanes(self) -> int:
        """How many shapes have waiting jobs."""
        return len(self._lanes)

    def round(self, passed_over: Container[Shape] = ()) -> Round:
        """Begin to go through those whose turn it is, but for these shapes."""
        return Round(self, [shape for shape in self._lanes if shape not in passed_over])

    def first(self, passed_over: Container[Shape] = ()) -> tuple[Shape, bytes] | None:
        """Return the shape and the id of the job whose turn it is, if any waits whose shape is not passed over."""
        return self.round(passed_over).first()

    def head(self, shape: Shape) -> Head | None:
        """Return the first job of a shape and whose turn it is, if one waits."""
        lane = self._lanes.get(shape)
        return self._head(shape, lane) if lane else None

    def take(self, job_id: bytes, cost_us: float) -> None:
        """Serve a job: it leaves, and its client is charged with this much machine time, microseconds."""
        name = self._where[job_id][2]
        client = self._clients[name]
        start = max(client.turn, self._turn - MAX_SAVED_US)
        self._turn = max(self._turn, start)
        client.turn = start + max(1.0, cost_us)
        self.discard(job_id)

    def discard(self, job_id: bytes) -> None:
        """Let a job wait no longer, if it does."""
        found = self._where.pop(job_id, None)
        if found is None:
            return
        self._step_out(found[0])
        self._leave(found[2])

    def _step_out(self, shape: Shape) -> None:
        """Take note that a job of a lane waits there no more."""
        lane = self._lanes[shape]
        lane.living -= 1
        lane.dead += 1
        if not lane.living:
            del self._lanes[shape]
        elif lane.dead > lane.living + 64:
            self._rebuild(shape, lane)

    # -- clients --------------------------------------------------------------------------------------------------

    def _enter(self, name: str) -> _Client:
        client = self._clients.get(name)
        if client is None:
            self._joined += 1
            client = self._clients[name] = _Client(self._turn, self._joined)
        elif not client.waiting:
            self._resting.pop(name, None)
            client.turn = max(client.turn, self._turn)
        client.waiting += 1
        return client

    def _leave(self, name: str) -> None:
        client = self._clients[name]
        client.waiting -= 1
        if client.waiting:
            return
        if client.turn <= self._turn:
            del self._clients[name]
            return
        self._resting[name] = None
        if len(self._resting) > MAX_RESTING:
            oldest = next(iter(self._resting))
            del self._resting[oldest], self._clients[oldest]

    # -- lanes ----------------------------------------------------------------------------------------------------

    def _head(self, shape: Shape, lane: _Lane) -> Head | None:
        """Return a lane's first job, and clear away what is no longer true."""
        while lane.order:
            turn, joined, name = lane.order[0]
            heap = lane.jobs[name]
            while heap and self._where.get(heap[0][1]) != (shape, heap[0][0], name):
                heapq.heappop(heap)
                lane.dead -= 1
            if not heap:
                del lane.jobs[name]
                heapq.heappop(lane.order)
                continue
            client = self._clients[name]
            if (client.turn, client.joined) != (turn, joined):  # it was served meanwhile, or left and came back
                heapq.heapreplace(lane.order, (client.turn, client.joined, name))
                continue
            return Head(turn, joined, *heap[0])
        return None

    def _rebuild(self, shape: Shape, lane: _Lane) -> None:
        """Drop what was taken out, so that jobs that come and go leave nothing behind."""
        kept = {
            name: [entry for entry in heap if self._where.get(entry[1]) == (shape, entry[0], name)]
            for name, heap in lane.jobs.items()
        }
        lane.jobs = {name: heap for name, heap in kept.items() if heap}
        for heap in lane.jobs.values():
            heapq.heapify(heap)
        lane.order = [(self._clients[name].turn, self._clients[name].joined, name) for name in lane.jobs]
        heapq.heapify(lane.order)
        lane.dead = 0


class Round:
    """One way through the queue, while jobs are taken from it; each shape is looked at once for each job of it.

    Args:
        queue: whose jobs.
        shapes: those that are gone through.
    """

    def __init__(self, queue: FairQueue, shapes: list[Shape]) -> None:
        self._queue = queue
        heads = [(queue.head(shape), number, shape) for number, shape in enumerate(shapes)]
        self._heap = [(head, number, shape) for head, number, shape in heads if head is not None]
        heapq.heapify(self._heap)

    def first(self) -> tuple[Shape, bytes] | None:
        """Return the shape and the id of the job whose turn it is now."""
        while self._heap:
            head, number, shape = self._heap[0]
            fresh = self._queue.head(shape)
            if fresh == head:
                return shape, head.job_id
            if fresh is None:
                heapq.heappop(self._heap)
            else:  # a job of it was taken, or its client was served elsewhere
                heapq.heapreplace(self._heap, (fresh, number, shape))
        return None

    def pass_over(self) -> None:
        """Look at the shape of the first job no more."""
        heapq.heappop(self._heap)
