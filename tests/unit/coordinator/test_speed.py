"""What is known of an agent's speed and room, and how that changes with what is seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.coordinator.credit import Credit
from edge_agent.coordinator.retries import BACKOFF_MAX_SECONDS
from edge_agent.coordinator.speed import LATE_AT_LEAST_US, Speed

ASKED = st.integers(1, 64)


def test_the_offer_is_the_first_estimate() -> None:
    """Nothing is known of the network yet."""
    assert Speed.of_offer(300).expected_us(0) == 300
    assert Speed.of_offer(300).expected_us(3) == 1200


def test_a_network_that_is_slow_is_learnt_apart_from_the_model() -> None:
    """600 ms on the way are counted once, not for every place in the queue."""
    speed = Speed.of_offer(1_000)
    for ahead in [0, 1, 2, 3] * 50:
        speed.observe(run_us=1_000, turnaround_us=600_000 + 1_000 * (ahead + 1), ahead=ahead)
    assert speed.run_us == pytest.approx(1_000)
    assert speed.overhead_us == pytest.approx(600_000, rel=0.01)
    assert speed.expected_us(3) == pytest.approx(604_000, rel=0.01)


def test_an_agent_that_is_slower_than_it_offered_is_found_out() -> None:
    """Also one that lies about its runs: the whole is measured by us."""
    honest, liar = Speed.of_offer(100), Speed.of_offer(100)
    for _ in range(100):
        honest.observe(run_us=50_000, turnaround_us=50_500, ahead=0)
        liar.observe(run_us=1, turnaround_us=50_500, ahead=0)
    assert honest.expected_us(0) == pytest.approx(50_500, rel=0.05)
    assert liar.expected_us(0) == pytest.approx(50_500, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 20)), max_size=40))
def test_estimates_stay_sane_whatever_is_seen(seen: list[tuple[int, int, int]]) -> None:
    """Never negative, never below the least lateness, more with a longer queue."""
    speed = Speed.of_offer(500)
    for run_us, turnaround_us, ahead in seen:
        speed.observe(run_us=run_us, turnaround_us=turnaround_us, ahead=ahead)
        assert min(speed.run_us, speed.overhead_us, speed.deviation_us) >= 0
        assert speed.late_after_us(0) >= speed.expected_us(0) + LATE_AT_LEAST_US
        assert speed.expected_us(1) >= speed.expected_us(0)


@given(ASKED, st.lists(st.one_of(st.none(), st.integers(0, 64)), max_size=60))
def test_an_agent_never_gets_more_than_it_asked_for_and_never_nothing_for_good(
    asked: int, events: list[int | None]
) -> None:
    """Answers and refusals in any order."""
    credit = Credit()
    now = 1000.0
    for held in events:
        if held is None:
            credit.answer(asked)
        else:
            credit.refuse(held, now, lambda: 1.0)
        now = max(now, credit.paused_until)
        assert 1 <= credit.allowed(asked, now) <= asked


def test_a_refusal_shrinks_the_credit_and_answers_let_it_grow() -> None:
    """To what it held without the refused one, then by one for each full set of answers."""
    credit = Credit()
    credit.refuse(3, 0.0, lambda: 1.0)
    assert credit.allowed(8, 0.0) == 3
    for _ in range(3):
        credit.answer(8)
    assert credit.allowed(8, 0.0) == 4
    for _ in range(100):
        credit.answer(8)
    assert credit.allowed(8, 0.0) == 8


def test_an_agent_that_says_when_to_come_back_is_left_alone_until_then() -> None:
    """But not for ever, whatever it says."""
    credit = Credit()
    credit.refuse(3, 100.0, lambda: 1.0, after_seconds=2.0)
    assert [credit.allowed(8, moment) for moment in (100.0, 101.9, 102.0)] == [0, 0, 3]
    credit.refuse(3, 200.0, lambda: 1.0, after_seconds=1e9)
    assert credit.allowed(8, 200.0 + BACKOFF_MAX_SECONDS) == 3


def test_an_agent_that_is_full_of_somebody_elses_work_is_left_alone_longer_each_time() -> None:
    """It is not asked again and again; one answer ends that."""
    credit = Credit()
    now, pauses = 0.0, []
    for _ in range(4):
        credit.refuse(0, now, lambda: 1.0)
        assert credit.allowed(8, now) == 0
        pauses.append(credit.paused_until - now)
        now = credit.paused_until
        assert credit.allowed(8, now) == 1
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])
    credit.answer(8)
    credit.refuse(0, now, lambda: 1.0)
    assert credit.paused_until - now == pytest.approx(0.1)
