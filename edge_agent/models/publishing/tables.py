"""Large tables of floats that rows are looked up in (word embeddings), in 8 bits with one scale a row.

Weight-only quantizers leave them as floats, and in small language models they are half of the file. Standard
operators only: Gather of 8-bit rows, Gather of their scales, Cast, Mul.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MIN_ELEMENTS = 16_384
"""Smaller tables are not worth three more nodes."""


def compress(model: onnx.ModelProto) -> int:
    """Rewrite the large tables of `model` in place; return how many there were."""
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    nodes: list[onnx.NodeProto] = []
    done: dict[str, tuple[str, str]] = {}
    for node in graph.node:
        table = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _fits(table, node, uses):
            nodes.append(node)
            continue
        if table.name not in done:
            done[table.name] = _store(graph, table)
        nodes += _lookup(node, *done[table.name])
    if done:
        del graph.node[:]
        graph.node.extend(nodes)
        kept = [item for item in graph.initializer if item.name not in done]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    return len(done)


def _fits(table: onnx.TensorProto, node: onnx.NodeProto, uses: dict[str, int]) -> bool:
    rows = all(attribute.i == 0 for attribute in node.attribute if attribute.name == "axis")
    large = table.data_type == TensorProto.FLOAT and len(table.dims) == 2 and np.prod(table.dims) >= MIN_ELEMENTS
    return bool(rows and large and uses[table.name] == 1)


def _store(graph: onnx.GraphProto, table: onnx.TensorProto) -> tuple[str, str]:
    values = numpy_helper.to_array(table)
    largest = np.abs(values).max(axis=1, keepdims=True)
    scales = (np.where(largest > 0.0, largest, 1.0) / 127.0).astype(np.float32)
    levels = np.clip(np.rint(values / scales), -127, 127).astype(np.int8)
    names = (f"{table.name}_q", f"{table.name}_q_scale")
    graph.initializer.append(numpy_helper.from_array(levels, names[0]))
    graph.initializer.append(numpy_helper.from_array(scales, names[1]))
    return names


def _lookup(node: onnx.NodeProto, levels: str, scales: str) -> list[onnx.NodeProto]:
    out, indices = node.output[0], node.input[1]
    names = (f"{out}_row_q", f"{out}_row_scale", f"{out}_row")
    return [
        helper.make_node("Gather", [levels, indices], [names[0]], name=f"{node.name}_q", axis=0),
        helper.make_node("Gather", [scales, indices], [names[1]], name=f"{node.name}_scale", axis=0),
        helper.make_node("Cast", [names[0]], [names[2]], name=f"{node.name}_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [names[2], names[1]], [out], name=f"{node.name}_scaled"),
    ]
