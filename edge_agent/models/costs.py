"""What a graph costs, counted from the graph: constants, the peak of living intermediate tensors, and work.

Counted for a batch of one: every symbol in a shape is taken as 1. QuantizeLinear and DequantizeLinear nodes
count as nothing, because onnxruntime fuses them into the operators around them; a tensor between such a
pair counts with its 8 bits. Graphs without control flow only.

Train-time only: imports onnx.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper, shape_inference

from edge_agent.models.catalogue import Costs

if TYPE_CHECKING:
    from collections.abc import Iterable

_FREE = {"QuantizeLinear", "DequantizeLinear"}
Shapes = dict[str, tuple[int, ...]]


def count(model: onnx.ModelProto) -> Costs:
    """Return the costs of `model` for one sample.

    Raises:
        ValueError: the graph has sub-graphs, or a tensor whose shape cannot be inferred.
    """
    fixed = _with_batch_of_one(model)
    graph = fixed.graph
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for n in graph.node for a in n.attribute):
        raise ValueError("graphs with control flow cannot be counted")
    constants = {item.name: _bytes_of(item.data_type, item.dims) for item in graph.initializer}
    shapes, sizes = _tensors(graph)
    return Costs(
        initializer_bytes=sum(constants.values()),
        largest_initializer_bytes=max(constants.values(), default=0),
        conv_fp32_initializer_bytes=_conv_fp32_bytes(graph),
        activation_peak_bytes=_activation_peak(graph, sizes, set(constants)),
        macs=sum(_macs(node, shapes) for node in graph.node),
        nodes=sum(node.op_type not in _FREE for node in graph.node),
    )


def _with_batch_of_one(model: onnx.ModelProto) -> onnx.ModelProto:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.dim_value = 1
    return shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)


def _bytes_of(data_type: int, shape: Iterable[int]) -> int:
    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize) * math.prod(shape)


def _tensors(graph: onnx.GraphProto) -> tuple[Shapes, dict[str, int]]:
    """Return the shape and the bytes of every tensor of the graph."""
    shapes: Shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    sizes = {item.name: _bytes_of(item.data_type, item.dims) for item in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not all(dimension.HasField("dim_value") for dimension in tensor.shape.dim):
            raise ValueError(f"the shape of {value.name!r} cannot be inferred")
        shape = tuple(dimension.dim_value for dimension in tensor.shape.dim)
        shapes[value.name] = shape
        sizes[value.name] = _bytes_of(tensor.elem_type, shape)
    return shapes, sizes


def _conv_fp32_bytes(graph: onnx.GraphProto) -> int:
    floats = {
        item.name: _bytes_of(item.data_type, item.dims)
        for item in graph.initializer
        if item.data_type == TensorProto.FLOAT
    }
    return sum(floats.get(node.input[1], 0) for node in graph.node if node.op_type == "Conv")


def _activation_peak(graph: onnx.GraphProto, sizes: dict[str, int], constants: set[str]) -> int:
    """Return the largest sum of bytes of intermediate tensors that are needed at the same time."""
    stands_for = _merged(graph, sizes)
    last_use: dict[str, int] = {}
    born: dict[str, int] = {value.name: 0 for value in graph.input}
    for index, node in enumerate(graph.node):
        for name in node.input:
            if name and name not in constants:
                last_use[stands_for.get(name, name)] = index
        for name in node.output:
            if name:
                born.setdefault(stands_for.get(name, name), index)
    for value in graph.output:
        last_use[stands_for.get(value.name, value.name)] = len(graph.node)
    # What descends from constants alone (dequantized weights) is folded away at load and is no activation.
    fixed = _constant_descendants(graph, constants)
    peak = 0
    for index in range(len(graph.node)):
        alive = (
            name for name, start in born.items() if name not in fixed and start <= index <= last_use.get(name, start)
        )
        peak = max(peak, sum(sizes[name] for name in alive))
    return peak


def _merged(graph: onnx.GraphProto, sizes: dict[str, int]) -> dict[str, str]:
    """Map each side of a Q or DQ node to the smaller, the 8-bit tensor: after fusion only that one exists."""
    merged: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in _FREE:
            source = merged.get(node.input[0], node.input[0])
            target = node.output[0]
            keep, drop = (source, target) if sizes[source] <= sizes[target] else (target, source)
            merged[drop] = keep
            for name, kept in merged.items():
                if kept == drop:
                    merged[name] = keep
    return merged


def _constant_descendants(graph: onnx.GraphProto, constants: set[str]) -> set[str]:
    fixed = set(constants)
    for node in graph.node:
        if node.input and all(name in fixed for name in node.input if name):
            fixed.update(node.output)
    return fixed


def _macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return the multiply-accumulates of one node; 0 for all but convolutions and matrix products."""
    kind = node.op_type
    if kind in ("Conv", "ConvInteger"):
        kernel = shapes[node.input[1]]
        return math.prod(shapes[node.output[0]]) * math.prod(kernel[1:])
    if kind == "Gemm":
        transposed = any(item.name == "transA" and item.i for item in node.attribute)
        inner = shapes[node.input[0]][0 if transposed else 1]
        return math.prod(shapes[node.output[0]]) * inner
    if kind in ("MatMul", "MatMulInteger"):
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0
