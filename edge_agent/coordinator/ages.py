"""What is left of a deadline, and how much older everything is, after a restart: clocks may have jumped. Pure."""

from __future__ import annotations

from typing import Final

MAX_GAP_MS: Final = 24 * 3600 * 1000
"""Between two boots of the machine, nothing gets older by more than this, milliseconds."""


def remaining_seconds(  # noqa: PLR0913 what is known of a deadline
    *,
    submitted_ms: int,
    deadline_ms: int,
    deadline_at_ms: int | None,
    monotonic: float,
    wall_ms: int,
    grace_seconds: float,
) -> float:
    """Return how long a job has from now on, seconds; 0 or less when its deadline is over.

    Args:
        submitted_ms: Unix milliseconds.
        deadline_ms: Unix milliseconds on the same clock: the difference is exact, whatever that clock showed.
        deadline_at_ms: milliseconds on the monotonic clock that `monotonic` is of; None where that is another.
        monotonic: now, seconds.
        wall_ms: now, Unix milliseconds; not to be trusted: a board without a battery starts in the past.
        grace_seconds: what a job has at least when only the wall clock says that its time is over.
    """
    whole = (deadline_ms - submitted_ms) / 1000
    if deadline_at_ms is not None:
        return min(whole, deadline_at_ms / 1000 - monotonic)
    return max(min(whole, grace_seconds), min(whole, (deadline_ms - wall_ms) / 1000))


def gap_ms(seen_wall_ms: int, wall_ms: int) -> int:
    """Return how much time to count between two boots, milliseconds, by a wall clock that may have jumped."""
    return min(MAX_GAP_MS, max(0, wall_ms - seen_wall_ms))
