"""What is said on the wire: one frozen, strict model for each kind of signed statement.

Every statement has `kind`, `v`, `network` and `issued_ms`. Unknown fields are refused, every text, list
and number is bounded, and what a model accepts also fits its kind's `max_statement_bytes`. The same in
CDDL: docs/protocol.md.

Times are Unix milliseconds, durations end in their unit, digests are SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from edge_agent.wire import strict_cbor
from edge_agent.wire.keys import key_id
from edge_agent.wire.tensors import (
    MAX_ELEMENTS,
    MAX_NAME_CHARACTERS,
    MAX_RANK,
    PLAIN_TEXT_CLASS,
    DataType,
    Tensor,
    TensorSpec,
    digest,
)
from edge_agent.wire.topics import AGENT_ID_PATTERN, NETWORK_PATTERN

PROTOCOL_VERSION: Final = 1
MAX_STATEMENT_BYTES = 65_536
MAX_LONG_STATEMENT_BYTES = 262_144
MAX_RECEIPT_BYTES = 270_336
MAX_TENSORS = 64
MAX_OFFERS = 256
MAX_HELD = 1_024
MAX_SETTLED = 256
MAX_VERSIONS = 16
MAX_LABELS = 16
MAX_IN_FLIGHT = 1_024
MAX_INTEGER = 2**53 - 1  # what a JSON number, a SQLite and a PostgreSQL column all hold exactly

LABEL_PATTERN: Final = r"^[a-z0-9][a-z0-9._=-]{0,63}$"
"""Of the labels that an owner gives to an agent: `kitchen`, `region=eu`."""

Party: TypeAlias = Literal["agent", "coordinator"]

AgentId: TypeAlias = Annotated[str, StringConstraints(pattern=AGENT_ID_PATTERN)]
Network: TypeAlias = Annotated[str, StringConstraints(pattern=NETWORK_PATTERN)]
Family: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
ShortText: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,64}$")]
Label: TypeAlias = Annotated[str, StringConstraints(pattern=LABEL_PATTERN)]
Code: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
TensorName: TypeAlias = Annotated[
    str, StringConstraints(pattern=f"^{PLAIN_TEXT_CLASS}+$", max_length=MAX_NAME_CHARACTERS)
]
Explanation: TypeAlias = Annotated[str, StringConstraints(pattern=f"^{PLAIN_TEXT_CLASS}*$", max_length=500)]
Bytes16: TypeAlias = Annotated[bytes, Field(min_length=16, max_length=16)]
Bytes32: TypeAlias = Annotated[bytes, Field(min_length=32, max_length=32)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Positive: TypeAlias = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
Dimension: TypeAlias = Annotated[int, Field(ge=0, le=MAX_ELEMENTS)]
# CBOR has arrays only, so a list is as good as a tuple; the elements stay strict.
Shape: TypeAlias = Annotated[tuple[Dimension, ...], Field(max_length=MAX_RANK, strict=False)]
Versions: TypeAlias = Annotated[
    tuple[Annotated[int, Field(ge=1, le=65_535)], ...],
    Field(min_length=1, max_length=MAX_VERSIONS, strict=False),
]


def _datatype(value: object) -> object:
    # Text becomes the data type of that name; pydantic's own conversion would take a byte string too.
    if type(value) is not str:
        return value
    try:
        return DataType(value)
    except ValueError:
        raise ValueError("no such data type") from None  # without the peer's text


class Part(BaseModel):
    """A part of a statement: no statement by itself."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Statement(BaseModel):
    """What every statement says: its kind, the protocol's version, the network, and when it was made."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    signed_by: ClassVar[Party] = "agent"
    max_statement_bytes: ClassVar[int] = MAX_STATEMENT_BYTES

    kind: str
    # Not Literal[1], which also takes True and 1.0.
    v: Annotated[int, Field(ge=PROTOCOL_VERSION, le=PROTOCOL_VERSION)] = PROTOCOL_VERSION
    network: Network
    issued_ms: Count

    @property
    def attached(self) -> tuple[TensorDigest, ...]:
        """The tensors whose bytes travel beside the statement, in order."""
        return ()


class TensorDigest(Part):
    """A tensor by its digest. Digests of inputs are salted with the job's salt, those of outputs are not."""

    name: TensorName
    datatype: Annotated[DataType, BeforeValidator(_datatype)]
    shape: Shape
    digest: Bytes32

    @model_validator(mode="after")
    def _check_shape(self) -> TensorDigest:
        _ = self.spec
        return self

    @property
    def spec(self) -> TensorSpec:
        """The tensor's name, data type and shape."""
        return TensorSpec(self.name, self.datatype, self.shape)

    @classmethod
    def of(cls, tensor: Tensor, salt: bytes = b"") -> TensorDigest:
        """Return the digest of `tensor`."""
        spec = tensor.spec
        return cls(name=spec.name, datatype=spec.datatype, shape=spec.shape, digest=digest(tensor.data, salt))


class VariantClass(Part):
    """Machines of one class are expected to compute bit-identical outputs."""

    variant: Bytes32
    runtime: ShortText
    provider: ShortText
    isa: ShortText

    @property
    def id(self) -> str:
        """Name the class in 32 hexadecimal digits: the first half of the SHA-256 of its encoding."""
        return hashlib.sha256(strict_cbor.encode(self.model_dump())).hexdigest()[:32]


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
    """All that the agent serves now. Replaces earlier offers of the session."""

    max_statement_bytes: ClassVar[int] = MAX_LONG_STATEMENT_BYTES

    kind: Literal["offers"] = "offers"
    agent_id: AgentId
    session: Positive
    sequence: Count
    offers: Annotated[tuple[Offer, ...], Field(max_length=MAX_OFFERS, strict=False)]


class Progress(Statement):
    """I still work on these attempts: renews their leases."""

    kind: Literal["progress"] = "progress"
    agent_id: AgentId
    session: Positive
    held: Held


class Result(Statement):
    """I ran this variant on these inputs and got these outputs. The outputs' bytes travel beside it."""

    max_statement_bytes: ClassVar[int] = MAX_LONG_STATEMENT_BYTES

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
    """Run this variant on these inputs, and answer within the lease. The inputs' bytes travel beside it."""

    signed_by: ClassVar[Party] = "coordinator"
    max_statement_bytes: ClassVar[int] = MAX_LONG_STATEMENT_BYTES

    kind: Literal["job"] = "job"
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

    kind: Literal["receipt"] = "receipt"
    result: Annotated[bytes, Field(min_length=1, max_length=MAX_LONG_STATEMENT_BYTES + 256)]
    agent_key: Bytes32
    accepted_ms: Count


class TreeHead(Statement):
    """My log of receipts has so many leaves and this root (RFC 9162 hashing). Kept by clients and by who audits."""

    signed_by: ClassVar[Party] = "coordinator"
    max_statement_bytes: ClassVar[int] = 512

    kind: Literal["tree-head"] = "tree-head"
    size: Count
    root: Bytes32


ALL_STATEMENTS: tuple[type[Statement], ...] = (
    *(Birth, Gone, Offers, Progress, Result, Failure),  # by agents
    *(Hello, Job, Settled, Control, Receipt, TreeHead),  # by the coordinator
)


_Named = TypeVar("_Named", Offer, Result)


def _same_variant(statement: _Named) -> _Named:
    if statement.klass.variant != statement.variant:
        raise ValueError("klass names another variant")
    return statement
