# ruff: noqa: E402 - what may be missing is imported after the skip
from __future__ import annotations

from typing import TYPE_CHECKING

import needs
import pytest

needs.module("onnx")

import onnx
from onnx import TensorProto, helper

from edge_agent.models import costs
from edge_agent.models.catalogue import BUILTIN_DIR, Variant, builtin

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    """From 4 to 3: 12 multiply-accumulates, 48 bytes of weights, 16 + 12 bytes alive for one sample."""
    model = _model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [_floats("x", "N", 4)],
        [_floats("y", "N", 3)],
        [_constant("w", 4, 3)],
    )
    found = costs.count(model)
    assert (found.macs, found.initializer_bytes, found.largest_initializer_bytes) == (12, 48, 48)
    assert (found.activation_peak_bytes, found.conv_fp32_initializer_bytes, found.nodes) == (28, 0, 1)


def test_a_tensor_is_alive_until_its_last_use() -> None:
    """In a chain two tensors live at a time; a long way around keeps a third one."""
    chain = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(4)]
    straight = _model(chain, [_floats("t0", 10)], [_floats("t4", 10)], [])
    assert costs.count(straight).activation_peak_bytes == 2 * 40
    around = [*chain, helper.make_node("Add", ["t0", "t4"], ["sum"])]
    assert costs.count(_model(around, [_floats("t0", 10)], [_floats("sum", 10)], [])).activation_peak_bytes == 120


def test_a_convolution_by_hand() -> None:
    """Two filters of 3 by 3 over one channel of 5 by 5: 2 * 25 * 9; its weights are packed anew."""
    model = _model(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        [_floats("x", "N", 1, 5, 5)],
        [_floats("y", "N", 2, 5, 5)],
        [_constant("w", 2, 1, 3, 3)],
    )
    found = costs.count(model)
    assert (found.macs, found.conv_fp32_initializer_bytes) == (450, 72)


def test_quantize_pairs_count_as_their_8_bits() -> None:
    """Between operators the static variant holds a quarter of the bytes, and its pairs are no work."""
    by_name = {variant.name: variant.costs for variant in builtin().family("digits").variants}
    static, floats = by_name["int8-static"], by_name["fp32"]
    assert (static.macs, static.nodes) == (floats.macs, floats.nodes)
    assert static.activation_peak_bytes < floats.activation_peak_bytes
    assert static.conv_fp32_initializer_bytes == 0


@pytest.mark.parametrize("variant", builtin().family("digits").variants, ids=lambda variant: variant.name)
def test_the_committed_costs_are_true(variant: Variant) -> None:
    """Counted again from the committed files."""
    assert costs.count(onnx.load(BUILTIN_DIR / variant.file)) == variant.costs
    assert variant.costs.macs == 64 * 8 * 9 + 16 * 24 * 8 * 9 + 384 * 10


def test_control_flow_is_refused() -> None:
    """What a branch costs is not in the graph."""
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "b", [], [_floats("b", 1)])
    model = _model(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        [_floats("x", 1), helper.make_tensor_value_info("c", TensorProto.BOOL, [1])],
        [_floats("y", 1)],
        [],
    )
    with pytest.raises(ValueError, match="control flow"):
        costs.count(model)
