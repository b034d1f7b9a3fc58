"""Messages of the Open Inference Protocol over gRPC: the same requests and responses as `oip_json`, in other bytes.

Field numbers are those of https://github.com/open-inference/open-inference-protocol,
specification/protocol/open_inference_grpc.proto, and of Triton's extensions to it (stream, repository index).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from edge_agent.errors import InputError, MalformedError
from edge_agent.wire.oip_json import (
    MAX_ID_CHARACTERS,
    MAX_PARAMETERS,
    MAX_STRINGS,
    MAX_TENSORS,
    NOT_HERE,
    OutputForm,
    Request,
)
from edge_agent.wire.protobuf import content, field, fields, packed, signed, text, varints
from edge_agent.wire.tensors import MAX_RANK, DataType, Tensor, TensorSpec, little_endian

MAX_NUMBERS: Final = 2**20
"""In contents that are no bytes already: each of them is looked at. More travel in `raw_input_contents`."""

_CONTENTS: Final = {
    DataType.BOOL: (1, "B"),
    DataType.INT8: (2, "b"),
    DataType.INT16: (2, "h"),
    DataType.INT32: (2, "i"),
    DataType.INT64: (3, "q"),
    DataType.UINT8: (4, "B"),
    DataType.UINT16: (4, "H"),
    DataType.UINT32: (4, "I"),
    DataType.UINT64: (5, "Q"),
    DataType.FP32: (6, ""),
    DataType.FP64: (7, ""),
    DataType.BYTES: (8, ""),
}
"""Which field has the contents of a type, and in what form the numbers are kept; floats are bytes already."""


def model_named(message: bytes) -> tuple[str, str]:
    """Return name and version that a request about a model names.

    Raises:
        InputError: it is no message.
    """
    found = {number: text(value, "the request") for number, _, value in fields(memoryview(message), "the request")}
    return found.get(1, ""), found.get(2, "")


def infer_request(message: bytes) -> tuple[str, str, Request]:
    """Read a `ModelInferRequest`: the model's name and version, and the request.

    Raises:
        InputError: it is not one; the message says where.
    """
    names = {1: "", 2: "", 3: ""}
    parameters: dict[str, Any] = {}
    inputs: list[memoryview] = []
    outputs: list[str] = []
    raw: list[memoryview] = []
    for number, _, value in fields(memoryview(message), "the request", 4 * MAX_TENSORS + MAX_PARAMETERS):
        match number:
            case 1 | 2 | 3:
                names[number] = text(value, "the request")
            case 4:
                _parameter(content(value, "the request"), "the request", parameters)
            case 5:
                inputs.append(content(value, "the request"))
            case 6:
                outputs.append(_wanted(content(value, "the request"), f"outputs[{len(outputs)}]"))
            case 7:
                raw.append(content(value, "the request"))
    _check_counts(len(inputs), len(outputs), len(raw))
    if len(names[3]) > MAX_ID_CHARACTERS:
        raise InputError(f"the id has more than {MAX_ID_CHARACTERS} characters")
    tensors = [_tensor(one, f"inputs[{at}]", raw[at] if raw else None) for at, one in enumerate(inputs)]
    for what, given in (("input", [tensor.name for tensor in tensors]), ("wanted output", outputs)):
        if len(set(given)) != len(given):
            raise InputError(f"a {what} is given twice")
    return names[1], names[2], Request(names[3] or None, tensors, outputs, parameters, OutputForm(binary=True))


def _check_counts(inputs: int, outputs: int, raw: int) -> None:
    if not inputs:
        raise InputError("the request has no inputs")
    if max(inputs, outputs) > MAX_TENSORS:
        raise InputError(f"at most {MAX_TENSORS} inputs and {MAX_TENSORS} outputs are taken")
    if raw and raw != inputs:
        raise InputError(f"there are {inputs} inputs, but {raw} raw_input_contents")


def _wanted(message: memoryview, where: str) -> str:
    name = ""
    for number, _, value in fields(message, where, MAX_PARAMETERS + 1):
        if number == 1:
            name = text(value, where)
        elif number == 2:
            _parameter(content(value, where), where, {})
    return name


def _parameter(entry: memoryview, where: str, into: dict[str, Any]) -> None:
    name, found = "", None
    for number, _, value in fields(entry, where, 4):
        if number == 1:
            name = text(value, where)
        elif number == 2:
            for kind, _, inner in fields(content(value, where), where, 4):
                found = _parameter_value(kind, inner, where)
    if name in NOT_HERE:
        raise InputError(f"{where}: {name!r} is an extension of other servers that is not spoken here.")
    into[name] = found
    if len(into) > MAX_PARAMETERS:
        raise InputError(f"{where} has more than {MAX_PARAMETERS} parameters")


def _parameter_value(kind: int, value: int | memoryview, where: str) -> str | bool | int | float | None:
    match kind, value:
        case 1, int():
            return bool(value)
        case 2, int():
            return signed(value)
        case 3, memoryview():
            return text(value, where)
        case 4, memoryview() if len(value) == 8:
            number: float = struct.unpack("<d", value)[0]
            return number
        case 5, int():
            return value
    return None


def _tensor(message: memoryview, where: str, raw: memoryview | None) -> Tensor:
    name = kind = ""
    shape: list[int] = []
    parameters: dict[str, Any] = {}
    contents: memoryview | None = None
    for number, _, value in fields(message, where, MAX_PARAMETERS + MAX_RANK + 4):
        match number:
            case 1:
                name = text(value, where)
            case 2:
                kind = text(value, where)
            case 3:
                shape += map(signed, varints(value, where))
            case 4:
                _parameter(content(value, where), where, parameters)
            case 5:
                contents = content(value, where)
    datatype = _datatype(kind, where)
    if raw is not None and contents is not None:
        raise InputError(f"{where} has both contents and raw_input_contents: which of them counts?")
    try:
        spec = TensorSpec(name, datatype, tuple(shape))
        if datatype is DataType.BYTES and spec.element_count > MAX_STRINGS:
            raise InputError(
                f"{where} has {spec.element_count} elements; at most {MAX_STRINGS} texts are taken at once."
            )
        data = bytes(raw) if raw is not None else _contents(contents or memoryview(b""), spec, where)
        return Tensor(spec, data)
    except MalformedError as error:
        raise InputError(error.message) from None


def _datatype(kind: str, where: str) -> DataType:
    try:
        return DataType(kind)
    except ValueError:
        raise InputError(f"{where} has the unknown datatype {kind[:40]!r}") from None


def _contents(message: memoryview, spec: TensorSpec, where: str) -> bytes:
    if spec.datatype not in _CONTENTS:
        raise InputError(f"{where} is {spec.datatype.value}, which travels in raw_input_contents alone")
    wanted, code = _CONTENTS[spec.datatype]
    parts: list[bytes] = []
    numbers: list[int] = []
    # One for each text; numbers are packed by all clients, but need not be.
    most = MAX_STRINGS if spec.datatype is DataType.BYTES else MAX_NUMBERS
    for number, _, value in fields(message, where, most):
        if number != wanted:
            raise InputError(f"{where} is {spec.datatype.value}, but has contents of another type")
        if spec.datatype is DataType.BYTES:
            item = content(value, where)
            parts += [struct.pack("<I", len(item)), bytes(item)]
        elif code:
            if not isinstance(value, int) and len(value) > MAX_NUMBERS:
                raise InputError(f"{where} has more than {MAX_NUMBERS} numbers: send them in raw_input_contents")
            numbers += varints(value, where)
        else:
            parts.append(bytes(content(value, where)))
    if not code:
        return b"".join(parts)
    try:
        return little_endian(array(code, map(signed, numbers) if code.islower() else numbers))
    except OverflowError:
        raise InputError(f"{where} holds a number that is out of the range of {spec.datatype.value}") from None


# -- writing ----------------------------------------------------------------------------------------------------------


def infer_response(
    model: str, version: str, request_id: str | None, parameters: Mapping[str, str | int], outputs: Sequence[Tensor]
) -> bytes:
    """Write a `ModelInferResponse` with its tensors as raw bytes."""
    parts = [field(1, model), field(2, version)]
    if request_id is not None:
        parts.append(field(3, request_id))
    for name, value in parameters.items():
        kind = 3 if isinstance(value, str) else 2
        parts.append(field(4, field(1, name) + field(2, field(kind, value))))
    for tensor in outputs:
        spec = tensor.spec
        parts.append(field(5, field(1, spec.name) + field(2, spec.datatype.value) + packed(3, spec.shape)))
    parts.extend(field(6, tensor.data) for tensor in outputs)
    return b"".join(parts)


def stream_response(response: bytes | None, error: str = "", request_id: str | None = None) -> bytes:
    """Write a `ModelStreamInferResponse`: a response, or what went wrong with the request of this id."""
    if response is not None:
        return field(2, response)
    named = field(2, field(3, request_id)) if request_id is not None else b""
    return field(1, error) + named


def flag(value: bool) -> bytes:  # noqa: FBT001 it is what is written
    """Write the answer to `ServerLive`, `ServerReady` or `ModelReady`."""
    return field(1, value)


def server_metadata(name: str, version: str, extensions: Iterable[str]) -> bytes:
    """Write a `ServerMetadataResponse`."""
    return field(1, name) + field(2, version) + b"".join(field(3, extension) for extension in extensions)


def model_metadata(
    name: str,
    versions: Iterable[str],
    platform: str,
    inputs: Iterable[Mapping[str, Any]],
    outputs: Iterable[Mapping[str, Any]],
) -> bytes:
    """Write a `ModelMetadataResponse`; ports as HTTP describes them."""
    parts = [field(1, name), *(field(2, version) for version in versions), field(3, platform)]
    for number, ports in ((4, inputs), (5, outputs)):
        for port in ports:
            about = field(1, port["name"]) + field(2, port["datatype"]) + packed(3, port["shape"])
            parts.append(field(number, about))
    return b"".join(parts)


def repository_index(lines: Iterable[Mapping[str, str]]) -> bytes:
    """Write a `RepositoryIndexResponse`."""
    members = ("name", "version", "state", "reason")
    return b"".join(
        field(1, b"".join(field(number, line[member]) for number, member in enumerate(members, 1))) for line in lines
    )


def only_ready(message: bytes) -> bool:
    """Read a `RepositoryIndexRequest`: whether only what is ready is asked for.

    Raises:
        InputError: it is no message.
    """
    return any(number == 2 and value == 1 for number, _, value in fields(memoryview(message), "the request", 8))
