"""What every signed statement has in common: its fields, their types and bounds, and the parts that several kinds hold.

Unknown fields are refused, every text, list and number is bounded. Times are Unix milliseconds, durations end in
their unit, digests are SHA-256.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from edge_agent.wire import cose, strict_cbor
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
WITH_TERMS: Final = 2
"""The version of statements that say whose jobs are taken, or whose one is; everything else stays of the first."""
PROTOCOL_VERSIONS: Final = (PROTOCOL_VERSION, WITH_TERMS)
"""That this end speaks."""
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
KEPT_TOGETHER: Final = 4
"""So many statements that are kept share a signature: with more, a client's receipt would be longer than 1.5 KB."""
MAX_INTEGER = 2**53 - 1  # what a JSON number, a SQLite and a PostgreSQL column all hold exactly

LABEL_PATTERN: Final = r"^[a-z0-9][a-z0-9._=-]{0,63}$"
"""Of the labels that an owner gives to an agent: `kitchen`, `region=eu`."""

_AS_THEY_ARE: Final = frozenset({str, bytes, int, bool, type(None)})

Party: TypeAlias = Literal["agent", "coordinator", "registrar"]

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


_DATATYPES: Final = {member.value: member for member in DataType}


def _datatype(value: object) -> object:
    # Text becomes the data type of that name; pydantic's own conversion would take a byte string too.
    if type(value) is not str:
        return value
    found = _DATATYPES.get(value)
    if found is None:
        raise ValueError("no such data type")  # without the peer's text
    return found


class Part(BaseModel):
    """A part of a statement: no statement by itself."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    def said(self) -> dict[str, Any]:
        """Return the fields as they are encoded, in that order."""
        return _said(self, _in_order(type(self)))


class Statement(BaseModel):
    """What every statement says: its kind, the protocol's version, the network, and when it was made."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    signed_by: ClassVar[Party] = "agent"
    max_statement_bytes: ClassVar[int] = MAX_STATEMENT_BYTES
    since_terms: ClassVar[tuple[str, ...]] = ()
    """Fields that there are in the version with terms, and only there."""
    together: ClassVar[int] = cose.MAX_TOGETHER
    """So many of these at most share a signature: the more, the longer the proof that each carries."""

    kind: str
    # Not Literal[1], which also takes True and 1.0.
    v: Annotated[int, Field(ge=PROTOCOL_VERSION, le=PROTOCOL_VERSION)] = PROTOCOL_VERSION
    network: Network
    issued_ms: Count

    @property
    def attached(self) -> tuple[TensorDigest, ...]:
        """The tensors whose bytes travel beside the statement, in order."""
        return ()

    def said(self) -> dict[str, Any]:
        """Return the fields as they are encoded, in that order."""
        return _said(self, _in_order(type(self), self.v))

    def encoded(self) -> bytes:
        """Return the one encoding of the statement."""
        return strict_cbor.encode_ordered(self.said())


def _said(part: Part | Statement, names: tuple[str, ...]) -> dict[str, Any]:
    # Not `model_dump`, and no second look at types: what was validated has them, and a job takes several of these.
    values = part.__dict__
    return {name: value if type(value := values[name]) in _AS_THEY_ARE else _say(value) for name in names}


def _say(value: object) -> strict_cbor.Value:
    if type(value) is DataType:
        return value.value
    if type(value) is tuple:
        return [each if type(each) in _AS_THEY_ARE else _say(each) for each in value]
    if Part in type(value).__mro__:  # `isinstance` takes long with pydantic's classes
        return cast("Part", value).said()
    raise TypeError(f"{type(value).__name__} has no place in a statement.")


@cache
def _in_order(kind: type[Part | Statement], version: int = WITH_TERMS) -> tuple[str, ...]:
    """Return the names of the fields that a version has, in the order of their encoding."""
    later = kind.since_terms if issubclass(kind, Statement) and version < WITH_TERMS else ()
    return strict_cbor.text_order(tuple(name for name in kind.model_fields if name not in later))


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
        return _spec(self.name, self.datatype, self.shape)

    @classmethod
    def of(cls, tensor: Tensor, salt: bytes = b"") -> TensorDigest:
        """Return the digest of `tensor`."""
        spec = tensor.spec
        return cls(name=spec.name, datatype=spec.datatype, shape=spec.shape, digest=digest(tensor.data, salt))


@lru_cache(maxsize=1024)
def _spec(name: str, datatype: DataType, shape: tuple[int, ...]) -> TensorSpec:
    """Make a spec; a network's models have few, and each job and each result names some."""
    return TensorSpec(name, datatype, shape)


class VariantClass(Part):
    """Machines of one class are expected to compute bit-identical outputs."""

    variant: Bytes32
    runtime: ShortText
    provider: ShortText
    isa: ShortText

    @property
    def id(self) -> str:
        """Name the class in 32 hexadecimal digits: the first half of the SHA-256 of its encoding."""
        return _class_id(self)


@lru_cache(maxsize=1024)
def _class_id(klass: VariantClass) -> str:
    """Name a class; there are few of them, and each offer and result has one."""
    return hashlib.sha256(strict_cbor.encode_ordered(klass.said())).hexdigest()[:32]
