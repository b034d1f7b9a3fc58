"""How much this machine did of late: counted in quarters of an hour, so that any time zone can sum its day. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

QUARTER_MS = 900_000
MAX_QUARTERS = 200
"""Two days and a bit."""


@dataclass(slots=True)
class Count:
    """What became of attempts.

    Attributes:
        finished: results that were given.
        failed: attempts that were answered with a failure.
        handed_back: attempts that the owner's rules, or a stop, gave back.
        busy_us: time that the finished ones took in the worker, microseconds.
    """

    finished: int = 0
    failed: int = 0
    handed_back: int = 0
    busy_us: int = 0


class Tally:
    """Counts by quarter of an hour and family."""

    def __init__(self) -> None:
        self._quarters: dict[int, dict[str, Count]] = {}
        self._fresh: dict[str, Count] = {}

    def finished(self, family: str, run_us: int, wall_ms: int) -> None:
        """Count a result."""
        for count in (self._at(family, wall_ms), self._fresh.setdefault(family, Count())):
            count.finished += 1
            count.busy_us += run_us

    def failed(self, family: str, code: str, wall_ms: int) -> None:
        """Count a failure."""
        for count in (self._at(family, wall_ms), self._fresh.setdefault(family, Count())):
            if code == "handed-back":
                count.handed_back += 1
            else:
                count.failed += 1

    def take(self) -> dict[str, Count]:
        """Return what was counted of each family since the last time."""
        fresh, self._fresh = self._fresh, {}
        return fresh

    def since(self, wall_ms: int) -> dict[str, Count]:
        """Return what was counted of each family in the quarters that begin at or after this moment."""
        found: dict[str, Count] = {}
        for quarter, families in self._quarters.items():
            if quarter * QUARTER_MS < wall_ms:
                continue
            for family, count in families.items():
                into = found.setdefault(family, Count())
                into.finished += count.finished
                into.failed += count.failed
                into.handed_back += count.handed_back
                into.busy_us += count.busy_us
        return found

    def dump(self) -> list[list[object]]:
        """Return everything in a form that JSON holds."""
        return [
            [quarter, family, *asdict(count).values()]
            for quarter, families in self._quarters.items()
            for family, count in families.items()
        ]

    def load(self, rows: Iterable[tuple[int, str, int, int, int, int]]) -> None:
        """Add what `dump` gave in an earlier process."""
        for quarter, family, *numbers in rows:
            self._at(family, quarter * QUARTER_MS)
            self._quarters[quarter][family] = Count(*numbers)

    def _at(self, family: str, wall_ms: int) -> Count:
        quarter = wall_ms // QUARTER_MS
        while quarter not in self._quarters and len(self._quarters) >= MAX_QUARTERS:
            del self._quarters[min(self._quarters)]
        return self._quarters.setdefault(quarter, {}).setdefault(family, Count())
