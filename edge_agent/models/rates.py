"""How fast a machine does each kind of work, as measured with onnxruntime itself, and what is assumed where it is not.

A rate is a curve: how long one node takes, by its amount of work, at one number of threads. Between two measured
amounts a straight line in logarithms is taken; beyond the last, time grows with the amount; below the first, the time
that is fixed a node is the least. Pure: numbers in, microseconds out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple


class Point(NamedTuple):
    """One measurement: a node with so much work (multiply-accumulates or elements) took so many microseconds."""

    amount: float
    us: float


class Kind(NamedTuple):
    """What is assumed of a kind of work that was not measured.

    `relative` is its rate against float products of matrices, for multiply-accumulates; `ns` is the time an element
    takes on a CPU that does 40 milliards of multiply-accumulates a second, for everything else.
    """

    relative: float = 0.0
    ns: float = 0.0
    stands_for: str = ""
    """The kind whose measurement is used in place of its own."""
    factor: float = 1.0


COLD_CALL = 8.0
"""An operator in the middle of a model takes so many times what it takes in a row of its like: its code, its weights
and what onnxruntime knows of it are not in the nearest cache.
"""
REFERENCE_GMACS = 40.0
"""The machine that the times of `KINDS` are from: 40 milliards of float multiply-accumulates a second a CPU."""

KINDS: dict[str, Kind] = {
    "matmul.f32": Kind(1.0),
    "matmul.f64": Kind(0.4, stands_for="matmul.f32", factor=2.0),
    "matmul.u8s8": Kind(2.0),
    "matmul.u8u8": Kind(1.6),
    "matmul.dynamic_u8s8": Kind(1.8),
    "matmul.dynamic_u8u8": Kind(1.5),
    "matvec.f32": Kind(0.25),
    "matvec.f64": Kind(0.1, stands_for="matvec.f32", factor=2.0),
    "matvec.u8s8": Kind(0.5),
    "matvec.u8u8": Kind(0.4, stands_for="matvec.u8s8"),
    "matvec.dynamic_u8s8": Kind(0.5, stands_for="matvec.u8s8"),
    "matvec.dynamic_u8u8": Kind(0.4, stands_for="matvec.u8s8"),
    "conv_plain.integer": Kind(0.3, stands_for="conv.integer"),
    "dwconv_plain.integer": Kind(0.02, stands_for="dwconv.integer"),
    "nbits4": Kind(0.75),
    "nbits8": Kind(0.65),
    "nbits4_vec": Kind(0.55),
    "nbits8_vec": Kind(0.55),
    "conv.f32": Kind(1.05),
    "conv1x1.f32": Kind(1.0),
    "conv_in.f32": Kind(0.6),
    "dwconv.f32": Kind(0.3),
    "conv_plain.f32": Kind(0.5),
    "dwconv_plain.f32": Kind(0.25),
    "convtranspose.f32": Kind(0.8),
    "conv.u8s8": Kind(1.9),
    "conv1x1.u8s8": Kind(1.8),
    "conv_in.u8s8": Kind(0.45),
    "dwconv.u8s8": Kind(0.25),
    "conv.u8u8": Kind(1.25),
    "conv1x1.u8u8": Kind(1.1),
    "conv_in.u8u8": Kind(0.4, stands_for="conv_in.u8s8"),
    "dwconv.u8u8": Kind(0.2, stands_for="dwconv.u8s8"),
    "conv.integer": Kind(0.85),
    "conv1x1.integer": Kind(1.5),
    "conv_in.integer": Kind(0.2, stands_for="conv.integer"),
    "dwconv.integer": Kind(0.07),
    "lstm.f32": Kind(0.4),
    "lstm.u8": Kind(0.6, stands_for="lstm.f32", factor=0.4),
    "cheap": Kind(ns=0.4),
    "costly": Kind(ns=2.0),
    "exp": Kind(ns=0.4),
    "gelu": Kind(ns=1.1),
    "softmax": Kind(ns=0.6),
    "norm": Kind(ns=0.8),
    "copy": Kind(ns=0.4),
    "resize": Kind(ns=1.0),
    "pool": Kind(ns=0.11),
    "reduce": Kind(ns=0.11),
    "quant": Kind(ns=0.3),
    "qelem": Kind(ns=0.2),
    "qsoftmax": Kind(ns=3.6),
    "view": Kind(ns=0.0),
}
_UNKNOWN = "costly"


@dataclass(frozen=True, slots=True)
class Rates:
    """The measured curves of one machine, by number of threads and kind of work.

    Raises:
        ValueError: a curve without points, or a point that is not above 0.
    """

    curves: Mapping[int, Mapping[str, tuple[Point, ...]]]
    run_us: Mapping[int, float] = field(default_factory=dict)
    """What one run takes besides its nodes, by number of threads."""
    share: float = 1.0
    """Of the time that it wanted a CPU, how much of it the measurement had one: less than 1 on a busy machine."""

    def __post_init__(self) -> None:
        for kinds in self.curves.values():
            for points in kinds.values():
                if not points or any(not (0 < value < math.inf) for point in points for value in point):
                    raise ValueError("a rate needs points above 0")
        if not 0 < self.share <= 1:
            raise ValueError(f"a share of the CPU is above 0 and at most 1, not {self.share}")

    def threads_for(self, threads: int) -> int | None:
        """Return the measured number of threads that is nearest to `threads`, the lower one of two."""
        return min(self.curves, key=lambda count: (abs(count - threads), count), default=None)

    def node_us(self, kind: str, amount: float, threads: int) -> float | None:
        """Return how long a node of this kind and amount takes; None if nothing like it was measured."""
        count = self.threads_for(threads)
        if count is None:
            return None
        curves = self.curves[count]
        known = KINDS.get(kind)
        calling = COLD_CALL * curves["view"][0].us if "view" in curves else 0.0
        if kind in curves:
            return calling + (along(curves[kind], amount) if kind != "view" else 0.0)
        if known is not None and known.stands_for in curves:
            return calling + known.factor * along(curves[known.stands_for], amount)
        return None

    @classmethod
    def from_json(cls, data: object) -> Rates:
        """Read what `to_json` gave.

        Raises:
            ValueError: something else.
        """
        if not isinstance(data, dict):
            raise ValueError("rates are an object")  # noqa: TRY004 - one kind of error for all that is wrong
        try:
            curves = {
                int(threads): {
                    str(kind): tuple(Point(float(amount), float(us)) for amount, us in points)
                    for kind, points in kinds.items()
                }
                for threads, kinds in data["curves"].items()
            }
            run_us = {int(threads): float(us) for threads, us in data["run_us"].items()}
            return cls(curves, run_us, float(data["share"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not rates: {error}") from error

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "curves": {
                str(threads): {
                    kind: [[round(p.amount), round(p.us, 3)] for p in points] for kind, points in kinds.items()
                }
                for threads, kinds in self.curves.items()
            },
            "run_us": {str(threads): round(us, 3) for threads, us in self.run_us.items()},
            "share": round(self.share, 4),
        }


def along(points: tuple[Point, ...], amount: float) -> float:
    """Return the time for `amount` on a curve, in microseconds."""
    ordered = sorted(points)
    first, last = ordered[0], ordered[-1]
    if amount <= first.amount:
        return first.us * amount / first.amount
    if amount >= last.amount:
        return last.us * amount / last.amount
    for low, high in pairwise(ordered):
        if amount <= high.amount:
            part = math.log(amount / low.amount) / math.log(high.amount / low.amount)
            return math.exp(math.log(low.us) + part * (math.log(high.us) - math.log(low.us)))
    return last.us


def assumed_us(kind: str, amount: float, gmacs_per_second: float) -> float:
    """Return how long a node takes on a machine of which only its rate of float products is known."""
    known = KINDS.get(kind, KINDS[_UNKNOWN])
    if known.relative:
        return amount / (gmacs_per_second * known.relative * 1e3)
    return amount * known.ns * REFERENCE_GMACS / gmacs_per_second / 1e3
