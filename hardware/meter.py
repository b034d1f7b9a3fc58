"""How many watts flow, asked again and again without waiting: counters of energy are read from one time to the next.

What is measured and what is estimated is told apart in every answer, and nothing is guessed: a machine that nothing
measures and nobody described has no watts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hardware import power

if TYPE_CHECKING:
    from hardware.sysfs import Root

MIN_SECONDS = 0.5
"""Over less time a counter of energy says little."""


class Watts(NamedTuple):
    """What the machine draws.

    Attributes:
        value: watts; None where neither a meter nor a description tells.
        source: `plug` (the owner's own meter), `hwmon`, `battery` or `rapl`: measured; `estimate`: from the CPUs' load.
        why: there is no value.
    """

    value: float | None
    source: str = ""
    why: str = ""

    @property
    def measured(self) -> bool:
        """Whether something measured it."""
        return self.value is not None and self.source != "estimate"


class Meter:
    """Reads watts by the best there is.

    Args:
        root: of the machine.
        idle_watts: what the machine draws with nothing to do, if anybody knows.
        max_watts: what it draws with all CPUs busy, if anybody knows.

    Attributes:
        idle_told: may be told anew.
        max_told: may be told anew.
    """

    def __init__(self, root: Root, idle_watts: float | None, max_watts: float | None) -> None:
        self._root = root
        self.idle_told = idle_watts
        self.max_told = max_watts
        self._counters = power.rapl_counters(root)
        self._counted_at: float | None = None
        self._lowest: dict[str, float] = {}

    def read(self, monotonic: float, busy_share: float | None, plug: float | None = None) -> Watts:
        """Return what the machine draws now, or drew since the last time.

        Args:
            monotonic: the moment, in seconds.
            busy_share: of all CPUs since the last time, 0 to 1, if that is known: for the estimate.
            plug: what the owner's own meter says, if there is one.
        """
        found = self._measure(monotonic, plug)
        idle, most = self.idle_told, self.max_told
        if found.value is None and busy_share is not None and idle is not None and most is not None:
            return Watts(idle + busy_share * max(0.0, most - idle), "estimate")
        if found.value is not None:
            self._lowest[found.source] = min(found.value, self._lowest.get(found.source, found.value))
        return found

    def idle_watts(self, source: str) -> float:
        """Return what this source would say of the idle machine: what was told, else the least it ever said."""
        told = self.idle_told if source != "rapl" else None  # a processor's counters leave the board out
        return self._lowest.get(source, 0.0) if told is None else told

    def _measure(self, monotonic: float, plug: float | None) -> Watts:
        if plug is not None:
            return Watts(plug, "plug")
        if (watts := power.hwmon_watts(self._root)) is not None:
            return Watts(watts, "hwmon")
        if (watts := power.battery_watts(self._root)) is not None:
            return Watts(watts, "battery")
        return self._rapl(monotonic)

    def _rapl(self, monotonic: float) -> Watts:
        before, since = self._counters, self._counted_at
        after = power.rapl_counters(self._root)
        if isinstance(after, str):
            return Watts(None, why=after)
        self._counters, self._counted_at = after, monotonic
        if isinstance(before, str) or since is None or monotonic - since < MIN_SECONDS:
            return Watts(None, why="it takes two looks")
        joules = power.rapl_joules(before, after)
        watts = None if joules is None else power.sane(joules / (monotonic - since))
        return Watts(watts, "rapl") if watts is not None else Watts(None, why="the RAPL counters don't advance")
