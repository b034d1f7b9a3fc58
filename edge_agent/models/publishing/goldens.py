"""Golden inputs and outputs: what a healthy variant answers, how far off it may be, and who can check it.

The truth of the original is ONNX's reference where there is one; that of every other form is the file run node
by node in floats (onnxruntime with its optimisations off), because that is what the file says: no 8-bit kernel
with its saturation is in it. The tolerance comes from how much honest ways of running the same file differ here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edge_agent.errors import EdgeAgentError, InputError
from edge_agent.models.entries import BIT_IDENTICAL, NOT_CHECKABLE, Reproducibility
from edge_agent.models.golden import Case, encode_cases
from edge_agent.models.publishing import exactness, reference
from edge_agent.models.publishing.forms import REPRODUCIBLE
from edge_agent.models.publishing.quality import Answer, distance, scale
from edge_agent.models.publishing.runs import ALL, BASIC, OFF, Array, Feed, Runner
from edge_agent.models.publishing.samples import NUMPY_TYPES
from edge_agent.models.publishing.variants import MadeVariant
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings

MOST_CASES = 8
BUDGET_BYTES = 1024 * 1024
"""Golden files travel with the catalogue, so they are kept small."""
SAFETY = 10.0
"""Other machines may differ this many times as much as the honest ways on this one."""
FLOOR = 1e-5
"""What 32-bit floats may differ between machines, as a fraction of the largest output."""
MIN_GAP = 2.0
"""A tolerance is worth something if the nearest cheaper variant lies at least twice as far away."""
_DATA_TYPES = {np.dtype(numpy_type): datatype for datatype, numpy_type in NUMPY_TYPES.items()}


@dataclass(frozen=True)
class Truth:
    """A variant's right answers to the golden feeds.

    Attributes:
        answers: one a feed.
        noise: the largest difference between honest ways to run the file here.
        judge: who gave the answers, in words.
        stable: the outputs that are no floats and came out the same in all ways; others cannot be golden.
    """

    answers: tuple[Answer, ...]
    noise: float
    judge: str
    stable: frozenset[str]

    @property
    def comparable(self) -> bool:
        """Whether there is an output that can be golden."""
        return bool(self.stable) or any(array.dtype.kind == "f" for array in self.answers[0].values())


def pick(feeds: Sequence[Feed], answers: Sequence[Answer]) -> tuple[Feed, ...]:
    """Return the first feeds that fit into a golden file together with their answers; none if not even one does."""
    picked: list[Feed] = []
    total = 0
    for feed, answer in zip(feeds, answers, strict=True):
        total += sum(_bytes(array) for array in (*feed.values(), *answer.values()))
        if total > BUDGET_BYTES or len(picked) == MOST_CASES:
            break
        picked.append(feed)
    return tuple(picked)


def _bytes(array: Array) -> int:
    if array.dtype == object:
        return sum(4 + len(str(item).encode()) for item in array.ravel().tolist())
    return array.nbytes


def truth(variant: MadeVariant, feeds: Sequence[Feed], *, ask_reference: bool, seconds: float) -> Truth:
    """Return what `variant` should answer to `feeds`, and how much honest ways to run it differ.

    Raises:
        InputError: it does not run.
    """
    ways = _ways(variant, feeds)
    exact, judge = ways[0], "onnxruntime, node by node"
    if ask_reference:
        found = reference.answers(variant.path, feeds, seconds)
        if isinstance(found, str):
            judge += f"; no second opinion from ONNX's reference: {found}"
        elif distance(ways[0], found) > 1e-3 * max(scale(found), 1e-6):
            judge += f"; ONNX's reference disagrees by {distance(ways[0], found):.2g}"
        else:
            exact, judge = found, "ONNX's reference implementation"
            ways.append(found)
    # 8-bit kernels may saturate here: that is no noise that other machines would be excused for.
    honest = [way for way in ways if way is not exact and not variant.form.saturates]
    noise = max((distance(exact, way) for way in honest), default=0.0)
    stable = frozenset(
        name
        for name, array in exact[0].items()
        if array.dtype.kind != "f"
        and all(np.array_equal(a[name], o[name]) for way in ways for a, o in zip(way, exact, strict=True))
    )
    return Truth(tuple(exact), noise, judge, stable)


def _ways(variant: MadeVariant, feeds: Sequence[Feed]) -> list[list[dict[str, Array]]]:
    """Return the answers of the honest ways to run the file, the plainest first.

    Graphs that onnxruntime has written may only run optimised: it moves layouts to where its own operators want them.
    """
    found = []
    for level, threads in ((OFF, 1), (BASIC, 1)):
        with contextlib.suppress(InputError):
            found.append(_run(variant, feeds, level, threads))
    return [*found, *(_run(variant, feeds, ALL, threads) for threads in (1, 2))]


def _run(variant: MadeVariant, feeds: Sequence[Feed], level: object, threads: int) -> list[dict[str, Array]]:
    runner = Runner(variant.path, library=variant.library, level=level, threads=threads)
    return [runner.run(feed) for feed in feeds]


@dataclass(frozen=True)
class Tolerance:
    """How far an output may be from the golden one, what machines of other kinds can check, and why not more."""

    atol: float
    reproducibility: Reproducibility
    why: str


def tolerance(variant: MadeVariant, own: Truth, original: Truth, cheaper: Mapping[str, Truth]) -> Tolerance:
    """Return the tolerance of `variant` whose right answers are `own`.

    Args:
        variant: that is judged.
        own: its truth.
        original: that of the original, on the same feeds.
        cheaper: the truths of variants with smaller files, by name: what a cheat would run instead.
    """
    floor = FLOOR * max(scale(own.answers), 1e-6)
    apart = {name: distance(own.answers, other.answers) for name, other in cheaper.items()}
    nearest = min(apart, key=lambda name: apart[name], default=None)
    if variant.format == "fp32":
        strict = max(SAFETY * own.noise, floor)
        return _checkable(strict, nearest, apart, "") or Tolerance(_rounded(strict), NOT_CHECKABLE, _near(nearest))
    lost = distance(own.answers, original.answers)
    # What the kernels of another machine may add must stay near what the form itself costs.
    wide = max(2.0 * own.noise if math.isfinite(own.noise) else 0.0, lost / 2, floor)
    if variant.form != REPRODUCIBLE:
        return Tolerance(_rounded(wide), NOT_CHECKABLE, "instruction sets differ by as much as a cheat would")
    model = onnx.load(str(variant.path))
    obstacle = exactness.why_not(model)
    if obstacle is None:
        step = max(_output_step(model), floor)
        return Tolerance(_rounded(1.1 * step), BIT_IDENTICAL, "integers only")
    # The last bit of a float can move an 8-bit value by one step, here or there; all of them together made `lost`.
    found = _checkable(max(SAFETY * own.noise, lost / 4), nearest, apart, obstacle)
    return found or Tolerance(_rounded(wide), NOT_CHECKABLE, f"{obstacle}; {_near(nearest)}")


def _checkable(strict: float, nearest: str | None, apart: Mapping[str, float], note: str) -> Tolerance | None:
    """Return `strict` as a tolerance for other machines if the nearest cheaper variant is far enough from it."""
    atol = _rounded(strict)
    gap = min(apart[nearest] / atol, 1e9) if nearest is not None and math.isfinite(atol) else 0.0
    if gap < MIN_GAP:
        return None
    kind = Reproducibility(kind="tolerance", atol=atol, rtol=0.0, gap=float(f"{gap:.4g}"))
    prefix = f"{note}; " if note else ""
    return Tolerance(atol, kind, f"{prefix}{nearest}, the nearest cheaper one, is {gap:.3g} tolerances away")


def _near(nearest: str | None) -> str:
    return f"{nearest} is too near" if nearest is not None else "there is no cheaper variant to tell it from"


def _output_step(model: onnx.ModelProto) -> float:
    """Return the largest scale of a DequantizeLinear behind which only values are moved: the grid of the outputs."""
    constants = {item.name: item for item in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    steps = [0.0]
    for value in model.graph.output:
        node = makers.get(value.name)
        while node is not None and node.op_type != "DequantizeLinear":
            node = makers.get(node.input[0]) if node.input else None
        if node is not None and node.input[1] in constants:
            steps.append(float(numpy_helper.to_array(constants[node.input[1]]).max()))
    return max(steps)


def _rounded(value: float) -> float:
    """Return `value` rounded up to two digits: more would look like knowledge."""
    if value <= 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.3g}")


def encode(feeds: Sequence[Feed], found: Truth) -> bytes:
    """Return the golden file of these feeds and answers, which must be comparable.

    Raises:
        InputError: an array has a type that the protocol does not carry.
    """
    cases = []
    for feed, answer in zip(feeds, found.answers, strict=True):
        outputs = tuple(
            tensor_of(name, array) for name, array in answer.items() if array.dtype.kind == "f" or name in found.stable
        )
        cases.append(Case(tuple(tensor_of(name, array) for name, array in feed.items()), outputs))
    return encode_cases(cases)


def tensor_of(name: str, array: Array) -> Tensor:
    """Return an array as the protocol has it.

    Raises:
        InputError: the protocol has no such type or shape.
    """
    try:
        if array.dtype.kind in "OU":
            data = pack_strings(str(item).encode() for item in array.ravel().tolist())
            return Tensor(TensorSpec(name, DataType.BYTES, tuple(array.shape)), data)
        plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        return Tensor(TensorSpec(name, _DATA_TYPES[plain.dtype], tuple(array.shape)), plain.tobytes())
    except (KeyError, EdgeAgentError) as error:
        raise InputError(f"The tensor {name!r} ({array.dtype}) cannot be carried by the protocol.") from error
