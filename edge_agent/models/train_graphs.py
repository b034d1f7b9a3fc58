"""ONNX graphs of the trained network: floats, static 8 bits and dynamic 8 bits.

The graphs are written out node by node instead of by a quantization tool, so that the bytes of the files
depend on the weights alone and not on the version of a tool. The static form is the one that came out
bit-identical on all instruction sets: unsigned activations, signed weights per channel with 7 bits (a sum
of two products of 8 by 8 bits saturates the 16-bit intermediates of x86 without VNNI), and outputs on a
fixed grid.

Train-time only: imports onnx and numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.models.train_exact import CLASSES, SIDE, Array, Pass, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

OPSET = 21
IR_VERSION = 10  # the one that came with opset 21; every onnxruntime we accept reads both
INPUT_SCALE = 2.0**-7  # pixels are multiples of 1/16 after scaling, so their 8-bit form is exact
WEIGHT_LEVELS = 64  # 7 bits: what `reduce_range` means
DYNAMIC_WEIGHT_LEVELS = 127
DYNAMIC_ZERO = 128

_CONV1 = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
_CONV2 = {**_CONV1, "strides": [2, 2]}


@dataclass(frozen=True)
class Ranges:
    """What activations reached on the calibration scans; the hidden ones are never below zero."""

    hidden1: float
    hidden2: float
    logits: tuple[float, float]

    @classmethod
    def of(cls, step: Pass) -> Ranges:
        """Return the ranges of one forward pass."""
        logits = (float(step.logits.min()), float(step.logits.max()))
        return cls(float(step.hidden1.max()), float(step.hidden2.max()), logits)


class _Graph:
    """Nodes and initialisers in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: npt.ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def node(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: str | Sequence[str],
        **attributes: Any,  # noqa: ANN401 - what ONNX takes
    ) -> str:
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{names[0]}", **attributes))
        return names[0]

    def model(self, name: str) -> onnx.ModelProto:
        self.node("ArgMax", ["logits"], "label", axis=1, keepdims=0)
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES]),
                helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            ],
            self.constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="edge_agent.models.train_digits",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def float_model(weights: Weights) -> onnx.ModelProto:
    """Return the network in float32; the weights are multiples of 2**-12 and lose nothing."""
    graph = _Graph()
    scaled = graph.node("Mul", ["image", graph.constant("sixteenth", 1 / 16)], "scaled")
    kernel1 = [graph.constant("conv1_w", weights.conv1), graph.constant("conv1_b", weights.bias1)]
    graph.node("Conv", [scaled, *kernel1], "conv1", **_CONV1)
    graph.node("Relu", ["conv1"], "hidden1")
    kernel2 = [graph.constant("conv2_w", weights.conv2), graph.constant("conv2_b", weights.bias2)]
    graph.node("Conv", ["hidden1", *kernel2], "conv2", **_CONV2)
    graph.node("Relu", ["conv2"], "hidden2")
    graph.node("Flatten", ["hidden2"], "flat", axis=1)
    dense = [graph.constant("dense_w", weights.dense), graph.constant("dense_b", weights.bias3)]
    graph.node("Gemm", ["flat", *dense], "logits", transB=1)
    return graph.model("digits-fp32")


class _StaticGraph(_Graph):
    """A graph with QuantizeLinear and DequantizeLinear around its float operators."""

    def activation(self, name: str, scale: float, zero: int) -> str:
        """Add the pair behind `name`; return what comes out of it."""
        parameters = [
            self.constant(f"{name}_scale", np.float32(scale)),
            self.constant(f"{name}_zero", zero, np.uint8),
        ]
        self.node("QuantizeLinear", [name, *parameters], f"{name}_q")
        return self.node("DequantizeLinear", [f"{name}_q", *parameters], f"{name}_dq")

    def layer(self, name: str, kernel: Array, bias: Array, input_scale: float) -> list[str]:
        """Add a layer's weights (axis 0: output channels) in 8 bits, its bias in 32; return their names."""
        scales = _channel_scales(kernel, WEIGHT_LEVELS)
        levels = _levels(kernel, scales, WEIGHT_LEVELS)
        bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
        bias_levels = np.rint(bias / bias_scales.astype(np.float64))
        zeros = np.zeros(len(scales))
        weight_parameters = [
            self.constant(f"{name}_w_scale", scales),
            self.constant(f"{name}_w_zero", zeros, np.int8),
        ]
        bias_parameters = [
            self.constant(f"{name}_b_scale", bias_scales),
            self.constant(f"{name}_b_zero", zeros, np.int32),
        ]
        weight = [self.constant(f"{name}_w_q", levels, np.int8), *weight_parameters]
        shift = [self.constant(f"{name}_b_q", bias_levels, np.int32), *bias_parameters]
        return [
            self.node("DequantizeLinear", weight, f"{name}_w", axis=0),
            self.node("DequantizeLinear", shift, f"{name}_b", axis=0),
        ]


