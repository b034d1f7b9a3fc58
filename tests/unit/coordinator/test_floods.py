"""Allowances of useless messages: for one agent, for all strangers, for everybody together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.coordinator.floods import BURST_SECONDS, STRANGERS_SHARE, TOTAL_SHARE, Floods

RATE = 10.0
WHOLE = int(RATE * BURST_SECONDS)
JOB = bytes(range(16))
NAMED = b"\xd2\x84\x43abc\xa0\x58\x40" + b"\x63job\x50" + JOB
NOTHING: frozenset[bytes] = frozenset()


def _admitted(floods: Floods, agent_id: str, count: int, at: float = 0.0, payload: bytes = b"x") -> int:
    return sum(floods.admits(agent_id, NOTHING, payload, at) for _ in range(count))


def test_who_sends_rubbish_is_heard_at_the_rate_alone() -> None:
    """A burst, and then so many a second, however many come."""
    floods = Floods(RATE)
    assert _admitted(floods, "a", 10_000) == WHOLE
    assert _admitted(floods, "a", 10_000, at=1.0) == RATE
    assert _admitted(floods, "a", 10_000, at=1e6) == WHOLE


def test_the_rubbish_of_one_silences_nobody_else() -> None:
    """Another agent, and strangers, have their own."""
    floods = Floods(RATE)
    _admitted(floods, "a", 10_000)
    assert floods.admits("b", NOTHING, b"x", 0.0)
    assert floods.admits("c", None, b"x", 0.0)


def test_strangers_share_one_allowance_whatever_they_call_themselves() -> None:
    """New names are free, so they buy nothing."""
    floods = Floods(RATE)
    heard = sum(floods.admits(f"stranger {n}", None, b"x", 0.0) for n in range(10_000))
    assert heard == WHOLE * STRANGERS_SHARE
    assert floods.admits("known", NOTHING, b"x", 0.0)


def test_all_together_have_a_bound() -> None:
    """A thousand forged topics cost no more than `TOTAL_SHARE` of them."""
    floods = Floods(RATE)
    heard = sum(_admitted(floods, f"agent {n}", WHOLE) for n in range(TOTAL_SHARE * 3))
    assert heard == WHOLE * TOTAL_SHARE


def test_whoever_names_a_job_that_it_holds_is_heard_in_a_flood() -> None:
    """Whoever forges the topic does not know the job; who listens in and does has a bound, too."""
    floods = Floods(RATE)
    _admitted(floods, "a", 10_000)
    assert not floods.admits("a", {bytes(16)}, NAMED, 0.0)
    assert not floods.admits("a", {JOB}, NAMED[:-1], 0.0)
    assert not floods.admits("a", {JOB}, bytes(2000) + NAMED, 0.0)
    assert sum(floods.admits("a", {JOB}, NAMED, 0.0) for _ in range(10_000)) == WHOLE


def test_answers_that_were_asked_for_cost_nothing() -> None:
    """Ten thousand accepted results in a second are ten thousand."""
    floods = Floods(RATE)
    for _ in range(10_000):
        assert floods.admits("a", {JOB}, NAMED, 0.0)
        floods.was_good(answer=True)


def test_what_an_agent_says_of_itself_costs_it_and_nobody_else() -> None:
    """An agent with a right key that talks without end is cut off alone."""
    floods = Floods(RATE)
    heard = 0
    for _ in range(10_000):
        if floods.admits("a", NOTHING, b"birth", 0.0):
            heard += 1
            floods.was_good(answer=False)
    assert heard == WHOLE
    assert sum(_admitted(floods, f"agent {n}", WHOLE) for n in range(TOTAL_SHARE * 2)) == WHOLE * TOTAL_SHARE


@pytest.mark.parametrize("back", [1e9, 0.5])
def test_a_clock_that_stands_or_goes_back_gives_nothing(back: float) -> None:
    """Monotonic seconds do not, but no defect of theirs opens the gate."""
    floods = Floods(RATE)
    _admitted(floods, "a", 10_000, at=back)
    assert _admitted(floods, "a", 100, at=0.0) == 0


def test_what_is_kept_is_bounded() -> None:
    """Allowances that are whole again are forgotten."""
    floods = Floods(RATE, max_kept=100)
    for number in range(1000):
        floods.admits(f"agent {number}", NOTHING, b"x", number * BURST_SECONDS)
    assert len(floods._buckets) <= 101


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5), st.booleans(), st.booleans()), max_size=200))
def test_no_sender_is_ever_opened_more_often_in_vain_than_its_allowances(
    events: list[tuple[str, float, bool, bool]],
) -> None:
    """Whatever the order and the times: burst and rate, twice for who holds jobs."""
    floods, now, vain = Floods(1.0), 0.0, dict.fromkeys("abc", 0)
    for agent, wait, names, good in events:
        now += wait
        if floods.admits(agent, {JOB}, NAMED if names else b"x", now):
            if good:
                floods.was_good(answer=True)
            else:
                vain[agent] += 1
    assert all(count <= 2 * (BURST_SECONDS + now) for count in vain.values())
