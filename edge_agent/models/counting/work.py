"""What one run has to do: for every node its kind of work, how much of it, and the bytes that it moves.

Kinds are what kernels differ in: a depthwise convolution runs at a tenth of the rate of a dense one, a matrix times a
vector at the speed of memory, 8-bit products by other instructions than floats. Nodes of one kind and about one size
are added up. `models.rates` says how long a kind takes on a machine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.models.counting.fusion import VIEWS
from edge_agent.models.counting.graph import DOUBLE, INT8, Graph, Node, weight_place

if TYPE_CHECKING:
    from collections.abc import Iterable

FEW_ROWS = 4
"""Products of at most so many rows are bound by reading the weights."""
FEW_CHANNELS = 8
"""Convolutions from fewer channels have kernels of their own."""
SIZE_STEP = 4.0
"""Nodes of one kind whose sizes differ by less than this are added up."""

_CHEAP = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Relu", "Clip", "Max", "Min", "Neg", "Abs", "And", "Or", "Not", "Equal", "Less"),
        *("Greater", "LessOrEqual", "GreaterOrEqual", "Where", "Cast", "Floor", "Ceil", "Round", "Sum", "Mean"),
        *("BatchNormalization", "LeakyRelu", "PRelu", "HardSigmoid", "HardSwish", "ThresholdedRelu", "BiasAdd", "Sign"),
    }
)
_COPIES = frozenset(
    {
        *("Concat", "Transpose", "Slice", "Split", "Pad", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Gather"),
        *("GatherND", "GatherElements", "ScatterND", "ScatterElements", "QLinearConcat", "ConstantOfShape", "OneHot"),
        *("ReverseSequence", "Range", "CumSum", "Compress", "NonZero", "ReorderInput", "ReorderOutput"),
    }
)
_NAMED = {
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
    "LayerNormalization": "norm",
    "SkipLayerNormalization": "norm",
    "SimplifiedLayerNormalization": "norm",
    "SkipSimplifiedLayerNormalization": "norm",
    "EmbedLayerNormalization": "norm",
    "InstanceNormalization": "norm",
    "GroupNormalization": "norm",
    "Gelu": "gelu",
    "BiasGelu": "gelu",
    "FastGelu": "gelu",
    "QuickGelu": "gelu",
    "Erf": "gelu",
    "Sigmoid": "exp",
    "Tanh": "exp",
    "Exp": "exp",
    "QuantizeLinear": "quant",
    "DequantizeLinear": "quant",
    "DynamicQuantizeLinear": "quant",
    "QLinearSoftmax": "qsoftmax",
    "MaxPool": "pool",
    "AveragePool": "pool",
    "Resize": "resize",
    "Upsample": "resize",
    "GlobalAveragePool": "reduce",
    "GlobalMaxPool": "reduce",
    "LSTM": "lstm",
    "GRU": "lstm",
    "RNN": "lstm",
    "DynamicQuantizeLSTM": "lstm",
}


class Load(NamedTuple):
    """The work of nodes of one kind: how many, multiply-accumulates or elements, and bytes moved, all together."""

    kind: str
    nodes: float
    amount: float
    moved_bytes: float


def count(graph: Graph) -> tuple[list[Load], int]:
    """Return the work of one run, largest amounts first, and its multiply-accumulates."""
    sums: dict[tuple[str, int], list[float]] = {}
    macs = 0.0
    for place, node, times in _running(graph, 1.0):
        kind, amount, product = _kind(place, node)
        if product:
            macs += times * amount
        moved = sum(place.size(name) for name in {*node.inputs, *node.outputs} if name)
        step = round(math.log(max(1.0, amount), SIZE_STEP))
        entry = sums.setdefault((kind, step), [0.0, 0.0, 0.0])
        for index, value in enumerate((1.0, amount, moved)):
            entry[index] += times * value
    found = [Load(kind, *values) for (kind, _), values in sums.items()]
    return sorted(found, key=lambda load: (-load.amount, load.kind)), int(macs)


def _running(graph: Graph, times: float) -> Iterable[tuple[Graph, Node, float]]:
    for node in graph.nodes:
        yield graph, node, times
        for inner in node.inside[:1]:
            yield from _running(inner, times * node.times)


def _kind(graph: Graph, node: Node) -> tuple[str, float, bool]:
    """Return the kind of work, its amount, and whether that is multiply-accumulates."""
    op = node.op
    if op in {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"}:
        return _convolution(graph, node)
    if op == "ConvTranspose":
        amount = graph.tensor(node.inputs[0]).count * math.prod(graph.tensor(node.inputs[1]).shape[1:])
        return "convtranspose.f32", float(amount), True
    product = _product(graph, node)
    if product is not None:
        return product
    if op in {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}:
        steps, batch = (*graph.tensor(node.inputs[0]).shape, 1, 1)[:2]
        weights = sum(graph.tensor(name).count for name in node.inputs[1:3])
        return ("lstm.u8" if op.startswith("Dynamic") else "lstm.f32"), float(steps * batch * weights), True
    if op in VIEWS or op in {"Shape", "Size", "If", "Loop", "Scan", "Constant"}:
        return "view", 1.0, False
    kind, amount = _elements(graph, node)
    return kind, float(max(1, amount)), False


def _elements(graph: Graph, node: Node) -> tuple[str, int]:
    """Return the kind and the elements of an operator that multiplies no matrices."""
    op = node.op
    most = max((graph.tensor(name).count for name in node.outputs if name), default=0)
    if node.inputs and op not in _GATHERS:
        most = max(most, graph.tensor(node.inputs[0]).count)
    kind = _NAMED.get(op)
    if kind == "pool":
        return kind, most * math.prod(node.attributes.get("kernel_shape") or [1])
    if kind is not None:
        return kind, most
    if op.startswith("QLinear"):
        return ("reduce" if "Pool" in op else "qelem"), most
    if op.startswith("Reduce") or op in {"ArgMax", "ArgMin", "TopK", "NonMaxSuppression"}:
        return "reduce", max((graph.tensor(name).count for name in (*node.inputs, *node.outputs) if name), default=1)
    if op in _CHEAP:
        return "cheap", most
    return ("copy" if op in _COPIES else "costly"), most


_GATHERS = frozenset({"Gather", "GatherND", "GatherElements", "Slice"})


def _precision(graph: Graph, weight: str) -> str:
    return "u8s8" if graph.tensor(weight).kind == INT8 else "u8u8"


def _convolution(graph: Graph, node: Node) -> tuple[str, float, bool]:
    position = weight_place(graph, node)
    weight = graph.tensor(node.inputs[position])
    out = graph.tensor(node.outputs[0])
    amount = float(out.count * math.prod(weight.shape[1:]))
    groups = node.number("group", 1)
    one_by_one = math.prod(weight.shape[2:]) == 1
    if groups > 1 and groups == (weight.shape[0] if weight.shape else 0):
        form = "dwconv"
    elif weight.shape[1:2] and weight.shape[1] * groups < FEW_CHANNELS:
        form = "conv_in"
    else:
        form = "conv1x1" if one_by_one else "conv"
    if node.op == "ConvInteger":
        return f"{form}.integer", amount, True
    if node.op == "QLinearConv":
        return f"{form}.{_precision(graph, node.inputs[position])}", amount, True
    if not node.outputs[0].endswith(":blocked"):
        # Not in a layout of blocks: one dimension, weights that may change, or channels that fill no blocks.
        form = "dwconv_plain" if form == "dwconv" else "conv_plain"
    return f"{form}.f32", amount, True


def _product(graph: Graph, node: Node) -> tuple[str, float, bool] | None:
    op = node.op
    if op == "MatMulNBits":
        source = graph.tensor(node.inputs[0])
        depth, width = node.number("K", 1), node.number("N", 1)
        rows = source.count // max(1, depth)
        form = f"nbits{node.number('bits', 4)}"
        return form + ("_vec" if rows <= FEW_ROWS else ""), float(rows * depth * width), True
    if op in {"Attention", "QAttention"}:
        source, weight = graph.tensor(node.inputs[0]), graph.tensor(node.inputs[1])
        length = source.shape[-2] if len(source.shape) > 1 else 1
        width = weight.shape[-1] // 3 if weight.shape else 1
        amount = source.count // max(1, source.shape[-1]) * (source.shape[-1] * width * 3 + 2 * length * width)
        return f"matmul.{'f32' if op == 'Attention' else _precision(graph, node.inputs[1])}", float(amount), True
    if op in {"MatMul", "FusedMatMul", "Gemm", "FusedGemm"}:
        position, form = 1, "f32"
        if op == "Gemm" and len(node.inputs) > 3:
            return None
    elif op in {"QLinearMatMul", "QGemm"}:
        position = weight_place(graph, node)
        form = _precision(graph, node.inputs[position])
    elif op in {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}:
        position, form = 1, f"dynamic_{_precision(graph, node.inputs[1])}"
    else:
        return None
    source, out = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    if not source.shape:
        return "cheap", 1.0, False
    depth = source.shape[-2 if node.number("transA", 0) and len(source.shape) > 1 else -1]
    weight = graph.tensor(node.inputs[position])
    rows = out.count // max(1, out.shape[-1] if out.shape else 1)
    constant = node.inputs[position] in graph.constants or len(weight.shape) == 2
    if source.kind == DOUBLE:
        form = "f64"
    shape = "matvec" if constant and rows <= FEW_ROWS else "matmul"
    return f"{shape}.{form}", float(out.count * depth), True
