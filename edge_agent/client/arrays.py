"""From NumPy's file format to tensors of the wire."""

from __future__ import annotations

import io

import numpy as np

from edge_agent.errors import InputError
from edge_agent.models.catalogue import Port
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

_DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


def tensor_from_npy(data: bytes, port: Port) -> Tensor:
    """Read a .npy file as the input `port`; a missing batch dimension is added.

    Raises:
        InputError: not a .npy file, or numbers that the input's type cannot hold exactly.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a damaged header is parsed as Python and can raise nearly anything
        raise InputError(f"this is not a complete .npy file of numbers: {error}") from error
    if port.datatype not in _DTYPES:
        raise InputError(f"the input {port.name!r} is of type {port.datatype}, which .npy files cannot hold")
    wanted = np.dtype(_DTYPES[port.datatype])
    if array.dtype != wanted:
        converted = (
            array.astype(wanted) if np.can_cast(array.dtype, wanted, "same_kind") or array.dtype.kind in "iu" else None
        )
        if converted is None or not np.array_equal(converted.astype(array.dtype), array):
            raise InputError(
                f"the array is of type {array.dtype}; the input {port.name!r} needs {wanted}",
                hint=f"Convert it first: array.astype({wanted.name!r}).",
            )
        array = converted
    if array.ndim == len(port.shape) - 1 and isinstance(port.shape[0], str):
        array = array[np.newaxis]
    little = np.ascontiguousarray(array.astype(wanted.newbyteorder("<"), copy=False))
    return Tensor(TensorSpec(port.name, DataType(port.datatype), tuple(little.shape)), little.tobytes())
