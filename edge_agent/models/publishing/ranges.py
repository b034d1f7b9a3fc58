"""The ranges that activations reach on calibration samples, for the static forms.

onnxruntime's own calibrator knows no operators of other libraries; this one runs the graph through `Runner`,
once for all static forms.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.errors import InputError
from edge_agent.models.publishing.graphs import Prepared
from edge_agent.models.publishing.runs import BASIC, Feed, Runner

MAX_RANGES = 20_000
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})

Ranges = dict[str, tuple[float, float]]
"""The lowest and the highest value of each tensor."""


def measure(prepared: Prepared, feeds: Sequence[Feed], op_types: Sequence[str]) -> Ranges:
    """Return the range of every float tensor that an operator of `op_types` reads or writes.

    Raises:
        InputError: the model does not run on the samples, or gives infinities or NaN on them.
    """
    wanted = _wanted(prepared.model, frozenset(op_types))
    if not wanted or len(wanted) > MAX_RANGES:
        raise InputError(f"The graph has {len(wanted)} tensors to calibrate; 1 to {MAX_RANGES} can be.")
    runner = Runner(_augmented(prepared.model, wanted), library=prepared.library, level=BASIC)
    names = list(wanted)
    lows = np.full(len(names), np.inf)
    highs = np.full(len(names), -np.inf)
    outputs = [name for index in range(len(names)) for name in (f"low_{index}", f"high_{index}")]
    for feed in feeds:
        found = runner.run(feed, outputs)
        # A tensor without elements has no range in this run.
        values = [(found[f"low_{i}"], found[f"high_{i}"]) for i in range(len(names))]
        lows = np.minimum(lows, [low.item() if low.size else np.inf for low, _ in values])
        highs = np.maximum(highs, [high.item() if high.size else -np.inf for _, high in values])
    ranges: Ranges = {}
    for name, low, high in zip(names, lows.tolist(), highs.tolist(), strict=True):
        if low > high:  # never any element: whatever scale it gets is right
            ranges[name] = (0.0, 0.0)
            continue
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(
                f"The tensor {name!r} becomes infinite or NaN on the calibration samples.",
                hint="Look for a division by zero or a mask of -inf in the model; publish weight-only forms of it.",
            )
        ranges[name] = (low, high)
    return ranges


def _wanted(model: onnx.ModelProto, op_types: frozenset[str]) -> list[str]:
    """Return the names of the float tensors to calibrate, in the order of the graph."""
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    constants = {item.name for item in graph.initializer}
    names: dict[str, None] = {}
    for node in graph.node:
        if node.op_type in op_types:
            for name in (*node.input, *node.output):
                if name not in constants and types.get(name) in _FLOATS:
                    names[name] = None
    return list(names)


def _augmented(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return the graph with the lowest and the highest value of each tensor as outputs, of at most one element."""
    graph = copy.deepcopy(model)
    flat = "edge_agent_flat"
    graph.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), flat))
    types = {
        v.name: v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    for index, name in enumerate(names):
        line = f"edge_agent_line_{index}"
        graph.graph.node.append(helper.make_node("Reshape", [name, flat], [line], name=line))
        for kind, op_type in (("low", "ReduceMin"), ("high", "ReduceMax")):
            # Of the one axis, kept: onnxruntime cannot reduce an empty axis away.
            node = helper.make_node(op_type, [line], [f"{kind}_{index}"], name=f"edge_agent_{kind}_{index}", keepdims=1)
            graph.graph.node.append(node)
            graph.graph.output.append(helper.make_tensor_value_info(f"{kind}_{index}", types[name], [None]))
    return graph
