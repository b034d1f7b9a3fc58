"""From an ONNX model to a `Graph` whose tensors all have an extent.

Symbols in shapes take the extents that are given, others 1. Every node is asked of ONNX's own inference in turn;
what that does not know (operators of onnxruntime, custom ones, extents that depend on data) is filled in from rules
here or guessed from the inputs, and a note says so.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, TypeProto, defs, helper, numpy_helper, shape_inference

from edge_agent.models.counting import contrib
from edge_agent.models.counting.graph import FLOAT, INT64, Graph, Node, Tensor, bytes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

MAX_VALUES = 4096
"""Constants of up to this many elements are followed by their values: extents are made from them."""
MAX_NOTES = 20
_VALUE_OPS = frozenset(
    {
        *("Shape", "Size", "Gather", "GatherElements", "GatherND", "Slice", "Concat", "Unsqueeze", "Squeeze", "Cast"),
        *("Add", "Sub", "Mul", "Div", "Mod", "Reshape", "ConstantOfShape", "Range", "ReduceProd", "ReduceSum", "Neg"),
        *("ReduceMax", "ReduceMin", "Floor", "Ceil", "Equal", "Where", "Min", "Max", "Expand", "Identity", "Not"),
        *("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Transpose", "Flatten", "Tile", "Split"),
        *("NonZero", "CumSum", "Abs", "Sqrt", "Pow", "ScatterND", "ScatterElements", "OneHot", "Round", "Sign"),
    }
)


def read(model: onnx.ModelProto, extents: Mapping[str, int] | None = None) -> Graph:
    """Return the graph of `model` with an extent for everything.

    Args:
        model: with or without shape information; its weights are not touched.
        extents: by symbol or by name of an input's axis (`input:0`); what is not given is 1.
    """
    if model.functions:
        from onnx import inliner  # noqa: PLC0415 - rarely needed

        model = inliner.inline_local_functions(model)
    opsets = {entry.domain: entry.version for entry in model.opset_import} or {"": 1}
    reader = _Reader(opsets, model.ir_version, dict(extents or {}))
    graph = reader.graph(model.graph, {})
    graph.notes += [f"{what}, {count} times" if count > 1 else what for what, count in reader.unknown.most_common()]
    del graph.notes[MAX_NOTES:]
    return graph


class _Reader:
    def __init__(self, opsets: dict[str, int], ir_version: int, extents: dict[str, int]) -> None:
        self._opsets = opsets
        self._opset_ids = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        self._ir_version = ir_version
        self._extents = extents
        self.unknown: Counter[str] = Counter()

    def graph(self, proto: onnx.GraphProto, outer: Mapping[str, Tensor], given: Mapping[str, Tensor] | None = None,
              values: Mapping[str, npt.NDArray[Any]] | None = None) -> Graph:  # fmt: skip
        """Read one graph; `outer` is what it sees from around it, `given` what its inputs are known to be."""
        names = {item.name for item in proto.initializer}
        found = Graph([], dict(outer), {}, dict(values or {}), [], [value.name for value in proto.output])
        for item in proto.initializer:
            self._constant(found, item.name, item)
        for sparse in proto.sparse_initializer:
            self._constant(found, sparse.values.name, sparse.values)
            found.tensors[sparse.values.name] = Tensor(sparse.values.data_type, tuple(sparse.dims))
        for value in proto.input:
            if value.name in names:
                if self._ir_version >= 4:
                    found.overridable[value.name] = found.constants.pop(value.name)
                continue
            found.inputs.append(value.name)
            found.tensors[value.name] = (given or {}).get(value.name) or self._declared(value)
        declared = {value.name: value for value in (*proto.value_info, *proto.output)}
        for node in proto.node:
            self._node(found, node, declared)
        return found

    def _constant(self, graph: Graph, name: str, item: onnx.TensorProto) -> None:
        graph.tensors[name] = Tensor(item.data_type, tuple(item.dims))
        graph.constants[name] = bytes_of(item.data_type, item.dims)
        if math.prod(item.dims) <= MAX_VALUES and item.data_location != TensorProto.EXTERNAL:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                graph.values[name] = numpy_helper.to_array(item)

    def _declared(self, value: onnx.ValueInfoProto) -> Tensor:
        kind = value.type
        if not kind.HasField("tensor_type"):
            self.unknown[f"the input {value.name!r} is no tensor: counted as nothing"] += 1
            return Tensor(FLOAT, (0,))
        return Tensor(kind.tensor_type.elem_type or FLOAT, self._extents_of(value.name, kind.tensor_type))

    def _extents_of(self, name: str, kind: onnx.TypeProto.Tensor) -> tuple[int, ...]:
        shape = []
        for axis, dim in enumerate(kind.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                shape.append(dim.dim_value)
            else:
                shape.append(self._extents.get(f"{name}:{axis}", self._extents.get(dim.dim_param, 1)))
        return tuple(shape)

    # -- one node ----------------------------------------------------------------------------------------------

    def _node(self, graph: Graph, proto: onnx.NodeProto, declared: Mapping[str, onnx.ValueInfoProto]) -> None:
        attributes = {a.name: _value_of(a) for a in proto.attribute if a.type not in _GRAPHS}
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        node = Node(proto.op_type, list(proto.input), list(proto.output), attributes, domain)
        if proto.op_type == "Constant" and not domain:
            self._constant_node(graph, node, proto)
            return
        bodies = [(a.name, g) for a in proto.attribute for g in ([a.g] if a.type == AttributeProto.GRAPH else a.graphs)]
        graph.nodes.append(node)
        if bodies:
            self._control_flow(graph, node, dict(bodies))
        elif not self._by_value(graph, node, proto) and not self._inferred(graph, node, proto):
            rule = contrib.RULES.get(node.op)
            shapes = rule(graph, node) if rule is not None else None
            if shapes is not None:
                graph.tensors.update(zip(node.outputs, shapes, strict=False))
        for name in node.outputs:
            if name and name not in graph.tensors:
                graph.tensors[name] = self._guess(graph, node, name, declared)

    def _constant_node(self, graph: Graph, node: Node, proto: onnx.NodeProto) -> None:
        name = node.outputs[0]
        for attribute in proto.attribute:
            if attribute.name == "value":
                self._constant(graph, name, attribute.t)
            elif attribute.name.startswith("value_"):
                array = np.asarray(helper.get_attribute_value(attribute))
                item = numpy_helper.from_array(array.astype(object) if array.dtype.kind == "S" else _narrow(array))
                self._constant(graph, name, item)

    def _by_value(self, graph: Graph, node: Node, proto: onnx.NodeProto) -> bool:
        """Follow a node by its values, where they are few; what shapes are made of becomes known so."""
        if node.domain or node.op not in _VALUE_OPS:
            return False
        if node.op == "Shape":
            source = graph.tensor(node.inputs[0])
            shape = source.shape[node.number("start", 0) : node.attributes.get("end", len(source.shape))]
            results = [np.array(shape, np.int64)]
        elif node.op == "Size":
            results = [np.array(graph.tensor(node.inputs[0]).count, np.int64)]
        else:
            feeds = {name: graph.values[name] for name in node.inputs if name in graph.values}
            if len(feeds) < len({name for name in node.inputs if name}):
                return False
            evaluated = self._evaluate(proto, feeds)
            if evaluated is None:
                return False
            results = evaluated
        for name, result in zip(node.outputs, results, strict=False):
            array = np.asarray(result)
            try:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            except (KeyError, ValueError):
                return False
            graph.tensors[name] = Tensor(kind, array.shape)
            if array.size <= MAX_VALUES:
                graph.values[name] = array
        return True

    def _evaluate(self, proto: onnx.NodeProto, feeds: dict[str, npt.NDArray[Any]]) -> list[Any] | None:
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - slow to import

        infos = [helper.make_value_info(name, TypeProto()) for name in feeds]
        outs = [helper.make_value_info(name, TypeProto()) for name in proto.output if name]
        try:
            model = helper.make_model(helper.make_graph([proto], "one", infos, outs), opset_imports=self._opset_ids)
            return list(ReferenceEvaluator(model).run(None, feeds))
        except Exception:  # noqa: BLE001 - a value that can't be followed is only less known
            return None

    def _inferred(self, graph: Graph, node: Node, proto: onnx.NodeProto) -> bool:
        try:
            schema = defs.get_schema(node.op, self._opsets.get(node.domain, 1), node.domain)
            types = {name: _type_of(graph.tensor(name)) for name in node.inputs if name}
            data = {name: numpy_helper.from_array(graph.values[name], name) for name in types if name in graph.values}
            found = shape_inference.infer_node_outputs(
                schema, proto, types, data, None, self._opset_ids, self._ir_version
            )
        except Exception:  # noqa: BLE001 - of many kinds; what is not inferred is guessed, and said to be
            return False
        complete = True
        for name in node.outputs:
            kind = found.get(name)
            if kind is None or not kind.HasField("tensor_type"):
                complete = complete and not name
                continue
            dims = kind.tensor_type.shape.dim
            if not kind.tensor_type.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
                complete = False
                continue
            graph.tensors[name] = Tensor(kind.tensor_type.elem_type, tuple(dim.dim_value for dim in dims))
        return complete

    def _guess(self, graph: Graph, node: Node, name: str, declared: Mapping[str, onnx.ValueInfoProto]) -> Tensor:
        if name in declared and declared[name].type.tensor_type.HasField("shape"):
            return self._declared(declared[name])
        source = graph.tensor(node.inputs[0]) if node.inputs else Tensor(FLOAT, (1,))
        self.unknown[f"the output of {node.op} has an unknown shape: taken as that of its input"] += 1
        return source

    # -- control flow --------------------------------------------------------------------------------------------

    def _control_flow(self, graph: Graph, node: Node, bodies: dict[str, onnx.GraphProto]) -> None:
        if node.op == "If":
            self._if(graph, node, bodies)
            return
        (name, body), *_ = bodies.items()
        carried = node.inputs[2:] if node.op == "Loop" else node.inputs
        states = len(carried) - node.number("num_scan_inputs", 0) if node.op == "Scan" else len(carried)
        given: dict[str, Tensor] = {}
        ports = [value.name for value in body.input]
        if node.op == "Loop":
            given.update(zip(ports[:2], (Tensor(INT64, ()), Tensor(TensorProto.BOOL, ())), strict=False))
            ports = ports[2:]
        for index, (port, source) in enumerate(zip(ports, carried, strict=False)):
            tensor = graph.tensor(source)
            given[port] = tensor if index < states else Tensor(tensor.kind, tensor.shape[1:])
        inner = self.graph(body, graph.tensors, given, graph.values)
        inner.constants |= inner.overridable  # a body's own are constant
        node.inside = (inner,)
        node.times = float(self._trips(graph, node, carried, states))
        results = inner.outputs[1:] if node.op == "Loop" else inner.outputs
        for index, (out, result) in enumerate(zip(node.outputs, results, strict=False)):
            tensor = inner.tensor(result)
            stacked = Tensor(tensor.kind, (max(1, int(node.times)), *tensor.shape))
            graph.tensors[out] = tensor if index < states else stacked
        if name != "body":
            self.unknown[f"{node.op} has a graph inside: taken as run once"] += 1

    def _trips(self, graph: Graph, node: Node, carried: list[str], states: int) -> int:
        if node.op == "Scan" and states < len(carried):
            shape = graph.tensor(carried[states]).shape
            return shape[0] if shape else 1
        if node.op == "Loop" and node.inputs[0] in graph.values:
            return max(0, min(int(graph.values[node.inputs[0]].reshape(-1)[0]), 10**6))
        self.unknown[f"how often {node.op} runs is not in the graph: taken as once"] += 1
        return 1

    def _if(self, graph: Graph, node: Node, bodies: dict[str, onnx.GraphProto]) -> None:
        branches = [self.graph(body, graph.tensors, values=graph.values) for body in bodies.values()]
        condition = graph.values.get(node.inputs[0])
        if condition is not None and len(branches) == 2:
            chosen = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
            taken = branches[list(bodies).index(chosen)]
            node.inside = (taken,)
        else:
            taken = max(branches, key=_weight)
            node.inside = (taken, *[branch for branch in branches if branch is not taken])
            self.unknown["which branch of If runs is not in the graph: the larger one is counted"] += 1
        for out, result in zip(node.outputs, taken.outputs, strict=False):
            graph.tensors[out] = taken.tensor(result)


_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def _weight(graph: Graph) -> int:
    return sum(tensor.size for tensor in graph.tensors.values()) + len(graph.nodes)


def _value_of(attribute: onnx.AttributeProto) -> Any:  # noqa: ANN401 - what ONNX has
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return list(value) if attribute.type in {AttributeProto.INTS, AttributeProto.FLOATS} else value


def _narrow(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _type_of(tensor: Tensor) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(tensor.kind, tensor.shape)
