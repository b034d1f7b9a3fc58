"""Whether a graph's outputs are the same bits on every instruction set, told from the graph.

They are if all arithmetic that rounds depending on the order of sums happens in integers: convolutions and matrix
products between DequantizeLinear and QuantizeLinear, with weights of 7 bits so that no 16-bit intermediate
saturates. What else may stand around them moves, compares or picks values, or is one correctly rounded
operation on each element.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edge_agent.models.publishing.graphs import graphs

_INTEGER = frozenset({"Conv", "Gemm", "MatMul"})
_MOVING = frozenset({
    "ArgMax", "ArgMin", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "DequantizeLinear",
    "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "QuantizeLinear", "Relu", "Reshape", "Shape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_ROUNDED_ONCE = frozenset({"Add", "Sub", "Mul", "Div"})
_WHOLE = frozenset({
    TensorProto.BOOL, TensorProto.STRING, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
})  # fmt: skip
MOST_LEVELS = 64
"""The largest absolute 8-bit weight that `reduce_range` gives."""


def why_not(model: onnx.ModelProto) -> str | None:
    """Return in words what keeps the outputs from being the same bits everywhere, or None if nothing does."""
    graph = model.graph
    if sum(1 for _ in graphs(graph)) > 1:
        return "it has sub-graphs"
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    for node in graph.node:
        if all(types.get(name, TensorProto.FLOAT) in _WHOLE for name in node.output):
            continue  # whole numbers and text have nothing to round
        found = _fault(node, makers, readers)
        if found is not None:
            return found
    constants = {item.name: item for item in graph.initializer}
    return _wide_weights(graph, constants)


def _fault(
    node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], readers: dict[str, list[onnx.NodeProto]]
) -> str | None:
    kind = node.op_type
    if node.domain not in {"", "ai.onnx"}:
        return f"{kind} of {node.domain} is not known to agree"
    if kind in _MOVING:
        return None
    integers_in = [name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input if name]
    quantized_out = all(
        readers.get(name) and all(reader.op_type in {"QuantizeLinear", "Relu", "Clip"} for reader in readers[name])
        for name in node.output
    )
    if kind in _INTEGER:
        return None if all(integers_in) and quantized_out else f"{kind} {node.name} sums in floats"
    if kind in _ROUNDED_ONCE:
        # Between 8-bit tensors onnxruntime fuses these, and how it rounds then differs between machines.
        return f"{kind} {node.name} is fused" if any(integers_in) and quantized_out else None
    return f"{kind} rounds as each machine likes"


def _wide_weights(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> str | None:
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type not in _INTEGER:
            continue
        source = makers[node.input[1]].input[0]
        weight = constants.get(source)
        if weight is None or weight.data_type != TensorProto.INT8:
            return f"the weights of {node.name} are not signed constants"
        if int(np.abs(numpy_helper.to_array(weight).astype(np.int16)).max(initial=0)) > MOST_LEVELS:
            return f"the weights of {node.name} use more than 7 bits"
    return None
