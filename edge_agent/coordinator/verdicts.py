"""Counts what ended without a result, against the job or for it, and says when a job has had enough. Pure."""

from __future__ import annotations

from collections import Counter

from edge_agent.coordinator.jobs import Attempt, Blame, Job, JobError
from edge_agent.coordinator.owners import owner_of
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.retries import DEADLY, blame_of_poison, take_note, verdict


class Verdicts:
    """Knows what every variant gave so far, and judges each job that lost an attempt.

    Args:
        registry: says whose each agent is.

    Attributes:
        accepted: how many results of each variant were.
    """

    def __init__(self, registry: Registry) -> None:
        self.accepted: Counter[bytes] = Counter()
        self._poisoned: Counter[bytes] = Counter()
        self._registry = registry

    def on_loss(  # noqa: PLR0913, PLR0917 what there is to say about an attempt that ended
        self, job: Job, attempt: Attempt, why: str, message: str, blame: Blame, refused_by: str | None
    ) -> JobError | None:
        """Take note of an attempt that ended without a result; return the error with which its job ends, if it does.

        Args:
            job: whose attempt it was.
            attempt: the one.
            why: the code with which it ended.
            message: the same in words, if there are any.
            blame: whose fault it was, should the job end with it.
            refused_by: the owner of the machine, if it said that the job can never succeed: a word about the job,
                which nobody has confirmed, and no failure.
        """
        if refused_by is not None:
            job.refusals[refused_by] = why
            job.failed_on.add(attempt.agent_id)
        else:
            take_note(job, attempt.agent_id, why)
        if why in DEADLY:
            job.killed.add(attempt.agent_id)
        poison_blame = blame_of_poison(self.accepted[attempt.variant], self._poisoned[attempt.variant])
        lost_by = owner_of(self._registry, attempt.agent_id) if refused_by is None else None
        error = verdict(job, why, message, blame, poison_blame, lost_by)
        if error is not None and error.code == "poison":
            self._poisoned[attempt.variant] += 1
        return error
