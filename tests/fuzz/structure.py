"""Mutations of values rather than bytes: what is made is well-formed, so that the checks behind the first are met."""

from __future__ import annotations

import json
import random
from typing import Any, Final

import cbor2
from target import Shape

ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 255, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.5, -0.0, 1e308),
    *("", "a", "a" * 65, "A" * 32, "ü", "\u202e", "\0", "0" * 32, "NaN", "FP32", "BYTES", "x" * 5000, b"", b"\0"),
    *(bytes(16), bytes(32), bytes(64), b"\xff" * 32, [], [[]], {}, {"": None}, [0] * 300, [{}] * 70),
)
DEEP: Final = 24


def reshaped(rng: random.Random, data: bytes, shape: Shape, skip: int) -> bytes | None:
    """Return a sample with one to three of its values changed; None if it is not in that form."""
    try:
        value = cbor2.loads(data[skip:]) if shape == "cbor" else json.loads(data[skip:])
    except (ValueError, RecursionError, cbor2.CBORDecodeError):
        return None
    for _ in range(rng.randrange(1, 4)):
        value = _changed(rng, value)
    try:
        if shape == "cbor":
            return data[:skip] + cbor2.dumps(value, canonical=rng.random() < 0.95)
        text = json.dumps(value, default=lambda item: item.decode("latin-1"))
        # The word is refused everywhere; the number that becomes the same thing is JSON.
        return data[:skip] + (text.replace("Infinity", "1e999") if rng.random() < 0.5 else text).encode()
    except (ValueError, OverflowError, RecursionError, cbor2.CBOREncodeError, TypeError):
        return None


def _changed(rng: random.Random, value: Any) -> Any:  # noqa: ANN401 any value
    """Go down into a value at random, and change what is there."""
    way: list[tuple[Any, Any]] = []
    here = value
    while isinstance(here, (dict, list)) and here and len(way) < DEEP and rng.random() < 0.85:
        key = rng.choice(list(here)) if isinstance(here, dict) else rng.randrange(len(here))
        way.append((here, key))
        here = here[key]
    if not way:
        return _other(rng, here)
    holder, key = way[-1]
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(("", "x", "kind", "data", *map(str, holder)))] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder[key:key] = [here] * rng.choice((1, 2, 17, 129))
        case 3:
            holder[key] = rng.choice(list(holder.values()) if isinstance(holder, dict) else holder)
        case _:
            holder[key] = _other(rng, here)
    return value


def _other(rng: random.Random, value: Any) -> Any:  # noqa: ANN401, PLR0911 any value; one line a type
    """Return another value, as a rule of the same type."""
    if rng.random() < 0.4:
        return rng.choice(ODD)
    match value:
        case bool():
            return not value
        case int():
            return value + rng.choice((-1, 1, -256, 2**32, -(2**32)))
        case float():
            return rng.choice((value + 1, -value, float("inf"), float("nan")))
        case str():
            at = rng.randrange(len(value) + 1)
            return value[:at] + rng.choice(("", "a", "é", "\n", "-", "0" * 200)) + value[at + rng.randrange(2) :]
        case bytes():
            at = rng.randrange(len(value) + 1)
            return value[:at] + rng.randbytes(rng.randrange(3)) + value[at + rng.randrange(3) :]
        case list():
            return value[: len(value) // 2] if rng.random() < 0.5 else value * 3
        case dict():
            return {**value, "more": 1}
    return rng.choice(ODD)
