"""Golden files: inputs, and what a healthy variant answers to them, within a tolerance.

The file is CBOR: `{"cases": [{"inputs": [tensor…], "outputs": [tensor…]}…], "v": 1}`, a tensor being
`[name, data type, shape, raw bytes]`. Each case is one run of one sample. The comparison needs the standard
library only, so that the daemon can judge what its worker sends.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent.errors import MalformedError
from edge_agent.models.catalogue import MAX_GOLDEN_BYTES, Golden
from edge_agent.wire import strict_cbor
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMAT_VERSION = 1
_LETTERS = {DataType.FP16: "e", DataType.FP32: "f", DataType.FP64: "d"}


@dataclass(frozen=True, slots=True)
class Case:
    """One run: what goes in, and what must come out."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def encode_cases(cases: Sequence[Case]) -> bytes:
    """Return the bytes of a golden file with these cases."""
    return strict_cbor.encode(
        {
            "v": _FORMAT_VERSION,
            "cases": [
                {"inputs": [_plain(t) for t in case.inputs], "outputs": [_plain(t) for t in case.outputs]}
                for case in cases
            ],
        }
    )


def decode_cases(data: bytes) -> tuple[Case, ...]:
    """Return the cases of a golden file.

    Raises:
        MalformedError: the bytes are not a golden file with at least one case.
        TooLargeError: they are more than a golden file may have.
    """
    document = strict_cbor.decode(data, max_bytes=MAX_GOLDEN_BYTES)
    match document:
        case {"v": 1, "cases": [_, *_] as cases, **rest} if not rest:
            return tuple(_case(entry) for entry in cases)
    raise MalformedError("The golden file is not a list of cases of version 1.")


def difference(golden: Golden, case: Case, outputs: Sequence[Tensor]) -> str | None:
    """Return in words what is wrong with `outputs` as an answer to `case`, or None if nothing is.

    Every golden output must be there with the same type and shape. Floats pass if |output - golden| ≤ atol +
    rtol·|golden|; NaN and infinities must be met exactly, as must everything that is not a float.
    """
    answers = {tensor.name: tensor for tensor in outputs}
    for right in case.outputs:
        answer = answers.get(right.name)
        if answer is None:
            return f"the output {right.name!r} is missing"
        if answer.spec != right.spec:
            return (
                f"the output {right.name!r} is {answer.spec.datatype.value} {list(answer.spec.shape)} "
                f"instead of {right.spec.datatype.value} {list(right.spec.shape)}"
            )
        wrong = _difference(golden, right, answer)
        if wrong is not None:
            return wrong
    return None


def _difference(golden: Golden, right: Tensor, answer: Tensor) -> str | None:
    letter = _LETTERS.get(right.spec.datatype)
    if letter is None:
        return None if answer.data == right.data else f"the output {right.name!r} is not the right one"
    form = f"<{right.spec.element_count}{letter}"
    pairs = zip(struct.unpack(form, answer.data), struct.unpack(form, right.data), strict=True)
    for index, (value, wanted) in enumerate(pairs):
        if not _close(value, wanted, golden.atol + golden.rtol * abs(wanted)):
            return f"element {index} of the output {right.name!r} is {value:.6g} instead of {wanted:.6g}"
    return None


def _close(value: float, wanted: float, tolerance: float) -> bool:
    if not math.isfinite(wanted):
        return value == wanted or (math.isnan(value) and math.isnan(wanted))
    return abs(value - wanted) <= tolerance  # False for NaN


def _plain(tensor: Tensor) -> list[object]:
    return [tensor.name, tensor.spec.datatype.value, list(tensor.spec.shape), tensor.data]


def _case(entry: object) -> Case:
    match entry:
        case {"inputs": [_, *_] as inputs, "outputs": [_, *_] as outputs, **rest} if not rest:
            return Case(tuple(_tensor(item) for item in inputs), tuple(_tensor(item) for item in outputs))
    raise MalformedError("A case of the golden file has no inputs or no outputs.")


def _tensor(item: object) -> Tensor:
    match item:
        case [str() as name, str() as datatype, [*shape], bytes() as data]:
            pass
        case _:
            raise MalformedError("A tensor of the golden file is not name, type, shape and bytes.")
    if datatype not in DataType.__members__:
        raise MalformedError(f"The golden file has a tensor of the unknown type {datatype[:32]!r}.")
    extents = tuple(extent for extent in shape if isinstance(extent, int) and not isinstance(extent, bool))
    if len(extents) != len(shape):
        raise MalformedError("The golden file has a shape that is not made of integers.")
    return Tensor(TensorSpec(name, DataType[datatype], extents), data)
