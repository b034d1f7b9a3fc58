"""Shapes of what onnxruntime's own operators give, which ONNX's inference does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.models.counting.graph import FLOAT, INT32, UINT8, Graph, Node, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


def _same(graph: Graph, node: Node) -> list[Tensor]:
    source = graph.tensor(node.inputs[0])
    return [source for _ in node.outputs]


def _broadcast(graph: Graph, node: Node) -> list[Tensor]:
    # QLinearAdd and QLinearMul: a, its scale and zero point, then b.
    first, second = graph.tensor(node.inputs[0]), graph.tensor(node.inputs[3])
    rank = max(len(first.shape), len(second.shape))
    one, other = ((1,) * (rank - len(t.shape)) + t.shape for t in (first, second))
    return [Tensor(first.kind, tuple(max(pair) for pair in zip(one, other, strict=True)))]


def _product(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    if len(second) < 2 or not first:
        return first
    front = first[:-2] if len(first) >= len(second) else second[:-2]
    return (*front, *first[-2:-1], second[-1])


def _matmul(position: int, kind: int | None) -> Callable[[Graph, Node], list[Tensor]]:
    def rule(graph: Graph, node: Node) -> list[Tensor]:
        first, second = graph.tensor(node.inputs[0]), graph.tensor(node.inputs[position])
        left, right = list(first.shape), list(second.shape)
        if node.number("transA", 0) and len(left) > 1:
            left[-2:] = reversed(left[-2:])
        if node.number("transB", 0) and len(right) > 1:
            right[-2:] = reversed(right[-2:])
        return [Tensor(kind or first.kind, _product(tuple(left), tuple(right)))]

    return rule


def _nbits(graph: Graph, node: Node) -> list[Tensor]:
    source = graph.tensor(node.inputs[0])
    return [Tensor(source.kind, (*source.shape[:-1], node.number("N", 1)))]


def _qgemm(graph: Graph, node: Node) -> list[Tensor]:
    (out,) = _matmul(3, None)(graph, node)
    return [out if len(node.inputs) > 8 else Tensor(FLOAT, out.shape)]


def _concat(graph: Graph, node: Node) -> list[Tensor]:
    # The output's scale and zero point, then three for each part.
    parts = [graph.tensor(name) for name in node.inputs[2::3]]
    axis = node.number("axis", 1)
    shape = list(parts[0].shape)
    if shape:
        shape[axis] = sum(part.shape[axis] for part in parts)
    return [Tensor(parts[0].kind, tuple(shape))]


def _pool(graph: Graph, node: Node) -> list[Tensor]:
    source = graph.tensor(node.inputs[0])
    last = node.number("channels_last", 0)
    channels = source.shape[-1] if last else source.shape[1]
    ones = (1,) * (len(source.shape) - 2)
    return [Tensor(source.kind, (source.shape[0], *ones, channels) if last else (source.shape[0], channels, *ones))]


def _window(graph: Graph, node: Node) -> list[Tensor] | None:
    source = graph.tensor(node.inputs[0])
    kernel = node.attributes.get("kernel_shape")
    rank = len(source.shape) - 2
    if not kernel or rank != len(kernel) or node.number("channels_last", 0):
        return None
    strides, pads = node.attributes.get("strides") or [1] * rank, node.attributes.get("pads") or [0] * (2 * rank)
    space = (
        (size + pads[axis] + pads[axis + rank] - kernel[axis]) // strides[axis] + 1
        for axis, size in enumerate(source.shape[2:])
    )
    return [Tensor(source.kind, (*source.shape[:2], *(max(1, size) for size in space)))]


def _attention(graph: Graph, node: Node) -> list[Tensor]:
    source, weight = graph.tensor(node.inputs[0]), graph.tensor(node.inputs[1])
    width = weight.shape[-1] // 3 if weight.shape else source.shape[-1]
    return [Tensor(FLOAT, (*source.shape[:-1], width)), *[source for _ in node.outputs[1:]]]


def _embed(graph: Graph, node: Node) -> list[Tensor]:
    ids, table = graph.tensor(node.inputs[0]), graph.tensor(node.inputs[2])
    full = Tensor(table.kind, (*ids.shape, table.shape[-1]))
    return [full, Tensor(INT32, ids.shape[:1]), full]


def _dynamic(graph: Graph, node: Node) -> list[Tensor]:
    return [Tensor(UINT8, graph.tensor(node.inputs[0]).shape), Tensor(FLOAT, ()), Tensor(UINT8, ())]


def _conv(graph: Graph, node: Node) -> list[Tensor] | None:
    position = 3 if node.op == "QLinearConv" else 1
    source, weight = graph.tensor(node.inputs[0]), graph.tensor(node.inputs[position])
    rank = len(source.shape) - 2
    if rank < 1 or len(weight.shape) != rank + 2:
        return None
    last = bool(node.number("channels_last", 0))
    space = source.shape[1:-1] if last else source.shape[2:]
    strides = node.attributes.get("strides") or [1] * rank
    dilations = node.attributes.get("dilations") or [1] * rank
    pads = node.attributes.get("pads") or [0] * (2 * rank)
    extents = []
    for axis, size in enumerate(space):
        reach = (weight.shape[2 + axis] - 1) * dilations[axis] + 1
        if str(node.attributes.get("auto_pad", "NOTSET")).startswith("SAME"):
            extents.append(-(-size // strides[axis]))
        else:
            extents.append(max(1, (size + pads[axis] + pads[axis + rank] - reach) // strides[axis] + 1))
    shape = (source.shape[0], *extents, weight.shape[0]) if last else (source.shape[0], weight.shape[0], *extents)
    return [Tensor(source.kind, shape)]


RULES: dict[str, Callable[[Graph, Node], list[Tensor] | None]] = {
    **dict.fromkeys(
        (
            *("Gelu", "FastGelu", "BiasGelu", "QuickGelu", "SkipLayerNormalization", "SimplifiedLayerNormalization"),
            *("SkipSimplifiedLayerNormalization", "RotaryEmbedding", "QLinearSigmoid", "QLinearLeakyRelu"),
            *("QLinearSoftmax", "LayerNormalization", "GroupNorm", "BiasAdd", "ReorderInput", "ReorderOutput"),
        ),
        _same,
    ),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _broadcast),
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul"), _matmul(1, None)),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), _matmul(1, FLOAT)),
    **dict.fromkeys(("FusedConv", "NhwcFusedConv", "QLinearConv"), _conv),
    **dict.fromkeys(("QLinearGlobalAveragePool", "NhwcMaxPool"), _pool),
    "QLinearAveragePool": _window,
    **dict.fromkeys(("Attention", "QAttention"), _attention),
    "MultiHeadAttention": _same,
    "GroupQueryAttention": _same,
    "FusedGemm": _matmul(1, None),
    "QGemm": _qgemm,
    "QLinearMatMul": _matmul(3, UINT8),
    "MatMulNBits": _nbits,
    "QLinearConcat": _concat,
    "EmbedLayerNormalization": _embed,
    "DynamicQuantizeLinear": _dynamic,
}
