"""What the coordinator's core is told, and what it wants done: plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from edge_agent.coordinator.jobs import JobError, JobState
from edge_agent.coordinator.orders import Orders
from edge_agent.models.catalogue import Catalogue
from edge_agent.notes import Note
from edge_agent.wire.identity import Revoked
from edge_agent.wire.job_options import ANYWHERE, Placement
from edge_agent.wire.tensors import Tensor

# -- events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrokerConnected:
    """The link is up and subscribed.

    Attributes:
        session: larger than any that we used before.
        max_packet_bytes: what link and broker take at most, where that is known.
    """

    session: int
    max_packet_bytes: int | None = None


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
        request_digest: SHA-256 over family, inputs and outputs, which tells a repeated request from a different one;
            empty without a key.
        deadline_seconds: from now.
        client: whom it is for, as far as fairness goes.
        priority: among the jobs of that client.
        max_attempts: None for as many as the rules say.
        placement: which agents may have it.
        mode: how its result is verified before it is given out.
        accept_newcomers: whether results of newcomers may be given out before they are checked.
        checks: the id of the job that this one checks.
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
    client: str = ""
    priority: int = 0
    max_attempts: int | None = None
    placement: Placement = ANYWHERE
    mode: str = "signed"
    accept_newcomers: bool = False
    checks: bytes | None = None


@dataclass(frozen=True, slots=True)
class CancelJob:
    """A client no longer wants a job."""

    job_id: bytes


@dataclass(frozen=True, slots=True)
class AgentCertificates:
    """An agent's certificate and the X.509 one for the broker, DER, if there is one."""

    signed: bytes
    x509: bytes | None


@dataclass(frozen=True, slots=True)
class AgentsChanged:
    """The operator's list of admitted agents, by id, as the database has it now, whose they are, and other orders.

    Attributes:
        approved: only those whose certificate counts, where there is a registrar.
        orders: what else the operator ordered.
        certificates: of them, signed, with the same as an X.509 certificate for the broker.
        revoked: keys that count no more, by id.
        first_ids: the first id of each agent whose key was replaced, by its present one.
    """

    approved: frozenset[str]
    owners: Mapping[str, str] = field(default_factory=dict)
    orders: Orders = field(default_factory=Orders)
    certificates: Mapping[str, AgentCertificates] = field(default_factory=dict)
    revoked: Mapping[str, Revoked] = field(default_factory=dict)
    first_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendFailed:
    """A job did not get to the broker: the link would not take it, or the broker refused it.

    Attributes:
        code: `too-large` when no other time and no other agent will change that.
    """

    job_id: bytes
    epoch: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CatalogueChanged:
    """There is another catalogue: what it does not have is no longer leased."""

    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `next_deadline` is reached."""


Event = (
    BrokerConnected
    | BrokerDisconnected
    | MessageReceived
    | Submit
    | CancelJob
    | AgentsChanged
    | CatalogueChanged
    | SendFailed
    | Tick
)

# -- commands -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publish:
    """Send these bytes; if they are a job, `attempt` is its id and epoch, and `SendFailed` says when it fails."""

    topic: str
    payload: bytes
    retain: bool = False
    attempt: tuple[bytes, int] | None = None


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


PENDING: Final = "pending"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was done to verify a result, beyond its signature.

    Attributes:
        mode: that the client asked for.
        state: `signed`: nothing more; `pending`: a check runs; `rechecked` or `quorum`: machines of so many owners
            agree; `disputed`: they do not, or proved it wrong after it was given out.
        by: ids of the agents that agree with it.
        probability: with which it was to be checked.
        drawn: whether it was.
        period: whose key the draw was made with.
    """

    mode: str
    state: str
    by: tuple[str, ...] = ()
    probability: float = 0.0
    drawn: bool = False
    period: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job ended.

    Attributes:
        outputs: of a job that succeeded.
        receipt: the coordinator's COSE_Sign1 over the agent's, with the salt in its unprotected header.
        klass: id of the class of machines in which it was computed.
        verification: of a job that succeeded.
    """

    job_id: bytes
    state: JobState
    outputs: tuple[Tensor, ...] = ()
    receipt: bytes | None = None
    agent_id: str | None = None
    variant: bytes | None = None
    klass: str | None = None
    run_us: int | None = None
    error: JobError | None = None
    verification: Verification | None = None


# -- what is written ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InsertJob:
    """A new job with its inputs.

    Attributes:
        deadline_ms: Unix milliseconds, for people, and for when the machine was started anew.
        max_attempts: how many may fail.
        deadline: monotonic seconds, for when only we were.
    """

    submit: Submit
    submitted_ms: int
    deadline_ms: int
    max_attempts: int
    deadline: float = 0.0


@dataclass(frozen=True, slots=True)
class InsertAttempt:
    """An attempt was leased, and its job is in this state since."""

    job_id: bytes
    epoch: int
    agent_id: str
    variant: bytes
    agent_session: int
    coordinator_session: int
    leased_ms: int
    state: JobState = JobState.LEASED


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """An attempt ended without an accepted result.

    Attributes:
        outcome: the code with which it ended.
        state: of its job since; None where the job ends with it, which is a record of its own.
        refused_by: the owner of the machine, if it said that the job can never succeed and was not believed yet.
    """

    job_id: bytes
    epoch: int
    outcome: str
    ended_ms: int
    state: JobState | None = JobState.QUEUED
    refused_by: str | None = None


@dataclass(frozen=True, slots=True)
class EndJob:
    """A job ended; for a success the result, the receipt and its leaf are written in one transaction."""

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
    sealing_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check found of a result that was given out before."""

    job_id: bytes
    verification: Verification


@dataclass(frozen=True, slots=True)
class SaveStanding:
    """How far an agent with a variant, or an owner, is trusted; see `trust.Standing`."""

    name: str
    variant: bytes
    count: int
    failures: int
    unclear: int
    resting_until_ms: int


@dataclass(frozen=True, slots=True)
class AddEntry:
    """An entry of the ledger, before it has its number; see `wire.ledger`.

    Attributes:
        job_id: whose result it is for; None for what only moves escrow.
    """

    kind: Literal["result", "release", "forfeit"]
    debit: str
    credit: str
    amount: int
    at_ms: int
    job_id: bytes | None = None


Record = InsertJob | InsertAttempt | EndAttempt | EndJob | SaveAgent | Verified | SaveStanding | AddEntry


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
