"""The same encoder in plain numpy and Python: what the graph is checked against.

Written from the description of BERT (Devlin et al., 2018; Wu et al., 2016 for word pieces), without onnx.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from weights import Array, Pretrained

Wide = npt.NDArray[np.float64]

LONGEST_WORD = 100
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def words(text: str) -> list[str]:
    """Return the words of a text as an uncased BERT sees them, punctuation and ideographs alone."""
    spaced = []
    for character in text:
        category = unicodedata.category(character)
        if character in "\t\n\r" or category in {"Zs", "Zl", "Zp"}:
            spaced.append(" ")
        elif character not in "\0\ufffd" and category not in {"Cc", "Cf", "Co"}:
            ideograph = any(low <= ord(character) <= high for low, high in _CJK)
            spaced.append(f" {character} " if ideograph else character)
    bare = [part for part in unicodedata.normalize("NFD", "".join(spaced)) if unicodedata.category(part) != "Mn"]
    found: list[str] = []
    for chunk in "".join(part.lower() for part in bare).split(" "):
        word = ""
        for character in chunk:
            if character in "$+<=>^`|~" or unicodedata.category(character)[0] == "P":
                found += [word, character]
                word = ""
            else:
                word += character
        found.append(word)
    return [word for word in found if word]


def pieces(word: str, known: dict[str, int]) -> list[str]:
    """Return the longest pieces first; a word that cannot be cut into known ones is unknown as a whole."""
    if len(word) > LONGEST_WORD:
        return ["[UNK]"]
    cut = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in known), None)
        if end is None:
            return ["[UNK]"]
        cut.append(prefix + word[start:end])
        start = end
    return cut


def tokenize(text: str, model: Pretrained) -> list[int]:
    """Return the numbers of a text's pieces between [CLS] and [SEP], at most `model.longest`."""
    known = {piece: number for number, piece in enumerate(model.vocabulary)}
    cut = [known[piece] for word in words(text) for piece in pieces(word, known)]
    return [known["[CLS]"], *cut[: model.longest - 2], known["[SEP]"]]


def embed(texts: Sequence[str], model: Pretrained) -> Array:
    """Return a unit vector for each text, [N, hidden]."""
    return np.stack([_embed_one(tokenize(text, model), model) for text in texts])


def _embed_one(ids: Sequence[int], model: Pretrained) -> Array:
    tensors = {name: array.astype(np.float64) for name, array in model.tensors.items() if "word_embeddings" not in name}
    words_there = model.tensors["embeddings.word_embeddings.weight"][list(ids)].astype(np.float64)
    hidden = words_there + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    hidden = hidden + tensors["embeddings.token_type_embeddings.weight"][0]
    epsilon = model.config["layer_norm_eps"]

    def norm(values: Wide, name: str) -> Wide:
        middle = values - values.mean(-1, keepdims=True)
        scaled: Wide = middle / np.sqrt((middle**2).mean(-1, keepdims=True) + epsilon)
        return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def dense(values: Wide, name: str) -> Wide:
        return values @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    hidden = norm(hidden, "embeddings.LayerNorm")
    heads = model.config["num_attention_heads"]
    for number in range(model.config["num_hidden_layers"]):
        here = f"encoder.layer.{number}"
        query, key, value = (
            dense(hidden, f"{here}.attention.self.{role}").reshape(len(ids), heads, -1).transpose(1, 0, 2)
            for role in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ value).transpose(1, 0, 2).reshape(len(ids), -1)
        hidden = norm(dense(mixed, f"{here}.attention.output.dense") + hidden, f"{here}.attention.output.LayerNorm")
        wide = dense(hidden, f"{here}.intermediate.dense")
        wide = wide * 0.5 * (1.0 + np.vectorize(math.erf)(wide / math.sqrt(2.0)))
        hidden = norm(dense(wide, f"{here}.output.dense") + hidden, f"{here}.output.LayerNorm")
    mean = hidden.mean(0)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)
