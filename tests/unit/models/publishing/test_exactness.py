"""Which graphs give the same bits everywhere, told from the graph."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from float_models import conv_net, pictures, saved, sentences, word_net
from onnx import helper

from edge_agent.models.catalogue import BUILTIN_DIR
from edge_agent.models.publishing.exactness import why_not
from edge_agent.models.publishing.forms import REPRODUCIBLE, form_named
from edge_agent.models.publishing.variants import make_variants


@pytest.fixture
def exact(tmp_path: Path) -> onnx.ModelProto:
    """Return the reproducible form of `conv_net`."""
    made = make_variants(saved(conv_net(), tmp_path), pictures(), tmp_path, [REPRODUCIBLE]).named(REPRODUCIBLE.name)
    assert made is not None
    return onnx.load(str(made.path))


def test_the_reproducible_form_of_convolutions_is_exact(exact: onnx.ModelProto) -> None:
    """All sums are of integers, with 7-bit weights."""
    assert why_not(exact) is None


def test_the_built_in_reproducible_variant_is_exact() -> None:
    """Written out by hand, it says the same of itself."""
    assert why_not(onnx.load(str(BUILTIN_DIR / "digits-int8-static.onnx"))) is None


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("int8-u8s8-channel", "more than 7 bits"),
        ("int8-u8u8-channel", "not signed"),
        ("int8-dynamic-u8", "rounds as each machine likes"),
    ],
)
def test_other_forms_are_not(tmp_path: Path, form: str, reason: str) -> None:
    """Each for its own reason."""
    made = make_variants(saved(conv_net(), tmp_path), pictures(), tmp_path, [form_named(form)]).named(form)
    assert made is not None
    assert reason in (why_not(onnx.load(str(made.path))) or "")


def test_floats_are_not() -> None:
    """A convolution of floats sums in an order of the machine's own."""
    assert "sums in floats" in (why_not(conv_net()) or "")


def test_one_float_function_is_enough(tmp_path: Path, exact: onnx.ModelProto) -> None:
    """A softmax is computed differently by different vector units; a language model goes back to floats in between."""
    made = make_variants(saved(word_net(), tmp_path), sentences(), tmp_path, [REPRODUCIBLE]).named(REPRODUCIBLE.name)
    assert made is not None
    assert why_not(onnx.load(str(made.path))) is not None
    exact.graph.node.append(helper.make_node("Softmax", ["logits"], ["shares"]))
    assert "Softmax" in (why_not(exact) or "")


def test_a_layer_whose_output_stays_float_is_not_exact(exact: onnx.ModelProto) -> None:
    """Without a grid behind it the last rounding is the machine's."""
    gemm = next(node for node in exact.graph.node if node.op_type == "Gemm")
    exact.graph.output[0].name = gemm.output[0]
    kept = [node for node in exact.graph.node if gemm.output[0] not in node.input]
    del exact.graph.node[:]
    exact.graph.node.extend(kept)
    assert "sums in floats" in (why_not(exact) or "")
