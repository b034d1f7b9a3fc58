"""Small float models with seeded weights, and samples for them: what somebody who publishes comes with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.models.publishing.samples import Samples

SIDE = 8
CLASSES = 10
VOCABULARY = 1000
WIDTH = 32


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, npt.NDArray[Any]],
    opset: int = 17,
) -> onnx.ModelProto:
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _weight(source: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    fan_in = int(np.prod(shape[1:]))
    return source.normal(0.0, (2.0 / fan_in) ** 0.5, shape).astype(np.float32)


def conv_net(opset: int = 17) -> onnx.ModelProto:
    """Return a classifier of pictures [N, 1, 8, 8]: two convolutions and a Gemm, 10,000 weights."""
    source = np.random.default_rng(11)
    weights: dict[str, npt.NDArray[Any]] = {
        "w1": _weight(source, 16, 1, 3, 3),
        "b1": source.normal(0.0, 0.1, 16).astype(np.float32),
        "w2": _weight(source, 64, 16, 3, 3),
        "b2": source.normal(0.0, 0.1, 64).astype(np.float32),
        "w3": _weight(source, CLASSES, 64 * 16),
        "b3": source.normal(0.0, 0.1, CLASSES).astype(np.float32),
    }
    same: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], **same),
        helper.make_node("Relu", ["c1"], ["h1"]),
        helper.make_node("Conv", ["h1", "w2", "b2"], ["c2"], strides=[2, 2], **same),
        helper.make_node("Relu", ["c2"], ["h2"]),
        helper.make_node("Flatten", ["h2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], transB=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    return _model(nodes, [image], [logits], weights, opset)


def word_net() -> onnx.ModelProto:
    """Return a model from word numbers [N, T] to vectors [N, 64]: a table of 1,000 words and a matrix product."""
    source = np.random.default_rng(12)
    weights: dict[str, npt.NDArray[Any]] = {
        "table": source.normal(0.0, 1.0, (VOCABULARY, WIDTH)).astype(np.float32),
        "w": _weight(source, WIDTH, 64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "words"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["wide"]),
        helper.make_node("Tanh", ["wide"], ["bent"]),
        helper.make_node("ReduceMean", ["bent"], ["vector"], axes=[1], keepdims=0),
    ]
    words = helper.make_tensor_value_info("words", TensorProto.INT64, ["N", "T"])
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["N", 64])
    return _model(nodes, [words], [vector], weights)


def branching() -> onnx.ModelProto:
    """Return a model whose matrix products are inside the branches of an If."""
    source = np.random.default_rng(13)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])

    def branch(name: str) -> onnx.GraphProto:
        weight = numpy_helper.from_array(_weight(source, 64, 64), f"{name}_w")
        node = helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_y"])
        value = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["N", 64])
        return helper.make_graph([node], name, [], [value], [weight])

    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch("yes"), else_branch=branch("no"))
    inputs = [
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64]),
    ]
    return _model([node], inputs, [out], {})


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Return the path of `model`, written into `folder`."""
    path = folder / name
    onnx.save(model, str(path))
    return path


def pictures(count: int = 24, seed: int = 7) -> Samples:
    """Return samples for `conv_net`: noise with a bright spot that moves."""
    source = np.random.default_rng(seed)
    feeds = []
    for index in range(count):
        image = source.normal(0.0, 0.3, (1, 1, SIDE, SIDE)).astype(np.float32)
        image[0, 0, index % SIDE, index // SIDE % SIDE] += 3.0
        feeds.append({"image": image})
    return Samples(tuple(feeds))


def sentences(count: int = 24, seed: int = 8) -> Samples:
    """Return samples for `word_net`: 5 to 12 word numbers each."""
    source = np.random.default_rng(seed)
    sizes = source.integers(5, 13, count)
    return Samples(tuple({"words": source.integers(0, VOCABULARY, (1, size)).astype(np.int64)} for size in sizes))


def switches(count: int = 12, seed: int = 9) -> Samples:
    """Return samples for `branching`, for either branch."""
    source = np.random.default_rng(seed)
    return Samples(
        tuple(
            {"flag": np.array(index % 2 == 0), "x": source.normal(0.0, 1.0, (1, 64)).astype(np.float32)}
            for index in range(count)
        )
    )
