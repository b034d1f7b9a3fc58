"""Between Python's values and tensors: NumPy arrays where NumPy is installed, nested lists everywhere.

What a family's port takes decides the type; nothing is rounded to another type silently.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from edge_agent.errors import InputError, MalformedError
from edge_agent.models.entries import Port
from edge_agent.wire.oip_elements import pack
from edge_agent.wire.tensors import ARRAY_CODES, DataType, Tensor, TensorSpec, numbers_of, pack_strings, unpack_strings

Value: TypeAlias = Any
"""A NumPy array (or what has `__array__`), a number, a text, bytes, or lists of these."""

Inputs: TypeAlias = "Mapping[str, Value] | Sequence[Tensor] | Value"

_DTYPES = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool"}


def tensors_of(inputs: Inputs, ports: Sequence[Port]) -> list[Tensor]:
    """Return the tensors of a request.

    Args:
        inputs: values by the names of the ports, or tensors; for a family with one input, the value alone.
        ports: what the family takes.

    Raises:
        InputError: a name is unknown, or a value does not fit its port.
    """
    if isinstance(inputs, (list, tuple)) and inputs and all(isinstance(item, Tensor) for item in inputs):
        return list(inputs)
    by_name = {port.name: port for port in ports}
    if not isinstance(inputs, Mapping):
        if len(ports) != 1:
            names = ", ".join(by_name)
            raise InputError(f"the family takes {len(ports)} inputs: give them by name, as a dict with {names}")
        inputs = {ports[0].name: inputs}
    unknown = [str(name) for name in inputs if name not in by_name]
    if unknown:
        raise InputError(f"there is no input {unknown[0][:80]!r}; the family takes {', '.join(by_name)}")
    return [tensor_of(value, by_name[name]) for name, value in inputs.items()]


def tensor_of(value: Value, port: Port) -> Tensor:
    """Return a value as the tensor that a port takes; a batch of one may leave out its first dimension.

    Raises:
        InputError: it does not fit.
    """
    if hasattr(value, "__array__"):
        return tensor_of_array(value, port)
    shape: list[int] = []
    flat: list[Any] = [value]
    while isinstance(flat[0], (list, tuple)):
        lengths = {len(row) if isinstance(row, (list, tuple)) else -1 for row in flat}
        if len(lengths) != 1:
            raise InputError(f"the input {port.name!r}: rows of a list must be of one length")
        shape.append(lengths.pop())
        flat = [item for row in flat for item in row]
        if not flat:
            break
    if _is_one_short(len(shape), port):
        shape.insert(0, 1)
    datatype = DataType(port.datatype)
    if datatype is DataType.BYTES and all(isinstance(item, bytes) for item in flat):
        data = pack_strings(flat)
    else:
        data = pack(datatype, flat, f"the input {port.name!r}")
    return _made(port.name, datatype, tuple(shape), data)


def _is_one_short(rank: int, port: Port) -> bool:
    return bool(port.shape) and rank == len(port.shape) - 1 and isinstance(port.shape[0], str)


def _made(name: str, datatype: DataType, shape: tuple[int, ...], data: bytes) -> Tensor:
    try:
        return Tensor(TensorSpec(name, datatype, shape), data)
    except MalformedError as error:
        raise InputError(error.message) from None


def tensor_of_array(value: Value, port: Port, *, exact: bool = False) -> Tensor:
    """Return an array as the tensor that a port takes, as `tensor_of` does.

    Args:
        value: the array.
        port: where it goes.
        exact: refuse fractions, too, that the port's type cannot hold exactly.

    Raises:
        InputError: it does not fit.
    """
    import numpy as np  # noqa: PLC0415 whoever has an array has numpy; nobody else needs it

    given = np.asarray(value)
    datatype = DataType(port.datatype)
    if datatype is DataType.BYTES:
        texts = [item if isinstance(item, bytes) else str(item).encode() for item in given.reshape(-1).tolist()]
        data = pack_strings(texts)
    elif datatype is DataType.BF16:
        if given.dtype.itemsize != 2 or given.dtype.kind not in "Vu":  # ml_dtypes calls its own kind V
            raise InputError(f"the input {port.name!r} is BF16: give an array of ml_dtypes.bfloat16, or of its bits")
        data = np.ascontiguousarray(given).tobytes()
    else:
        wanted = np.dtype(_DTYPES.get(datatype.value, datatype.value.lower()))
        converted = given if given.dtype == wanted else _converted(np, given, wanted, port, exact=exact)
        data = np.ascontiguousarray(converted, converted.dtype.newbyteorder("<")).tobytes()
    shape = tuple(given.shape)
    return _made(port.name, datatype, (1, *shape) if _is_one_short(len(shape), port) else shape, data)


def _converted(np: Any, given: Any, wanted: Any, port: Port, *, exact: bool) -> Any:  # noqa: ANN401 numpy is optional
    """Return an array in another type if that changes no number: but Python's own fractions may become narrower."""
    floats = given.dtype.kind == "f" and wanted.kind == "f"
    if floats or np.can_cast(given.dtype, wanted, "same_kind") or given.dtype.kind in "iu":
        converted = given.astype(wanted)
        if (floats and not exact) or np.array_equal(converted.astype(given.dtype), given):
            return converted
    raise InputError(
        f"the input {port.name!r} needs {wanted}, not {given.dtype}",
        hint=f"Convert it first, if that is what you mean: array.astype({wanted.name!r}).",
    )


def value_of(tensor: Tensor) -> Value:
    """Return a tensor as a NumPy array, or as nested lists where NumPy is not installed.

    Texts stay bytes; BF16 becomes the array of its bits, UINT16.
    """
    spec = tensor.spec
    try:
        import numpy as np  # noqa: PLC0415 optional
    except ImportError:
        return _nested(_elements(tensor), spec.shape)
    if spec.datatype is DataType.BYTES:
        texts = np.empty(spec.element_count, np.object_)
        texts[:] = unpack_strings(tensor.data, spec.element_count)
        return texts.reshape(spec.shape)
    name = "uint16" if spec.datatype is DataType.BF16 else _DTYPES.get(spec.datatype.value, spec.datatype.value.lower())
    return np.frombuffer(tensor.data, np.dtype(name).newbyteorder("<")).reshape(spec.shape)


def _elements(tensor: Tensor) -> list[Any]:
    spec, data = tensor.spec, tensor.data
    match spec.datatype:
        case DataType.BYTES:
            return list(unpack_strings(data, spec.element_count))
        case DataType.BOOL:
            return list(map(bool, data))
        case DataType.FP16:
            return list(struct.unpack(f"<{spec.element_count}e", data))
    return numbers_of(ARRAY_CODES.get(spec.datatype, "H"), data).tolist()  # BF16 as its bits


def _nested(flat: list[Any], shape: Sequence[int]) -> Value:
    if not shape:
        return flat[0]
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else []
    return flat
