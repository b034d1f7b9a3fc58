"""What agents and coordinators say about presence and jobs: one frozen, strict model for each kind of statement.

What all of them have in common is in `statements`, what is said about identities in `identity`. What a model accepts
also fits its kind's `max_statement_bytes`. The same in CDDL: docs/protocol.md.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import Field, StringConstraints, model_validator

from edge_agent.wire.identity import SignedBytes
from edge_agent.wire.keys import key_id
from edge_agent.wire.statements import (
    KEPT_TOGETHER,
    LABEL_PATTERN,
    MAX_HELD,
    MAX_IN_FLIGHT,
    MAX_INTEGER,
    MAX_LABELS,
    MAX_LONG_STATEMENT_BYTES,
    MAX_OFFERS,
    MAX_RECEIPT_BYTES,
    MAX_SETTLED,
    MAX_STATEMENT_BYTES,
    MAX_TENSORS,
    MAX_VERSIONS,
    PROTOCOL_VERSION,
    PROTOCOL_VERSIONS,
    WITH_TERMS,
    AgentId,
    Bytes16,
    Bytes32,
    Code,
    Count,
    Dimension,
    Explanation,
    Family,
    Label,
    Network,
    Part,
    Party,
    Positive,
    Shape,
    ShortText,
    Statement,
    TensorDigest,
    TensorName,
    VariantClass,
    Versions,
)
from edge_agent.wire.tensors import PLAIN_TEXT_CLASS
from edge_agent.wire.terms import ClientName, JobLabels, Terms

__all__ = [
    "KEPT_TOGETHER",
    "LABEL_PATTERN",
    "MAX_HELD",
    "MAX_INTEGER",
    "MAX_IN_FLIGHT",
    "MAX_LABELS",
    "MAX_LONG_STATEMENT_BYTES",
    "MAX_OFFERS",
    "MAX_RECEIPT_BYTES",
    "MAX_SETTLED",
    "MAX_STATEMENT_BYTES",
    "MAX_TENSORS",
    "MAX_VERSIONS",
    "PROTOCOL_VERSION",
    "PROTOCOL_VERSIONS",
    "WITH_TERMS",
    "AgentId",
    "Bytes16",
    "Bytes32",
    "Code",
    "Count",
    "Dimension",
    "Explanation",
    "Family",
    "Label",
    "Network",
    "Part",
    "Party",
    "Positive",
    "Shape",
    "ShortText",
    "Statement",
    "TensorDigest",
    "TensorName",
    "VariantClass",
    "Versions",
]


class Machine(Part):
    """What an agent says about its machine, its owner's labels too: for people and scheduling, never for trust."""

    isa: ShortText
    board: Annotated[str, StringConstraints(pattern=f"^{PLAIN_TEXT_CLASS}+$", max_length=128)] | None
    cpus: Annotated[int, Field(ge=1, le=65_536)]
    memory_mib: Positive
    labels: Annotated[tuple[Label, ...], Field(max_length=MAX_LABELS, strict=False)]


class HeldAttempt(Part):
    """An attempt that the agent holds: queued, running, or finished and not yet settled."""

    job: Bytes16
    epoch: Positive


class SettledAttempt(Part):
    """An attempt that needs no further delivery, and what became of it."""

    job: Bytes16
    epoch: Positive
    outcome: Literal["accepted", "refused", "unknown"]
    code: Code | None


Held: TypeAlias = Annotated[tuple[HeldAttempt, ...], Field(max_length=MAX_HELD, strict=False)]
_Version: TypeAlias = Annotated[int, Field(ge=PROTOCOL_VERSION, le=WITH_TERMS)]
Tensors: TypeAlias = Annotated[tuple[TensorDigest, ...], Field(max_length=MAX_TENSORS, strict=False)]


class Offer(Part):
    """I serve this variant of this family, this fast, so many at once.

    Attributes:
        loaded: whether it is in memory now; if not, the first job waits until it is.
    """

    family: Family
    variant: Bytes32
    variant_name: ShortText
    klass: VariantClass
    latency_us: Count
    max_in_flight: Annotated[int, Field(ge=1, le=MAX_IN_FLIGHT)]
    loaded: bool

    @model_validator(mode="after")
    def _check_variant(self) -> Offer:
        return _same_variant(self)


# -- what agents say -----------------------------------------------------------------------------------------


class Birth(Statement):
    """I am here (or stopped on purpose), with this key, and hold these attempts. Retained."""

    kind: Literal["birth"] = "birth"
    agent_id: AgentId
    public_key: Bytes32
    sealing_key: Bytes32 | None
    hybrid_key: Annotated[bytes, Field(min_length=1_216, max_length=1_216)] | None
    session: Positive
    state: Literal["online", "stopped"]
    coordinator_session: Positive | None
    held: Held
    versions: Versions
    software: ShortText
    machine: Machine

    @model_validator(mode="after")
    def _check_key(self) -> Birth:
        if key_id(self.public_key) != self.agent_id:
            raise ValueError("agent_id is not the id of public_key")
        return self


class Gone(Statement):
    """The session of this birth ended without a word. Published by the broker: the will."""

    kind: Literal["gone"] = "gone"
    agent_id: AgentId
    session: Positive


class Offers(Statement):
    """All that the agent serves now, and for whom. Replaces earlier offers of the session."""

    max_statement_bytes: ClassVar[int] = MAX_LONG_STATEMENT_BYTES
    since_terms: ClassVar[tuple[str, ...]] = ("terms",)

    kind: Literal["offers"] = "offers"
    v: _Version = PROTOCOL_VERSION
    agent_id: AgentId
    session: Positive
    sequence: Count
    offers: Annotated[tuple[Offer, ...], Field(max_length=MAX_OFFERS, strict=False)]
    terms: Terms | None = None

    @model_validator(mode="after")
    def _check_version(self) -> Offers:
        return _versioned(self)


