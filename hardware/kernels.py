"""The models that the benchmark times: one layer each, of the size that common small models are made of.

numpy is imported here: only the benchmark's own process imports this module. Weights come from a seeded
generator, so that they are neither zero nor denormal, which would be faster or slower than real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hardware.onnx_bytes import FLOAT, INT8, INT32, MICROSOFT, UINT8, Node, Tensor, Value, model

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, DEPTH, WIDTH = 256, 768, 768
"""A matrix product of a text model: 256 tokens, 768 values each (BERT-base)."""
CHANNELS, SIDE = 64, 56
"""A 3 by 3 convolution of a vision model: 64 channels on 56 by 56 pixels (ResNet-18)."""
TOKEN_DEPTH, TOKEN_WIDTH, BLOCK = 2048, 4096, 32
"""One token through a layer of a language model of a billion parameters, 4 bits in blocks of 32."""
_TYPES = {"float32": FLOAT, "uint8": UINT8, "int8": INT8, "int32": INT32}


class Kernel(NamedTuple):
    """One model to time."""

    name: str
    macs: int
    """Multiply-accumulate operations of one run."""
    build: Callable[[], tuple[bytes, dict[str, Any]]]
    """Return the model and its inputs."""
    expected: str
    """The operator that must do the work after onnxruntime's own rewriting."""


def kernels() -> tuple[Kernel, ...]:
    """Return all kernels, the most telling first: what time doesn't suffice for is left out from the end."""
    matmul, conv = ROWS * DEPTH * WIDTH, CHANNELS * CHANNELS * 9 * SIDE * SIDE
    return (
        Kernel("conv_fp32", conv, _conv_fp32, "Conv"),
        Kernel("conv_qdq_u8s8", conv, _conv_qdq, "QLinearConv"),
        Kernel("matmul_fp32", matmul, _matmul_fp32, "MatMul"),
        Kernel("qlinearmatmul_u8s8", matmul, lambda: _qlinearmatmul("int8"), "QLinearMatMul"),
        Kernel("matmulinteger_u8s8", matmul, lambda: _matmulinteger("int8"), "MatMulInteger"),
        Kernel("matmulnbits_4", TOKEN_DEPTH * TOKEN_WIDTH, _matmulnbits, "MatMulNBits"),
        Kernel("qlinearmatmul_u8u8", matmul, lambda: _qlinearmatmul("uint8"), "QLinearMatMul"),
        Kernel("matmulinteger_u8u8", matmul, lambda: _matmulinteger("uint8"), "MatMulInteger"),
    )


def _random() -> np.random.Generator:
    return np.random.default_rng(20240229)


def _floats(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Any:  # noqa: ANN401 - numpy's arrays
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def _bytes(rng: np.random.Generator, kind: str, *shape: int) -> Any:  # noqa: ANN401 - as above
    # Seven bits, as calibrated models with reduced range have: no kernel saturates on its way.
    low, high = (-64, 64) if kind == "int8" else (64, 192)
    return rng.integers(low, high, shape, dtype=np.int16).astype(kind)


def _tensor(name: str, array: Any) -> Tensor:  # noqa: ANN401 - as above
    return Tensor(name, _TYPES[str(array.dtype)], array.shape, array.tobytes())


def _matmul_fp32() -> tuple[bytes, dict[str, Any]]:
    rng = _random()
    data = model(
        [Node("MatMul", ("a", "b"), ("y",))],
        [Value("a", FLOAT, (ROWS, DEPTH))],
        [Value("y", FLOAT, (ROWS, WIDTH))],
        [_tensor("b", _floats(rng, DEPTH, WIDTH, scale=0.05))],
    )
    return data, {"a": _floats(rng, ROWS, DEPTH)}


def _conv_fp32() -> tuple[bytes, dict[str, Any]]:
    rng = _random()
    shape = (1, CHANNELS, SIDE, SIDE)
    data = model(
        [Node("Conv", ("x", "w", "b"), ("y",), {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)})],
        [Value("x", FLOAT, shape)],
        [Value("y", FLOAT, shape)],
        [
            _tensor("w", _floats(rng, CHANNELS, CHANNELS, 3, 3, scale=0.05)),
            _tensor("b", _floats(rng, CHANNELS)),
        ],
    )
    return data, {"x": _floats(rng, *shape)}


