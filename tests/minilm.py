"""What the tests of examples/minilm have in common: its modules, a tiny model, and how to run a part of its graph."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "minilm"
sys.path.append(str(EXAMPLE))

import graph as minilm_graph  # noqa: E402 - the example's own folder has just been added
import reference as minilm_reference  # noqa: E402
import weights as minilm_weights  # noqa: E402

from edge_agent.models.publishing.runs import Runner  # noqa: E402

__all__ = ["EXAMPLE", "Tokens", "embedded", "minilm_graph", "minilm_reference", "minilm_weights", "tiny"]

_VOCABULARY = """
[PAD] [UNK] [CLS] [SEP] [MASK] the un ##aff ##able cafe na ##ive a ##a b ##b c ##c e ##e 1 ##1 . , ! - $ + 中 日
\u1112 ##\u1161 ##\u11ab \u03c3 ##\u03b9 ##\u03c2 ##\u03c3 hello world ##ing
"""
_WORDS = _VOCABULARY.split()


def tiny() -> minilm_weights.Pretrained:
    """Return a model of two layers of 32 with seeded weights and a vocabulary of some pieces."""
    source = np.random.default_rng(5)
    hidden, wide, layers, longest = 32, 64, 2, 16
    shapes = {
        "embeddings.word_embeddings.weight": (len(_WORDS), hidden),
        "embeddings.position_embeddings.weight": (longest + 4, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for number in range(layers):
        here = f"encoder.layer.{number}"
        for name, (out, size) in {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (wide, hidden),
            "output.dense": (hidden, wide),
        }.items():
            shapes |= {f"{here}.{name}.weight": (out, size), f"{here}.{name}.bias": (out,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{here}.{name}.weight": (hidden,), f"{here}.{name}.bias": (hidden,)}
    tensors = {name: source.normal(0.0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    config = {
        "hidden_size": hidden,
        "layer_norm_eps": 1e-12,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "vocab_size": len(_WORDS),
    }
    return minilm_weights.Pretrained(tensors, tuple(_WORDS), config, longest)


class Tokens:
    """The tokenizer's part of a graph, alone."""

    def __init__(self, model: onnx.ModelProto) -> None:
        part = onnx.ModelProto()
        part.CopyFrom(model)
        names = [node.name for node in part.graph.node]
        kept = list(part.graph.node)[: names.index("attention_mask") + 1]
        used = {name for node in kept for name in node.input}
        constants = [item for item in part.graph.initializer if item.name in used]
        for field in (part.graph.node, part.graph.initializer, part.graph.output):
            del field[:]
        part.graph.node.extend(kept)
        part.graph.initializer.extend(constants)
        for name, kind in (("input_ids", TensorProto.INT64), ("attention_mask", TensorProto.FLOAT)):
            part.graph.output.append(helper.make_tensor_value_info(name, kind, ["N", "T"]))
        self._runner = Runner(part, library=True)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the numbers of each text, without padding."""
        found = self._runner.run({"text": np.array(texts, dtype=object)})
        pairs = zip(found["input_ids"], found["attention_mask"], strict=True)
        return [ids[mask > 0].tolist() for ids, mask in pairs]


def embedded(runner: Runner, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return what the whole graph makes of these texts."""
    return runner.run({"text": np.array(texts, dtype=object)})["embedding"]
