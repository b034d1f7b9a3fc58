"""Which agent gets a job: a pure function of what is known of the agents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LOAD_US = 1_000_000
"""What a model that is not in memory is taken to need until it is, microseconds."""

WORTH_WAITING = 2
"""A full agent is waited for when a free one is expected to take so many times as long."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An agent that offers the family and may be given work.

    Attributes:
        run_us: expected time of one run on that machine, microseconds.
        in_flight: attempts it holds now.
        max_in_flight: how many it may hold: what it asked for, or less where it has refused more.
        overhead_us: expected time of everything around the runs, microseconds.
        overdue_us: for how long what it holds should have been answered, microseconds.
        loaded: whether the model is in memory there.
        failed_before: it failed this very job already.
    """

    agent_id: str
    run_us: float
    in_flight: int
    max_in_flight: int
    overhead_us: float = 0.0
    overdue_us: float = 0.0
    loaded: bool = True
    failed_before: bool = False

    @property
    def has_room(self) -> bool:
        """Whether it may be given one more."""
        return self.in_flight < self.max_in_flight


@dataclass(frozen=True, slots=True)
class Choice:
    """Who gets a job.

    Attributes:
        agent_id: None when the job has to wait.
        look_again_us: when nobody gets it though somebody has room: after so many microseconds, another may be chosen.
    """

    agent_id: str | None
    look_again_us: float | None = None


NOBODY = Choice(None)


def expected_us(candidate: Candidate, *, behind: int = 0) -> float:
    """Time until this agent would have finished one more job, microseconds.

    Its queue, then `behind` others, then the job itself; an agent that is late is expected to stay so.
    """
    runs = candidate.run_us * (candidate.in_flight + behind + 1)
    return runs + candidate.overhead_us + candidate.overdue_us + (0 if candidate.loaded else LOAD_US)


def pick(candidates: Iterable[Candidate], *, behind: int = 0) -> Choice:
    """Choose the agent that is expected to finish first.

    An agent that failed this job before is taken only when nobody else offers the family at all: a slow retry
    elsewhere is better than a quick one on a machine that has just shown that it cannot.

    A slow agent with room is passed over when a full one would be done in less than half the time, the jobs that wait
    counted in: what is quick is not held up by what is slow.
    Ties go to the smaller id, so that the choice does not depend on the order of the candidates.

    Args:
        candidates: those that may have the job.
        behind: how many other jobs of the same shape wait: they keep the quick agents busy.
    """
    offered = list(candidates)
    pool = [c for c in offered if not c.failed_before] or offered
    free = [c for c in pool if c.has_room]
    if not free:
        return NOBODY
    best = min(free, key=lambda c: (expected_us(c), c.in_flight, c.agent_id))
    takes_us = expected_us(best)
    if best.in_flight < best.max_in_flight and len(free) < len(pool):
        quickest_us = min(expected_us(c, behind=behind) for c in pool if not c.has_room)
        if WORTH_WAITING * quickest_us < takes_us:
            return Choice(None, look_again_us=takes_us)
    return Choice(best.agent_id)
