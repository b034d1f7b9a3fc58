"""Whose are the watts? The machine's energy, what of it is ours, and which family of models took it. Pure.

Ours is what the machine draws above its idle state, in proportion to our part of the CPU time that was computed: it is
the energy that would not have been used without us. The idle machine is its owner's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

JOULES_PER_KWH = 3.6e6
ITSELF = ""
"""The family under which stands what no job took: the daemon, measurements, downloads."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The CPU time of all CPUs between two looks.

    Attributes:
        seconds: that passed.
        busy_share: of all CPUs, whoever computed, 0 to 1; None where that is unknown.
        own_share: of all CPUs, by us, 0 to 1.
    """

    seconds: float
    busy_share: float | None
    own_share: float


def own_joules(interval: Interval, watts: float, idle_watts: float) -> float:
    """Return our part of the energy of an interval, in joules.

    Args:
        interval: with its CPU time.
        watts: of the machine, on average.
        idle_watts: of the machine with nothing to do, by the same source.
    """
    if not interval.busy_share:
        return 0.0
    ours = min(1.0, interval.own_share / interval.busy_share)
    return max(0.0, watts - idle_watts) * ours * interval.seconds


def split(joules: float, busy_us: Mapping[str, int]) -> dict[str, float]:
    """Divide energy among families by the time that they computed; without any, it is for the agent itself.

    Args:
        joules: to be divided.
        busy_us: time that each family computed, microseconds.
    """
    whole = sum(busy_us.values())
    if whole <= 0:
        return {ITSELF: joules}
    return {family: joules * part / whole for family, part in busy_us.items() if part > 0}
