"""Write ONNX graphs in few words: layers by name, random weights, shapes followed along the way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8


class Builder:
    """A graph in the making. Tensors are named; `shape` knows the extents of each of them.

    Args:
        name: of the graph.
        seed: of the random weights.
    """

    def __init__(self, name: str, seed: int = 1) -> None:
        self.name = name
        self.shape: dict[str, tuple[int, ...]] = {}
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    # -- the parts ---------------------------------------------------------------------------------------------

    def input(self, name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT, *, batch: bool = True) -> str:
        """Declare an input; its first extent is the symbol `N` if `batch`."""
        self.shape[name] = shape
        dims: list[int | str] = ["N", *shape[1:]] if batch else list(shape)
        self._inputs.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def constant(self, values: npt.NDArray[Any], name: str = "c") -> str:
        """Add an initialiser and return its name."""
        name = self._name(name)
        self._constants.append(numpy_helper.from_array(values, name))
        self.shape[name] = values.shape
        return name

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        """Add random weights with a variance that keeps activations of the order of one."""
        fan_in = math.prod(shape[1:]) if len(shape) > 2 else shape[0]
        scale = gain / math.sqrt(max(1, fan_in))
        return self.constant((self._random.standard_normal(shape) * scale).astype(np.float32), "w")

    def node(self, kind: str, inputs: list[str], shape: tuple[int, ...], domain: str = "", **attributes: Any) -> str:  # noqa: ANN401 - what ONNX takes
        """Add a node with one output of this shape and return the output's name."""
        name = self._name(kind.lower())
        node = helper.make_node(kind, inputs, [name], name=f"n_{name}", domain=domain, **attributes)
        self._nodes.append(node)
        self.shape[name] = shape
        return name

    def nodes(self, kind: str, inputs: list[str], shapes: list[tuple[int, ...]], **attributes: Any) -> list[str]:  # noqa: ANN401 - as above
        """Add a node with several outputs."""
        names = [self._name(kind.lower()) for _ in shapes]
        self._nodes.append(helper.make_node(kind, inputs, names, name=f"n_{names[0]}", **attributes))
        self.shape.update(zip(names, shapes, strict=True))
        return names

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    # -- layers ------------------------------------------------------------------------------------------------

    def conv(  # noqa: PLR0913, PLR0917 - each is a fact of its own
        self, x: str, out: int, kernel: int, stride: int = 1, groups: int = 1, act: str = "", *, bias: bool = True
    ) -> str:
        """Convolve with `same` padding, then activate with `act` (relu, relu6, silu, hswish, leaky, or nothing)."""
        n, channels, *space = self.shape[x]
        pad = (kernel - 1) // 2
        extents = tuple((size + 2 * pad - kernel) // stride + 1 for size in space)
        rank = len(space)
        inputs = [x, self.weight(out, channels // groups, *[kernel] * rank, gain=1.4)]
        if bias:
            inputs.append(self.constant((self._random.standard_normal(out) * 0.1).astype(np.float32), "b"))
        y = self.node(
            "Conv",
            inputs,
            (n, out, *extents),
            kernel_shape=[kernel] * rank,
            strides=[stride] * rank,
            pads=[pad] * (2 * rank),
            group=groups,
        )
        return self.act(y, act)

    def batchnorm(self, x: str) -> str:
        """Normalise with constants, as a trained model does."""
        channels = self.shape[x][1]
        ones = (self._random.random(channels) * 0.5 + 0.75).astype(np.float32)
        small = (self._random.standard_normal(channels) * 0.1).astype(np.float32)
        inputs = [x, *(self.constant(v, "bn") for v in (ones, small, small, ones))]
        return self.node("BatchNormalization", inputs, self.shape[x])

    def act(self, x: str, kind: str) -> str:  # noqa: PLR0911 - one for each kind
        """Activate."""
        shape = self.shape[x]
        if kind == "relu":
            return self.node("Relu", [x], shape)
        if kind == "relu6":
            bounds = [self.constant(np.array(v, np.float32)) for v in (0.0, 6.0)]
            return self.node("Clip", [x, *bounds], shape)
        if kind == "silu":
            return self.node("Mul", [x, self.node("Sigmoid", [x], shape)], shape)
        if kind == "hswish":
            return self.node("HardSwish", [x], shape)
        if kind == "leaky":
            return self.node("LeakyRelu", [x], shape, alpha=0.1)
        if kind == "gelu":
            root = self.node("Div", [x, self.constant(np.array(math.sqrt(2.0), np.float32))], shape)
            one = self.node("Add", [self.node("Erf", [root], shape), self.constant(np.array(1, np.float32))], shape)
            product = self.node("Mul", [x, one], shape)
            return self.node("Mul", [product, self.constant(np.array(0.5, np.float32))], shape)
        return x

    def add(self, x: str, y: str) -> str:
        """Add two tensors of one shape."""
        return self.node("Add", [x, y], self.shape[x])

    def concat(self, parts: list[str], axis: int = 1) -> str:
        """Join along an axis."""
        shape = list(self.shape[parts[0]])
        shape[axis] = sum(self.shape[part][axis] for part in parts)
        return self.node("Concat", parts, tuple(shape), axis=axis)

    def pool(self, kind: str, x: str, kernel: int, stride: int) -> str:
        """Pool with `same` padding; kind is Max or Average."""
        n, channels, *space = self.shape[x]
        pad = (kernel - 1) // 2
        extents = tuple((size + 2 * pad - kernel) // stride + 1 for size in space)
        return self.node(
            f"{kind}Pool",
            [x],
            (n, channels, *extents),
            kernel_shape=[kernel] * len(space),
            strides=[stride] * len(space),
            pads=[pad] * (2 * len(space)),
        )

    def mean(self, x: str) -> str:
        """Average over all places."""
        n, channels, *space = self.shape[x]
        return self.node("GlobalAveragePool", [x], (n, channels, *[1] * len(space)))

    def flatten(self, x: str) -> str:
        """Keep the first extent."""
        n, *rest = self.shape[x]
        return self.node("Flatten", [x], (n, math.prod(rest)), axis=1)

    def gemm(self, x: str, out: int, act: str = "") -> str:
        """Multiply [N, K] by a weight of [out, K] and add a bias."""
        n, depth = self.shape[x]
        weight = (self._random.standard_normal((out, depth)) / math.sqrt(depth)).astype(np.float32)
        bias = (self._random.standard_normal(out) * 0.1).astype(np.float32)
        y = self.node("Gemm", [x, self.constant(weight, "w"), self.constant(bias, "b")], (n, out), transB=1)
        return self.act(y, act)

    def dense(self, x: str, out: int, act: str = "") -> str:
        """Multiply the last axis by a weight of [K, out] and add a bias, as MatMul and Add."""
        *front, depth = self.shape[x]
        y = self.node("MatMul", [x, self.weight(depth, out)], (*front, out))
        bias = self.constant((self._random.standard_normal(out) * 0.1).astype(np.float32), "b")
        return self.act(self.node("Add", [y, bias], (*front, out)), act)

    def layernorm(self, x: str, *, spelled_out: bool = True) -> str:
        """Normalise the last axis, in single steps as exporters of opset < 17 do, or as one operator."""
        *front, width = self.shape[x]
        shape, thin = self.shape[x], (*front, 1)
        gain = self.constant((self._random.random(width) * 0.5 + 0.75).astype(np.float32), "g")
        shift = self.constant((self._random.standard_normal(width) * 0.1).astype(np.float32), "b")
        if not spelled_out:
            return self.node("LayerNormalization", [x, gain, shift], shape, axis=-1)
        centred = self.node("Sub", [x, self.node("ReduceMean", [x], thin, axes=[-1])], shape)
        square = self.node("Pow", [centred, self.constant(np.array(2, np.float32))], shape)
        variance = self.node("ReduceMean", [square], thin, axes=[-1])
        safe = self.node("Add", [variance, self.constant(np.array(1e-5, np.float32))], thin)
        normal = self.node("Div", [centred, self.node("Sqrt", [safe], thin)], shape)
        return self.node("Add", [self.node("Mul", [normal, gain], shape), shift], shape)

    def reshape(self, x: str, shape: tuple[int, ...]) -> str:
        """Reshape; the first extent is copied."""
        return self.node("Reshape", [x, self.constant(np.array((0, *shape[1:]), np.int64))], shape)

    def transpose(self, x: str, order: tuple[int, ...]) -> str:
        """Transpose."""
        return self.node("Transpose", [x], tuple(self.shape[x][axis] for axis in order), perm=list(order))

    def attention(self, x: str, heads: int) -> str:
        """Self-attention over [N, T, D] in single steps."""
        n, length, width = self.shape[x]
        size = width // heads
        split = (n, length, heads, size)
        query, key, value = (self.reshape(self.dense(x, width), split) for _ in range(3))
        query, value = (self.transpose(part, (0, 2, 1, 3)) for part in (query, value))
        key = self.transpose(key, (0, 2, 3, 1))
        scores = self.node("MatMul", [query, key], (n, heads, length, length))
        scores = self.node("Div", [scores, self.constant(np.array(math.sqrt(size), np.float32))], self.shape[scores])
        shares = self.node("Softmax", [scores], self.shape[scores], axis=-1)
        mixed = self.transpose(self.node("MatMul", [shares, value], (n, heads, length, size)), (0, 2, 1, 3))
        return self.dense(self.reshape(mixed, (n, length, width)), width)

    # -- the end -----------------------------------------------------------------------------------------------

    def model(self, *outputs: str, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        """Return the model with these outputs."""
        infos = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = helper.make_graph(self._nodes, self.name, self._inputs, infos, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edge-agent")
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
