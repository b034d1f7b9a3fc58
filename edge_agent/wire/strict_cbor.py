"""CBOR with exactly one encoding for every value (RFC 8949, section 4.2.1), and nothing more.

The values are: integers from -2**63 to 2**64-1, finite floats (always eight bytes), byte strings, text,
booleans, `None`, arrays, and maps whose keys are text or integers in ascending order of their encoded
bytes. Everything else that CBOR can say is refused: tags, indefinite lengths, lengths or integers longer
than they need to be, short floats, NaN and infinities, `undefined`, duplicate or unsorted keys, bytes
after the end.

Two judges read bytes from a peer, and say the same. What is short is built by `cbor2`, which refuses all tags, and
encoded again: a value of the types above, its keys in order, has one encoding, so bytes that are equal to it are that.
Whatever does not pass there, and all that is long, is walked in Python without building anything, so that a message of
nine bytes that announces an array of 2**60 elements costs nothing; the walk alone says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NoReturn, TypeAlias

import cbor2

from edge_agent.errors import MalformedError, TooLargeError
from edge_agent.wire.cbor_items import DEFAULT_MAX_DEPTH, DEFAULT_MAX_ITEMS, item_end

Value: TypeAlias = int | float | bytes | str | bool | list[Any] | dict[Any, Any] | None

MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1
QUICK_BYTES: Final = 16_384
"""Longer bytes are walked before anything is built of them: small items take far more memory than bytes."""
_REMEMBERED_KEYS: Final = 64  # of a map: the order of so many is worked out once
_UNSURE: Final = object()


def encode(value: object) -> bytes:
    """Return the one encoding of `value`.

    Raises:
        TypeError: a type outside the list above.
        ValueError: a number outside its range, or text that is not Unicode (lone surrogates).
    """
    return cbor2.dumps(_plain(value))


def encode_ordered(value: Value) -> bytes:
    """Return the encoding of a value of our types, its maps in `text_order`: that they are is not looked at."""
    return cbor2.dumps(value)


def decode(
    data: bytes | bytearray | memoryview,
    *,
    max_bytes: int,
    max_depth: int = DEFAULT_MAX_DEPTH,
    max_items: int = DEFAULT_MAX_ITEMS,
) -> Value:
    """Return the value of `data`, which must be one data item in its one encoding and nothing after it.

    Args:
        data: the bytes as they came.
        max_bytes: the longest input that is looked at.
        max_depth: how many arrays and maps may be nested.
        max_items: how many data items, keys included, there may be in all.

    Raises:
        TooLargeError: one of the limits is exceeded.
        MalformedError: the bytes are anything else than such an encoding.
    """
    if len(data) > max_bytes:
        raise TooLargeError(f"A CBOR item of {len(data)} bytes is longer than the limit of {max_bytes} bytes.")
    data = bytes(data)
    if len(data) <= QUICK_BYTES and (quick := _quickly(data, max_depth, max_items)) is not _UNSURE:
        return quick  # type: ignore[return-value]
    return _slowly(data, max_depth, max_items)


def _slowly(data: bytes, max_depth: int, max_items: int) -> Value:
    """Walk and then build: the judge of all that is refused, and of all that is long.

    Raises:
        PeerError: as `decode`.
    """
    end = item_end(data, 0, max_depth=max_depth, max_items=max_items)
    if end != len(data):
        raise MalformedError(f"{len(data) - end} bytes follow the end of the CBOR item.")
    try:
        value: Value = cbor2.loads(data, max_depth=max_depth + 1, allow_indefinite=False)
    except (cbor2.CBORError, ValueError) as error:
        # What is left for cbor2 to find is text that is not UTF-8.
        raise MalformedError(f"The CBOR item cannot be decoded: {error}.") from error
    return value


class _NoTags(dict[int, Any]):
    """Refuses every tag before `cbor2` does anything about it: shared values and strings could be made huge by it."""

    def __missing__(self, tag: int) -> NoReturn:
        raise ValueError(f"the tag {tag}")


_NO_TAGS: Final = _NoTags()
_LEAVES: Final = frozenset({str, bytes, bool, type(None)})


def _quickly(data: bytes, max_depth: int, max_items: int) -> object:
    """Return the value of bytes that are beyond doubt one item in its one encoding, else `_UNSURE`."""
    try:
        value: object = cbor2.loads(data, max_depth=max_depth + 1, allow_indefinite=False, semantic_decoders=_NO_TAGS)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError):
        return _UNSURE
    if _is_plain(value, max_depth, max_items) and cbor2.dumps(value) == data:
        return value
    return _UNSURE


def _is_plain(value: object, max_depth: int, max_items: int) -> bool:
    """Whether a value is made of our types, its text keys in order, within these limits: level by level."""
    level: list[Any] = [value]
    left = max_items
    for depth in range(max_depth + 1):
        left -= len(level)
        inner: list[Any] = []
        for item in [item for item in level if type(item) not in _LEAVES]:
            kind = type(item)
            if kind is int and MIN_INTEGER <= item <= MAX_INTEGER:
                continue
            if kind is float and math.isfinite(item):
                continue
            if depth == max_depth:
                return False
            if kind is list:
                inner += item
            elif kind is dict and _has_order(item):
                left -= len(item)
                inner += item.values()
            else:
                return False
        if not inner or left < 0:
            break
        level = inner
    return left >= 0


def _has_order(entries: dict[Any, Any]) -> bool:
    keys = tuple(entries)
    return _order_of(keys) == keys


def text_order(keys: Iterable[str]) -> tuple[str, ...]:
    """Return text keys in the order of their encoded bytes, which is that of their length first."""
    return tuple(sorted(keys, key=_length_first))


def _order_of(keys: tuple[Any, ...]) -> tuple[str, ...] | None:
    """Return keys in their order; None where one of them is not text."""
    return _remembered_order(keys) if len(keys) <= _REMEMBERED_KEYS else _text_order(keys)


def _text_order(keys: tuple[Any, ...]) -> tuple[str, ...] | None:
    return text_order(keys) if all(type(key) is str for key in keys) else None


_remembered_order = lru_cache(maxsize=256)(_text_order)


def _length_first(key: str) -> tuple[int, bytes]:
    encoded = key.encode()
    return len(encoded), encoded


def _plain(value: object) -> Value:  # noqa: PLR0911, C901 - one branch a type reads best as one list
    """Return `value` with map keys in order and subclasses (enums) taken down to the plain types."""
    kind = type(value)
    if kind in _LEAVES:
        return value  # type: ignore[return-value]
    if kind is int and MIN_INTEGER <= value <= MAX_INTEGER:  # type: ignore[operator]
        return value  # type: ignore[return-value]
    if isinstance(value, int):
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise ValueError(f"The integer {value} does not fit into 64 bits.")
        return int(value)
    if isinstance(value, dict):
        return _plain_map(value)
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("NaN and infinities have no place in a statement; tensors carry them as raw bytes.")
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{kind.__name__} has no place in the protocol's CBOR.")


def _plain_map(value: dict[Any, Any]) -> dict[Any, Value]:
    order = _order_of(tuple(value))
    if order is not None:
        return {key: element if type(element := value[key]) in _LEAVES else _plain(element) for key in order}
    return dict(sorted(((_key(key), _plain(element)) for key, element in value.items()), key=_encoded_key))


def _key(key: object) -> int | str:
    if isinstance(key, bool) or not isinstance(key, (int, str)):
        raise TypeError(f"A map key must be text or an integer, not {type(key).__name__}.")
    return _plain(key)  # type: ignore[return-value]


def _encoded_key(entry: tuple[int | str, object]) -> bytes:
    # Not cbor2's canonical=True: that is the older order of RFC 7049, shorter keys first, which differs for integers.
    return cbor2.dumps(entry[0])
