"""How good a variant's answers are, as pure functions of arrays.

With labels: `top1`, `top5`. Without: `agreement` (the same first choice as the original), `cosine` (the mean
cosine to the original's answer, of the output that comes off worst) and `exact-match` (the very bytes of the
original, for outputs that are no numbers, such as compressed pictures). All are fractions, more is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from edge_agent.errors import InputError
from edge_agent.models.publishing.runs import Array

Answer: TypeAlias = Mapping[str, Array]
"""The outputs of one run, by name."""

WITH_LABELS = frozenset({"top1", "top5"})
DEFAULT_GATE = 0.02
"""The most that a variant's quality may be below the original's, as a fraction of the original's."""


@dataclass(frozen=True)
class Yardstick:
    """What quality is measured in, on which outputs.

    Attributes:
        metric: one of `METRICS`.
        outputs: the names that count; the first one holds the classes.
        labels: the right class of each sample, for the metrics that need it.
    """

    metric: str
    outputs: tuple[str, ...]
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(f"There is no metric {self.metric!r}.", hint=f"Choose one of {', '.join(METRICS)}.")
        if not self.outputs:
            raise InputError("The model has no output of numbers to compare.", hint="Name one with --output.")
        if self.metric in WITH_LABELS and self.labels is None:
            raise InputError(
                f"{self.metric} needs the right answers.",
                hint="Give --labels FILE, or compare with the original: --metric cosine or --metric agreement.",
            )

    def measure(self, answers: Sequence[Answer], originals: Sequence[Answer]) -> float:
        """Return the quality of `answers` to the same samples as `originals`, from 0 to 1.

        An answer with NaN or an infinity where the original has a number counts as wrong.
        """
        return METRICS[self.metric](self, answers, originals)


def relative_drop(value: float, original: float) -> float:
    """Return by which fraction of the original's quality `value` is lower; negative if it is higher.

    Raises:
        InputError: the original gets nothing right, so that nothing can be compared with it.
    """
    if original <= 0.0:
        raise InputError(
            "The original model gets none of the samples right.",
            hint="Check that the labels belong to the samples, and that --output names the classes.",
        )
    return (original - value) / original


def _ranked(answer: Array) -> list[int]:
    """Return the classes of one answer, best first; a single whole number is the class itself."""
    flat = answer.ravel()
    if flat.size == 1 and np.issubdtype(flat.dtype, np.integer):
        return [int(flat[0])]
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return []
    return [int(index) for index in np.argsort(-flat.astype(np.float64), kind="stable")]


def _top(count: int) -> Callable[[Yardstick, Sequence[Answer], Sequence[Answer]], float]:
    def measure(stick: Yardstick, answers: Sequence[Answer], _originals: Sequence[Answer]) -> float:
        name = stick.outputs[0]
        hits = [
            label in _ranked(answer[name])[:count] for answer, label in zip(answers, stick.labels or (), strict=True)
        ]
        return float(np.mean(hits))

    return measure


def _agreement(stick: Yardstick, answers: Sequence[Answer], originals: Sequence[Answer]) -> float:
    name = stick.outputs[0]
    pairs = [(_ranked(a[name])[:1], _ranked(o[name])[:1]) for a, o in zip(answers, originals, strict=True)]
    return float(np.mean([bool(mine) and mine == right for mine, right in pairs]))


def _cosine(stick: Yardstick, answers: Sequence[Answer], originals: Sequence[Answer]) -> float:
    worst = [
        np.mean([cosine(a[name], o[name]) for a, o in zip(answers, originals, strict=True)]) for name in stick.outputs
    ]
    return float(np.clip(min(worst), 0.0, 1.0))


def _exact_match(stick: Yardstick, answers: Sequence[Answer], originals: Sequence[Answer]) -> float:
    pairs = zip(answers, originals, strict=True)
    return float(np.mean([all(np.array_equal(a[name], o[name]) for name in stick.outputs) for a, o in pairs]))


def cosine(one: Array, other: Array) -> float:
    """Return the cosine between two arrays taken as vectors.

    Two vectors of zeros are the same, so 1; one of them, a different shape, NaN or an infinity: 0.
    """
    if one.shape != other.shape:
        return 0.0
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        # Infinities that the original has too are no fault of the variant (masks, empty maxima).
        return float(np.array_equal(a, b, equal_nan=True))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0.0:
        return float(np.array_equal(a, b))
    return float(a @ b) / norms


METRICS: dict[str, Callable[[Yardstick, Sequence[Answer], Sequence[Answer]], float]] = {
    "top1": _top(1),
    "top5": _top(5),
    "agreement": _agreement,
    "cosine": _cosine,
    "exact-match": _exact_match,
}
"""All metrics, as functions of (yardstick, answers, the original's answers)."""


def distance(answers: Sequence[Answer], others: Sequence[Answer]) -> float:
    """Return the largest absolute difference of float outputs; infinity if shapes or NaN and infinities differ."""
    largest = 0.0
    for answer, other in zip(answers, others, strict=True):
        for name, array in answer.items():
            if array.dtype.kind != "f":
                continue
            if array.shape != other[name].shape:
                return float("inf")
            a, b = array.astype(np.float64), other[name].astype(np.float64)
            known = np.isfinite(a) & np.isfinite(b)
            if not np.array_equal(a[~known], b[~known], equal_nan=True):
                return float("inf")
            largest = max(largest, float(np.abs(a[known] - b[known]).max(initial=0.0)))
    return largest


def scale(answers: Sequence[Answer]) -> float:
    """Return the largest absolute finite value of the float outputs; 0 if there is none."""
    values = [
        float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        for answer in answers
        for array in answer.values()
        if array.dtype.kind == "f"
    ]
    return max(values, default=0.0)
