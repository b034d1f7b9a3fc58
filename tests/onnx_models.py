"""Tiny ONNX models for tests, made where they are needed so that a reader sees what is in them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
IR_VERSION = 10
# The protocol's names for ONNX's element types.
ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

Shape = "Sequence[int | str | None]"


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """Return a model of one graph."""
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def value(name: str, datatype: str, shape: Shape) -> onnx.ValueInfoProto:
    """Return an input or output; the data type by its name in the protocol."""
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[datatype], shape)


def identity(*datatypes: str, shape: Shape = ("n",)) -> bytes:
    """Return a model that gives back each of its inputs, in0 as out0 and so on, of independent sizes."""
    count = range(len(datatypes))
    shapes = [[f"{size}{i}" if i and isinstance(size, str) else size for size in shape] for i in count]
    return model(
        [helper.make_node("Identity", [f"in{i}"], [f"out{i}"]) for i in count],
        [value(f"in{i}", datatypes[i], shapes[i]) for i in count],
        [value(f"out{i}", datatypes[i], shapes[i]) for i in count],
    ).SerializeToString()


def endless() -> bytes:
    """Return a model that counts to 2**63-1."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["condition_out"]),
            helper.make_node("Add", ["carried", "carried"], ["carried_out"]),
        ],
        "body",
        [value("step", "INT64", ()), value("condition", "BOOL", ()), value("carried", "FP32", ("n",))],
        [value("condition_out", "BOOL", ()), value("carried_out", "FP32", ("n",))],
    )
    constants = [
        numpy_helper.from_array(np.array(2**63 - 1, np.int64), "trips"),
        numpy_helper.from_array(np.array(1, np.bool_), "go"),
    ]
    loop = helper.make_node("Loop", ["trips", "go", "in0"], ["out0"], body=body)
    return model([loop], [value("in0", "FP32", ("n",))], [value("out0", "FP32", ("n",))], constants).SerializeToString()


def growing() -> bytes:
    """Return a model whose output has as many elements as its input says."""
    node = helper.make_node("ConstantOfShape", ["in0"], ["out0"])
    return model([node], [value("in0", "INT64", (1,))], [value("out0", "FP32", ("n",))]).SerializeToString()


def failing() -> bytes:
    """Return a model that fails unless its input has exactly three elements."""
    three = numpy_helper.from_array(np.array([3], np.int64), "three")
    node = helper.make_node("Reshape", ["in0", "three"], ["out0"])
    return model([node], [value("in0", "FP32", ("n",))], [value("out0", "FP32", (3,))], [three]).SerializeToString()


def constant_text(text: bytes) -> bytes:
    """Return a model without inputs whose output is this text, UTF-8 or not."""
    tensor = onnx.TensorProto(name="text", data_type=TensorProto.STRING, dims=[1], string_data=[text])
    node = helper.make_node("Identity", ["text"], ["out0"])
    return model([node], [], [value("out0", "BYTES", (1,))], [tensor]).SerializeToString()


def doubling() -> bytes:
    """Return a model that gives twice its input."""
    node = helper.make_node("Add", ["in0", "in0"], ["out0"])
    shape = ("n",)
    return model([node], [value("in0", "FP32", shape)], [value("out0", "FP32", shape)]).SerializeToString()


def upper_case() -> bytes:
    """Return a model with an operator of onnxruntime-extensions: text in, the same in capitals out."""
    node = helper.make_node("StringUpper", ["in0"], ["out0"], domain="ai.onnx.contrib")
    made = model([node], [value("in0", "BYTES", ("n",))], [value("out0", "BYTES", ("n",))])
    made.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    return made.SerializeToString()


def external_tensor(name: str = "weights") -> onnx.TensorProto:
    """Return a tensor whose bytes are said to be in the file /etc/passwd."""
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.UINT8, dims=[16])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def file_of(content: bytes) -> int:
    """Return a descriptor of an unnamed file with this content; the caller closes it."""
    fd = os.memfd_create("model")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


# -- hostile ones -------------------------------------------------------------------------------------------------