def _channel_scales(kernel: Array, levels: int) -> npt.NDArray[np.float32]:
    largest = np.abs(kernel.reshape(len(kernel), -1)).max(axis=1)
    return np.asarray(np.where(largest > 0.0, largest, 1.0) / levels, dtype=np.float32)


def _levels(kernel: Array, scales: npt.NDArray[np.float32], levels: int) -> Array:
    wide = scales.astype(np.float64).reshape(-1, *[1] * (kernel.ndim - 1))
    return np.asarray(np.clip(np.rint(kernel / wide), -levels, levels))


def static_model(weights: Weights, ranges: Ranges) -> onnx.ModelProto:
    """Return the network with fixed 8-bit activations (unsigned) and 7-bit weights (signed, per channel)."""
    graph = _StaticGraph()
    scale1, scale2 = ranges.hidden1 / 255, ranges.hidden2 / 255
    low, high = ranges.logits
    scale3 = (high - low) / 255
    graph.node("Mul", ["image", graph.constant("sixteenth", 1 / 16)], "scaled")
    inputs = graph.activation("scaled", INPUT_SCALE, 0)
    layer1 = graph.layer("conv1", weights.conv1, weights.bias1, INPUT_SCALE)
    graph.node("Conv", [inputs, *layer1], "conv1", **_CONV1)
    graph.node("Relu", ["conv1"], "hidden1")
    inputs = graph.activation("hidden1", scale1, 0)
    layer2 = graph.layer("conv2", weights.conv2, weights.bias2, scale1)
    graph.node("Conv", [inputs, *layer2], "conv2", **_CONV2)
    graph.node("Relu", ["conv2"], "hidden2")
    inputs = graph.activation("hidden2", scale2, 0)
    graph.node("Flatten", [inputs], "flat", axis=1)
    inputs = graph.activation("flat", scale2, 0)
    dense = graph.layer("dense", weights.dense, weights.bias3, scale2)
    graph.node("Gemm", [inputs, *dense], "raw_logits", transB=1)
    graph.activation("raw_logits", scale3, round(-low / scale3))
    # The last tensor of the graph gets the name that clients see.
    graph.nodes[-1].output[0] = "logits"
    return graph.model("digits-int8-static")


class _DynamicGraph(_Graph):
    """A graph whose activations find their 8-bit range anew in every run."""

    def layer(self, kind: str, source: str, name: str, kernel: Array, bias: Array, **attributes: object) -> str:
        """Add an integer layer with unsigned weights around 128; return its float output's name."""
        scale = np.float32(np.abs(kernel).max() / DYNAMIC_WEIGHT_LEVELS)
        levels = np.clip(np.rint(kernel / np.float64(scale)), -DYNAMIC_WEIGHT_LEVELS, DYNAMIC_WEIGHT_LEVELS)
        quantized = [f"{source}_q", f"{source}_scale", f"{source}_zero"]
        self.node("DynamicQuantizeLinear", [source], quantized)
        weight = self.constant(f"{name}_w_q", levels + DYNAMIC_ZERO, np.uint8)
        zero = self.constant(f"{name}_w_zero", DYNAMIC_ZERO, np.uint8)
        self.node(kind, [quantized[0], weight, quantized[2], zero], f"{name}_sums", **attributes)
        self.node("Cast", [f"{name}_sums"], f"{name}_floats", to=TensorProto.FLOAT)
        self.node("Mul", [quantized[1], self.constant(f"{name}_w_scale", scale)], f"{name}_scale")
        self.node("Mul", [f"{name}_floats", f"{name}_scale"], f"{name}_scaled")
        return self.node("Add", [f"{name}_scaled", self.constant(f"{name}_b", bias)], f"{name}_out")


def dynamic_model(weights: Weights) -> onnx.ModelProto:
    """Return the network with 8-bit activations whose range is found in each run, and unsigned 8-bit weights.

    Unsigned, because onnxruntime's ConvInteger takes no signed weights on the CPU, and because products of
    unsigned bytes do not saturate on x86 without VNNI.
    """
    graph = _DynamicGraph()
    graph.node("Mul", ["image", graph.constant("sixteenth", 1 / 16)], "scaled")
    bias1, bias2 = (bias.reshape(1, -1, 1, 1) for bias in (weights.bias1, weights.bias2))
    out = graph.layer("ConvInteger", "scaled", "conv1", weights.conv1, bias1, **_CONV1)
    graph.node("Relu", [out], "hidden1")
    out = graph.layer("ConvInteger", "hidden1", "conv2", weights.conv2, bias2, **_CONV2)
    graph.node("Relu", [out], "hidden2")
    graph.node("Flatten", ["hidden2"], "flat", axis=1)
    graph.layer("MatMulInteger", "flat", "dense", weights.dense.T, weights.bias3)
    # The last tensor of the graph gets the name that clients see.
    graph.nodes[-1].output[0] = "logits"
    return graph.model("digits-int8-dynamic")
