"""Makes the jobs that check results: nothing tells them from a client's. Pure."""

from __future__ import annotations

import hmac

from edge_agent.clock import Now
from edge_agent.coordinator.events import Commit, InsertJob, Submit
from edge_agent.coordinator.jobs import Job
from edge_agent.wire.job_options import Placement

CHECK_SECONDS = 30.0
"""A check that has no answer after so long is given to other machines."""


def check_of(  # noqa: PLR0913, PLR0917 what tells one check from another
    secret: bytes, subject: Job, variant: bytes, agents: tuple[str, ...], about: bytes, now: Now
) -> Job:
    """Make a job that looks like any other; nobody who lacks the secret can tell its id from a random one.

    Args:
        secret: 32 bytes of the coordinator's.
        subject: whose inputs it has.
        variant: digest of the one that it is for.
        agents: one of these does it.
        about: tells it from other checks of the same job.
        now: the moment, which tells it from those of before a restart.
    """
    about += b" %d %s" % (now.wall_ms, subject.id)
    return Job(
        id=hmac.digest(secret, b"check id " + about, "sha256")[:16],
        family=subject.family,
        inputs=subject.inputs,
        outputs=subject.outputs,
        salt=hmac.digest(secret, b"check salt " + about, "sha256"),
        submitted_ms=now.wall_ms,
        deadline=now.monotonic + CHECK_SECONDS,
        max_attempts=2,
        variant=variant,
        client=subject.client,
        priority=subject.priority,
        placement=Placement(agents=tuple(sorted(agents)), job_labels=subject.placement.job_labels),
        synchronous=True,  # nothing is lost with it that would not be asked for again
        checks=subject.id,
    )


def insert_of(job: Job, now: Now) -> Commit:
    """Store a check."""
    submit = Submit(
        job_id=job.id,
        salt=job.salt,
        family=job.family,
        inputs=job.inputs,
        outputs=job.outputs,
        variant=job.variant,
        idempotency_key=None,
        request_digest=b"",
        durable=False,
        deadline_seconds=CHECK_SECONDS,
        client=job.client,
        priority=job.priority,
        max_attempts=job.max_attempts,
        placement=job.placement,
        checks=job.checks,
    )
    deadline_ms = now.wall_ms + int(CHECK_SECONDS * 1000)
    return Commit((InsertJob(submit, now.wall_ms, deadline_ms, job.max_attempts, job.deadline),), urgent=False)
