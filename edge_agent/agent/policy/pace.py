"""How much of the machine is used: quiet, normal or full, and limits within what the owner's file allows. Pure.

Whatever is adjusted, by `edge-agent mode` or from the broker at home, holds beside the file and can only be tighter;
only `full`, which passes two rules of comfort over, loosens anything, and nothing but these two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edge_agent.settings import Policy


class Pace(StrEnum):
    """How much of the machine is used."""

    QUIET = "quiet"
    NORMAL = "normal"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that can be adjusted while the agent runs.

    Attributes:
        name: of the setting in `[policy]`.
        lowest: that can be asked for.
        highest: that can be asked for; the file's own value, where it has one, is the highest then.
    """

    name: str
    lowest: float
    highest: float


LIMITS = {
    limit.name: limit
    for limit in (
        Limit("cpu_share", 0.05, 1.0),
        Limit("max_cpu_celsius", 30.0, 120.0),
        Limit("max_other_cpu_share", 0.05, 1.0),
    )
}


@dataclass(frozen=True, slots=True)
class Adjustments:
    """What was adjusted; what is None is as the file says.

    Attributes:
        pace: quiet, normal or full.
        cpu_share: of all CPUs, for the worker.
        max_cpu_celsius: above which it rests.
        max_other_cpu_share: above which it rests.
    """

    pace: Pace | None = None
    cpu_share: float | None = None
    max_cpu_celsius: float | None = None
    max_other_cpu_share: float | None = None


def pace_of(settings: Policy, adjusted: Adjustments) -> Pace:
    """Return the pace that holds."""
    return adjusted.pace or Pace(settings.mode)


def highest(settings: Policy, name: str) -> float:
    """Return the highest value that a limit can be adjusted to: what the file says is never exceeded."""
    own: float | None = getattr(settings, name)
    return LIMITS[name].highest if own is None else min(own, LIMITS[name].highest)


def adjusted_policy(settings: Policy, adjusted: Adjustments, *, thermometer: bool) -> Policy:
    """Return the rules that hold with what was adjusted.

    Args:
        settings: the owner's file.
        adjusted: beside it.
        thermometer: whether the CPU's temperature is known: a quiet machine that has none is quiet without.
    """
    pace = pace_of(settings, adjusted)
    share = _least(settings.cpu_share, adjusted.cpu_share, settings.quiet_cpu_share if pace is Pace.QUIET else None)
    quiet_celsius = settings.quiet_max_cpu_celsius if pace is Pace.QUIET and thermometer else None
    celsius = _least(settings.max_cpu_celsius, adjusted.max_cpu_celsius, quiet_celsius)
    resume = settings.resume_cpu_celsius
    changes: dict[str, object] = {
        "cpu_share": share,
        "max_cpu_celsius": celsius,
        "resume_cpu_celsius": resume if resume is not None and celsius is not None and resume < celsius else None,
        "max_other_cpu_share": _least(settings.max_other_cpu_share, adjusted.max_other_cpu_share),
    }
    if pace is Pace.FULL:
        changes |= {"idle_seconds": 0.0, "max_other_cpu_share": None}
    return settings.model_copy(update=changes)


def threads_of(share: float, most: int, cpus: float) -> int:
    """Return how many threads a share of the CPUs is: at least one, so that small shares are rounded up.

    Args:
        share: of all CPUs, 0 to 1.
        most: threads that the worker may have at all.
        cpus: that can be used.
    """
    return max(1, min(most, int(share * cpus + 1e-9)))


def is_looser(settings: Policy, before: Adjustments, after: Adjustments) -> bool:
    """Return whether anything is allowed after an adjustment that was not allowed before it."""
    order = list(Pace)
    if order.index(pace_of(settings, after)) > order.index(pace_of(settings, before)):
        return True
    return any(_height(settings, after, name) > _height(settings, before, name) for name in LIMITS)


def _height(settings: Policy, adjusted: Adjustments, name: str) -> float:
    own: float | None = getattr(adjusted, name)
    return min(highest(settings, name), float("inf") if own is None else own)


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)
