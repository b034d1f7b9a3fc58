"""What a restart makes of deadlines and ages when clocks have jumped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import boot_number
from edge_agent.coordinator.ages import MAX_GAP_MS, gap_ms, remaining_seconds

WALL = st.integers(0, 4_000_000_000_000)
DAY_MS = 86_400_000


@given(WALL, st.integers(1, 86_400_000), WALL, st.floats(1, 60))
def test_no_wall_clock_ends_a_job_at_once_or_lets_it_go_on_for_longer_than_it_ever_had(
    submitted_ms: int, whole_ms: int, wall_ms: int, grace: float
) -> None:
    """After another boot, whatever the clock says: between the grace and the whole."""
    left = remaining_seconds(
        submitted_ms=submitted_ms,
        deadline_ms=submitted_ms + whole_ms,
        deadline_at_ms=None,
        monotonic=5.0,
        wall_ms=wall_ms,
        grace_seconds=grace,
    )
    assert min(grace, whole_ms / 1000) <= left <= whole_ms / 1000


@given(WALL, st.floats(0, 1000), st.integers(1, 1_000_000))
def test_inside_one_boot_the_wall_clock_says_nothing(wall_ms: int, passed: float, whole_ms: int) -> None:
    """A deadline is exact over a restart of the process, also when it is over."""
    left = remaining_seconds(
        submitted_ms=1_800_000_000_000,
        deadline_ms=1_800_000_000_000 + whole_ms,
        deadline_at_ms=50_000 + whole_ms,
        monotonic=50.0 + passed,
        wall_ms=wall_ms,
        grace_seconds=30.0,
    )
    assert left == pytest.approx(whole_ms / 1000 - passed, abs=1e-6)


@pytest.mark.parametrize(
    ("jump_ms", "counted_ms"),
    [(60_000, 60_000), (-1, 0), (-50 * 365 * DAY_MS, 0), (DAY_MS, DAY_MS), (50 * 365 * DAY_MS, MAX_GAP_MS)],
)
def test_between_two_boots_nothing_gets_older_than_by_a_day(jump_ms: int, counted_ms: int) -> None:
    """A board whose clock starts in 1970 and is set right later does not lose its receipts for that."""
    assert gap_ms(1_800_000_000_000, 1_800_000_000_000 + jump_ms) == counted_ms


def test_the_boot_has_a_number_that_stays() -> None:
    """Where the kernel tells it; elsewhere nothing is assumed."""
    assert boot_number() == boot_number()
    assert 0 <= boot_number() < 2**63
    assert boot_number("/nowhere") == 0
