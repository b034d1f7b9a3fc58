"""The elements of tensors as the Open Inference Protocol v2 writes them in JSON, and the same as bytes.

Strict where a silent reading would change a number: types must fit, integers must be in range, NaN and
infinity (which JSON does not have) and BF16 (which has no agreed form in JSON) are refused. Only the standard
library's `array` and `struct`: no numpy.

Source: https://github.com/open-inference/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

import math
import struct
from array import array
from itertools import chain
from typing import Any

from edge_agent.errors import InputError
from edge_agent.wire.tensors import (
    ARRAY_CODES,
    DataType,
    TensorSpec,
    little_endian,
    numbers_of,
    pack_strings,
    unpack_strings,
)

_FLOATS = frozenset({DataType.FP16, DataType.FP32, DataType.FP64})
_NOT_BF16 = "Send it in the binary form, or use a variant of the model with FP32 inputs and outputs."


def flat(data: list[Any], spec: TensorSpec, where: str) -> list[Any]:
    """Return the elements of flat or nested data.

    Raises:
        InputError: nested data has not exactly the shape of `spec`.
    """
    if not data or type(data[0]) is not list:
        return data
    for depth, size in enumerate(spec.shape):
        if depth:
            if not all(type(row) is list for row in data):
                raise InputError(f"{where} mixes lists and elements in its data.")
            if not all(len(row) == size for row in data):
                raise InputError(f"{where} has nested data of another shape than {list(spec.shape)}.")
            data = list(chain.from_iterable(data))
        elif len(data) != size:
            raise InputError(f"{where} has nested data of another shape than {list(spec.shape)}.")
    if data and type(data[0]) is list:
        raise InputError(f"{where} has data that is nested deeper than its shape {list(spec.shape)}.")
    return data


def pack(datatype: DataType, data: list[Any], where: str) -> bytes:
    """Return the bytes of elements that were read from JSON.

    Args:
        datatype: of the tensor.
        data: flat.
        where: which tensor it is, for the error.

    Raises:
        InputError: an element is of another type or out of range, or JSON has no form for the data type.
    """
    types = set(map(type, data))
    match datatype:
        case DataType.BOOL:
            _refuse_types(types - {bool}, where, "true and false")
            return bytes(data)
        case DataType.BYTES:
            _refuse_types(types - {str}, where, "strings")
            try:
                return pack_strings([text.encode() for text in data])
            except UnicodeEncodeError:
                raise InputError(f"{where} holds half of a surrogate pair, which is no text.") from None
        case DataType.BF16:
            raise InputError(f"{where} is BF16, for which JSON has no agreed form.", hint=_NOT_BF16)
    is_float = datatype in _FLOATS
    _refuse_types(types - ({int, float} if is_float else {int}), where, "numbers" if is_float else "integers")
    try:
        packed = _pack_floats(datatype, data) if is_float else little_endian(array(ARRAY_CODES[datatype], data))
    except OverflowError:
        packed = None
    if packed is None:
        raise InputError(f"{where} holds a number that is out of the range of {datatype.value}.")
    return packed


def _pack_floats(datatype: DataType, data: list[Any]) -> bytes | None:
    """Return the bytes, or None where a number became infinite; integers of any size overflow."""
    if datatype is DataType.FP16:
        packed = struct.pack(f"<{len(data)}e", *map(float, data))  # overflows, but lets infinity pass
        return packed if all(map(math.isfinite, data)) else None
    numbers = array(ARRAY_CODES[datatype], data)
    packed = little_endian(numbers)
    return packed if _all_finite(packed, numbers) else None


def _all_finite(packed: bytes, numbers: array[Any]) -> bool:
    # NaN and infinity begin with the bits of 0x7f or 0xff; so do numbers above 1e38, and then all are looked at. To
    # find a byte takes a tenth of the time that it takes to add numbers up.
    first = packed[numbers.itemsize - 1 :: numbers.itemsize]
    return not (b"\x7f" in first or b"\xff" in first) or all(map(math.isfinite, numbers))


def _refuse_types(wrong: set[type], where: str, wanted: str) -> None:
    if not wrong:
        return
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", float: "a fraction"}
    said = sorted(names.get(kind, "null" if kind is type(None) else "a number") for kind in wrong)
    raise InputError(f"{where} takes {wanted} only, but its data holds {' and '.join(said)}.")


def unpack(spec: TensorSpec, data: bytes) -> list[Any]:
    """Return the elements of a tensor as JSON holds them, flat.

    Raises:
        InputError: JSON has no form for them: BF16, NaN or infinity, or bytes that are not UTF-8 text.
    """
    where = f"The tensor {spec.name!r}"
    match spec.datatype:
        case DataType.BOOL:
            return list(map(bool, data))
        case DataType.BYTES:
            try:
                return [item.decode() for item in unpack_strings(data, spec.element_count)]
            except UnicodeDecodeError:
                raise InputError(f"{where} holds bytes that are not UTF-8 text; JSON has only text.") from None
        case DataType.BF16:
            raise InputError(f"{where} is BF16, for which JSON has no agreed form.", hint=_NOT_BF16)
        case DataType.FP16:
            values = list(struct.unpack(f"<{spec.element_count}e", data))
            finite = all(map(math.isfinite, values))
        case _:
            numbers = numbers_of(ARRAY_CODES[spec.datatype], data)
            values = numbers.tolist()
            finite = spec.datatype not in _FLOATS or _all_finite(data, numbers)
    if not finite:
        raise InputError(
            f"{where} holds NaN or infinity, for which JSON has no form.",
            hint="The model computed it: look at the input, or ask for the binary form, which holds any number.",
        )
    return values
