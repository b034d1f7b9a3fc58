"""Write small ONNX models without the `onnx` package: the few protobuf fields that the benchmark needs.

Field numbers are those of onnx.proto (ModelProto, GraphProto, NodeProto, TensorProto, AttributeProto). The
encoding is protobuf's: a key (field number, wire type), then a varint or a length and bytes. Weights become
real initializers, so that onnxruntime packs them for its kernels as it does those of any model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
IR_VERSION = 8
_INT_ATTRIBUTE, _INTS_ATTRIBUTE = 2, 7
MICROSOFT = "com.microsoft"


class Tensor(NamedTuple):
    """An initializer: its raw little-endian bytes."""

    name: str
    type: int
    shape: tuple[int, ...]
    data: bytes


class Value(NamedTuple):
    """An input or output of the graph."""

    name: str
    type: int
    shape: tuple[int, ...]


class Node(NamedTuple):
    """One operation. Attributes are whole numbers or lists of them."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, int | Sequence[int]] = {}
    domain: str = ""


def model(
    nodes: Sequence[Node],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    initializers: Sequence[Tensor],
    opset: int = 17,
) -> bytes:
    """Return the bytes of a model with one graph."""
    graph = b"".join(
        [
            *(_message(1, _node(node)) for node in nodes),
            _text(2, "benchmark"),
            *(_message(5, _tensor(tensor)) for tensor in initializers),
            *(_message(11, _value(value)) for value in inputs),
            *(_message(12, _value(value)) for value in outputs),
        ]
    )
    opsets = _message(8, _text(1, "") + _number(2, opset)) + _message(8, _text(1, MICROSOFT) + _number(2, 1))
    return _number(1, IR_VERSION) + _message(7, graph) + opsets


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= 2**64 - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _node(node: Node) -> bytes:
    return b"".join(
        [
            *(_text(1, name) for name in node.inputs),
            *(_text(2, name) for name in node.outputs),
            _text(4, node.operator),
            *(_message(5, _attribute(name, value)) for name, value in node.attributes.items()),
            _text(7, node.domain),
        ]
    )


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, _INT_ATTRIBUTE)
    return _text(1, name) + b"".join(_number(8, item) for item in value) + _number(20, _INTS_ATTRIBUTE)


def _tensor(tensor: Tensor) -> bytes:
    dims = b"".join(_number(1, size) for size in tensor.shape)
    return dims + _number(2, tensor.type) + _text(8, tensor.name) + _message(9, tensor.data)


def _value(value: Value) -> bytes:
    dims = b"".join(_message(1, _number(1, size)) for size in value.shape)
    tensor_type = _number(1, value.type) + _message(2, dims)
    return _text(1, value.name) + _message(2, _message(1, tensor_type))
