"""What becomes of a job when an attempt of it ended without a result: again, later, or never. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from edge_agent.coordinator.jobs import Blame, Job, JobError

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


def counts(why: str) -> bool:
    """Whether an attempt that ended so counts against the job's attempts, and the agent is avoided for it."""
    return why not in INNOCENT


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
