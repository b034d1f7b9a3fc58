"""Jobs and attempts as values, and the one table that says how a job may change.

A *job* is what a client wants once; an *attempt* is one try of it on one agent, with a lease and a fencing epoch.
Whatever is not in `TRANSITIONS` raises: there is no other way to change a job's state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from edge_agent.wire.tensors import Tensor


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self in FINAL_STATES


class JobEvent(StrEnum):
    """What can happen to a job."""

    LEASE = "lease"
    REQUEUE = "requeue"
    ACCEPT = "accept"
    FAIL = "fail"
    CANCEL = "cancel"


class Blame(StrEnum):
    """Whose fault a failed job was."""

    REQUESTER = "requester"
    MODEL = "model"
    AGENT = "agent"
    COORDINATOR = "coordinator"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"


FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.LEASE): JobState.LEASED,
    (JobState.QUEUED, JobEvent.FAIL): JobState.FAILED,
    (JobState.QUEUED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.LEASED, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.LEASED, JobEvent.ACCEPT): JobState.SUCCEEDED,
    (JobState.LEASED, JobEvent.FAIL): JobState.FAILED,
    (JobState.LEASED, JobEvent.CANCEL): JobState.CANCELLED,
}


class ImpossibleTransitionError(Exception):
    """Something tried to move a job in a way that the table does not have; always a defect of ours."""


def next_state(state: JobState, event: JobEvent) -> JobState:
    """Look the transition up.

    Raises:
        ImpossibleTransitionError: when the pair is not in `TRANSITIONS`.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ImpossibleTransitionError(f"a job that is {state} cannot {event}") from None


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed: a stable code, a sentence, and who is to blame."""

    code: str
    message: str
    blame: Blame


@dataclass(slots=True)
class Attempt:
    """One try of a job on one agent.

    Attributes:
        epoch: fencing number, grows with every attempt of the job.
        agent_session: the agent's session that it was leased under.
        coordinator_session: our own session that it was sent in; a birth that answers a later one knows better.
        lease_until: monotonic seconds after which the attempt is taken away.
        timer_at: monotonic seconds at which the one timer that counts for it rings; earlier ones were replaced.
    """

    epoch: int
    agent_id: str
    variant: bytes
    agent_session: int
    coordinator_session: int
    lease_until: float
    timer_at: float = 0.0


@dataclass(slots=True)
class Job:
    """A job that has not ended; ended jobs live in the database alone.

    Attributes:
        id: 16 bytes.
        salt: 32 bytes that open the input commitments in the receipt.
        deadline: monotonic seconds after which the job fails.
        durable: whether the client was told that the job is stored (an asynchronous submission).
        failed_on: agents that failed it; others are preferred.
    """

    id: bytes
    family: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    salt: bytes
    submitted_ms: int
    deadline: float
    max_attempts: int
    variant: bytes | None = None
    state: JobState = JobState.QUEUED
    epoch: int = 0
    attempt: Attempt | None = None
    failed_on: set[str] = field(default_factory=set)

    def apply(self, event: JobEvent) -> None:
        """Change the state by the table.

        Raises:
            ImpossibleTransitionError: and nothing has changed.
        """
        self.state = next_state(self.state, event)


def diagram() -> str:
    """Draw `TRANSITIONS` as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", f"    [*] --> {JobState.QUEUED}"]
    lines += [f"    {before} --> {after}: {event}" for (before, event), after in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in JobState if state.final]
    return "\n".join(lines)
