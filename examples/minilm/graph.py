"""The ONNX graph of a sentence encoder: text goes in, unit vectors come out.

Tokenizer, encoder, mean pooling and normalisation are one graph, so that whoever serves it needs no code of its
own.
"""

from __future__ import annotations

import numpy as np
import onnx
import tokenizer
from nodes import Nodes
from onnx import TensorProto, helper
from weights import Pretrained

OPSET = 20
IR_VERSION = 9
MASKED = -10_000.0
"""What hides a token from attention: its exponential is 0 in 32 and in 16 bits, and 16-bit floats can hold it."""


def build(model: Pretrained) -> onnx.ModelProto:
    """Return the graph: `text` [N] of strings to `embedding` [N, hidden] of unit length."""
    graph = Nodes()
    ids, mask = tokenizer.add(graph, model, "text")
    hidden = _encoder(graph, model, ids, mask)
    _pool(graph, hidden, mask)
    size = model.config["hidden_size"]
    proto = helper.make_graph(
        graph.nodes,
        "sentence-encoder",
        [helper.make_tensor_value_info("text", TensorProto.STRING, ["N"])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", size])],
        graph.constants,
        value_info=[
            *tokenizer.values(),
            helper.make_tensor_value_info("embedded", TensorProto.FLOAT, ["N", "T", size]),
        ],
    )
    return helper.make_model(
        proto,
        opset_imports=[
            helper.make_opsetid("", OPSET),
            helper.make_opsetid("ai.onnx.ml", 2),
            helper.make_opsetid(tokenizer.RUNTIME, 1),
            helper.make_opsetid(tokenizer.EXTENSIONS, 1),
        ],
        ir_version=IR_VERSION,
        producer_name="examples/minilm",
    )


def _encoder(graph: Nodes, model: Pretrained, ids: str, mask: str) -> str:
    """Add embeddings and layers; return the name of the last hidden states [N, T, hidden]."""
    hidden = _embeddings(graph, model, ids)
    wide = graph.add("Unsqueeze", [mask, graph.constant("heads_and_queries", [1, 2], np.int64)], "mask_wide")
    absent = graph.add("Sub", [graph.constant("one_float", 1.0), wide], "absent")
    bias = graph.add("Mul", [absent, graph.constant("masked", MASKED)], "attention_bias")
    for number in range(model.config["num_hidden_layers"]):
        hidden = _layer(graph, model, number, hidden, bias)
    return hidden


def _embeddings(graph: Nodes, model: Pretrained, ids: str) -> str:
    tensors = model.tensors
    words = graph.constant("word_embeddings", tensors["embeddings.word_embeddings.weight"])
    looked_up = graph.add("Gather", [words, ids], "looked_up", axis=0)
    # All tokens are of the first kind; its row goes into the positions.
    placed = tensors["embeddings.position_embeddings.weight"][: model.longest]
    positions = graph.constant("position_embeddings", placed + tensors["embeddings.token_type_embeddings.weight"][0])
    shape = graph.add("Shape", [ids], "ids_shape")
    tokens = graph.add(
        "Slice", [shape, graph.constant("second", [1], np.int64), graph.constant("third", [2], np.int64)], "T"
    )
    used = graph.add("Slice", [positions, graph.constant("first_position", [0], np.int64), tokens], "positions")
    summed = graph.add("Add", [looked_up, used], "embedded")
    return _norm(graph, model, "embeddings.LayerNorm", summed)


def _layer(graph: Nodes, model: Pretrained, number: int, hidden: str, bias: str) -> str:
    here = f"encoder.layer.{number}"
    heads, size = model.config["num_attention_heads"], model.config["hidden_size"]
    split = graph.constant(f"{here}.split", [0, 0, heads, size // heads], np.int64)
    turned = []
    for role in ("query", "key", "value"):
        flat = _dense(graph, model, f"{here}.attention.self.{role}", hidden)
        parts = graph.add("Reshape", [flat, split], f"{flat}.heads")
        order = [0, 2, 3, 1] if role == "key" else [0, 2, 1, 3]
        turned.append(graph.add("Transpose", [parts], f"{flat}.turned", perm=order))
    query, key, value = turned
    scores = graph.add("MatMul", [query, key], f"{here}.products")
    scale = graph.constant(f"{here}.scale", (size // heads) ** -0.5)
    scaled = graph.add("Mul", [scores, scale], f"{here}.scaled")
    hidden_scores = graph.add("Add", [scaled, bias], f"{here}.scores")
    shares = graph.add("Softmax", [hidden_scores], f"{here}.shares", axis=-1)
    mixed = graph.add("MatMul", [shares, value], f"{here}.mixed")
    back = graph.add("Transpose", [mixed], f"{here}.back", perm=[0, 2, 1, 3])
    joined = graph.add("Reshape", [back, graph.constant(f"{here}.join", [0, 0, size], np.int64)], f"{here}.joined")
    attended = _dense(graph, model, f"{here}.attention.output.dense", joined)
    first = graph.add("Add", [attended, hidden], f"{here}.attended")
    middle = _norm(graph, model, f"{here}.attention.output.LayerNorm", first)
    wide = graph.add("Gelu", [_dense(graph, model, f"{here}.intermediate.dense", middle)], f"{here}.wide")
    narrow = _dense(graph, model, f"{here}.output.dense", wide)
    second = graph.add("Add", [narrow, middle], f"{here}.fed")
    return _norm(graph, model, f"{here}.output.LayerNorm", second)


def _dense(graph: Nodes, model: Pretrained, name: str, source: str) -> str:
    matrix = graph.constant(f"{name}.weight", np.ascontiguousarray(model.tensors[f"{name}.weight"].T))
    product = graph.add("MatMul", [source, matrix], f"{name}.product")
    return graph.add("Add", [product, graph.constant(f"{name}.bias", model.tensors[f"{name}.bias"])], f"{name}.out")


def _norm(graph: Nodes, model: Pretrained, name: str, source: str) -> str:
    scale = graph.constant(f"{name}.weight", model.tensors[f"{name}.weight"])
    shift = graph.constant(f"{name}.bias", model.tensors[f"{name}.bias"])
    epsilon = model.config["layer_norm_eps"]
    return graph.add("LayerNormalization", [source, scale, shift], f"{name}.out", axis=-1, epsilon=epsilon)


def _pool(graph: Nodes, hidden: str, mask: str) -> None:
    """Add the mean over the tokens that are there, at unit length."""
    column = graph.add("Unsqueeze", [mask, graph.constant("column", [2], np.int64)], "pool_column")
    there = graph.add("Mul", [hidden, column], "there")
    tokens = graph.constant("over_tokens", [1], np.int64)
    total = graph.add("ReduceSum", [there, tokens], "total", keepdims=0)
    count = graph.add("ReduceSum", [column, tokens], "present", keepdims=0)
    mean = graph.add("Div", [total, count], "mean")
    length = graph.add("ReduceL2", [mean, graph.constant("over_hidden", [-1], np.int64)], "length", keepdims=1)
    safe = graph.add("Max", [length, graph.constant("tiny", 1e-12)], "safe_length")
    graph.add("Div", [mean, safe], "embedding")
