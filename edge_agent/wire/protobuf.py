"""The encoding of Protocol Buffers, as far as the Open Inference Protocol over gRPC needs it: bounded reading, writing.

A general library would build millions of objects from a few megabytes of empty submessages before anybody could count
them. Here a caller says how many fields a message may have, and packed numbers stay bytes.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from edge_agent.errors import InputError

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5
MAX_FIELDS: Final = 1024
_MASK = (1 << 64) - 1


def fields(data: memoryview, where: str, most: int = MAX_FIELDS) -> Iterator[tuple[int, int, int | memoryview]]:
    """Give number, wire type and value of each field: a varint as it is, everything else as its bytes.

    Raises:
        InputError: the bytes are cut, hold a group, or more than `most` fields.
    """
    at = count = 0
    while at < len(data):
        count += 1
        if count > most:
            raise InputError(f"{where} has more than {most} fields")
        tag, at = _varint(data, at, where)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(data, at, where)
            yield number, kind, value
            continue
        if kind == LENGTH:
            size, at = _varint(data, at, where)
        elif kind in {FIXED64, FIXED32}:
            size = 8 if kind == FIXED64 else 4
        else:
            raise InputError(f"{where} holds a field of the wire type {kind}, which is none")
        if size > len(data) - at:
            raise InputError(f"{where} is cut")
        yield number, kind, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int, where: str) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
        shift += 7
    raise InputError(f"{where} is cut, or holds a number of more than 64 bits")


def varints(value: int | memoryview, where: str) -> list[int]:
    """Return the numbers of a repeated field, packed or a single one, unsigned."""
    if isinstance(value, int):
        return [value]
    found: list[int] = []
    number = shift = 0
    for byte in bytes(value):
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            found.append(number & _MASK)
            number = shift = 0
        else:
            shift += 7
            if shift > 63:
                raise InputError(f"{where} holds a number of more than 64 bits")
    if shift:
        raise InputError(f"{where} is cut")
    return found


def signed(number: int) -> int:
    """Return the signed number of 64 bits that a varint stands for."""
    return number - (1 << 64) if number >> 63 else number


def text(value: int | memoryview, where: str) -> str:
    """Return a string.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, int):
        raise InputError(f"{where} must be a string")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{where} is no UTF-8 text") from None


def content(value: int | memoryview, where: str) -> memoryview:
    """Return the bytes of a submessage.

    Raises:
        InputError: it is a number.
    """
    if isinstance(value, int):
        raise InputError(f"{where} must be a message")
    return value


# -- writing ----------------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Return a number, signed ones as their 64 bits."""
    number &= _MASK
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def field(number: int, value: str | bytes | bool | float) -> bytes:  # noqa: FBT001 a value is a value
    """Return a field, by the type of its value."""
    match value:
        case bool() | int():
            return varint(number << 3 | VARINT) + varint(int(value))
        case float():
            return varint(number << 3 | FIXED64) + struct.pack("<d", value)
        case str():
            value = value.encode()
    return varint(number << 3 | LENGTH) + varint(len(value)) + value


def packed(number: int, numbers: Iterable[int]) -> bytes:
    """Return a repeated field of numbers."""
    return field(number, b"".join(map(varint, numbers)))
