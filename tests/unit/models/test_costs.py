# ruff: noqa: E402 - what may be missing is imported after the skip
from __future__ import annotations

from typing import TYPE_CHECKING

import needs
import pytest

needs.module("onnx")

import onnx
from onnx import TensorProto, helper

from edge_agent.errors import WorkerError
from edge_agent.models import costs
from edge_agent.models.catalogue import BUILTIN_DIR, Variant, builtin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def _floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _constant(name: str, *shape: int) -> onnx.TensorProto:
    count = 1
    for size in shape:
        count *= size
    return helper.make_tensor(name, TensorProto.FLOAT, shape, [0.5] * count)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_a_matrix_product_by_hand() -> None:
    """From 4 to 3: 12 multiply-accumulates, 48 bytes of weights, 12 bytes made and 16 given for one sample."""
    model = _model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [_floats("x", "N", 4)],
        [_floats("y", "N", 3)],
        [_constant("w", 4, 3)],
    )
    found = costs.count(model)
    assert (found.macs, found.initializer_bytes, found.largest_initializer_bytes) == (12, 48, 48)
    assert (found.activation_peak_bytes, found.conv_fp32_initializer_bytes, found.nodes) == (12, 0, 1)
    assert (found.input_bytes, found.output_bytes) == (16, 12)


def test_a_tensor_is_alive_until_its_last_use() -> None:
    """In a chain two tensors live at a time; a long way around keeps a third one; ReLU works in place."""

    def chain(kind: str) -> list[onnx.NodeProto]:
        return [helper.make_node(kind, [f"t{i}"], [f"t{i + 1}"]) for i in range(5)]

    def peak(nodes: list[onnx.NodeProto], out: str) -> int:
        return costs.count(_model(nodes, [_floats("t0", 10)], [_floats(out, 10)], [])).activation_peak_bytes

    assert peak(chain("Softplus"), "t5") == 2 * 40
    assert peak(chain("Relu"), "t5") == 40
    assert peak([*chain("Softplus"), helper.make_node("Mod", ["t1", "t5"], ["sum"], fmod=1)], "sum") == 3 * 40


def test_a_convolution_by_hand() -> None:
    """Two filters of 3 by 3 over one channel of 5 by 5: 2 * 25 * 9; its weights are packed anew, in copies."""
    model = _model(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        [_floats("x", "N", 1, 5, 5)],
        [_floats("y", "N", 2, 5, 5)],
        [_constant("w", 2, 1, 3, 3)],
    )
    found = costs.count(model)
    assert (found.macs, found.conv_fp32_initializer_bytes) == (450, 4 * 72)


def test_quantize_pairs_count_as_their_8_bits() -> None:
    """Between operators the static variant holds less than floats, and its pairs are no work."""
    by_name = {variant.name: variant.costs for variant in builtin().family("digits").variants}
    static, floats = by_name["int8-static"], by_name["fp32"]
    assert static is not None
    assert floats is not None
    assert static.macs == floats.macs
    assert static.nodes == floats.nodes + 1  # the first Q and the last DQ run, and no layout changes
    assert sum(work.moved_bytes for work in static.work) < sum(work.moved_bytes for work in floats.work)
    assert static.conv_fp32_initializer_bytes == 0


@pytest.mark.parametrize("variant", builtin().family("digits").variants, ids=lambda variant: variant.name)
def test_the_committed_costs_are_true(variant: Variant) -> None:
    """Counted again from the committed files."""
    assert costs.count_file(BUILTIN_DIR / variant.file) == variant.costs
    assert variant.costs is not None
    assert variant.costs.macs == 64 * 8 * 9 + 16 * 24 * 8 * 9 + 384 * 10


