"""Blocked layouts: on x86 onnxruntime runs float convolutions on channels in blocks, and reorders around them.

Operators that can work on blocks stay in them; where one cannot, a ReorderOutput comes before it, and a ReorderInput
before the next convolution. The copies take memory and time. From onnxruntime's `nchwc_transformer` source.
"""

from __future__ import annotations

import math

from edge_agent.models.counting.graph import FLOAT, Graph, Node, Tensor

BLOCK = 8
"""Channels in a block with AVX2 (16 with AVX-512)."""
_STAYS = frozenset(
    {"Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip", "QuickGelu", "BatchNormalization", "Gelu"}
)
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})


def block(graph: Graph) -> None:
    """Put reorders where onnxruntime puts them, and round channels up to blocks."""
    blocked: dict[str, str] = {}  # the plain name of a tensor → its blocked form
    plain: set[str] = set()  # blocked tensors that have a plain copy by their own name already
    nodes: list[Node] = []
    for node in graph.nodes:
        if _blockable(graph, node):
            _conv(graph, node, nodes, blocked)
        elif _follows(graph, node, blocked):
            node.inputs = [blocked.get(name, name) for name in node.inputs]
            _blocked_output(graph, node, blocked)
        else:
            wanted = [name for name in dict.fromkeys([*node.inputs, *_inner(node)]) if name in blocked]
            nodes += [_back(blocked, name) for name in wanted if name not in plain]
            plain.update(wanted)
        nodes.append(node)
    nodes += [_back(blocked, name) for name in dict.fromkeys(graph.outputs) if name in blocked and name not in plain]
    graph.nodes = nodes


def _back(blocked: dict[str, str], name: str) -> Node:
    return Node("ReorderOutput", [blocked[name]], [name], domain="com.microsoft.nchwc")


def _inner(node: Node) -> list[str]:
    return [name for graph in node.inside for inner in graph.nodes for name in inner.inputs]


def _blockable(graph: Graph, node: Node) -> bool:
    if node.op not in {"Conv", "FusedConv"} or node.inputs[1] not in graph.constants:
        return False
    weight, source = graph.tensor(node.inputs[1]), graph.tensor(node.inputs[0])
    if len(weight.shape) != 4 or source.kind != FLOAT or len(source.shape) != 4:
        return False
    groups = node.number("group", 1)
    channels = source.shape[1]
    if groups == 1:
        return channels % 4 == 0 or channels < BLOCK
    if groups == weight.shape[0] and weight.shape[1] == 1:
        return groups % BLOCK == 0
    return weight.shape[1] % BLOCK == 0 and (weight.shape[0] // groups) % BLOCK == 0


def _conv(graph: Graph, node: Node, nodes: list[Node], blocked: dict[str, str]) -> None:
    source = graph.tensor(node.inputs[0])
    if source.shape[1] >= BLOCK:
        for index in [0, *range(3, len(node.inputs))]:
            name = node.inputs[index]
            if not name:
                continue
            if name not in blocked:
                inner = f"{name}:blocked"
                graph.tensors[inner] = _rounded(graph.tensor(name))
                nodes.append(Node("ReorderInput", [name], [inner], domain="com.microsoft.nchwc"))
                blocked[name] = inner
            node.inputs[index] = blocked[name]
    _blocked_output(graph, node, blocked)


def _blocked_output(graph: Graph, node: Node, blocked: dict[str, str]) -> None:
    name = node.outputs[0]
    inner = f"{name}:blocked"
    graph.tensors[inner] = _rounded(graph.tensor(name))
    blocked[name] = inner
    node.outputs = [inner, *node.outputs[1:]]


def _rounded(tensor: Tensor) -> Tensor:
    shape = list(tensor.shape)
    if len(shape) > 1:
        shape[1] = math.ceil(shape[1] / BLOCK) * BLOCK
    return Tensor(tensor.kind, tuple(shape))


def _follows(graph: Graph, node: Node, blocked: dict[str, str]) -> bool:
    """Return whether a node without weights can stay in blocks."""
    if node.domain or not node.inputs or len(graph.tensor(node.outputs[0]).shape) != 4:
        return False
    if node.op in _STAYS or node.op in _POOLS:
        return node.inputs[0] in blocked
    if node.op in {"Resize", "Upsample"}:
        return node.inputs[0] in blocked and node.attributes.get("mode", "nearest") == "nearest"
    if node.op in {"Add", "Sum", "Mul"}:
        shapes = {graph.tensor(name).shape for name in node.inputs}
        return len(shapes) == 1 and all(name in blocked for name in node.inputs)
    if node.op == "Concat" and node.number("axis", 1) == 1:
        return all(name in blocked and graph.tensor(name).shape[1] % BLOCK == 0 for name in node.inputs)
    return False
