"""One job's way: every millisecond from its submission to its end is in exactly one stage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.coordinator.jobs import Blame, JobError, JobState
from edge_agent.coordinator.rows import StoredAttempt, StoredJob
from edge_agent.coordinator.timeline import Way, way_of

ZERO = 1_000_000


def job(ended: int | None, state: JobState = JobState.SUCCEEDED) -> StoredJob:
    """Return a job that was submitted at `ZERO` and ended so many milliseconds later."""
    error = JobError("deadline", "too late", Blame.DEADLINE) if state is JobState.FAILED else None
    end = None if ended is None else ZERO + ended
    return StoredJob(b"j" * 16, "digits", state, 1, ZERO, end, None, None, None, (), None, error)


def attempt(epoch: int, leased: int, ended: int | None, outcome: str | None, agent: str = "a") -> StoredAttempt:
    """Return an attempt, times after `ZERO`."""
    return StoredAttempt(epoch, agent, b"v", ZERO + leased, None if ended is None else ZERO + ended, outcome)


def receipt(epoch: int, received: int, finished: int, run_us: int, accepted: int) -> Any:  # noqa: ANN401 a receipt's few fields
    """Return what a receipt says of times."""
    result = SimpleNamespace(epoch=epoch, received_ms=ZERO + received, finished_ms=ZERO + finished, run_us=run_us)
    return SimpleNamespace(result=result, accepted_ms=ZERO + accepted)


def names(way: Way) -> list[tuple[str, float]]:
    """Return each stage's name and length."""
    return [(stage.name, stage.took_ms) for stage in way.stages]


def contiguous(way: Way) -> bool:
    """Whether each stage begins where the one before ended."""
    ends = [stage.start_ms + stage.took_ms for stage in way.stages]
    starts = [stage.start_ms for stage in way.stages]
    return starts[0] == 0 and starts[1:] == pytest.approx(ends[:-1])


def test_a_job_that_went_well_has_five_stages() -> None:
    """Waiting, there, queued, computing, back: and no hole between them."""
    way = way_of(job(40), [attempt(1, 10, 40, "succeeded")], receipt(1, 13, 35, 20_000, 40), ZERO)
    assert names(way) == [("waiting", 10), ("there", 3), ("queued", 2), ("computing", 20), ("back", 5)]
    assert contiguous(way)
    assert way.moved_ms == 0


@pytest.mark.parametrize("skew", [-3_600_000, -50, 50, 86_400_000])
def test_a_wrong_clock_of_the_machine_is_seen_and_taken_out(skew: int) -> None:
    """By the four times of the job itself; the whole stays what the coordinator measured."""
    told = receipt(1, 13 + skew, 37 + skew, 20_000, 40)
    way = way_of(job(40), [attempt(1, 10, 40, "succeeded")], told, ZERO)
    assert contiguous(way)
    assert way.moved_ms == -skew
    assert names(way) == [("waiting", 10), ("there", 3), ("queued", 4), ("computing", 20), ("back", 3)]


def test_attempts_that_were_lost_are_stages_with_their_reason() -> None:
    """And so is the wait for the next machine."""
    tried = [attempt(1, 1, 31, "lease-expired", "a"), attempt(2, 35, 50, "succeeded", "b")]
    way = way_of(job(50), tried, receipt(2, 36, 48, 5_000, 50), ZERO)
    assert names(way)[:3] == [("waiting", 1), ("attempt", 30), ("waiting", 4)]
    assert way.stages[1].text == "attempt 1: lease-expired"
    assert [stage.agent_id for stage in way.stages][-3:] == ["b", "b", None]
    assert contiguous(way)


def test_a_job_that_failed_while_it_waited_has_no_machine() -> None:
    """It waited until its deadline."""
    way = way_of(job(60_000, JobState.FAILED), [], None, ZERO)
    assert names(way) == [("storing", 60_000)]


def test_a_job_that_goes_on_ends_now() -> None:
    """What it does at this moment is its last stage."""
    way = way_of(job(None, JobState.LEASED), [attempt(1, 5, None, None)], None, ZERO + 12)
    assert names(way) == [("waiting", 5), ("attempt", 7)]
    waits = way_of(job(None, JobState.QUEUED), [attempt(1, 5, 9, "worker-died")], None, ZERO + 12)
    assert names(waits) == [("waiting", 5), ("attempt", 4), ("waiting", 3)]
