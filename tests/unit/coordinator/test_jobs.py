"""The table of transitions, walked pair by pair."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from edge_agent.coordinator.jobs import (
    FINAL_STATES,
    TRANSITIONS,
    ImpossibleTransitionError,
    Job,
    JobEvent,
    JobState,
    diagram,
    next_state,
)

ALLOWED = {
    ("queued", "lease"): "leased",
    ("queued", "fail"): "failed",
    ("queued", "cancel"): "cancelled",
    ("leased", "hedge"): "hedged",
    ("leased", "requeue"): "queued",
    ("leased", "accept"): "succeeded",
    ("leased", "fail"): "failed",
    ("leased", "cancel"): "cancelled",
    ("leased", "hold"): "held",
    ("hedged", "hold"): "held",
    ("held", "requeue"): "queued",
    ("held", "accept"): "succeeded",
    ("held", "fail"): "failed",
    ("held", "cancel"): "cancelled",
    ("hedged", "lose"): "leased",
    ("hedged", "accept"): "succeeded",
    ("hedged", "fail"): "failed",
    ("hedged", "cancel"): "cancelled",
}


def _job(state: JobState) -> Job:
    return Job(
        id=bytes(16),
        family="digits",
        inputs=(),
        outputs=(),
        salt=bytes(32),
        submitted_ms=0,
        deadline=1.0,
        max_attempts=5,
        state=state,
    )


@pytest.mark.parametrize(("state", "event"), list(product(JobState, JobEvent)))
def test_every_pair_of_state_and_event_does_what_the_table_says(state: JobState, event: JobEvent) -> None:
    """What is in the table happens; anything else raises and changes nothing."""
    job = _job(state)
    wanted = ALLOWED.get((state.value, event.value))
    if wanted is None:
        with pytest.raises(ImpossibleTransitionError, match=f"{state} cannot {event}"):
            job.apply(event)
        assert job.state is state
    else:
        job.apply(event)
        assert job.state is JobState(wanted) is next_state(state, event)


@pytest.mark.parametrize("state", list(JobState))
def test_nothing_leaves_a_final_state(state: JobState) -> None:
    """A state is final exactly if the table has no way out of it."""
    leaves = [event for before, event in TRANSITIONS if before is state]
    assert state.final == (not leaves) == (state in FINAL_STATES)


def test_every_state_can_be_reached_and_every_job_can_end() -> None:
    """From the first state all others can be reached, and from each a final one."""

    def reachable(start: JobState) -> set[JobState]:
        seen, left = {start}, [start]
        while left:
            here = left.pop()
            for (before, _), after in TRANSITIONS.items():
                if before is here and after not in seen:
                    seen.add(after)
                    left.append(after)
        return seen

    assert reachable(JobState.QUEUED) == set(JobState)
    assert all(reachable(state) & FINAL_STATES for state in JobState)


def test_the_diagram_in_the_documentation_is_made_from_the_table() -> None:
    """docs/http.md shows exactly what the table says."""
    text = (Path(__file__).parents[3] / "docs" / "http.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{diagram()}\n```" in text
    assert len(diagram().splitlines()) == 2 + len(TRANSITIONS) + len(FINAL_STATES)
