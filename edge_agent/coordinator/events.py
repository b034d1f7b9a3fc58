"""What the coordinator's core is told, and what it wants done: plain values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.coordinator.jobs import JobError, JobState
from edge_agent.notes import Note
from edge_agent.wire.tensors import Tensor

# -- events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrokerConnected:
    """The link is up and subscribed; `session` is larger than any that we used before."""

    session: int


@dataclass(frozen=True, slots=True)
class BrokerDisconnected:
    """The link is down."""

    reason: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """Foreign bytes from the broker."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Submit:
    """A client's job whose inputs were checked against the catalogue.

    Attributes:
        job_id: 16 random bytes.
        salt: 32 random bytes.
        durable: answer only once it is stored (asynchronous submission).
        request_digest: SHA-256 over family, inputs and outputs; tells a repeated request from a different one.
        deadline_seconds: from now.
    """

    job_id: bytes
    salt: bytes
    family: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    variant: bytes | None
    idempotency_key: str | None
    request_digest: bytes
    durable: bool
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class CancelJob:
    """A client no longer wants a job."""

    job_id: bytes


@dataclass(frozen=True, slots=True)
class AgentsChanged:
    """The operator's list of admitted agents, by id, as the database has it now."""

    approved: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `next_deadline` is reached."""


Event = BrokerConnected | BrokerDisconnected | MessageReceived | Submit | CancelJob | AgentsChanged | Tick

# -- commands -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publish:
    """Send these bytes."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class JobStored:
    """Answer a submission: the job exists (again, if `repeated`)."""

    job_id: bytes
    ticket: bytes
    repeated: bool


@dataclass(frozen=True, slots=True)
class SubmitRefused:
    """Answer a submission: not accepted, with a stable code."""

    ticket: bytes
    code: str
    message: str
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job ended.

    Attributes:
        outputs: of a job that succeeded.
        receipt: the coordinator's COSE_Sign1 over the agent's, with the salt in its unprotected header.
    """

    job_id: bytes
    state: JobState
    outputs: tuple[Tensor, ...] = ()
    receipt: bytes | None = None
    agent_id: str | None = None
    variant: bytes | None = None
    run_us: int | None = None
    error: JobError | None = None


# -- what is written ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InsertJob:
    """A new job with its inputs."""

    submit: Submit
    submitted_ms: int
    deadline_ms: int
    max_attempts: int


@dataclass(frozen=True, slots=True)
class InsertAttempt:
    """An attempt was leased."""

    job_id: bytes
    epoch: int
    agent_id: str
    variant: bytes
    agent_session: int
    coordinator_session: int
    leased_ms: int


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """An attempt ended without an accepted result and its job is queued again."""

    job_id: bytes
    epoch: int
    outcome: str
    ended_ms: int


@dataclass(frozen=True, slots=True)
class EndJob:
    """A job ended; for a success the result and the receipt are written in the same transaction."""

    outcome: Outcome
    epoch: int
    ended_ms: int


@dataclass(frozen=True, slots=True)
class SaveAgent:
    """What we know of an agent after a birth, or a request for admission."""

    agent_id: str
    public_key: bytes
    session: int
    software: str
    seen_ms: int


Record = InsertJob | InsertAttempt | EndAttempt | EndJob | SaveAgent


@dataclass(frozen=True, slots=True)
class Commit:
    """Write these records in one transaction, then do what follows.

    What follows is not done when the process dies before the commit: nobody is told of what is not stored.

    Attributes:
        durable: the transaction must survive a power cut before anything follows.
        urgent: somebody waits for it; what is not urgent may wait a little for others to share its transaction.
    """

    records: tuple[Record, ...]
    durable: bool = False
    urgent: bool = True
    then: tuple[Publish | JobStored | Outcome, ...] = ()


Command = Publish | JobStored | SubmitRefused | Outcome | Note | Commit
