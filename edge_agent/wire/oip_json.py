"""Tensors as the Open Inference Protocol v2 writes them in JSON, for gateway, client and command line alike.

Strict where a silent reading would change a number: types must fit, integers must be in range, NaN and
infinity (which JSON does not have) and BF16 (which has no agreed form in JSON) are refused. Only the standard
library's `array` and `struct`: no numpy.

Source: https://github.com/open-inference/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from array import array
from itertools import chain
from typing import Any, NamedTuple, NoReturn

from edge_agent.errors import InputError, MalformedError
from edge_agent.spelling import closest
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings, unpack_strings

MAX_TENSORS = 64
MAX_PARAMETERS = 64
MAX_ID_CHARACTERS = 256

# `array` keeps numbers in the machine's own types; these have the protocol's sizes on every Linux.
_ARRAY_CODES = {
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
_FLOATS = frozenset({DataType.FP16, DataType.FP32, DataType.FP64})
_REQUEST_KEYS = ("id", "parameters", "inputs", "outputs")
_RESPONSE_KEYS = ("model_name", "model_version", "id", "parameters", "outputs")
_TENSOR_KEYS = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT_KEYS = ("name", "parameters")


class Request(NamedTuple):
    """An inference request.

    Attributes:
        id: the client's own name for it, to be returned with the answer.
        inputs: in the order of the request.
        outputs: names of the wanted outputs; none means all.
        parameters: what the client gave, unread.
    """

    id: str | None
    inputs: list[Tensor]
    outputs: list[str]
    parameters: dict[str, Any]


class Response(NamedTuple):
    """An inference response.

    Attributes:
        id: the client's own name for the request.
        model_name: the family that was served.
        outputs: in the order of the response.
        parameters: what the server says of itself.
    """

    id: str | None
    model_name: str
    outputs: list[Tensor]
    parameters: dict[str, Any]


def request_from_json(given: object) -> Request:
    """Read an inference request from JSON text (str or bytes) or from what JSON was read into.

    Raises:
        InputError: it is not one; the message says where.
    """
    body = _object(_document(given), "The request", _REQUEST_KEYS)
    inputs = [_tensor(item, f"inputs[{number}]") for number, item in enumerate(_list(body, "inputs", "The request"))]
    if not inputs:
        raise InputError("The request has no inputs.")
    _refuse_twins("input", [tensor.name for tensor in inputs])
    outputs: list[str] = []
    if "outputs" in body:
        for number, item in enumerate(_list(body, "outputs", "The request")):
            where = f"outputs[{number}]"
            wanted = _object(item, where, _OUTPUT_KEYS)
            _parameters(wanted, where)
            outputs.append(_text(wanted, "name", where))
    _refuse_twins("wanted output", outputs)
    return Request(_id(body), inputs, outputs, _parameters(body, "The request"))


def response_from_json(given: object) -> Response:
    """Read an inference response from JSON text (str or bytes) or from what JSON was read into.

    Raises:
        InputError: it is not one; the message says where.
    """
    body = _object(_document(given), "The response", _RESPONSE_KEYS)
    outputs = [
        _tensor(item, f"outputs[{number}]") for number, item in enumerate(_list(body, "outputs", "The response"))
    ]
    _refuse_twins("output", [tensor.name for tensor in outputs])
    return Response(_id(body), _text(body, "model_name", "The response"), outputs, _parameters(body, "The response"))


def tensor_from_json(given: object) -> Tensor:
    """Read one tensor, from text or objects: `name`, `shape`, `datatype`, and `data`, flat or nested.

    Raises:
        InputError: it is not one; the message names the tensor.
    """
    return _tensor(_document(given), "The tensor")


def tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    """Return the tensor as JSON holds it, with flat data.

    Raises:
        InputError: JSON has no form for it: BF16, NaN or infinity, or bytes that are not UTF-8 text.
    """
    spec = tensor.spec
    return {
        "name": spec.name,
        "shape": list(spec.shape),
        "datatype": spec.datatype.value,
        "data": _unpack(spec, tensor.data),
    }


# -- reading -------------------------------------------------------------------------------------------------


def _document(given: object) -> object:
    if not isinstance(given, str | bytes | bytearray):
        return given
    try:
        return json.loads(given, parse_constant=_no_constant)
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError("The JSON text is not UTF-8.") from None
    except RecursionError:
        raise InputError("The JSON text is nested too deep.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"The text is not JSON: {error.msg}, in line {error.lineno}, column {error.colno}.") from None
    except ValueError as error:  # an integer of more digits than Python reads
        raise InputError(f"The JSON text cannot be read: {error}.") from None


def _no_constant(name: str) -> NoReturn:
    raise InputError(f"{name} is not JSON: JSON has no NaN and no infinity.")


def _tensor(given: object, where: str) -> Tensor:
    body = _object(given, where, _TENSOR_KEYS)
    name = _text(body, "name", where)
    where = f"The tensor {name[:80]!r}"
    parameters = _parameters(body, where)
    if "binary_data_size" in parameters:
        raise InputError(f"{where} is in the binary form, which is not spoken here.", hint=_SEND_JSON)
    shape = body.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise InputError(f"{where} needs a shape: a list of whole numbers, none negative; [] for a scalar.")
    try:
        spec = TensorSpec(name, _datatype(body, where), tuple(shape))
        data = _flat(_list(body, "data", where, None), spec, where)
        if len(data) != spec.element_count:
            raise InputError(f"{where} has {len(data)} elements, but its shape {shape} needs {spec.element_count}.")
        return Tensor(spec, _pack(spec.datatype, data, where))
    except MalformedError as error:
        raise InputError(error.message) from None


def _datatype(body: dict[str, Any], where: str) -> DataType:
    text = _text(body, "datatype", where)
    try:
        return DataType(text)
    except ValueError:
        names = tuple(member.value for member in DataType)
        close = closest(text, names)
        raise InputError(
            f"{where} has the unknown datatype {text[:40]!r}.",
            hint=f"Did you mean {close}?" if close else f"There are {', '.join(names)}.",
        ) from None


def _flat(data: list[Any], spec: TensorSpec, where: str) -> list[Any]:
    """Return the elements of flat or nested data; nested data must have exactly the shape of `spec`."""
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


def _pack(datatype: DataType, data: list[Any], where: str) -> bytes:
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
        packed = _pack_floats(datatype, data) if is_float else _numbers(_ARRAY_CODES[datatype], data)
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
    numbers = array(_ARRAY_CODES[datatype], data)
    return _little(numbers) if _all_finite(numbers) else None


def _all_finite(numbers: array[Any]) -> bool:
    # A sum is not finite if a summand is not. The reverse is not true of FP64, so that is looked at closely.
    return math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))


def _numbers(code: str, data: list[Any]) -> bytes:
    return _little(array(code, data))


def _little(numbers: array[Any]) -> bytes:
    if sys.byteorder == "big":  # pragma: no cover - no such machine has an onnxruntime
        numbers.byteswap()
    return numbers.tobytes()


def _refuse_types(wrong: set[type], where: str, wanted: str) -> None:
    if not wrong:
        return
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", float: "a fraction"}
    said = sorted(names.get(kind, "null" if kind is type(None) else "a number") for kind in wrong)
    raise InputError(f"{where} takes {wanted} only, but its data holds {' and '.join(said)}.")


# -- writing -------------------------------------------------------------------------------------------------


def _unpack(spec: TensorSpec, data: bytes) -> list[Any]:
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
            numbers = array(_ARRAY_CODES[spec.datatype])
            numbers.frombytes(data)
            if sys.byteorder == "big":  # pragma: no cover - as above
                numbers.byteswap()
            values = numbers.tolist()
            finite = spec.datatype not in _FLOATS or _all_finite(numbers)
    if not finite:
        raise InputError(
            f"{where} holds NaN or infinity, for which JSON has no form.",
            hint="The model computed it; look at the input. The receipt is about these very bytes.",
        )
    return values


# -- parts ---------------------------------------------------------------------------------------------------

_SEND_JSON = "Send the tensors as JSON: with tritonclient, binary_data=False for every input and output."
_NOT_BF16 = "Use a variant of the model with FP32 inputs and outputs."


def _object(given: object, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    """Return `given` if it is an object. Members that are not known are ignored, misspelt ones are not."""
    if not isinstance(given, dict):
        raise InputError(f"{where} must be a JSON object, not {_kind(given)}.")
    for name in given:
        if name in known:
            continue
        close = closest(str(name), known)
        if close is not None and close not in given:
            raise InputError(f"{where} has the unknown member {str(name)[:40]!r}.", hint=f"Did you mean {close!r}?")
    return given


def _list(body: dict[str, Any], name: str, where: str, longest: int | None = MAX_TENSORS) -> list[Any]:
    value = body.get(name)
    if not isinstance(value, list):
        problem = "is missing" if name not in body else f"must be a list, not {_kind(value)}"
        raise InputError(f"{where}: {name!r} {problem}.")
    if longest is not None and len(value) > longest:
        raise InputError(f"{where}: {name!r} has {len(value)} entries; at most {longest} are taken.")
    return value


def _text(body: dict[str, Any], name: str, where: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        problem = "is missing" if name not in body else f"must be a string, not {_kind(value)}"
        raise InputError(f"{where}: {name!r} {problem}.")
    return value


def _id(body: dict[str, Any]) -> str | None:
    if body.get("id") is None:
        return None
    value = _text(body, "id", "The message")
    if len(value) > MAX_ID_CHARACTERS:
        raise InputError(f"The id has more than {MAX_ID_CHARACTERS} characters.")
    return value


def _parameters(body: dict[str, Any], where: str) -> dict[str, Any]:
    value = body.get("parameters")
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_PARAMETERS:
        raise InputError(f"{where}: 'parameters' must be an object with at most {MAX_PARAMETERS} members.")
    for name, item in value.items():
        if not isinstance(item, str | int | float):
            raise InputError(f"{where}: the parameter {name[:40]!r} must be a string, a number or true or false.")
    if value.get("binary_data") is True or value.get("binary_data_output") is True:
        raise InputError(f"{where} asks for the binary form, which is not spoken here.", hint=_SEND_JSON)
    return value


def _refuse_twins(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"The {what} {name[:80]!r} is given twice.")
        seen.add(name)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
