"""Tiny models, one kind of work each, with which a machine is measured. For the calibration's own process only.

Sizes are those of layers in models that small machines run. Operators of one kind follow each other a few times, so
that what a run costs besides them does not show. Imports numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hardware.onnx_bytes import FLOAT, INT8, INT32, INT64, MICROSOFT, UINT8, Node, Tensor, Value, model

Array = npt.NDArray[Any]
_TYPES = {"float32": FLOAT, "uint8": UINT8, "int8": INT8, "int32": INT32, "int64": INT64}


class Micro(NamedTuple):
    """One model to time: `nodes` operators of one kind, each with `amount` of work."""

    kind: str
    amount: float
    nodes: int
    build: Callable[[], tuple[bytes, dict[str, Array]]]


class _Graph:
    """Nodes in a row: what one gives is what the next takes."""

    def __init__(self, array: Array) -> None:
        self._rng = np.random.default_rng(7)
        self._feeds = {"x": array}
        self._nodes: list[Node] = []
        self._constants: list[Tensor] = []
        self.last = "x"

    def constant(self, array: Array) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(Tensor(name, _TYPES[str(array.dtype)], array.shape, array.tobytes()))
        return name

    def floats(self, *shape: int, scale: float = 0.05) -> str:
        return self.constant((self._rng.standard_normal(shape) * scale).astype(np.float32))

    def levels(self, kind: str, *shape: int) -> str:
        # Seven bits, as calibrated models with reduced range have: no kernel saturates on its way.
        low, high = (-64, 64) if kind == "int8" else (64, 192)
        return self.constant(self._rng.integers(low, high, shape, dtype=np.int16).astype(kind))

    def number(self, value: float, kind: str = "float32") -> str:
        return self.constant(np.array(value, kind))

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> None:  # noqa: ANN401 - what ONNX takes
        name = f"y{len(self._nodes)}"
        self._nodes.append(Node(operator, (self.last, *inputs), (name,), attributes, domain))
        self.last = name

    def done(self, shape: tuple[int, ...], kind: str = "float32") -> tuple[bytes, dict[str, Array]]:
        (name, array), *_ = self._feeds.items()
        inputs = [Value(name, _TYPES[str(array.dtype)], array.shape)]
        return model(self._nodes, inputs, [Value(self.last, _TYPES[kind], shape)], self._constants), self._feeds


def _image(channels: int, side: int, kind: str = "float32") -> Array:
    rng = np.random.default_rng(11)
    shape = (1, channels, side, side)
    if kind == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(64, 192, shape, dtype=np.int16).astype(kind)


def _values(*shape: int) -> Array:
    return np.random.default_rng(13).standard_normal(shape).astype(np.float32)


def _levels(*shape: int) -> Array:
    return np.random.default_rng(13).integers(64, 192, shape, dtype=np.int16).astype(np.uint8)


class _Window(NamedTuple):
    channels: int
    out: int
    side: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def side_out(self) -> int:
        return (self.side - 1) // self.stride + 1

    @property
    def macs(self) -> float:
        return float(self.out * self.side_out**2 * self.kernel**2 * self.channels // self.groups)

    @property
    def weight(self) -> tuple[int, ...]:
        return (self.out, self.channels // self.groups, self.kernel, self.kernel)

    @property
    def attributes(self) -> dict[str, Any]:
        pad = self.kernel // 2
        size, step = (self.kernel, self.kernel), (self.stride, self.stride)
        return {"kernel_shape": size, "pads": (pad,) * 4, "strides": step, "group": self.groups}

    @property
    def repeats(self) -> int:
        return 3 if self.channels == self.out and self.stride == 1 else 1

    @property
    def shape_out(self) -> tuple[int, ...]:
        return (1, self.out, self.side_out, self.side_out)


def _conv(kind: str, window: _Window) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_image(window.channels, window.side))
        for _ in range(window.repeats):
            graph.add("Conv", graph.floats(*window.weight), graph.floats(window.out), **window.attributes)
        return graph.done(window.shape_out)

    return Micro(f"{kind}.f32", window.macs, window.repeats, build)


def _qconv(kind: str, window: _Window, weights: str) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_image(window.channels, window.side, "uint8"))
        zero = graph.number(0 if weights == "int8" else 128, weights)
        scale, middle = graph.number(0.02), graph.number(128, "uint8")
        for _ in range(window.repeats):
            weight = graph.levels(weights, *window.weight)
            bias = graph.constant(np.zeros(window.out, np.int32))
            graph.add(
                "QLinearConv", scale, middle, weight, scale, zero, graph.number(0.5), middle, bias, **window.attributes
            )
        return graph.done(window.shape_out, "uint8")

    return Micro(f"{kind}.{'u8s8' if weights == 'int8' else 'u8u8'}", window.macs, window.repeats, build)


def _conv_integer(kind: str, window: _Window) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_image(window.channels, window.side, "uint8"))
        middle = graph.number(128, "uint8")
        graph.add("ConvInteger", graph.levels("uint8", *window.weight), middle, middle, **window.attributes)
        return graph.done(window.shape_out, "int32")

    return Micro(f"{kind}.integer", window.macs, 1, build)


def _sound(channels: int, length: int) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_values(1, channels, length))
        for _ in range(2):
            graph.add("Conv", graph.floats(channels, channels, 3), kernel_shape=(3,), pads=(1, 1))
        return graph.done((1, channels, length))

    return Micro("conv_plain.f32", float(channels * channels * 3 * length), 2, build)


def _conv_transpose(channels: int, side: int) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_image(channels, side))
        half = channels // 2
        graph.add("ConvTranspose", graph.floats(channels, half, 2, 2), kernel_shape=(2, 2), strides=(2, 2))
        return graph.done((1, half, 2 * side, 2 * side))

    return Micro("convtranspose.f32", float(channels * side * side * channels // 2 * 4), 1, build)


def _matmul(rows: int, width: int) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_values(rows, width))
        for _ in range(2):
            graph.add("MatMul", graph.floats(width, width))
        return graph.done((rows, width))

    return Micro("matvec.f32" if rows == 1 else "matmul.f32", float(rows * width * width), 2, build)


def _qmatmul(rows: int, width: int, weights: str) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_levels(rows, width))
        zero = graph.number(0 if weights == "int8" else 128, weights)
        scale, middle = graph.number(0.02), graph.number(128, "uint8")
        for _ in range(2):
            weight = graph.levels(weights, width, width)
            graph.add("QLinearMatMul", scale, middle, weight, scale, zero, graph.number(0.5), middle)
        return graph.done((rows, width), "uint8")

    kind = f"{'matvec' if rows == 1 else 'matmul'}.{'u8s8' if weights == 'int8' else 'u8u8'}"
    return Micro(kind, float(rows * width * width), 2, build)


def _dynamic(rows: int, width: int, weights: str) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_values(rows, width))
        zero = graph.number(0 if weights == "int8" else 128, weights)
        for _ in range(2):
            weight = graph.levels(weights, width, width)
            graph.add("DynamicQuantizeMatMul", weight, graph.number(0.001), zero, domain=MICROSOFT)
        return graph.done((rows, width))

    kind = f"{'matvec' if rows == 1 else 'matmul'}.dynamic_{'u8s8' if weights == 'int8' else 'u8u8'}"
    return Micro(kind, float(rows * width * width), 2, build)


def _nbits(rows: int, width: int, bits: int) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_values(rows, width))
        blocks = width // 32
        for _ in range(2):
            rng = np.random.default_rng(5)
            packed = graph.constant(rng.integers(0, 256, (width, blocks, 4 * bits), dtype=np.uint8))
            scales = graph.constant((rng.random(width * blocks) * 0.01 + 0.001).astype(np.float32))
            options = {"K": width, "N": width, "bits": bits, "block_size": 32, "accuracy_level": 4}
            graph.add("MatMulNBits", packed, scales, domain=MICROSOFT, **options)
        return graph.done((rows, width))

    return Micro(f"nbits{bits}{'_vec' if rows == 1 else ''}", float(rows * width * width), 2, build)


def _lstm(steps: int, width: int) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_values(steps, 1, width))
        weights = [graph.floats(1, 4 * width, width) for _ in range(2)]
        graph.add("LSTM", *weights, hidden_size=width)
        return graph.done((steps, 1, 1, width))

    return Micro("lstm.f32", float(steps * 8 * width * width), 1, build)


def _each(kind: str, operator: str, count: int, *, domain: str = "", with_itself: bool = False) -> Micro:
    """Return an operator that works on each element by itself."""

    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_values(count // 128, 128))
        for index in range(4):
            if with_itself:
                # Never the same two inputs, or onnxruntime would fold the row into less.
                graph.add(operator, "x" if index else graph.floats(128))
            else:
                graph.add(operator, domain=domain)
        return graph.done((count // 128, 128))

    return Micro(kind, float(count), 4, build)


def _single(
    kind: str, count: int, array: Array, out: tuple[tuple[int, ...], str], extend: Callable[[_Graph], None]
) -> Micro:
    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(array)
        extend(graph)
        return graph.done(*out)

    return Micro(kind, float(count), 1, build)


def _quant(count: int) -> Micro:
    def extend(graph: _Graph) -> None:
        graph.add("QuantizeLinear", graph.number(0.02), graph.number(128, "uint8"))

    shape = (count // 128, 128)
    return _single("quant", count, _values(*shape), (shape, "uint8"), extend)


def _qelem(count: int) -> Micro:
    shape = (count // 128, 128)

    def extend(graph: _Graph) -> None:
        scale, middle = graph.number(0.02), graph.number(128, "uint8")
        graph.add("QLinearAdd", scale, middle, "x", scale, middle, graph.number(0.04), middle, domain=MICROSOFT)

    return _single("qelem", count, _levels(*shape), (shape, "uint8"), extend)


def _qsoftmax(count: int) -> Micro:
    shape = (count // 128, 128)

    def extend(graph: _Graph) -> None:
        middle = graph.number(128, "uint8")
        scales = (graph.number(0.05), middle, graph.number(1 / 256), graph.number(0, "uint8"))
        graph.add("QLinearSoftmax", *scales, domain=MICROSOFT, axis=-1, opset=13)

    return _single("qsoftmax", count, _levels(*shape), (shape, "uint8"), extend)


def _norm(count: int) -> Micro:
    shape = (count // 384, 384)

    def extend(graph: _Graph) -> None:
        graph.add("LayerNormalization", graph.floats(384, scale=1.0), graph.floats(384), axis=-1)

    return _single("norm", count // 384 * 384, _values(*shape), (shape, "float32"), extend)


def _copy(count: int) -> Micro:
    shape = (1, count // 384, 12, 32)

    def extend(graph: _Graph) -> None:
        graph.add("Transpose", perm=(0, 2, 1, 3))

    return _single("copy", count // 384 * 384, _values(*shape), ((1, 12, count // 384, 32), "float32"), extend)


def _pool(channels: int, side: int) -> Micro:
    def extend(graph: _Graph) -> None:
        graph.add("MaxPool", kernel_shape=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1))

    shape = (1, channels, side, side)
    return _single("pool", channels * side * side * 9, _image(channels, side), (shape, "float32"), extend)


def _resize(channels: int, side: int) -> Micro:
    def extend(graph: _Graph) -> None:
        graph.add("Resize", "", graph.constant(np.array([1, 1, 2, 2], np.float32)))

    shape = (1, channels, 2 * side, 2 * side)
    return _single("resize", 4 * channels * side * side, _image(channels, side), (shape, "float32"), extend)


def _reduce(count: int) -> Micro:
    def extend(graph: _Graph) -> None:
        graph.add("ReduceMean", axes=(1,))

    return _single("reduce", count, _values(count // 128, 128), ((count // 128, 1), "float32"), extend)


def overhead() -> Micro:
    """Return a row of operators with almost nothing to do: what an operator costs whatever it does."""

    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_values(1, 16))
        for index in range(32):
            graph.add("Add", "x" if index else graph.floats(16))
            graph.add("Softmax")
        return graph.done((1, 16))

    return Micro("view", 1.0, 64, build)


def nothing() -> Micro:
    """Return a model with one operator that has almost nothing to do: what a run costs."""

    def build() -> tuple[bytes, dict[str, Array]]:
        graph = _Graph(_values(1, 16))
        graph.add("Add", graph.floats(16))
        return graph.done((1, 16))

    return Micro("run", 1.0, 1, build)


def all_of_them() -> tuple[Micro, ...]:
    """Return all models, the most telling first: what time does not suffice for is left out from the end."""
    square, point = _Window(64, 64, 28, 3), _Window(128, 128, 28, 1)
    deep, thin = _Window(96, 96, 56, 3, groups=96), _Window(3, 32, 112, 3, 2)
    large = (
        *(_conv("conv", square), _conv("conv1x1", point), _conv("dwconv", deep), _conv("conv_in", thin)),
        *(_qconv("conv", square, "int8"), _qconv("conv1x1", point, "int8"), _qconv("dwconv", deep, "int8")),
        *(_matmul(128, 512), _qmatmul(128, 512, "int8"), _qmatmul(128, 512, "uint8")),
        *(_dynamic(128, 512, "int8"), _dynamic(128, 512, "uint8"), _nbits(128, 512, 4), _nbits(128, 512, 8)),
        *(_qconv("conv1x1", point, "uint8"), _qconv("conv", square, "uint8"), _qconv("conv_in", thin, "int8")),
        *(_qconv("dwconv", deep, "uint8"), _matmul(1, 1024), _qmatmul(1, 1024, "int8"), _nbits(1, 1024, 4)),
        *(_nbits(1, 1024, 8), _dynamic(1, 1024, "uint8"), _sound(128, 400), _conv_integer("conv", square)),
        *(_conv_integer("conv1x1", point), _conv_integer("dwconv", _Window(96, 96, 28, 3, groups=96))),
        *(
            _conv("dwconv_plain", _Window(92, 92, 28, 3, groups=92)),
            # Channels that fill no blocks: these run in the plain layout.
            _conv("conv_plain", _Window(30, 30, 60, 1)),
            _conv("conv_plain", _Window(18, 18, 60, 3)),
            _lstm(16, 256),
            _conv_transpose(64, 32),
            _each("cheap", "Add", 1 << 18, with_itself=True),
        ),
        *(_each("exp", "Sigmoid", 1 << 17), _each("gelu", "Gelu", 1 << 17, domain=MICROSOFT)),
        *(_each("softmax", "Softmax", 1 << 17), _norm(1 << 16), _copy(1 << 17), _quant(1 << 18), _qelem(1 << 18)),
        *(_qsoftmax(1 << 16), _pool(64, 40), _resize(64, 20), _reduce(1 << 18), _each("costly", "Log", 1 << 16)),
    )
    small_square, small_point = _Window(32, 32, 14, 3), _Window(64, 64, 14, 1)
    small_deep = _Window(64, 64, 14, 3, groups=64)
    small = (
        *(_conv("conv", small_square), _conv("conv1x1", small_point), _conv("dwconv", small_deep)),
        *(_qconv("conv", small_square, "int8"), _qconv("conv1x1", small_point, "int8")),
        *(_qconv("dwconv", small_deep, "int8"), _matmul(16, 128), _qmatmul(16, 128, "int8")),
        *(_qmatmul(16, 128, "uint8"), _dynamic(16, 128, "int8"), _dynamic(16, 128, "uint8"), _matmul(1, 256)),
        *(_qmatmul(1, 256, "int8"), _sound(32, 100), _lstm(4, 64), _each("cheap", "Add", 1 << 13, with_itself=True)),
        *(_each("exp", "Sigmoid", 1 << 12), _each("gelu", "Gelu", 1 << 12, domain=MICROSOFT), _quant(1 << 13)),
        *(_each("softmax", "Softmax", 1 << 12), _norm(1 << 13), _copy(1 << 12), _qelem(1 << 13)),
        *(_conv_integer("conv1x1", small_point), _pool(32, 10), _reduce(1 << 12)),
    )
    huge = (
        _conv("conv", _Window(128, 128, 28, 3)),
        _matmul(128, 1024),
        _qconv("conv", _Window(128, 128, 28, 3), "int8"),
    )
    return (*large, *small, *huge)
