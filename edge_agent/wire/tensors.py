"""Tensors as the protocol carries them: a name, a data type, a shape, and raw bytes.

Elements are little-endian and in row-major order, as the Open Inference Protocol's binary form has them.
Elements of the type BYTES (text or bytes of any length) are each preceded by their length as four bytes,
little-endian. Nothing here looks inside numbers, so NaN payloads, infinities and negative zeros pass
untouched. No numpy: the agent's daemon handles tensors only as bytes.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import sys
from array import array
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from edge_agent.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_NAME_CHARACTERS = 256
MAX_RANK = 32
MAX_ELEMENTS = 2**40
DIGEST_BYTES = 32

# Text that people will see in logs and terminals: no control characters, line separators or direction
# overrides. Understood in the same way by Python's `re` and by pydantic's regular expressions.
PLAIN_TEXT_CLASS = "[^\\u0000-\\u001f\\u007f-\\u009f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]"
_NAME = re.compile(f"{PLAIN_TEXT_CLASS}{{1,{MAX_NAME_CHARACTERS}}}\\Z")
_LENGTH = struct.Struct("<I")


class DataType(StrEnum):
    """An element type, by its name in the Open Inference Protocol."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def item_bytes(self) -> int | None:
        """Bytes of one element; None for BYTES, whose elements have lengths of their own."""
        return _ITEM_BYTES[self]

    @property
    def onnx(self) -> str:
        """The type as onnxruntime writes it, for example `tensor(float)`."""
        return _TO_ONNX[self]

    @classmethod
    def from_onnx(cls, onnx_type: str) -> DataType:
        """Return the data type of onnxruntime's `tensor(float)` and the like.

        Raises:
            ValueError: the protocol has no such type.
        """
        try:
            return _FROM_ONNX[onnx_type]
        except KeyError:
            known = ", ".join(_FROM_ONNX)
            raise ValueError(f"The protocol carries no {onnx_type!r}, only {known}.") from None


