"""From NumPy's file format to tensors of the wire."""

from __future__ import annotations

import io

import numpy as np

from edge_agent.client.values import tensor_of_array
from edge_agent.errors import InputError
from edge_agent.models.catalogue import Port
from edge_agent.wire.tensors import DataType, Tensor


def tensor_from_npy(data: bytes, port: Port) -> Tensor:
    """Read a .npy file as the input `port`; a missing batch dimension is added.

    Raises:
        InputError: not a .npy file, or numbers that the input's type cannot hold exactly.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a damaged header is parsed as Python and can raise nearly anything
        raise InputError(f"this is not a complete .npy file of numbers: {error}") from error
    if port.datatype in {DataType.BYTES, DataType.BF16}:
        raise InputError(f"the input {port.name!r} is of type {port.datatype}, which .npy files cannot hold")
    return tensor_of_array(array, port, exact=True)