def _conv_qdq() -> tuple[bytes, dict[str, Any]]:
    """A convolution between QuantizeLinear and DequantizeLinear, weights per channel, as tools write it."""
    rng = _random()
    shape = (1, CHANNELS, SIDE, SIDE)
    scales = (rng.random(CHANNELS) * 0.001 + 0.001).astype(np.float32)
    in_scale = np.float32(0.05)
    initializers = [
        _tensor("w", _bytes(rng, "int8", CHANNELS, CHANNELS, 3, 3)),
        _tensor("w_scale", scales),
        _tensor("w_zero", np.zeros(CHANNELS, np.int8)),
        _tensor("bias", rng.integers(-1000, 1000, CHANNELS).astype(np.int32)),
        _tensor("bias_scale", scales * in_scale),
        _tensor("bias_zero", np.zeros(CHANNELS, np.int32)),
        _tensor("x_scale", np.array(in_scale)),
        _tensor("x_zero", np.array(128, np.uint8)),
        _tensor("y_scale", np.array(0.1, np.float32)),
        _tensor("y_zero", np.array(128, np.uint8)),
    ]
    data = model(
        [
            Node("DequantizeLinear", ("x", "x_scale", "x_zero"), ("x_f",)),
            Node("DequantizeLinear", ("w", "w_scale", "w_zero"), ("w_f",), {"axis": 0}),
            Node("DequantizeLinear", ("bias", "bias_scale", "bias_zero"), ("b_f",), {"axis": 0}),
            Node("Conv", ("x_f", "w_f", "b_f"), ("c",), {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}),
            Node("QuantizeLinear", ("c", "y_scale", "y_zero"), ("y",)),
        ],
        [Value("x", UINT8, shape)],
        [Value("y", UINT8, shape)],
        initializers,
    )
    return data, {"x": _bytes(rng, "uint8", *shape)}


def _qlinearmatmul(kind: str) -> tuple[bytes, dict[str, Any]]:
    rng = _random()
    data = model(
        [Node("QLinearMatMul", ("a", "s", "az", "b", "s", "bz", "ys", "az"), ("y",))],
        [Value("a", UINT8, (ROWS, DEPTH))],
        [Value("y", UINT8, (ROWS, WIDTH))],
        [
            _tensor("b", _bytes(rng, kind, DEPTH, WIDTH)),
            _tensor("s", np.array(0.02, np.float32)),
            _tensor("ys", np.array(0.5, np.float32)),
            _tensor("az", np.array(128, np.uint8)),
            _tensor("bz", np.array(0 if kind == "int8" else 128, kind)),
        ],
    )
    return data, {"a": _bytes(rng, "uint8", ROWS, DEPTH)}


def _matmulinteger(kind: str) -> tuple[bytes, dict[str, Any]]:
    rng = _random()
    data = model(
        [Node("MatMulInteger", ("a", "b", "az", "bz"), ("y",))],
        [Value("a", UINT8, (ROWS, DEPTH))],
        [Value("y", INT32, (ROWS, WIDTH))],
        [
            _tensor("b", _bytes(rng, kind, DEPTH, WIDTH)),
            _tensor("az", np.array(128, np.uint8)),
            _tensor("bz", np.array(0 if kind == "int8" else 128, kind)),
        ],
    )
    return data, {"a": _bytes(rng, "uint8", ROWS, DEPTH)}


def _matmulnbits() -> tuple[bytes, dict[str, Any]]:
    rng = _random()
    blocks = TOKEN_DEPTH // BLOCK
    node = Node(
        "MatMulNBits",
        ("a", "b", "scales"),
        ("y",),
        {"K": TOKEN_DEPTH, "N": TOKEN_WIDTH, "bits": 4, "block_size": BLOCK, "accuracy_level": 4},
        MICROSOFT,
    )
    data = model(
        [node],
        [Value("a", FLOAT, (1, TOKEN_DEPTH))],
        [Value("y", FLOAT, (1, TOKEN_WIDTH))],
        [
            _tensor("b", rng.integers(0, 256, (TOKEN_WIDTH, blocks, BLOCK // 2), dtype=np.uint8)),
            _tensor("scales", (rng.random(TOKEN_WIDTH * blocks) * 0.01 + 0.001).astype(np.float32)),
        ],
    )
    return data, {"a": _floats(rng, 1, TOKEN_DEPTH)}