class Progress(Statement):
    """I still work on these attempts: renews their leases."""

    kind: Literal["progress"] = "progress"
    agent_id: AgentId
    session: Positive
    held: Held


class Result(Statement):
    """I ran this variant on these inputs and got these outputs. The outputs' bytes travel beside it."""

    max_statement_bytes: ClassVar[int] = MAX_LONG_STATEMENT_BYTES
    together: ClassVar[int] = KEPT_TOGETHER

    kind: Literal["result"] = "result"
    job: Bytes16
    epoch: Positive
    agent_id: AgentId
    family: Family
    variant: Bytes32
    klass: VariantClass
    inputs: Tensors
    outputs: Tensors
    received_ms: Count
    finished_ms: Count
    run_us: Count

    @model_validator(mode="after")
    def _check_variant(self) -> Result:
        return _same_variant(self)

    @property
    def attached(self) -> tuple[TensorDigest, ...]:
        """The outputs."""
        return self.outputs


class Failure(Statement):
    """The attempt ended without a result, for this reason.

    `retry` says whether another attempt makes sense, and `retry_after_ms` how long to wait before this agent is
    given one: 0 where time changes nothing.
    """

    kind: Literal["failure"] = "failure"
    job: Bytes16
    epoch: Positive
    agent_id: AgentId
    code: Code
    message: Explanation
    blame: Literal["agent", "model", "requester"]
    retry: bool
    retry_after_ms: Count


# -- what the coordinator says -------------------------------------------------------------------------------


class Hello(Statement):
    """I coordinate this network, with this key. Retained."""

    signed_by: ClassVar[Party] = "coordinator"

    kind: Literal["hello"] = "hello"
    coordinator_key: Bytes32
    session: Positive
    software: ShortText
    versions: Versions


class Job(Statement):
    """Run this variant on these inputs, and answer within the lease. The inputs' bytes travel beside it.

    Attributes:
        client: whose job it is, if the agent's terms name that client.
        labels: those of its labels that the agent's terms name.
    """

    signed_by: ClassVar[Party] = "coordinator"
    max_statement_bytes: ClassVar[int] = MAX_LONG_STATEMENT_BYTES
    since_terms: ClassVar[tuple[str, ...]] = ("client", "labels")

    kind: Literal["job"] = "job"
    v: _Version = PROTOCOL_VERSION
    job: Bytes16
    epoch: Positive
    agent_id: AgentId
    session: Positive
    family: Family
    variant: Bytes32
    inputs: Tensors
    salt: Bytes32
    outputs: Annotated[tuple[TensorName, ...], Field(max_length=MAX_TENSORS, strict=False)]
    lease_ms: Positive
    max_output_bytes: Count
    client: ClientName | None = None
    labels: JobLabels = ()

    @model_validator(mode="after")
    def _check_version(self) -> Job:
        return _versioned(self)

    @property
    def attached(self) -> tuple[TensorDigest, ...]:
        """The inputs."""
        return self.inputs


class Settled(Statement):
    """These attempts need no further delivery."""

    signed_by: ClassVar[Party] = "coordinator"

    kind: Literal["settled"] = "settled"
    agent_id: AgentId
    settled: Annotated[tuple[SettledAttempt, ...], Field(max_length=MAX_SETTLED, strict=False)]


class Control(Statement):
    """Say your birth again, drop an attempt; or: you are not enrolled here, or there is no room for more agents."""

    signed_by: ClassVar[Party] = "coordinator"

    kind: Literal["control"] = "control"
    agent_id: AgentId
    command: Literal["rebirth", "cancel", "not-enrolled", "no-room"]
    job: Bytes16 | None
    epoch: Positive | None

    @model_validator(mode="after")
    def _check_attempt(self) -> Control:
        names_attempt = self.job is not None and self.epoch is not None
        if names_attempt != (self.command == "cancel") or (self.job is None) != (self.epoch is None):
            raise ValueError("job and epoch go with the command cancel, and only with it")
        return self


class Receipt(Statement):
    """I accepted this result, signed by this agent. Kept by clients and checked offline."""

    signed_by: ClassVar[Party] = "coordinator"
    max_statement_bytes: ClassVar[int] = MAX_RECEIPT_BYTES
    together: ClassVar[int] = KEPT_TOGETHER

    kind: Literal["receipt"] = "receipt"
    result: Annotated[bytes, Field(min_length=1, max_length=MAX_LONG_STATEMENT_BYTES + 384)]
    agent_key: Bytes32
    certificate: SignedBytes | None
    accepted_ms: Count


class TreeHead(Statement):
    """My log of receipts has so many leaves and this root (RFC 9162 hashing). Kept by clients and by who audits."""

    signed_by: ClassVar[Party] = "coordinator"
    max_statement_bytes: ClassVar[int] = 512

    kind: Literal["tree-head"] = "tree-head"
    size: Count
    root: Bytes32


_Named = TypeVar("_Named", Offer, Result)
_Versioned = TypeVar("_Versioned", Offers, Job)


def _versioned(statement: _Versioned) -> _Versioned:
    """Refuse the fields of one version in the other: a value has one encoding."""
    given = [name in statement.model_fields_set for name in statement.since_terms]
    if not (all(given) if statement.v == WITH_TERMS else not any(given)):
        raise ValueError(f"{' and '.join(statement.since_terms)} go with version {WITH_TERMS}, and only with it")
    return statement


def _same_variant(statement: _Named) -> _Named:
    if statement.klass.variant != statement.variant:
        raise ValueError("klass names another variant")
    return statement
