"""What a graph takes in memory: its constants as they are held, and the tensors that live at the same time.

The tensors are followed through a run as onnxruntime plans them: an output takes the place of an input of the same
size that is not read again, where the operator can work in place; views take nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.models.counting.fusion import VIEWS
from edge_agent.models.counting.graph import HALF, Graph, Node, outer_names

if TYPE_CHECKING:
    from collections.abc import Iterable

_IN_PLACE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Exp", "Sqrt"),
        *("Neg", "Abs", "Erf", "Cast", "Softmax", "QuickGelu", "Floor", "Pow", "Where", "Sum", "Max", "Min", "Not"),
    }
)


class Weights(NamedTuple):
    """Bytes of constants."""

    held: int
    """As the session keeps them."""
    largest: int
    repacked_together: int
    """Those that are there twice at once while loading: convolutions whose weights change their layout."""
    packed_singly: int
    """Those packed anew one after the other, the old one freed each time."""
    largest_packed: int
    widened: int
    """What 16-bit floats grow by when they become 32-bit ones."""


class Living(NamedTuple):
    """Bytes of tensors during a run."""

    peak: int
    inputs: int
    outputs: int
    scratch: int
    """The most that one operator takes for itself meanwhile."""
    total: int
    """All tensors that are made in one run together, as if none gave its place to another."""


def weights(graph: Graph) -> Weights:
    """Return what the constants take."""
    repacked = packed = largest_packed = widened = held = largest = 0
    for place in _graphs(graph):
        readers = place.consumers()
        own = {**{name: size for name, size in place.constants.items() if size}, **place.overridable}
        for name, size in own.items():
            users = readers.get(name, [])
            if not users and name not in place.outputs:
                continue
            held += size
            largest = max(largest, size)
            half = place.tensor(name).kind == HALF
            widened += size * half
            form = _packing(place, name, users)
            if form == "together":
                repacked += size * (1 + half)
            elif form == "singly":
                packed += size * (1 + half)
                largest_packed = max(largest_packed, size * (1 + half))
    return Weights(held, largest, repacked, packed, largest_packed, widened)


def _packing(graph: Graph, name: str, users: list[Node]) -> str:
    if name in graph.overridable:
        return ""
    for node in users:
        if name not in node.inputs[1:4]:
            continue
        rank = len(graph.tensor(name).shape)
        if node.op in {"Conv", "FusedConv"} and rank == 4:
            return "together"
        if node.op in {"Conv", "QLinearConv", "MatMul", "Gemm", "FusedMatMul", "QLinearMatMul", "QGemm", "MatMulNBits",
                       "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "LSTM", "GRU", "Attention",
                       "ConvInteger", "ConvTranspose", "QAttention", "DynamicQuantizeLSTM"} and rank >= 2:  # fmt: skip
            return "singly"
    return ""


def _graphs(graph: Graph) -> Iterable[Graph]:
    yield graph
    for node in graph.nodes:
        for inner in node.inside:
            yield from _graphs(inner)


def living(graph: Graph) -> Living:
    """Follow the tensors through one run."""
    root = _places(graph)
    last = _last_uses(graph, root)
    given = {*graph.inputs, *graph.constants}
    alive: dict[str, int] = {}
    now = peak = total = scratch = 0
    for index, node in enumerate(graph.nodes):
        for name in node.outputs:
            place = root.get(name, name)
            if not name or place in alive or place in given:
                continue
            alive[place] = _size(graph, name)
            now += alive[place]
            total += alive[place]
        inside = max((living(inner).peak for inner in node.inside), default=0)
        own = _scratch(graph, node)
        scratch = max(scratch, own)
        peak = max(peak, now + own + inside)
        for name in [place for place in alive if last.get(place, index) <= index]:
            now -= alive.pop(name)
    inputs = sum(graph.size(name) for name in graph.inputs)
    outputs = sum(graph.size(name) for name in graph.outputs)
    return Living(peak, inputs, outputs, scratch, total)


def _last_uses(graph: Graph, root: dict[str, str]) -> dict[str, int]:
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        last.update((root.get(name, name), index) for name in (*node.inputs, *outer_names(node)))
    last.update((root.get(name, name), len(graph.nodes)) for name in graph.outputs)
    return last


def _size(graph: Graph, name: str) -> int:
    tensor = graph.tensor(name)
    return tensor.size * (2 if tensor.kind == HALF else 1)


def _places(graph: Graph) -> dict[str, str]:
    """Return whose bytes each tensor is in, where those are not its own."""
    reads = Counter(name for node in graph.nodes for name in (*node.inputs, *outer_names(node)) if name)
    reads.update(graph.outputs)
    left = Counter(reads)  # of each place: who will still read it
    root: dict[str, str] = {}
    for node in graph.nodes:
        sources = [name for name in node.inputs if name]
        source = _gives_place(graph, node, sources, root, left)
        if source is not None:
            place = root.get(source, source)
            root[node.outputs[0]] = place
            left[place] += reads[node.outputs[0]]
        left.subtract(root.get(name, name) for name in sources)
    return root


def _gives_place(graph: Graph, node: Node, sources: list[str], root: dict[str, str], left: Counter[str]) -> str | None:
    """Return the input whose bytes the output takes over, if one does."""
    if node.op in VIEWS and sources:
        return None if root.get(sources[0], sources[0]) in graph.overridable else sources[0]
    if node.op not in _IN_PLACE and not (node.op == "Conv" and len(node.inputs) > 3):
        return None
    kept = {*graph.constants, *graph.inputs, *graph.overridable}
    size = graph.size(node.outputs[0])
    for name in sources:
        place = root.get(name, name)
        if place not in kept and left[place] == 1 and graph.size(name) == size:
            return name
    return None


def _scratch(graph: Graph, node: Node) -> int:
    """Return what an operator takes for itself while it runs."""
    if node.op in {"Conv", "FusedConv", "QLinearConv", "ConvInteger", "ConvTranspose"}:
        return _columns(graph, node)
    if node.op in {"DynamicQuantizeMatMul", "MatMulNBits", "DynamicQuantizeLSTM"}:
        return graph.tensor(node.inputs[0]).count * 2
    if node.op in {"LSTM", "GRU"} and node.outputs:
        steps, batch = (*graph.tensor(node.inputs[0]).shape, 1, 1)[:2]
        return 4 * steps * batch * sum(graph.tensor(name).shape[1] for name in node.inputs[1:2] if name)
    return 0


def _columns(graph: Graph, node: Node) -> int:
    """Return the bytes of the unfolded input, where a convolution is computed as a product of matrices."""
    out = graph.tensor(node.outputs[0])
    position = 3 if node.op == "QLinearConv" and graph.tensor(node.inputs[1]).count == 1 else 1
    weight = graph.tensor(node.inputs[position])
    if len(weight.shape) < 3:
        return 0
    window = math.prod(weight.shape[2:])
    groups = node.number("group", 1)
    if node.op == "ConvTranspose":
        source = graph.tensor(node.inputs[0])
        pixels = math.prod(source.shape[2:])
        return 4 * pixels * math.prod(weight.shape[1:])
    if node.op in {"Conv", "FusedConv"}:
        return 0
    if window == 1 or groups > 1:
        return 0
    pixels = math.prod(out.shape[2:])
    return pixels * window * weight.shape[1]
