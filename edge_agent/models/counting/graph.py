"""A graph to be counted: nodes in the order in which they run, and what is known of every tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

FLOAT, HALF, DOUBLE, BFLOAT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16
INT8, UINT8, INT32, INT64 = TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64
EIGHT_BIT = frozenset({INT8, UINT8})
MICROSOFT = "com.microsoft"
STRING_BYTES = 32
"""What onnxruntime keeps of a string besides its letters (a `std::string`)."""


def bytes_of(data_type: int, shape: Iterable[int]) -> int:
    """Return the bytes of a tensor; types of less than a byte are packed two and four to a byte."""
    count = math.prod(shape)
    if data_type == TensorProto.STRING:
        return STRING_BYTES * count
    if data_type in {TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1}:
        return (count + 1) // 2
    try:
        return int(np.dtype(helper.tensor_dtype_to_np_dtype(data_type)).itemsize) * count
    except (KeyError, TypeError):
        return 4 * count


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of a tensor: its element type (of `TensorProto`) and its extents."""

    kind: int
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return bytes_of(self.kind, self.shape)


@dataclass(slots=True, eq=False)
class Node:
    """An operator. `times` is how often it runs in one run of the model; `inside` are the graphs it carries."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""
    times: float = 1.0
    fused: tuple[str, ...] = ()
    """What other operators do their work inside this one."""
    inside: tuple[Graph, ...] = ()

    def number(self, name: str, default: int) -> int:
        """Return a whole number among the attributes."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default


@dataclass(slots=True)
class Graph:
    """Nodes in order, and the tensors by name.

    `constants` are the initialisers that can't change, with their bytes in the file; `values` the contents of small
    ones, and of what follows from them; `notes` says what had to be guessed.
    """

    nodes: list[Node]
    tensors: dict[str, Tensor]
    constants: dict[str, int]
    values: dict[str, npt.NDArray[Any]]
    inputs: list[str]
    outputs: list[str]
    notes: list[str] = field(default_factory=list)
    overridable: dict[str, int] = field(default_factory=dict)
    """Initialisers that are inputs too: in memory, but nothing that onnxruntime may rely on."""
    halves: set[str] = field(default_factory=set)
    """Tensors of 16-bit floats that the CPU provider computes in 32 bits."""

    def tensor(self, name: str) -> Tensor:
        """Return what is known of `name`; nothing known is no element."""
        return self.tensors.get(name, Tensor(FLOAT, (0,)))

    def producers(self) -> dict[str, Node]:
        """Return which node makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def consumers(self) -> dict[str, list[Node]]:
        """Return which nodes read each tensor, in order; graphs inside of nodes included."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys([*node.inputs, *outer_names(node)]):
                if name:
                    readers.setdefault(name, []).append(node)
        return readers

    def drop(self, gone: Iterable[Node]) -> None:
        """Take nodes out."""
        ids = {id(node) for node in gone}
        self.nodes = [node for node in self.nodes if id(node) not in ids]

    def reroute(self, old: str, new: str) -> None:
        """Have everybody read `new` where they read `old`."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
        self.outputs = [new if name == old else name for name in self.outputs]

    def size(self, name: str) -> int:
        """Return the bytes of a tensor."""
        return self.tensor(name).size


def weight_place(graph: Graph, node: Node) -> int:
    """Return which input of a product is its weight: in operators of 8 bits, scales may stand between."""
    between = node.op.startswith("Q") and len(node.inputs) > 6 and len(graph.tensor(node.inputs[1]).shape) < 2
    return 3 if between and graph.tensor(node.inputs[1]).kind == FLOAT else 1


def outer_names(node: Node) -> list[str]:
    """Return what the graphs inside of `node` read from around it."""
    names: list[str] = []
    for graph in node.inside:
        own = {name for inner in graph.nodes for name in inner.outputs} | set(graph.inputs)
        for inner in graph.nodes:
            names += [name for name in [*inner.inputs, *outer_names(inner)] if name and name not in own]
        names += [name for name in graph.outputs if name not in own]
    return names


def walk(graph: Graph) -> Iterable[tuple[Graph, Node]]:
    """Yield every node with the graph it is in, those inside of others after them."""
    for node in graph.nodes:
        yield graph, node
        for inner in node.inside:
            yield from walk(inner)


def alone(readers: dict[str, list[Node]], graph: Graph, name: str) -> Node | None:
    """Return the only node that reads `name`, if there is just one and the name is no output."""
    found = readers.get(name, ())
    return found[0] if len(found) == 1 and name not in graph.outputs else None
