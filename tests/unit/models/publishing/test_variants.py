"""The files that come of a model: which, in what form, and why others do not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from float_models import branching, conv_net, pictures, saved, sentences, switches, word_net
from onnx import TensorProto, helper, numpy_helper

from edge_agent.errors import InputError
from edge_agent.models.publishing.forms import FORMS, NAMES, ORIGINAL, REPRODUCIBLE
from edge_agent.models.publishing.graphs import graphs
from edge_agent.models.publishing.runs import Runner
from edge_agent.models.publishing.variants import Making, make_variants


def _why(making: Making, name: str) -> str:
    return next(entry.why for entry in making.not_made if entry.form.name == name)


def _kinds(path: Path) -> set[str]:
    return {node.op_type for graph in graphs(onnx.load(str(path)).graph) for node in graph.node}


def _weights(path: Path, data_type: int) -> list[np.ndarray]:
    return [
        numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer if t.data_type == data_type and t.dims
    ]


def test_every_form_is_made_or_its_absence_explained(tmp_path: Path) -> None:
    """Nothing is left out silently: each form of the table is there once, as a file or as a reason."""
    making = make_variants(saved(conv_net(), tmp_path), pictures(), tmp_path / ".")
    names = [variant.name for variant in making.variants] + [entry.form.name for entry in making.not_made]
    assert sorted(names) == sorted(NAMES)
    for variant in making.variants:
        data = variant.path.read_bytes()
        assert (variant.size_bytes, variant.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert all(entry.why for entry in making.not_made)


def test_the_original_is_published_byte_for_byte(tmp_path: Path) -> None:
    """Its digest stays the one that others know the file by."""
    path = saved(conv_net(), tmp_path, "original.onnx")
    making = make_variants(path, None, tmp_path, [ORIGINAL])
    assert making.variants[0].path.read_bytes() == path.read_bytes()
    assert making.notes == ()


def test_static_forms_are_what_their_names_say(tmp_path: Path) -> None:
    """Signs, channels and range of the weights can be read off the files."""
    making = make_variants(saved(conv_net(), tmp_path), pictures(), tmp_path)
    for name, data_type in (("int8-u8s8-channel", TensorProto.INT8), ("int8-u8u8-channel", TensorProto.UINT8)):
        variant = making.named(name)
        assert variant is not None
        assert {"QuantizeLinear", "DequantizeLinear"} <= _kinds(variant.path)
        assert max(array.size for array in _weights(variant.path, data_type)) == 10 * 1024
    full, reduced = making.named("int8-u8s8-channel"), making.named(REPRODUCIBLE.name)
    assert full is not None
    assert reduced is not None
    largest = [
        max(int(np.abs(w.astype(int)).max()) for w in _weights(v.path, TensorProto.INT8)) for v in (full, reduced)
    ]
    assert largest == [127, 64]
    per_tensor = making.named("int8-u8s8-tensor")
    assert per_tensor is not None
    assert per_tensor.size_bytes < full.size_bytes


def test_static_forms_are_close_to_the_original(tmp_path: Path) -> None:
    """The ranges come from the samples: the answers point the same way, and are not the same."""
    making = make_variants(saved(conv_net(), tmp_path), pictures(), tmp_path)
    feeds = pictures(12, seed=99).feeds
    right = [Runner(making.variants[0].path).run(feed)["logits"].ravel() for feed in feeds]
    reproducible = making.named(REPRODUCIBLE.name)
    assert reproducible is not None
    answers = [Runner(reproducible.path).run(feed)["logits"].ravel() for feed in feeds]
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(right, answers, strict=True)]
    assert min(cosines) > 0.97
    assert any((a != b).any() for a, b in zip(right, answers, strict=True))


def test_without_samples_there_are_no_static_forms(tmp_path: Path) -> None:
    """Random inputs would set ranges that real ones do not have, so they are not made up."""
    making = make_variants(saved(conv_net(), tmp_path), None, tmp_path)
    assert {variant.format for variant in making.variants} == {"fp32", "fp16", "dynamic", "matmulnbits"}
    for form in FORMS:
        if form.static:
            assert "calibration samples" in _why(making, form.name)


def test_weight_only_forms_hold_matrix_products_and_tables(tmp_path: Path) -> None:
    """Both bit widths replace the product, and the word table is 8 bits a number in each."""
    making = make_variants(saved(word_net(), tmp_path), sentences(), tmp_path)
    for name, bits in (("int8-weights", 8), ("int4-weights", 4)):
        variant = making.named(name)
        assert variant is not None
        node = next(n for n in onnx.load(str(variant.path)).graph.node if n.op_type == "MatMulNBits")
        attributes = {a.name: a.i for a in node.attribute}
        assert (attributes["bits"], attributes["accuracy_level"], attributes["block_size"]) == (bits, 4, 32)
        assert [w.shape for w in _weights(variant.path, TensorProto.INT8)] == [(1000, 32)]
        feed = sentences(1, seed=3).feeds[0]
        right = Runner(making.variants[0].path).run(feed)["vector"]
        assert np.abs(Runner(variant.path).run(feed)["vector"] - right).max() < 0.1


def test_convolutions_in_dynamic_form_have_unsigned_weights(tmp_path: Path) -> None:
    """Onnxruntime's ConvInteger takes no signed ones, so only the unsigned form has it."""
    making = make_variants(saved(conv_net(), tmp_path), None, tmp_path, keep_all=True)
    unsigned, signed = making.named("int8-dynamic-u8"), making.named("int8-dynamic-s8")
    assert unsigned is not None
    assert "ConvInteger" in _kinds(unsigned.path)
    assert signed is None or "ConvInteger" not in _kinds(signed.path)


def test_products_inside_branches_are_reached(tmp_path: Path) -> None:
    """Dynamic and weight-only forms go into sub-graphs; static ones say that they do not."""
    making = make_variants(saved(branching(), tmp_path), switches(), tmp_path)
    for name, kind in (("int8-dynamic-s8", "MatMulInteger"), ("int4-weights", "MatMulNBits")):
        variant = making.named(name)
        assert variant is not None
        assert kind in _kinds(variant.path)
    assert "outside of sub-graphs" in _why(making, REPRODUCIBLE.name)


def test_a_file_that_is_not_smaller_is_not_worth_having(tmp_path: Path) -> None:
    """A form that changes nothing, or only adds nodes, is told apart by its size."""
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph([product], "tiny", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    making = make_variants(saved(model, tmp_path), None, tmp_path)
    assert [variant.name for variant in making.variants] == ["fp32"]
    assert "not smaller" in _why(making, "int8-dynamic-u8")
    assert not (tmp_path / "int8-dynamic-u8.onnx").exists()


def test_old_opsets_are_raised_for_scales_per_channel(tmp_path: Path) -> None:
    """A model of opset 11 gets them all the same; the original stays as it is."""
    making = make_variants(saved(conv_net(opset=11), tmp_path), pictures(), tmp_path)
    reproducible = making.named(REPRODUCIBLE.name)
    assert reproducible is not None
    assert (making.variants[0].opset, reproducible.opset) == (11, 17)


def test_a_model_that_does_not_run_is_refused(tmp_path: Path) -> None:
    """There is nothing to offer if the original fails on the samples."""
    with pytest.raises(InputError, match="does not run on the samples"):
        make_variants(saved(conv_net(), tmp_path), sentences(), tmp_path)


def test_making_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """A digest can be checked by whoever has the same model, samples and tools."""
    path = saved(conv_net(), tmp_path)
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        digests.append([v.sha256 for v in make_variants(path, pictures(), tmp_path / name).variants])
    assert digests[0] == digests[1]