_ITEM_BYTES: dict[DataType, int | None] = {
    DataType.BOOL: 1,
    DataType.UINT8: 1,
    DataType.UINT16: 2,
    DataType.UINT32: 4,
    DataType.UINT64: 8,
    DataType.INT8: 1,
    DataType.INT16: 2,
    DataType.INT32: 4,
    DataType.INT64: 8,
    DataType.FP16: 2,
    DataType.BF16: 2,
    DataType.FP32: 4,
    DataType.FP64: 8,
    DataType.BYTES: None,
}
_ONNX_NAMES = {"FP16": "float16", "BF16": "bfloat16", "FP32": "float", "FP64": "double", "BYTES": "string"}
_TO_ONNX = {member: f"tensor({_ONNX_NAMES.get(member.value, member.value.lower())})" for member in DataType}
_FROM_ONNX = {onnx_type: member for member, onnx_type in _TO_ONNX.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor is called and how its bytes are to be read.

    Attributes:
        element_count: the number of elements: 1 for a scalar, 0 if any dimension is 0.
        byte_count: the bytes of the whole tensor; None for BYTES.

    Raises:
        MalformedError: a name of 0 or more than 256 characters or with control characters, more than 32
            dimensions, a negative dimension, or more than 2**40 elements (dimensions of 0 not counted).
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    element_count: int = field(init=False, repr=False, compare=False)
    byte_count: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise MalformedError(
                f"A tensor's name has 1 to {MAX_NAME_CHARACTERS} characters and no control character: "
                f"{self.name[:80]!r}."
            )
        if len(self.shape) > MAX_RANK:
            raise MalformedError(f"The tensor {self.name!r} has more than {MAX_RANK} dimensions.")
        # Dimensions of 0 count as 1 here, so that the limit bounds every number computed from a shape.
        product = 1
        for size in self.shape:
            if size < 0:
                raise MalformedError(f"The tensor {self.name!r} has a negative dimension.")
            product *= size or 1
            if product > MAX_ELEMENTS:
                raise MalformedError(f"The tensor {self.name!r} has more than 2**40 elements.")
        # Worked out once: each tensor is compared with it several times.
        elements, item_bytes = math.prod(self.shape), self.datatype.item_bytes
        object.__setattr__(self, "element_count", elements)
        object.__setattr__(self, "byte_count", None if item_bytes is None else item_bytes * elements)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor with its bytes.

    Raises:
        MalformedError: the bytes are not as long as the shape says; a BOOL is neither 0 nor 1; the elements
            of a BYTES tensor do not fill its bytes exactly.
    """

    spec: TensorSpec
    data: bytes

    def __post_init__(self) -> None:
        check_length(self.spec, self.data)

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.spec.name


def check_length(spec: TensorSpec, data: bytes | memoryview) -> None:
    """Return if `data` can be the bytes of a tensor like `spec`.

    Raises:
        MalformedError: it cannot.
    """
    expected = spec.byte_count
    if expected is None:
        for _ in _elements(data, spec.element_count):
            pass
    elif len(data) != expected:
        raise MalformedError(
            f"The tensor {spec.name!r} ({spec.datatype.value}, shape {list(spec.shape)}) needs "
            f"{expected} bytes, not {len(data)}."
        )
    elif spec.datatype is DataType.BOOL and bytes(data).strip(b"\x00\x01"):
        # Any other byte is undefined behaviour in C++ and would make equal tensors differ.
        raise MalformedError(f"The tensor {spec.name!r} holds a BOOL that is neither 0 nor 1.")


def digest(data: bytes | memoryview, salt: bytes = b"") -> bytes:
    """Return the 32 bytes of SHA-256 over `salt` and then `data`.

    The salt keeps those who see only the digest from finding a small input by trying all of them.
    """
    state = hashlib.sha256(salt)
    state.update(data)
    return state.digest()


ARRAY_CODES = {
    DataType.UINT8: "B",
    DataType.UINT16: "H",
    DataType.UINT32: "I",
    DataType.UINT64: "Q",
    DataType.INT8: "b",
    DataType.INT16: "h",
    DataType.INT32: "i",
    DataType.INT64: "q",
    DataType.FP32: "f",
    DataType.FP64: "d",
}
"""The type codes of `array` for the data types that it has."""


def numbers_of(code: str, data: bytes | memoryview) -> array[Any]:
    """Return little-endian elements as an `array` of a type code."""
    return _swapped(array(code, bytes(data)))


def little_endian(numbers: array[Any]) -> bytes:
    """Return the elements of an `array`, which may be of no use any more, as bytes."""
    return _swapped(numbers).tobytes()


def _swapped(numbers: array[Any]) -> array[Any]:
    if sys.byteorder == "big":  # pragma: no cover - onnxruntime has no wheel for such a machine; a client may be one
        numbers.byteswap()
    return numbers


def pack_strings(items: Iterable[bytes]) -> bytes:
    """Return the bytes of a BYTES tensor with these elements.

    Raises:
        ValueError: an element of 4 GiB or more.
    """
    parts = []
    for item in items:
        if len(item) > 0xFFFFFFFF:
            raise ValueError("An element of a BYTES tensor must be shorter than 4 GiB.")
        parts.append(_LENGTH.pack(len(item)))
        parts.append(item)
    return b"".join(parts)


def unpack_strings(data: bytes | memoryview, count: int) -> list[bytes]:
    """Return the `count` elements of a BYTES tensor.

    Raises:
        MalformedError: the bytes hold more, fewer or cut elements.
    """
    return [bytes(data[start:end]) for start, end in _elements(data, count)]


def _elements(data: bytes | memoryview, count: int) -> Iterator[tuple[int, int]]:
    size = len(data)
    if count * _LENGTH.size > size:
        raise MalformedError(f"{size} bytes cannot hold {count} elements of a BYTES tensor.")
    at = 0
    for _ in range(count):
        if at + _LENGTH.size > size:
            raise MalformedError("A BYTES tensor ends inside the length of an element.")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > size - at:
            raise MalformedError("An element of a BYTES tensor reaches past its end.")
        yield at, at + length
        at += length
    if at != size:
        raise MalformedError(f"{size - at} bytes follow the last element of a BYTES tensor.")
