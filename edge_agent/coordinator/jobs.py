"""Jobs and attempts as values, and the one table that says how a job may change.

A *job* is what a client wants once; an *attempt* is one try of it on one agent, with a lease and a fencing epoch. A
*hedged* job has two live attempts on two agents, of which at most one is accepted. A *held* job has a result that is
not given out before machines of other owners have confirmed it.
Whatever is not in `TRANSITIONS` raises: there is no other way to change a job's state.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from edge_agent.wire.job_options import ANYWHERE, Placement
from edge_agent.wire.messages import TensorDigest
from edge_agent.wire.tensors import Tensor


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    LEASED = "leased"
    HEDGED = "hedged"
    HELD = "held"
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
    HEDGE = "hedge"
    HOLD = "hold"
    LOSE = "lose"
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
    (JobState.LEASED, JobEvent.HEDGE): JobState.HEDGED,
    (JobState.LEASED, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.LEASED, JobEvent.ACCEPT): JobState.SUCCEEDED,
    (JobState.LEASED, JobEvent.FAIL): JobState.FAILED,
    (JobState.LEASED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.LEASED, JobEvent.HOLD): JobState.HELD,
    (JobState.HEDGED, JobEvent.HOLD): JobState.HELD,
    (JobState.HELD, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.HELD, JobEvent.ACCEPT): JobState.SUCCEEDED,
    (JobState.HELD, JobEvent.FAIL): JobState.FAILED,
    (JobState.HELD, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.HEDGED, JobEvent.LOSE): JobState.LEASED,
    (JobState.HEDGED, JobEvent.ACCEPT): JobState.SUCCEEDED,
    (JobState.HEDGED, JobEvent.FAIL): JobState.FAILED,
    (JobState.HEDGED, JobEvent.CANCEL): JobState.CANCELLED,
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
        leased_at: monotonic seconds at which it was leased, or taken over after a restart.
        ahead: how many attempts the agent held before this one.
        timer_at: monotonic seconds at which the one timer that counts for its lease rings; earlier ones were replaced.
    """

    epoch: int
    agent_id: str
    variant: bytes
    agent_session: int
    coordinator_session: int
    lease_until: float
    leased_at: float = 0.0
    ahead: int = 0
    timer_at: float = 0.0


@dataclass(slots=True)
class Job:
    """A job that has not ended; ended jobs live in the database alone.

    Attributes:
        id: 16 bytes.
        salt: 32 bytes that open the input commitments in the receipt.
        deadline: monotonic seconds after which the job fails.
        max_attempts: how many of its attempts may fail.
        client: whom it is for, as far as fairness goes.
        priority: among the jobs of the same client; higher ones go first.
        synchronous: whether a client waits for it at the other end of a connection: worth a second attempt when late.
            It was told nothing before; of any other job, the end must survive a power cut before it is told.
        number: grows with each job that is taken in; the older of two equal ones goes first.
        epoch: of its newest attempt, 0 before the first.
        attempts: the live ones, oldest first: at most two.
        failures: attempts that count against `max_attempts`.
        failed_on: agents that failed it or handed it back; others are preferred.
        excused: how often it ended on an agent in a way that is nobody's fault, by the agent and the code.
        killed: agents whose workers died over it.
        refusals: with which code a machine said that it can never succeed, by the machine's owner; unconfirmed.
        mode: how its result is verified before it is given out; see `wire.job_options.JobOptions`.
        accept_newcomers: whether results of newcomers may be given out before they are checked.
        checks: the id of the job that this one checks: it is the coordinator's own, and no client waits for it.
        input_digests: the salted digests of its inputs, once they were needed.
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
    client: str = ""
    priority: int = 0
    placement: Placement = ANYWHERE
    synchronous: bool = False
    number: int = 0
    state: JobState = JobState.QUEUED
    epoch: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    failures: int = 0
    failed_on: set[str] = field(default_factory=set)
    excused: Counter[tuple[str, str]] = field(default_factory=Counter)
    killed: set[str] = field(default_factory=set)
    refusals: dict[str, str] = field(default_factory=dict)
    mode: str = "signed"
    accept_newcomers: bool = False
    checks: bytes | None = None
    input_digests: tuple[TensorDigest, ...] | None = field(default=None, repr=False, compare=False)

    @property
    def input_bytes(self) -> int:
        """How much memory its inputs take."""
        return sum(len(tensor.data) for tensor in self.inputs)

    def apply(self, event: JobEvent) -> None:
        """Change the state by the table.

        Raises:
            ImpossibleTransitionError: and nothing has changed.
        """
        self.state = next_state(self.state, event)

    def attempt_on(self, agent_id: str) -> Attempt | None:
        """Return the live attempt on an agent, if there is one; never two on the same."""
        return next((attempt for attempt in self.attempts if attempt.agent_id == agent_id), None)

    def attempt_of(self, epoch: int) -> Attempt | None:
        """Return the live attempt of an epoch, if there is one."""
        return next((attempt for attempt in self.attempts if attempt.epoch == epoch), None)


def diagram() -> str:
    """Draw `TRANSITIONS` as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", f"    [*] --> {JobState.QUEUED}"]
    lines += [f"    {before} --> {after}: {event}" for (before, event), after in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in JobState if state.final]
    return "\n".join(lines)
