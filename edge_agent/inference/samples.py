"""Inputs for a model that nobody has given any known ones for: of the usual shapes, and such that most models run.

They only show that it runs, how fast, and in how much memory. Real tokens and pictures may take longer or shorter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError
from edge_agent.inference.events import Port
from edge_agent.inference.sessions import NUMPY, Output
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings

MAX_SAMPLE_BYTES = 512 * 1024 * 1024
PATTERN_LENGTH = 4093
"""A prime, so that no row or column of a picture repeats another."""
TEXT = b"The quick brown fox jumps over the lazy dog."
_FLOATS = frozenset({DataType.FP16, DataType.FP32, DataType.FP64})
_PIXELS = frozenset({DataType.UINT8})


def make(ports: Sequence[Port], extents: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Return an input for each port.

    Floats are from 0 to 1, bytes are any, other numbers are 1 (a token that every vocabulary has, a mask that lets
    it through), strings are a sentence.

    Args:
        ports: the model's inputs.
        extents: of the symbols in their shapes; what is not listed is 1.

    Raises:
        InputError: they would have more than `MAX_SAMPLE_BYTES` together.
    """
    left = MAX_SAMPLE_BYTES
    tensors = []
    for port in ports:
        shape = tuple(size if isinstance(size, int) else extents.get(size, 1) for size in port.shape)
        count = math.prod(shape)
        left -= count * (port.datatype.item_bytes or len(TEXT))
        if left < 0:
            raise InputError(
                f"Inputs of the usual shapes would have more than {MAX_SAMPLE_BYTES} bytes.",
                hint="Give smaller extents for the symbols in the shapes.",
            )
        tensors.append(Tensor(TensorSpec(port.name, port.datatype, shape), _data(port.datatype, count)))
    return tuple(tensors)


def _data(datatype: DataType, count: int) -> bytes:
    if datatype is DataType.BYTES:
        return pack_strings([TEXT] * count)
    if datatype is DataType.BF16:
        return np.full(count, 0x3F00, "<u2").tobytes()  # a half
    if datatype in _FLOATS:
        return np.resize(_pattern() / np.float32(2**16), count).astype(NUMPY[datatype]).tobytes()
    if datatype in _PIXELS:
        return np.resize(_pattern() >> 8, count).astype(np.uint8).tobytes()
    return np.ones(count, NUMPY[datatype]).tobytes()


def _pattern() -> npt.NDArray[np.uint16]:
    """Return numbers without order, from multiplication: numpy's generators take 3 MB, which would be measured."""
    return (np.arange(1, PATTERN_LENGTH + 1, dtype=np.uint32) * np.uint32(2_654_435_761) >> np.uint32(16)).astype("<u2")


def not_finite(outputs: Sequence[Output]) -> str:
    """Return in words which output has a number that is none, or nothing if all are finite."""
    for output in outputs:
        if output.spec.datatype in _FLOATS:
            values = np.frombuffer(output.data, NUMPY[output.spec.datatype])
            if not np.isfinite(values).all():
                return f"the output {output.spec.name!r} has infinities or values that are no number"
    return ""
