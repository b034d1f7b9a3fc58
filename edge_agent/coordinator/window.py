"""The last minutes of ended jobs: how many, and how long they took, in bounded memory. Pure.

Time is cut into slots; each slot counts ends by state and latencies by buckets that grow by a twentieth, so that a
percentile is exact to 5 % however many jobs there were.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

SLOT_SECONDS: Final = 5.0
SLOTS: Final = 60
"""Five minutes."""
GROWTH: Final = 1.05
SHORTEST_SECONDS: Final = 0.0001
_STEP: Final = math.log(GROWTH)


@dataclass(slots=True)
class Slot:
    """Some seconds.

    Attributes:
        number: of the slot, counted from the clock's zero.
        states: how many jobs ended so.
        latencies: how many jobs took so long, by bucket.
    """

    number: int
    states: Counter[str] = field(default_factory=Counter)
    latencies: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Summary:
    """The window as it is shown.

    Attributes:
        per_second: jobs that ended in each slot, a second, oldest first; the running slot is left out.
        failed_per_second: those of them without a result.
        states: how many jobs ended so in all slots.
        percentiles: seconds, by percentile; empty where no job succeeded.
    """

    per_second: tuple[float, ...]
    failed_per_second: tuple[float, ...]
    p50: tuple[float | None, ...]
    states: dict[str, int]
    percentiles: dict[int, float]


class Window:
    """The slots."""

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque(maxlen=SLOTS)

    def add(self, monotonic: float, state: str, seconds: float | None) -> None:
        """Count a job that ended; `seconds` of one that succeeded."""
        slot = self._at(int(monotonic // SLOT_SECONDS))
        slot.states[state] += 1
        if seconds is not None:
            slot.latencies[_bucket(seconds)] += 1

    def summary(self, monotonic: float) -> Summary:
        """Return the last `SLOTS` slots; those in which nothing happened count 0."""
        current = int(monotonic // SLOT_SECONDS)
        known = {slot.number: slot for slot in self._slots}
        slots = [known.get(number, Slot(number)) for number in range(current - SLOTS + 1, current)]
        running = known.get(current, Slot(current))
        states: Counter[str] = Counter()
        latencies: Counter[int] = Counter()
        for slot in (*slots, running):
            states.update(slot.states)
            latencies.update(slot.latencies)
        return Summary(
            tuple(slot.states.total() / SLOT_SECONDS for slot in slots),
            tuple((slot.states.total() - slot.states["succeeded"]) / SLOT_SECONDS for slot in slots),
            tuple(percentiles(slot.latencies, (50,)).get(50) for slot in slots),
            dict(states),
            percentiles(latencies, (50, 95, 99)),
        )

    def _at(self, number: int) -> Slot:
        if not self._slots or self._slots[-1].number < number:
            self._slots.append(Slot(number))
        return self._slots[-1]


def percentiles(latencies: Counter[int], wanted: tuple[int, ...]) -> dict[int, float]:
    """Return the seconds below which these shares (percent) of the jobs stayed, by nearest rank."""
    total = latencies.total()
    if not total:
        return {}
    found: dict[int, float] = {}
    left = sorted(wanted)
    seen = 0
    for bucket in sorted(latencies):
        seen += latencies[bucket]
        while left and seen >= math.ceil(total * left[0] / 100):
            found[left.pop(0)] = _middle(bucket)
    return found


def _bucket(seconds: float) -> int:
    return max(0, int(math.log(max(seconds, SHORTEST_SECONDS) / SHORTEST_SECONDS) / _STEP))


def _middle(bucket: int) -> float:
    return SHORTEST_SECONDS * math.exp(_STEP * (bucket + 0.5))
