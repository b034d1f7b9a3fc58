"""What a graph takes in memory: its constants as they are held, and the tensors that live at the same time.

The tensors are followed through a run as onnxruntime plans them: an output takes the place of an input of the same
size that is not read again, where the operator can work in place; views take nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.models.counting import arena
from edge_agent.models.counting.fusion import VIEWS
from edge_agent.models.counting.graph import INT8, Graph, Node, outer_names, weight_place

if TYPE_CHECKING:
    from collections.abc import Iterable

_IN_PLACE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Exp", "Sqrt"),
        *("Neg", "Abs", "Erf", "Cast", "Softmax", "Floor", "Pow", "Where", "Sum", "Max", "Min", "Not"),
    }
)


class Weights(NamedTuple):
    """Bytes of constants."""

    held: int
    """As the session keeps them."""
    largest: int
    repacked: int
    """What convolutions whose weights change their layout take at the worst moment, besides the old weights: all that
    are changed already, and three more copies of the one that is being changed."""
    packed: int
    """Those packed anew one after the other, the old one freed each time."""
    largest_packed: int
    widened: int
    """What 16-bit floats grow by when they become 32-bit ones."""
    turned: int
    """The largest weight that is transposed while loading, in the arena, which keeps the room."""


class Living(NamedTuple):
    """Bytes of tensors during a run."""

    peak: int
    arena: int
    """What the arena has touched after a few runs."""


def weights(graph: Graph) -> Weights:
    """Return what the constants take."""
    packed = largest_packed = widened = held = largest = turned = 0
    for depth, place in _graphs(graph, 0):
        readers = place.consumers()
        own = {**{name: size for name, size in place.constants.items() if size}, **place.overridable}
        for name, size in own.items():
            users = readers.get(name, [])
            if not users and name not in place.outputs:
                continue
            largest = max(largest, size)
            # The bytes of a constant are those of the file, or of what was folded.
            grown = max(size, place.size(name)) if name in place.halves else size
            widened += grown - size
            # A graph inside of a node is kept as it was read, too, with each level around it.
            held += grown + size * _KEPT_PER_LEVEL * depth
            if any(node.op == "MatMulNBits" for node in users) and name in {n.inputs[2] for n in users}:
                held += 2 * size  # the scales again beside the packed weights, and a sum for each block
            if _is_packed(place, name, users):
                packed += grown
                largest_packed = max(largest_packed, grown)
            if any(node.op == "QGemm" and node.number("transB", 0) and name in node.inputs[1:4] for node in users):
                turned = max(turned, size)
    return Weights(held, largest, _repacked(graph), packed, largest_packed, widened, turned)


_KEPT_PER_LEVEL = 2
_PACKED = frozenset(
    {
        *("Conv", "QLinearConv", "MatMul", "Gemm", "FusedMatMul", "QLinearMatMul", "QGemm", "MatMulNBits"),
        *("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "LSTM", "GRU", "Attention", "ConvInteger"),
        *("ConvTranspose", "QAttention", "DynamicQuantizeLSTM"),
    }
)


def _repacked(graph: Graph) -> int:
    done = worst = 0
    for node in graph.nodes:
        if node.op in {"Conv", "FusedConv"} and node.outputs[0].endswith(":blocked"):
            size = graph.size(node.inputs[1])
            done += size
            worst = max(worst, done + _COPIES_WHILE_REPACKED * size)
    return worst


_COPIES_WHILE_REPACKED = 3


def _is_packed(graph: Graph, name: str, users: list[Node]) -> bool:
    if name in graph.overridable or len(graph.tensor(name).shape) < 2:
        return False
    return any(node.op in _PACKED and name in node.inputs[1:4] for node in users)


def _graphs(graph: Graph, depth: int) -> Iterable[tuple[int, Graph]]:
    yield depth, graph
    for node in graph.nodes:
        for inner in node.inside:
            yield from _graphs(inner, depth + 1)


def living(graph: Graph) -> Living:
    """Follow the tensors through one run."""
    trace: arena.Trace = []
    peak = _follow(graph, trace, "")
    touched, _ = arena.touched_bytes(trace)
    return Living(peak, touched)


def _follow(graph: Graph, trace: arena.Trace, prefix: str) -> int:
    """Append what one run allocates and frees; return the most bytes at one time."""
    root = _places(graph)
    last = _last_uses(graph, root)
    given = {*graph.inputs, *graph.constants, *graph.overridable}
    leaving = {root.get(name, name) for name in graph.outputs}
    alive: dict[str, int] = {}
    now = peak = 0
    for index, node in enumerate(graph.nodes):
        for name in node.outputs:
            place = root.get(name, name)
            if not name or place in alive or place in given:
                continue
            alive[place] = _size(graph, name)
            trace.append(arena.Take(prefix + place, alive[place], planned=place not in leaving and not prefix))
            now += alive[place]
        own = _scratch(graph, node)
        if own:
            trace += [
                arena.Take(f"{prefix}scratch {index}", own, planned=False),
                arena.Give(f"{prefix}scratch {index}"),
            ]
        inside = max((_follow(inner, trace, f"{prefix}{index}/") for inner in node.inside), default=0)
        peak = max(peak, now + own + inside)
        for name in [place for place in alive if last.get(place, index) <= index]:
            now -= alive.pop(name)
            trace.append(arena.Give(prefix + name))
    if prefix:
        trace += [arena.Give(prefix + name) for name in alive]
    return peak


def _last_uses(graph: Graph, root: dict[str, str]) -> dict[str, int]:
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        last.update((root.get(name, name), index) for name in (*node.inputs, *outer_names(node)))
    last.update((root.get(name, name), len(graph.nodes)) for name in graph.outputs)
    return last


def _size(graph: Graph, name: str) -> int:
    return graph.size(name)


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
    weight = graph.tensor(node.inputs[weight_place(graph, node)])
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
    if node.op == "QLinearConv" and weight.kind == INT8:
        return pixels * window * _POINTER_BYTES  # where each of its inputs is
    return pixels * window * weight.shape[1]


_POINTER_BYTES = 8
