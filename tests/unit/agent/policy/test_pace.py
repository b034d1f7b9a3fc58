"""Modes and adjusted limits: never above the file, `full` loosens two rules and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent.policy import (
    LIMITS,
    Adjustments,
    Pace,
    adjusted_policy,
    highest,
    is_looser,
    pace_of,
    threads_of,
)
from edge_agent.settings import Policy

OWNERS = Policy(max_cpu_celsius=80, resume_cpu_celsius=65, idle_seconds=600, max_other_cpu_share=0.5, cpu_share=0.8)
ADJUSTMENTS = st.builds(
    Adjustments,
    pace=st.none() | st.sampled_from(list(Pace)),
    cpu_share=st.none() | st.floats(0.05, 1),
    max_cpu_celsius=st.none() | st.floats(30, 120),
    max_other_cpu_share=st.none() | st.floats(0.05, 1),
)


def test_quiet_takes_half_of_the_cpus_and_stays_cool() -> None:
    """By the settings' own numbers; a temperature to resume at that makes no sense any more goes."""
    quiet = adjusted_policy(OWNERS, Adjustments(Pace.QUIET), thermometer=True)
    assert (quiet.cpu_share, quiet.max_cpu_celsius, quiet.resume_cpu_celsius) == (0.5, 60, None)
    assert quiet.idle_seconds == 600


def test_a_quiet_machine_without_a_thermometer_may_still_work() -> None:
    """A ceiling that nobody asked for must not make it rest for ever."""
    assert adjusted_policy(Policy(), Adjustments(Pace.QUIET), thermometer=False).max_cpu_celsius is None


def test_full_passes_over_comfort_and_nothing_else() -> None:
    """Heat, budgets, hours, battery and gates hold."""
    full = adjusted_policy(OWNERS, Adjustments(Pace.FULL), thermometer=True)
    changed = {name for name in type(OWNERS).model_fields if getattr(full, name) != getattr(OWNERS, name)}
    assert changed == {"idle_seconds", "max_other_cpu_share"}


def test_what_the_file_says_holds_when_nothing_is_adjusted() -> None:
    """The mode of the file counts then."""
    assert adjusted_policy(OWNERS, Adjustments(), thermometer=True) == OWNERS
    assert pace_of(Policy(mode="quiet"), Adjustments()) is Pace.QUIET
    assert pace_of(Policy(mode="quiet"), Adjustments(Pace.FULL)) is Pace.FULL


@given(ADJUSTMENTS)
def test_no_adjustment_goes_beyond_the_file(adjusted: Adjustments) -> None:
    """Whatever is asked for; `full` aside, which says so."""
    found = adjusted_policy(OWNERS, adjusted, thermometer=True)
    for name in ("cpu_share", "max_cpu_celsius"):
        assert getattr(found, name) <= getattr(OWNERS, name)
    if adjusted.pace is not Pace.FULL:
        assert found.max_other_cpu_share is not None
        assert found.max_other_cpu_share <= 0.5
        assert found.idle_seconds == OWNERS.idle_seconds


@given(ADJUSTMENTS, ADJUSTMENTS)
def test_what_is_not_looser_allows_nothing_more(before: Adjustments, after: Adjustments) -> None:
    """In any rule."""
    if not is_looser(OWNERS, before, after):
        old = adjusted_policy(OWNERS, before, thermometer=True)
        new = adjusted_policy(OWNERS, after, thermometer=True)
        assert new.cpu_share <= old.cpu_share
        assert (new.max_cpu_celsius or 0) <= (old.max_cpu_celsius or 0)
        assert new.idle_seconds >= old.idle_seconds
        assert (new.max_other_cpu_share or 9) <= (old.max_other_cpu_share or 9)


def test_going_back_is_looser() -> None:
    """In each direction of each limit."""
    assert is_looser(OWNERS, Adjustments(Pace.QUIET), Adjustments(Pace.NORMAL))
    assert not is_looser(OWNERS, Adjustments(Pace.NORMAL), Adjustments(Pace.QUIET))
    for name in LIMITS:
        low = Adjustments(**{name: LIMITS[name].lowest})
        assert is_looser(OWNERS, low, Adjustments())
        assert not is_looser(OWNERS, Adjustments(), low)
        assert highest(OWNERS, name) == getattr(OWNERS, name)


@pytest.mark.parametrize(
    ("share", "most", "cpus", "threads"),
    [(1.0, 4, 4, 4), (0.5, 4, 4, 2), (0.1, 4, 4, 1), (1.0, 2, 8, 2), (0.75, 8, 4, 3), (1.0, 1, 0.5, 1)],
)
def test_a_share_of_the_cpus_is_a_number_of_threads(share: float, most: int, cpus: float, threads: int) -> None:
    """At least one."""
    assert threads_of(share, most, cpus) == threads