def crashing() -> bytes:
    """Return a model that divides the smallest number by -1, which ends the process on x86 (SIGFPE)."""
    constants = [
        numpy_helper.from_array(np.array([-(2**63)], np.int64), "smallest"),
        numpy_helper.from_array(np.array([-1], np.int64), "minus"),
    ]
    nodes = [
        helper.make_node("Sub", ["in0", "in0"], ["zero"]),
        helper.make_node("Add", ["zero", "smallest"], ["dividend"]),
        helper.make_node("Div", ["dividend", "minus"], ["out0"]),
    ]
    return model(nodes, [value("in0", "INT64", (1,))], [value("out0", "INT64", (1,))], constants).SerializeToString()


def hoarding(elements: int) -> bytes:
    """Return a model that makes a tensor of so many FP32, whatever its input."""
    shape = numpy_helper.from_array(np.array([elements], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["much"]),
        helper.make_node("Add", ["much", "in0"], ["more"]),
        helper.make_node("ReduceSum", ["more"], ["out0"], keepdims=0),
    ]
    return model([*nodes], [value("in0", "FP32", (1,))], [value("out0", "FP32", ())], [shape]).SerializeToString()


def claiming(dims: Sequence[int], *, sparse: bool = False) -> bytes:
    """Return a model with a weight that claims these dimensions and has four bytes."""
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(4))
    made = model(
        [helper.make_node("Add", ["in0", "w"], ["out0"])],
        [value("in0", "FP32", ("n",))],
        [value("out0", "FP32", ("n",))],
        [] if sparse else [tensor],
    )
    if sparse:
        values = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], raw_data=bytes(4))
        indices = onnx.TensorProto(name="i", data_type=TensorProto.INT64, dims=[1], raw_data=bytes(8))
        made.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=indices, dims=dims))
    return made.SerializeToString()


def foreign(domain: str) -> bytes:
    """Return a model with an operator of this domain."""
    node = helper.make_node("Take", ["in0"], ["out0"], domain=domain)
    made = model([node], [value("in0", "FP32", ("n",))], [value("out0", "FP32", ("n",))])
    made.opset_import.append(helper.make_opsetid(domain, 1))
    return made.SerializeToString()


def external(location: str) -> bytes:
    """Return a model whose weight is said to be in another file."""
    tensor = external_tensor("w")
    tensor.external_data[0].value = location
    made = model(
        [helper.make_node("Add", ["in0", "w"], ["out0"])],
        [value("in0", "UINT8", (16,))],
        [value("out0", "UINT8", (16,))],
        [tensor],
    )
    return made.SerializeToString()


def many_nodes(count: int) -> bytes:
    """Return a model with a row of so many nodes, without names so that it stays small."""
    honest = onnx.ModelProto.FromString(identity("FP32"))
    node = helper.make_node("Identity", ["in0"], ["x"]).SerializeToString()
    graph = honest.graph.SerializeToString() + (b"\x0a" + varint(len(node)) + node) * count
    honest.ClearField("graph")
    return honest.SerializeToString() + b"\x3a" + varint(len(graph)) + graph


def nested_ifs(depth: int) -> bytes:
    """Return a model of Ifs, each the then-branch of the one around it, this deep; made from the inside out."""
    leaf = helper.make_graph(
        [helper.make_node("Identity", ["in0"], ["y"])], "leaf", [], [value("y", "FP32", ("n",))]
    ).SerializeToString()
    other = helper.make_attribute("else_branch", onnx.GraphProto.FromString(leaf)).SerializeToString()
    output = value("y", "FP32", ("n",)).SerializeToString()
    graph = leaf
    for _ in range(depth):
        then = b"\x0a\x0bthen_branch" + b"\x32" + varint(len(graph)) + graph + b"\xa0\x01\x05"
        node = b"\x0a\x04cond\x12\x01y\x22\x02If"
        node += b"".join(b"\x2a" + varint(len(part)) + part for part in (then, other))
        graph = b"\x0a" + varint(len(node)) + node + b"\x12\x04nest" + b"\x62" + varint(len(output)) + output
    whole = onnx.ModelProto.FromString(identity("FP32"))
    for port in (value("in0", "FP32", ("n",)), value("cond", "BOOL", ())):
        data = port.SerializeToString()
        graph += b"\x5a" + varint(len(data)) + data
    whole.ClearField("graph")
    return whole.SerializeToString() + b"\x3a" + varint(len(graph)) + graph


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    data = b""
    while number > 0x7F:
        data += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return data + bytes((number,))
