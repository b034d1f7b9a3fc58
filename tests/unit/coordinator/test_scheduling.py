"""Who gets a job: properties that hold whatever the candidates are."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.coordinator.scheduling import LOAD_US, WORTH_WAITING, Candidate, Choice, expected_us, pick

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        agent_id=st.text("abc", min_size=1, max_size=3),
        run_us=st.integers(0, 10_000),
        in_flight=st.integers(0, 4),
        max_in_flight=st.integers(0, 4),
        overhead_us=st.integers(0, 10_000),
        overdue_us=st.sampled_from([0, 0, 0, 5_000_000]),
        loaded=st.booleans(),
        failed_before=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda candidate: candidate.agent_id,
)
BEHIND = st.integers(0, 20)


def _eligible(candidates: list[Candidate]) -> list[Candidate]:
    return [c for c in candidates if not c.failed_before] or candidates


@given(CANDIDATES, BEHIND, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(candidates: list[Candidate], behind: int, rng: object) -> None:
    """Equal knowledge gives an equal choice."""
    shuffled = list(candidates)
    rng.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis' random.Random
    assert pick(shuffled, behind=behind) == pick(candidates, behind=behind)


@given(CANDIDATES, BEHIND)
def test_nobody_gets_more_than_it_may_have(candidates: list[Candidate], behind: int) -> None:
    """The chosen agent has room."""
    chosen = {c.agent_id: c for c in candidates}.get(pick(candidates, behind=behind).agent_id or "")
    assume(chosen is not None)
    assert chosen is not None
    assert chosen.in_flight < chosen.max_in_flight


@given(CANDIDATES, BEHIND)
def test_none_is_chosen_only_if_none_has_room_or_a_full_one_is_far_quicker(
    candidates: list[Candidate], behind: int
) -> None:
    """A job waits when those that may take it are full, or when waiting is the quicker way; then not for ever."""
    choice = pick(candidates, behind=behind)
    eligible = _eligible(candidates)
    free = [c for c in eligible if c.has_room]
    if choice.agent_id is not None:
        assert free
    elif free:
        best = min(expected_us(c) for c in free)
        assert min(expected_us(c, behind=behind) for c in eligible if not c.has_room) * WORTH_WAITING < best
        assert choice.look_again_us == best
    else:
        assert choice == Choice(None)


@given(CANDIDATES, BEHIND)
def test_nobody_with_room_would_be_done_sooner(candidates: list[Candidate], behind: int) -> None:
    """The choice is expected to finish first of those with room that have not failed the job."""
    name = pick(candidates, behind=behind).agent_id
    assume(name is not None)
    eligible = _eligible(candidates)
    chosen = next(c for c in eligible if c.agent_id == name)
    assert expected_us(chosen) == min(expected_us(c) for c in eligible if c.has_room)


@given(CANDIDATES, BEHIND)
def test_an_agent_that_failed_the_job_is_taken_only_if_all_have(candidates: list[Candidate], behind: int) -> None:
    """A slow retry elsewhere is better than a quick one on the same machine."""
    chosen = {c.agent_id: c for c in candidates}.get(pick(candidates, behind=behind).agent_id or "")
    if chosen is not None and chosen.failed_before:
        assert all(candidate.failed_before for candidate in candidates)


@given(CANDIDATES)
def test_a_queue_that_is_long_enough_uses_every_machine(candidates: list[Candidate]) -> None:
    """Waiting for a quick agent ends where the queue before it is longer than what a slow one takes."""
    assume(all(c.run_us for c in candidates))
    assert (pick(candidates, behind=10**9).agent_id is None) == (not any(c.has_room for c in _eligible(candidates)))


def test_a_busy_fast_agent_loses_to_an_idle_one_of_half_its_speed() -> None:
    """What counts is when this job would be done, its place in the queue included."""
    fast = Candidate("fast", 100, in_flight=2, max_in_flight=8)
    slow = Candidate("slow", 200, in_flight=0, max_in_flight=8)
    assert pick([fast, slow]).agent_id == "slow"
    assert pick([replace(fast, in_flight=0), slow]).agent_id == "fast"


def test_a_job_is_not_held_up_by_a_slow_agent_that_happens_to_have_room() -> None:
    """It waits for the quick one, unless that one is stuck or has a long queue before it."""
    fast = Candidate("fast", 1_000, in_flight=4, max_in_flight=4)
    slow = Candidate("slow", 5_000_000, in_flight=0, max_in_flight=4)
    assert pick([fast, slow]) == Choice(None, look_again_us=5_000_000)
    assert pick([replace(fast, overdue_us=4_000_000), slow]).agent_id == "slow"
    assert pick([fast, slow], behind=10_000).agent_id == "slow"


def test_a_machine_that_has_the_model_in_memory_is_preferred() -> None:
    """Loading takes longer than a run; but not longer than any queue."""
    warm = Candidate("warm", 2_000, in_flight=3, max_in_flight=8)
    cold = Candidate("cold", 1_000, in_flight=0, max_in_flight=8, loaded=False)
    assert pick([warm, cold]).agent_id == "warm"
    assert pick([replace(warm, run_us=LOAD_US), cold]).agent_id == "cold"


def test_no_candidate_no_choice() -> None:
    """Nobody is nobody."""
    assert pick([]) == Choice(None)
