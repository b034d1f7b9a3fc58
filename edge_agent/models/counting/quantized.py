"""Rewrite a quantized graph as onnxruntime does: operators between Q and DQ become operators of 8 bits.

Where an operator has no form in 8 bits, or lacks a Q or DQ on one side, its Q and DQ nodes stay and run. An operator
that only moves values goes with the 8 bits. DynamicQuantizeLinear and MatMulInteger become one product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.models.counting.graph import EIGHT_BIT, Graph, Node, alone

if TYPE_CHECKING:
    from collections.abc import Iterable

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_MOVES = frozenset(
    {
        *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Gather", "Slice", "Split", "Expand"),
        *("Resize", "DepthToSpace", "SpaceToDepth", "Pad", "Tile", "Upsample", "Identity", "Max", "Min", "ReduceMax"),
    }
)
_UNARY = frozenset({"AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax", "Where", "ArgMax"})
_BINARY = frozenset({"Add", "Mul"})
_NAMES = {"Gemm": "QGemm"}


def fuse(graph: Graph) -> None:
    """Apply all rewritings of quantized operators."""
    for node in graph.nodes:
        for inner in node.inside:
            fuse(inner)
    _activations(graph)
    _groups(graph)
    _drop_pairs(graph)
    _dynamic(graph)


def _activations(graph: Graph) -> None:
    """A ReLU or clip before a Q that covers it does nothing that the Q doesn't."""
    readers = graph.consumers()
    makers = graph.producers()
    gone = []
    for node in graph.nodes:
        if node.op not in {"Relu", "Clip"} or node.outputs[0] in graph.outputs:
            continue
        after = readers.get(node.outputs[0], [])
        source = node.inputs[0]
        if (
            after
            and all(item.op == _Q for item in after)
            and source in makers
            and alone(readers, graph, source) is node
        ):
            for item in after:
                item.inputs[0] = source
            readers[source] = after
            gone.append(node)
    graph.drop(gone)


def _groups(graph: Graph) -> None:
    # Each decision depends only on the Q and DQ nodes around an operator, which others leave as they are.
    readers = graph.consumers()
    makers = graph.producers()
    gone: list[Node] = []
    for node in graph.nodes:
        kind = _group_kind(node)
        if kind is None or node.fused:
            continue
        data = _data_inputs(node)
        before = [item for name in data if (item := makers.get(name)) is not None and item.op == _DQ]
        if not data or len(before) < len(data) or any(_wide(graph, item) for item in before):
            continue
        after = [item for name in node.outputs for item in readers.get(name, [])]
        quantizes = bool(after) and all(item.op == _Q for item in after) and not set(node.outputs) & set(graph.outputs)
        if not quantizes and (kind != "product" or node.op == "Conv"):
            continue
        _absorb(node, before, makers)
        if quantizes:
            _rename(graph, node, after)
            gone += after
    graph.drop(gone)
    left = graph.consumers()
    outputs = set(graph.outputs)
    graph.drop(
        node
        for node in graph.nodes
        if node.op == _DQ and node.outputs[0] not in left and node.outputs[0] not in outputs
    )


def _group_kind(node: Node) -> str | None:
    if node.domain not in {"", "com.microsoft"}:
        return None
    if node.op in {"Conv", "MatMul", "Gemm"}:
        return "product"
    if node.op in _MOVES or node.op == "Concat":
        return "move"
    return "value" if node.op in _UNARY | _BINARY else None


def _data_inputs(node: Node) -> list[str]:
    if node.op in {"Conv", "Gemm", "MatMul"}:
        return [name for name in node.inputs[:2] if name]
    if node.op in _MOVES or node.op in _UNARY:
        return node.inputs[:1] if node.op not in {"Max", "Min"} else list(node.inputs)
    return [name for name in node.inputs if name]


def _wide(graph: Graph, dq: Node) -> bool:
    return graph.tensor(dq.inputs[0]).kind not in EIGHT_BIT


def _absorb(node: Node, before: Iterable[Node], makers: dict[str, Node]) -> None:
    """Have the operator read what the DQ nodes before it read."""
    sources = {item.outputs[0]: item for item in before}
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if node.op in {"Conv", "Gemm"} and bias and (maker := makers.get(bias)) is not None and maker.op == _DQ:
        sources[bias] = maker
    scales = [name for item in sources.values() for name in item.inputs[1:]]
    node.inputs = [sources[name].inputs[0] if name in sources else name for name in node.inputs]
    if node.op not in _MOVES:
        node.inputs += scales
        node.op = _NAMES.get(node.op, f"QLinear{node.op}")


def _rename(graph: Graph, node: Node, after: list[Node]) -> None:
    """Have the operator give what the Q nodes after it gave."""
    for index, name in enumerate(node.outputs):
        mine = [item for item in after if item.inputs[0] == name]
        for other in mine[1:]:
            graph.reroute(other.outputs[0], mine[0].outputs[0])
        if mine:
            node.outputs[index] = mine[0].outputs[0]


def _drop_pairs(graph: Graph) -> None:
    """A DQ whose only reader is a Q of the same form says nothing."""
    readers = graph.consumers()
    for node in [item for item in graph.nodes if item.op == _DQ]:
        after = readers.get(node.outputs[0], [])
        if after and all(item.op == _Q for item in after) and node.outputs[0] not in graph.outputs:
            for item in after:
                graph.reroute(item.outputs[0], node.inputs[0])
            graph.drop([node, *after])


def _dynamic(graph: Graph) -> None:
    readers = graph.consumers()
    makers = graph.producers()
    for product in [item for item in graph.nodes if item.op == "MatMulInteger"]:
        cast = alone(readers, graph, product.outputs[0])
        scale = alone(readers, graph, cast.outputs[0]) if cast is not None and cast.op == "Cast" else None
        if cast is None or scale is None or scale.op != "Mul":
            continue
        gone = [cast, scale]
        scales = next((makers.get(name) for name in scale.inputs if name != cast.outputs[0]), None)
        if scales is not None and scales.op == "Mul" and len(readers[scales.outputs[0]]) == 1:
            gone.append(scales)
        out = scale.outputs[0]
        bias = alone(readers, graph, out)
        if bias is not None and bias.op == "Add" and any(name in graph.constants for name in bias.inputs):
            gone.append(bias)
            out = bias.outputs[0]
        quantize = makers.get(product.inputs[0])
        product.op, product.domain = "MatMulIntegerToFloat", "com.microsoft"
        if quantize is not None and quantize.op == "DynamicQuantizeLinear":
            mine = {id(item) for item in (product, scales, *gone)}
            if all(id(item) in mine for name in quantize.outputs for item in readers.get(name, [])):
                product.op = "DynamicQuantizeMatMul"
                product.inputs[0] = quantize.inputs[0]
                gone.append(quantize)
        product.outputs = [out]
        graph.drop(gone)
        readers, makers = graph.consumers(), graph.producers()
