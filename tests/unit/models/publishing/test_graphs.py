"""A graph is read and prepared, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from float_models import conv_net, pictures, saved
from onnx import TensorProto, helper, numpy_helper

from edge_agent.errors import InputError
from edge_agent.models.publishing.graphs import drop_vague_shapes, prepare, read
from edge_agent.models.publishing.runs import Runner


def test_weights_that_callers_could_override_become_constants(tmp_path: Path) -> None:
    """Files of old exporters list every weight as an input; folding needs them off that list."""
    model = conv_net()
    for item in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, item.dims))
    original = read(saved(model, tmp_path))
    assert [value.name for value in original.model.graph.input] == ["image"]
    assert original.changes == ("6 weights that callers could have overridden are constants now",)
    feed = pictures(1).feeds[0]
    before, after = (Runner(m).run(feed)["logits"] for m in (conv_net(), original.model))
    np.testing.assert_array_equal(before, after)


def test_weights_outside_the_file_are_brought_in(tmp_path: Path) -> None:
    """A digest covers one file, so everything must be in it."""
    path = tmp_path / "model.onnx"
    onnx.save(conv_net(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    original = read(path)
    assert original.changes == ("its weights were brought into the file",)
    assert all(
        item.data_location != TensorProto.EXTERNAL for item in onnx.load_from_string(original.data).graph.initializer
    )


def test_preparing_keeps_the_answers(tmp_path: Path) -> None:
    """Folding, a new opset and flat biases change nothing that a caller sees."""
    original = read(saved(conv_net(opset=11), tmp_path))
    prepared = prepare(original)
    assert (original.opset, prepared.opset, prepared.notes) == (11, 17, ())
    feed = pictures(1).feeds[0]
    before, after = (Runner(m).run(feed)["logits"] for m in (original.model, prepared.model))
    np.testing.assert_allclose(before, after, atol=1e-5)
    names = [node.name for node in prepared.model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_a_bias_with_a_leading_one_is_flattened(tmp_path: Path) -> None:
    """Onnxruntime fuses MatMul and Add into a Gemm with a bias [1, N], on which its quantizer counts one channel."""
    weights = [
        numpy_helper.from_array(np.ones((4, 6), np.float32), "w"),
        numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(1, 6), "b"),
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", s]) for n, s in (("x", 4), ("y", 6))]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    prepared = prepare(read(saved(model, tmp_path)))
    gemm = next(node for node in prepared.model.graph.node if node.op_type == "Gemm")
    bias = next(item for item in prepared.model.graph.initializer if item.name == gemm.input[2])
    assert list(bias.dims) == [6]


@pytest.mark.parametrize("content", [b"", b"no model", b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty file, text and cut protobuf end in a sentence, not in a traceback."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.onnx"):
        read(path)


def test_operators_that_agents_do_not_have_are_refused(tmp_path: Path) -> None:
    """A model of a vendor's domain would fail on every agent."""
    model = conv_net()
    model.graph.node[1].domain = "com.vendor"
    model.opset_import.append(helper.make_opsetid("com.vendor", 1))
    with pytest.raises(InputError, match=r"com\.vendor"):
        read(saved(model, tmp_path))


def test_named_extents_inside_survive_and_made_up_ones_do_not(tmp_path: Path) -> None:
    """Costs are counted with the usual extent of a name; a name that inference made up stands for nothing."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("NonZero", ["places"], ["again"]),
        helper.make_node("ReduceSum", ["again"], ["y"], keepdims=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [])
    said = helper.make_tensor_value_info("places", TensorProto.INT64, [1, "hits"])
    graph = helper.make_graph(nodes, "g", [x], [y], value_info=[said])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    prepared = prepare(read(saved(model, tmp_path))).model

    def shapes() -> dict[str, list[str | int]]:
        values = prepared.graph.value_info
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    assert shapes()["places"] == [1, "hits"]
    assert str(shapes()["again"][1]).startswith("unk__")
    drop_vague_shapes(prepared)
    assert shapes() == {"places": [1, "hits"]}
