"""Which agent gets a job: a pure function of what is known of the agents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """An agent that offers the family and may be given work.

    Attributes:
        latency_us: measured median of one run on that machine, microseconds.
        in_flight: attempts it holds now.
        max_in_flight: how many it asked for at most.
        failed_before: it failed this very job already.
    """

    agent_id: str
    latency_us: int
    in_flight: int
    max_in_flight: int
    failed_before: bool = False


def expected_wait_us(candidate: Candidate) -> int:
    """Time until this agent would have finished one more job: its queue, then the job itself."""
    return (candidate.in_flight + 1) * candidate.latency_us


def pick(candidates: Iterable[Candidate]) -> str | None:
    """Choose the agent that is expected to finish first, or none when no one has room.

    An agent that failed this job before is taken only when nobody else offers the family at all: a slow retry
    elsewhere is better than a quick one on a machine that has just shown that it cannot.
    Ties go to the smaller id, so that the choice does not depend on the order of the candidates.
    """
    offered = list(candidates)
    untried = [c for c in offered if not c.failed_before]
    pool = [c for c in (untried or offered) if c.in_flight < c.max_in_flight]
    if not pool:
        return None
    return min(pool, key=lambda c: (expected_wait_us(c), c.in_flight, c.agent_id)).agent_id
