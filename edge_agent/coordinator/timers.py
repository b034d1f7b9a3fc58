"""The moments at which something happens to a job, on the monotonic clock. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple

SMALLEST = 1024
"""Fewer timers than this are never worth clearing."""


class Kind(StrEnum):
    """What a timer is for."""

    DEADLINE = "deadline"
    LEASE = "lease"
    HEDGE = "hedge"
    RETRY = "retry"


class Timer(NamedTuple):
    """One moment, in monotonic seconds; `epoch` is that of the attempt that it is about, 0 for the job itself."""

    at: float
    number: int
    kind: Kind
    job_id: bytes
    epoch: int


class Timers:
    """A heap of timers. One that no longer counts is left where it is until it is first, or until half are such.

    Args:
        counts: whether a timer still means anything.
    """

    def __init__(self, counts: Callable[[Timer], bool]) -> None:
        self._counts = counts
        self._heap: list[Timer] = []
        self._number = 0
        self._clear_at = SMALLEST

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, at: float, kind: Kind, job_id: bytes, epoch: int = 0) -> None:
        """Ring at this monotonic second."""
        self._number += 1
        heapq.heappush(self._heap, Timer(at, self._number, kind, job_id, epoch))
        if len(self._heap) > self._clear_at:
            self._heap = [timer for timer in self._heap if self._counts(timer)]
            heapq.heapify(self._heap)
            self._clear_at = max(SMALLEST, 2 * len(self._heap))

    def next_at(self) -> float | None:
        """Return the monotonic second at which the next one that counts rings, if there is one."""
        while self._heap and not self._counts(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0].at if self._heap else None

    def due(self, monotonic: float) -> Iterator[Timer]:
        """Take away and give, in order, those that ring at or before this monotonic second and still count."""
        while self._heap and self._heap[0].at <= monotonic:
            timer = heapq.heappop(self._heap)
            if self._counts(timer):
                yield timer
