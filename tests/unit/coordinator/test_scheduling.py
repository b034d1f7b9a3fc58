"""Who gets a job: properties that hold whatever the candidates are."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.coordinator.scheduling import Candidate, expected_wait_us, pick

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        agent_id=st.text("abc", min_size=1, max_size=3),
        latency_us=st.integers(0, 10_000),
        in_flight=st.integers(0, 4),
        max_in_flight=st.integers(1, 4),
        failed_before=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda candidate: candidate.agent_id,
)


@given(CANDIDATES, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(candidates: list[Candidate], rng: object) -> None:
    """Equal knowledge gives an equal choice."""
    shuffled = list(candidates)
    rng.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis' random.Random
    assert pick(shuffled) == pick(candidates)


@given(CANDIDATES)
def test_nobody_gets_more_than_it_asked_for(candidates: list[Candidate]) -> None:
    """The chosen agent has room."""
    chosen = {candidate.agent_id: candidate for candidate in candidates}.get(pick(candidates) or "")
    assume(chosen is not None)
    assert chosen is not None
    assert chosen.in_flight < chosen.max_in_flight


@given(CANDIDATES)
def test_none_is_chosen_only_if_no_eligible_agent_has_room(candidates: list[Candidate]) -> None:
    """A job waits only when those that may take it are full."""
    eligible = [c for c in candidates if not c.failed_before] or candidates
    assert (pick(candidates) is None) == all(c.in_flight >= c.max_in_flight for c in eligible)


@given(CANDIDATES)
def test_nobody_with_room_would_be_done_sooner(candidates: list[Candidate]) -> None:
    """The choice has the shortest expected wait of those that have not failed the job."""
    name = pick(candidates)
    assume(name is not None)
    eligible = [c for c in candidates if not c.failed_before] or candidates
    chosen = next(c for c in eligible if c.agent_id == name)
    others = [expected_wait_us(c) for c in eligible if c.in_flight < c.max_in_flight]
    assert expected_wait_us(chosen) == min(others)


@given(CANDIDATES)
def test_an_agent_that_failed_the_job_is_taken_only_if_all_have(candidates: list[Candidate]) -> None:
    """A slow retry elsewhere is better than a quick one on the same machine."""
    chosen = {candidate.agent_id: candidate for candidate in candidates}.get(pick(candidates) or "")
    if chosen is not None and chosen.failed_before:
        assert all(candidate.failed_before for candidate in candidates)


def test_a_busy_fast_agent_loses_to_an_idle_one_of_half_its_speed() -> None:
    """What counts is when this job would be done, its place in the queue included."""
    fast = Candidate("fast", 100, in_flight=2, max_in_flight=8)
    slow = Candidate("slow", 200, in_flight=0, max_in_flight=8)
    assert pick([fast, slow]) == "slow"
    assert pick([replace(fast, in_flight=0), slow]) == "fast"


def test_no_candidate_no_choice() -> None:
    """Nobody is nobody."""
    assert pick([]) is None