def test_a_branch_is_counted_and_said_to_be_a_guess() -> None:
    """Of two branches the larger one counts; which one runs is not in the graph."""
    small = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "b", [], [_floats("b", 64)])
    weight = _constant("w", 64, 64)
    large = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["d"])], "d", [], [_floats("d", 64)], [weight])
    model = _model(
        [helper.make_node("If", ["c"], ["y"], then_branch=small, else_branch=large)],
        [_floats("x", 64), helper.make_tensor_value_info("c", TensorProto.BOOL, [1])],
        [_floats("y", 64)],
        [],
    )
    found = costs.count(model)
    assert found.macs == 64 * 64
    assert found.initializer_bytes == 4 * 64 * 64
    assert "branch" in found.guesses[0]


def test_a_loop_is_counted_as_often_as_it_runs() -> None:
    """Ten rounds of a product of 8 by 8."""
    body = helper.make_graph(
        [helper.make_node("MatMul", ["v", "w"], ["v2"]), helper.make_node("Identity", ["k"], ["k2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("k", TensorProto.BOOL, []),
            _floats("v", 8, 8),
        ],
        [helper.make_tensor_value_info("k2", TensorProto.BOOL, []), _floats("v2", 8, 8)],
    )
    trips = helper.make_tensor("n", TensorProto.INT64, [], [10])
    going = helper.make_tensor("go", TensorProto.BOOL, [], [1])
    model = _model(
        [helper.make_node("Loop", ["n", "go", "x"], ["y"], body=body)],
        [_floats("x", 8, 8)],
        [_floats("y", 8, 8)],
        [trips, going, _constant("w", 8, 8)],
    )
    assert costs.count(model).macs == 10 * 8**3


def test_symbols_take_their_usual_extents() -> None:
    """A batch is one unless somebody says otherwise; words are as many as usual."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = _model([node], [_floats("x", "N", "words", 4)], [_floats("y", "N", "words", 2)], [_constant("w", 4, 2)])
    assert costs.count(model).macs == 8
    assert costs.count(model, {"words": 128}).macs == 128 * 8


def test_an_unknown_operator_is_guessed_and_told() -> None:
    """A custom operator's shape is that of its input."""
    nodes = [helper.make_node("Mystery", ["x"], ["a"], domain="example.com"), helper.make_node("Relu", ["a"], ["y"])]
    model = _model(nodes, [_floats("x", 100)], [_floats("y", 100)], [])
    model.opset_import.append(helper.make_opsetid("example.com", 1))
    found = costs.count(model)
    assert found.activation_peak_bytes >= 400
    assert "Mystery" in found.guesses[0]


def test_16_bit_floats_are_held_as_32_bits() -> None:
    """The CPU provider computes in 32 bits: weights of 16 bits take twice their file."""
    weight = helper.make_tensor("w", TensorProto.FLOAT16, [16, 16], [0.5] * 256)
    half = TensorProto.FLOAT16
    model = _model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", half, [1, 16])],
        [helper.make_tensor_value_info("y", half, [1, 16])],
        [weight],
    )
    found = costs.count(model)
    assert (found.initializer_bytes, found.held_bytes) == (512, 1024)


def test_weights_of_four_bits_are_work_of_their_own_kind() -> None:
    """MatMulNBits, which ONNX's own inference does not know, has a shape, and a kind by its bits and rows."""
    packed = helper.make_tensor("b", TensorProto.UINT8, [64, 4, 16], bytes(64 * 4 * 16), raw=True)
    scales = _constant("s", 256)
    for rows, kind in ((1, "nbits4_vec"), (32, "nbits4")):
        node = helper.make_node(
            "MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft", K=128, N=64, bits=4, block_size=32
        )
        model = _model([node], [_floats("x", rows, 128)], [_floats("y", rows, 64)], [packed, scales])
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        found = costs.count(model)
        assert [(work.kind, work.amount) for work in found.work] == [(kind, rows * 128 * 64)]


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """Neither text nor an empty file is taken for a graph without costs."""
    for content in (b"", b"not a model", b"\x08\x07"):
        (tmp_path / "file.onnx").write_bytes(content)
        with pytest.raises(WorkerError, match="no ONNX model"):
            costs.count_file(tmp_path / "file.onnx")
