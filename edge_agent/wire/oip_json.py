"""Messages of the Open Inference Protocol v2 over HTTP, for gateway, client and command line alike.

JSON, and the binary form behind it (`oip_binary`). Elements are read and written by `oip_elements`.

Source: https://github.com/open-inference/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from edge_agent.errors import InputError, MalformedError
from edge_agent.spelling import closest
from edge_agent.wire import strict_json
from edge_agent.wire.oip_binary import LENGTH_HEADER, SIZE, Tail, split
from edge_agent.wire.oip_elements import flat, pack, unpack
from edge_agent.wire.tensors import MAX_NAME_CHARACTERS, MAX_RANK, DataType, Tensor, TensorSpec

MAX_TENSORS = 64
MAX_PARAMETERS = 64
MAX_MEMBERS = 32
"""Of any other object: each unknown one is compared with those that are known."""
MAX_STRINGS = 2**18
"""Elements of a BYTES tensor: each of them is looked at."""
MAX_ID_CHARACTERS = 256

_REQUEST_KEYS = ("id", "parameters", "inputs", "outputs")
_RESPONSE_KEYS = ("model_name", "model_version", "id", "parameters", "outputs")
_TENSOR_KEYS = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT_KEYS = ("name", "parameters")
NOT_HERE = ("shared_memory_region", "classification")
"""Extensions of other servers that change what is asked for, so that they cannot be passed over."""


@dataclass(frozen=True, slots=True)
class OutputForm:
    """Which outputs a client wants as binary data: all or none, but for those that it says otherwise of."""

    binary: bool = False
    exceptions: frozenset[str] = frozenset()

    def is_binary(self, name: str) -> bool:
        """Whether this output is wanted as binary data."""
        return self.binary != (name in self.exceptions)


AS_JSON = OutputForm()


class Request(NamedTuple):
    """An inference request.

    Attributes:
        id: the client's own name for it, to be returned with the answer.
        inputs: in the order of the request.
        outputs: names of the wanted outputs; none means all.
        parameters: what the client gave, unread.
        form: of the outputs.
    """

    id: str | None
    inputs: list[Tensor]
    outputs: list[str]
    parameters: dict[str, Any]
    form: OutputForm = AS_JSON


class Response(NamedTuple):
    """An inference response.

    Attributes:
        id: the client's own name for the request.
        model_name: the family that was served.
        outputs: in the order of the response.
        parameters: what the server says of itself.
        model_version: which variant was served; empty if it is not said.
    """

    id: str | None
    model_name: str
    outputs: list[Tensor]
    parameters: dict[str, Any]
    model_version: str = ""


def request_from_body(body: bytes | bytearray, json_length: str | None) -> Request:
    """Read an inference request from the body of an HTTP request.

    Args:
        body: the whole body.
        json_length: the header `Inference-Header-Content-Length`, or None.

    Raises:
        InputError: it is not one; the message says where.
    """
    return request_from_json(*split(body, json_length))


def request_from_json(given: object, tail: Tail | None = None) -> Request:
    """Read an inference request from JSON text (str or bytes) or from what JSON was read into.

    Args:
        given: the text, or what it was read into.
        tail: the bytes behind it, if there are any.

    Raises:
        InputError: it is not one; the message says where.
    """
    return _request(_document(given), tail)


def response_from_json(given: object) -> Response:
    """Read an inference response from JSON text (str or bytes) or from what JSON was read into.

    Raises:
        InputError: it is not one; the message says where.
    """
    return _response(_document(given), None)


def response_from_body(body: bytes | bytearray, json_length: str | None) -> Response:
    """Read an inference response from the body of an HTTP response, as `request_from_body` does.

    Raises:
        InputError: it is not one; the message says where.
    """
    text, tail = split(body, json_length)
    return _response(_document(text), tail)


def body_of(
    message: dict[str, Any], where: str, tensors: Sequence[Tensor], form: OutputForm
) -> tuple[bytes, int | None]:
    """Return the body that says `message` with these tensors, and the length of its JSON text if there is more.

    Args:
        message: all of it but the tensors.
        where: the member that they belong to: `inputs` or `outputs`.
        tensors: in their order.
        form: which of them go behind the JSON text.

    Raises:
        InputError: a tensor that is to be JSON has no form there.
    """
    entries, tail = [], []
    for tensor in tensors:
        if form.is_binary(tensor.name):
            entries.append(_described(tensor.spec) | {"parameters": {SIZE: len(tensor.data)}})
            tail.append(tensor.data)
        else:
            entries.append(tensor_to_json(tensor))
    # NaN has no form in JSON: tensors with it were refused above, and nothing else here is a fraction.
    text = strict_json.written(message | {where: entries})
    return (b"".join((text, *tail)), len(text)) if tail else (text, None)


def tensor_from_json(given: object) -> Tensor:
    """Read one tensor, from text or objects: `name`, `shape`, `datatype`, and `data`, flat or nested.

    Raises:
        InputError: it is not one; the message names the tensor.
    """
    return _tensor(_document(given), "The tensor", None)


def tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    """Return the tensor as JSON holds it, with flat data.

    Raises:
        InputError: JSON has no form for it: BF16, NaN or infinity, or bytes that are not UTF-8 text.
    """
    return _described(tensor.spec) | {"data": unpack(tensor.spec, tensor.data)}


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "datatype": spec.datatype.value}


# -- reading -------------------------------------------------------------------------------------------------


def _document(given: object) -> object:
    return strict_json.read(given) if isinstance(given, str | bytes | bytearray) else given


def _request(given: object, tail: Tail | None) -> Request:
    body = _object(given, "The request", _REQUEST_KEYS)
    inputs = _tensors(body, "inputs", "The request", tail)
    if not inputs:
        raise InputError("The request has no inputs.")
    parameters = _parameters(body, "The request")
    all_binary = _flag(parameters, "binary_data_output", "The request", default=False)
    outputs: list[str] = []
    exceptions: list[str] = []
    if body.get("outputs") is not None:
        for number, item in enumerate(_list(body, "outputs", "The request")):
            where = f"outputs[{number}]"
            wanted = _object(item, where, _OUTPUT_KEYS)
            name = _text(wanted, "name", where)
            if len(name) > MAX_NAME_CHARACTERS:
                raise InputError(f"{where}: a name has at most {MAX_NAME_CHARACTERS} characters.")
            if _flag(_parameters(wanted, where), "binary_data", where, default=all_binary) != all_binary:
                exceptions.append(name)
            outputs.append(name)
    _refuse_twins("wanted output", outputs)
    return Request(_id(body), inputs, outputs, parameters, OutputForm(all_binary, frozenset(exceptions)))


def _response(given: object, tail: Tail | None) -> Response:
    body = _object(given, "The response", _RESPONSE_KEYS)
    outputs = _tensors(body, "outputs", "The response", tail)
    version = "" if body.get("model_version") is None else _text(body, "model_version", "The response")
    name = _text(body, "model_name", "The response")
    return Response(_id(body), name, outputs, _parameters(body, "The response"), version)


def _tensors(body: dict[str, Any], name: str, where: str, tail: Tail | None) -> list[Tensor]:
    found = [_tensor(item, f"{name}[{number}]", tail) for number, item in enumerate(_list(body, name, where))]
    if tail is not None:
        tail.end()
    _refuse_twins(name.removesuffix("s"), [tensor.name for tensor in found])
    return found


def _tensor(given: object, where: str, tail: Tail | None) -> Tensor:
    body = _object(given, where, _TENSOR_KEYS)
    name = _text(body, "name", where)
    where = f"The tensor {name[:80]!r}"
    parameters = _parameters(body, where)
    shape = body.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape[: MAX_RANK + 1]):
        raise InputError(f"{where} needs a shape: a list of whole numbers, none negative; [] for a scalar.")
    try:
        spec = TensorSpec(name, _datatype(body, where), tuple(shape))
        if spec.datatype is DataType.BYTES and spec.element_count > MAX_STRINGS:
            raise InputError(
                f"{where} has {spec.element_count} elements; at most {MAX_STRINGS} texts are taken at once."
            )
        if SIZE in parameters:
            return Tensor(spec, _binary(body, parameters, where, tail))
        data = flat(_list(body, "data", where, None), spec, where)
        if len(data) != spec.element_count:
            raise InputError(f"{where} has {len(data)} elements, but its shape {shape} needs {spec.element_count}.")
        return Tensor(spec, pack(spec.datatype, data, where))
    except MalformedError as error:
        raise InputError(error.message) from None


def _binary(body: dict[str, Any], parameters: dict[str, Any], where: str, tail: Tail | None) -> bytes:
    if tail is None:
        raise InputError(
            f"{where} is in the binary form, but the header {LENGTH_HEADER} is missing.",
            hint="It says where the JSON text ends; a proxy in between may have removed it.",
        )
    if body.get("data") is not None:
        raise InputError(f"{where} has both 'data' and {SIZE!r}: which of them counts?")
    return tail.take(parameters[SIZE], where)


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


# -- parts ---------------------------------------------------------------------------------------------------


def _object(given: object, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    """Return `given` if it is an object. Members that are not known are ignored, misspelt ones are not."""
    if not isinstance(given, dict):
        raise InputError(f"{where} must be a JSON object, not {_kind(given)}.")
    if len(given) > MAX_MEMBERS:
        raise InputError(f"{where} has {len(given)} members; at most {MAX_MEMBERS} are taken.")
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
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError("The id holds half of a surrogate pair, which is no text.") from None
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
    for name in NOT_HERE:
        if name in value:
            raise InputError(f"{where}: {name!r} is an extension of other servers that is not spoken here.")
    return value


def _flag(parameters: dict[str, Any], name: str, where: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise InputError(f"{where}: {name!r} must be true or false.")
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
