"""Long lists of numbers in a JSON request, moved behind its text as binary data without a Python object for each.

Only what is beyond doubt is moved: texts in which anything is unusual or wrong are left to `oip_json`, which has the
last word and the words for it. simdjson reads the text, numpy gives the numbers the type that they are to have. Both
are big: imported only by the process that reads long requests.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import simdjson

from edge_agent.wire import strict_json
from edge_agent.wire.oip_binary import SIZE
from edge_agent.wire.oip_json import MAX_MEMBERS, MAX_TENSORS
from edge_agent.wire.tensors import MAX_RANK

_FORMS: dict[str, tuple[Literal["d", "i", "u"], str]] = {
    "FP64": ("d", "<f8"),
    "FP32": ("d", "<f4"),
    "FP16": ("d", "<f2"),
    "INT64": ("i", "<i8"),
    "INT32": ("i", "<i4"),
    "INT16": ("i", "<i2"),
    "INT8": ("i", "<i1"),
    "UINT64": ("u", "<u8"),
    "UINT32": ("i", "<u4"),
    "UINT16": ("i", "<u2"),
    "UINT8": ("i", "<u1"),
}
"""How simdjson gives the numbers of a data type (any number as a double, integers only), and what they become."""
_SCALARS = (str, int, float, bool, type(None))


class _UnusualError(Exception):
    """Something that is not read here."""


def in_binary_form(text: bytes) -> tuple[bytes, int] | None:
    """Return the body that says the same with its numbers as binary data, and the length of its JSON text.

    Args:
        text: a request of the Open Inference Protocol without binary data.

    Returns:
        None if the text must be read by `oip_json`. What is returned has not been checked but for its numbers.
    """
    try:
        document = simdjson.Parser().parse(text)
        message, tail, lists = _message(document)
    # simdjson has no error of its own: ValueError, RuntimeError, TypeError, UnicodeDecodeError, OverflowError.
    except (_UnusualError, ValueError, RuntimeError, TypeError, OverflowError):
        return None
    # simdjson flattens lists in lists: if the text has more of them than were seen, some were in the numbers.
    if np.count_nonzero(np.frombuffer(text, np.uint8) == ord("[")) != lists:
        return None
    written = strict_json.written(message)
    return b"".join((written, *tail)), len(written)


def _message(document: object) -> tuple[dict[str, Any], list[bytes], int]:
    """Return the message without its numbers, these, and how many lists there were in all."""
    tail: list[bytes] = []
    message = _members(document, whole={"inputs", "outputs"})
    inputs = message.get("inputs")
    if not isinstance(inputs, simdjson.Array) or len(inputs) > MAX_TENSORS:
        raise _UnusualError
    lists = 1
    entries = []
    for item in inputs:
        entry, data = _tensor(item)
        entries.append(entry)
        tail.append(data)
        lists += 2
    message["inputs"] = entries
    outputs = message.get("outputs")
    if outputs is not None:
        if not isinstance(outputs, simdjson.Array) or len(outputs) > MAX_TENSORS:
            raise _UnusualError
        message["outputs"] = [_members(item) for item in outputs]
        lists += 1
    return message, tail, lists


def _tensor(item: object) -> tuple[dict[str, Any], bytes]:
    entry = _members(item, whole={"shape", "data"})
    shape, data, parameters = entry.get("shape"), entry.pop("data", None), entry.get("parameters") or {}
    if not isinstance(shape, simdjson.Array) or len(shape) > MAX_RANK or not isinstance(data, simdjson.Array):
        raise _UnusualError
    sizes: list[Any] = shape.as_list()
    if not all(type(size) is int and size >= 0 for size in sizes) or len(data) != math.prod(sizes):
        raise _UnusualError
    if SIZE in parameters:
        raise _UnusualError
    packed = _packed(data, entry.get("datatype"))
    return {**entry, "shape": sizes, "parameters": {**parameters, SIZE: len(packed)}}, packed


def _packed(data: simdjson.Array, datatype: object) -> bytes:
    form = _FORMS.get(datatype) if isinstance(datatype, str) else None
    if form is None:
        raise _UnusualError
    kind, wanted = form
    numbers = np.frombuffer(data.as_buffer(of_type=kind), f"<{'f' if kind == 'd' else kind}8")
    if kind == "d":
        with np.errstate(over="ignore"):
            packed = numbers.astype(wanted)
        if not np.isfinite(packed).all():
            raise _UnusualError
    else:
        limits = np.iinfo(wanted)
        if numbers.size and not (limits.min <= int(numbers.min()) and int(numbers.max()) <= limits.max):
            raise _UnusualError
        packed = numbers.astype(wanted)
    return packed.tobytes()


def _members(given: object, whole: set[str] | None = None) -> dict[str, Any]:
    """Return an object's members: scalars, objects of scalars, and those of the names in `whole` as they are."""
    if not isinstance(given, simdjson.Object) or len(given) > MAX_MEMBERS:
        raise _UnusualError
    found: dict[str, Any] = {}
    for name in given.keys():  # noqa: SIM118 it is no dict: `items` would make Python objects of everything
        if name in found:  # Python's reader takes the last one
            raise _UnusualError
        value = given[name]
        if isinstance(value, simdjson.Object) and name == "parameters":
            found[name] = _members(value)
        elif isinstance(value, _SCALARS) or (whole and name in whole):
            found[name] = value
        else:
            raise _UnusualError
    return found
