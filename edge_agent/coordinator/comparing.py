"""Whether two answers to the same inputs by the same variant can both be honest. Pure.

In one class of machines honest outputs are the same bits. Between classes the catalogue decides for each variant:
`bit-identical` means the same bits everywhere; a `tolerance` was measured between machines of several kinds, and the
nearest cheaper variant lies `gap` tolerances away; `none` means that nothing follows from a difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from edge_agent.models.catalogue import Reproducibility
from edge_agent.wire.tensors import DataType, Tensor

LEAST_GAP: Final = 10.0
"""Outputs can be checked across classes if the nearest cheat lies at least so many tolerances away."""

_FLOATS: Final = {DataType.FP16: "<f2", DataType.FP32: "<f4", DataType.FP64: "<f8"}


class Agreement(StrEnum):
    """What a comparison says."""

    EQUAL = "equal"
    """The same bits."""
    CLOSE = "close"
    """As near as honest machines of different classes are."""
    UNCLEAR = "unclear"
    """Further apart than honest machines were seen, nearer than a cheat: it says nothing of anybody."""
    DIFFERENT = "different"
    """At least one of the two is wrong."""

    @property
    def agrees(self) -> bool:
        """Whether each confirms the other."""
        return self in {Agreement.EQUAL, Agreement.CLOSE}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a machine computed.

    Attributes:
        klass: id of the class that it says it is of.
    """

    klass: str
    outputs: tuple[Tensor, ...]


def checkable(variant: Reproducibility) -> bool:
    """Whether machines of different classes can check each other with this variant."""
    match variant.kind:
        case "bit-identical":
            return True
        case "tolerance":
            return (variant.gap or 0.0) >= LEAST_GAP
        case "none":
            return False


def compare(variant: Reproducibility, one: Answer, other: Answer, *, same_class: bool) -> Agreement:
    """Compare two answers to the same inputs.

    Args:
        variant: what the catalogue says of its outputs.
        one: an answer.
        other: another one.
        same_class: whether both machines are known to be of one class: their answers were the same bits before.
    """
    if _equal(one.outputs, other.outputs):
        return Agreement.EQUAL
    if [tensor.spec for tensor in one.outputs] != [tensor.spec for tensor in other.outputs]:
        return Agreement.DIFFERENT  # shapes do not depend on the processor
    if variant.kind == "bit-identical" or same_class:
        return Agreement.DIFFERENT
    if not checkable(variant):
        return Agreement.UNCLEAR
    return _between_classes(variant, one.outputs, other.outputs)


def _between_classes(variant: Reproducibility, ones: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> Agreement:
    pairs = [(mine, yours) for mine, yours in zip(ones, others, strict=True) if mine.data != yours.data]
    floats = [_tolerances(variant, mine, yours) for mine, yours in pairs if mine.spec.datatype in _FLOATS]
    distance = max(floats, default=0.0)
    if distance > math.sqrt(variant.gap or 1.0):  # nearer to a cheat than to the honest spread
        return Agreement.DIFFERENT
    if distance > 1.0:
        return Agreement.UNCLEAR
    if len(floats) == len(pairs):
        return Agreement.CLOSE
    # Labels of scores that are as good as equal may differ.
    return Agreement.UNCLEAR if _near_tie(variant, ones) else Agreement.DIFFERENT


def _equal(ones: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    return len(ones) == len(others) and all(
        one.spec == other.spec and one.data == other.data for one, other in zip(ones, others, strict=True)
    )


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.frombuffer(tensor.data, _FLOATS[tensor.spec.datatype]).astype(np.float64).reshape(tensor.spec.shape)


def _tolerances(variant: Reproducibility, one: Tensor, other: Tensor) -> float:
    """Return how many tolerances two outputs are apart, at the worst element."""
    mine, yours = _array(one), _array(other)
    if mine.size == 0:
        return 0.0
    finite = np.isfinite(mine)
    if not np.array_equal(finite, np.isfinite(yours)) or not np.array_equal(mine[~finite], yours[~finite], True):
        return math.inf
    mine, yours = mine[finite], yours[finite]
    allowed = (variant.atol or 0.0) + (variant.rtol or 0.0) * np.maximum(np.abs(mine), np.abs(yours))
    apart = np.abs(mine - yours)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(apart == 0, 0.0, apart / allowed)
    return float(np.max(ratios, initial=0.0))


def _near_tie(variant: Reproducibility, outputs: tuple[Tensor, ...]) -> bool:
    """Whether the two largest of any scores are nearer to each other than machines are."""
    scores = [_array(tensor) for tensor in outputs if tensor.spec.datatype in _FLOATS and tensor.spec.shape]
    if not scores:
        return True
    for array in scores:
        if array.shape[-1] < 2 or not array.size:
            continue
        top = np.sort(array, axis=-1)[..., -2:]
        allowed = (variant.atol or 0.0) + (variant.rtol or 0.0) * np.abs(top[..., 1])
        if np.any(top[..., 1] - top[..., 0] <= 2 * allowed):
            return True
    return False
