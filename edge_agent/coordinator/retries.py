"""What becomes of a job when an attempt of it ended without a result: again, later, or never. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from edge_agent.coordinator.jobs import Blame, Job, JobError, JobState

Draw: TypeAlias = Callable[[], float]
"""Gives a random number from 0 to 1."""

BACKOFF_FIRST_SECONDS: Final = 0.1
BACKOFF_MAX_SECONDS: Final = 10.0

OVERTAKEN: Final = "overtaken"
"""How the second of two attempts ends when the other one's result is accepted."""

INNOCENT: Final = frozenset({"queue-full", "handed-back", "not-enrolled", "not-sent", "not-arrived", OVERTAKEN})
"""Ways of an attempt to end that say nothing of the job: they do not count against its attempts."""

LOST: Final = frozenset({"not-held", "not-arrived", "handed-back", "not-enrolled", "wrong-result", "not-confirmed"})
"""Ways to end that are no reason to wait: the agent is away, says that it will not do it, or did something else."""

AGENTS_OWN: Final = frozenset({"queue-full", "handed-back"})
"""Those of `INNOCENT` that agents say themselves."""

OUR_WORDS: Final = ((INNOCENT | LOST) - AGENTS_OWN) | {"lease-expired", *JobState}
"""What we alone can know of an attempt: said by an agent of its own, some of it would count for nothing."""

NOT_ITS_WORD: Final = "wrong-code"
"""How an attempt ended whose agent gave one of `OUR_WORDS` as the code of its failure."""

EXCUSED: Final = 3
"""So often a job may end in the same innocent way on the same agent before more follows than that others are preferred.

An honest agent hands it back once each time that it stops or rests."""

DEADLY: Final = frozenset({"worker-died", "worker-hung"})
"""Failures that cost an agent its worker."""

POISON_AGENTS: Final = 2
"""A job over which the workers of so many agents died is not tried on a third."""


def backoff_seconds(failures: int, draw: Draw) -> float:
    """Return how long to wait after so many failures: exponential, with full jitter.

    Source: Brooker, "Exponential Backoff And Jitter", 2015: of the ways to draw, the whole range from 0 to the bound
    keeps those who failed together apart with the least work.
    """
    bound = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(max(0, failures - 1), 30))
    return draw() * bound


def as_said(code: str) -> str:
    """Return how an attempt ended whose agent gives this code."""
    return NOT_ITS_WORD if code in OUR_WORDS else code


def counts(why: str) -> bool:
    """Whether an attempt that ended so counts against the job's attempts, however seldom it does."""
    return why not in INNOCENT


def take_note(job: Job, agent_id: str, why: str) -> None:
    """Count an attempt that ended without a result, and that its agent did not refuse.

    Others are preferred to who failed the job or handed it back, and to who had no room for it, or did not hear of it,
    too often. That alone fails no attempt, since it is nobody's fault; to hand it back again and again does.

    Args:
        job: whose attempt it was.
        agent_id: who had it.
        why: the code with which it ended.
    """
    failed = counts(why)
    if why in AGENTS_OWN or why == "not-arrived":
        job.excused[agent_id, why] += 1
        too_often = job.excused[agent_id, why] > EXCUSED
        failed = too_often and why == "handed-back"
        if too_often or why == "handed-back":
            job.failed_on.add(agent_id)
    if failed:
        job.failures += 1
        job.failed_on.add(agent_id)


def waits(why: str) -> bool:
    """Whether the next attempt is put off."""
    return why not in LOST and why != "queue-full"


def blame_of_poison(accepted: int, poisoned: int) -> Blame:
    """Say whose fault it is that a job ends workers: that of its input when its variant serves other jobs well.

    Args:
        accepted: results of the variant that were accepted, all of other jobs.
        poisoned: other jobs that ended workers with the same variant.
    """
    return Blame.REQUESTER if accepted > poisoned else Blame.MODEL


def unconfirmed(job: Job, lost_by: str | None = None) -> str | None:
    """Say in words that an owner's machine refused a job, another one than this owner's, if one did."""
    refused = [code for owner, code in job.refusals.items() if owner != lost_by]
    return f"one owner's machine refused it ({refused[0]}), and no other could say" if refused else None


def verdict(  # noqa: PLR0913, PLR0917 what there is to say about an attempt that ended
    job: Job, why: str, message: str, blame: Blame, poison_blame: Blame, lost_by: str | None = None
) -> JobError | None:
    """Say with which error a job ends whose attempt ended without a result, or None if it may be tried again.

    Args:
        job: with the failure counted in.
        why: the code with which the attempt ended.
        message: the same in words, if there are any.
        blame: whose fault the last attempt was, should it be the last.
        poison_blame: whose fault it is, should the job be poison.
        lost_by: the owner of the machine with which it ended; None where that machine refused it.
    """
    if len(job.killed) >= POISON_AGENTS:
        return JobError(
            "poison",
            f"the workers of {len(job.killed)} agents died over it, the last with {why}: it is not tried on another",
            poison_blame,
        )
    if job.failures >= job.max_attempts:
        text = f"gave up after {job.failures} attempt{'s' if job.failures != 1 else ''}; the last one ended with {why}"
        text = f"{text}: {message}" if message else text
        refused = unconfirmed(job, lost_by)
        if refused is not None:  # one says that it can never succeed, the others could not: who knows whose fault it is
            text, blame = f"{text.removesuffix('.')}; {refused}", Blame.COORDINATOR
        return JobError("attempts-exhausted", text, blame)
    return None
