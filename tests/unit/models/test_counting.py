# ruff: noqa: E402 - what may be missing is imported after the skip
from __future__ import annotations

import needs
from hypothesis import given
from hypothesis import strategies as st

needs.module("onnx")

import onnx
from onnx import TensorProto, helper

from edge_agent.models.counting import fusion, layout, quantized, shapes
from edge_agent.models.counting.arena import Arena, Give, Take, planned_bytes, touched_bytes

MIB = 1 << 20


def _ops(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], shape: tuple[int, ...], out: str) -> list[str]:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    found = shapes.read(model)
    fusion.widen(found)
    fusion.simplify(found)
    quantized.fuse(found)
    fusion.fuse(found)
    layout.block(found)
    return [node.op for node in found.nodes]


def _floats(name: str, *shape: int, value: float = 0.5) -> onnx.TensorProto:
    count = 1
    for size in shape:
        count *= size
    return helper.make_tensor(name, TensorProto.FLOAT, shape, [value] * count)


def test_a_convolution_takes_over_what_follows_it() -> None:
    """Batch normalisation and ReLU are gone; what cannot work on blocks gets a reorder before it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "s", "s", "s", "s"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    constants = [_floats("w", 16, 8, 3, 3), _floats("s", 16)]
    assert _ops(nodes, constants, (1, 8, 6, 6), "y") == ["ReorderInput", "Conv", "ReorderOutput", "Flatten"]


def test_a_sum_goes_into_the_convolution_before_it() -> None:
    """The residual connection of a ResNet is no operator of its own."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "a"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    assert _ops(nodes, [_floats("w", 8, 8, 3, 3)], (1, 8, 6, 6), "y") == [
        "ReorderInput",
        "Conv",
        "Conv",
        "ReorderOutput",
    ]


def test_a_spelled_out_gelu_is_one_operator() -> None:
    """With the bias before it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["a"]),
        helper.make_node("Div", ["a", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["f"]),
        helper.make_node("Mul", ["a", "f"], ["g"]),
        helper.make_node("Mul", ["g", "half"], ["y"]),
    ]
    constants = [_floats("w", 4, 4), _floats("bias", 4), _floats("root"), _floats("one"), _floats("half")]
    assert _ops(nodes, constants, (1, 3, 4), "y") == ["MatMul", "BiasGelu"]


def test_a_pair_around_what_has_no_8_bit_form_stays() -> None:
    """Between DQ and Q a product becomes one of 8 bits; an error function does not, and its DQ and Q run."""
    scale, zero = _floats("s", value=0.1), helper.make_tensor("z", TensorProto.UINT8, [], [128])
    weight = helper.make_tensor("w", TensorProto.UINT8, [4, 4], [128] * 16)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("MatMul", ["d", "wd"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["mq"]),
        helper.make_node("DequantizeLinear", ["mq", "s", "z"], ["md"]),
        helper.make_node("Erf", ["md"], ["e"]),
        helper.make_node("QuantizeLinear", ["e", "s", "z"], ["eq"]),
        helper.make_node("DequantizeLinear", ["eq", "s", "z"], ["y"]),
    ]
    assert _ops(nodes, [scale, zero, weight], (1, 3, 4), "y") == [
        "QuantizeLinear",
        "QLinearMatMul",
        "DequantizeLinear",
        "Erf",
        "QuantizeLinear",
        "DequantizeLinear",
    ]


def test_what_is_made_of_constants_is_folded() -> None:
    """Shapes are known, so that what follows from them is no work."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "axis"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
        helper.make_tensor("rest", TensorProto.INT64, [1], [-1]),
    ]
    assert _ops(nodes, constants, (2, 3, 4), "y") == ["Reshape", "Relu"]


def test_the_arena_doubles_and_reuses() -> None:
    """A second tensor takes the place of the first when that is free; otherwise another region is opened."""
    arena = Arena()
    arena.take("a", 600_000)
    arena.give("a")
    arena.take("b", 600_000)
    assert arena.touched_bytes <= 600_000 + 4096
    arena.take("c", 3 * MIB)
    assert arena.touched_bytes > 3 * MIB + 590_000


def test_the_block_for_all_tensors_comes_on_top_where_it_does_not_fit() -> None:
    """Two tensors of 3 MiB that live together lie in regions of 4 MiB each; the block of 6 MiB fits in neither."""
    size = 3 * MIB
    trace = [Take("a", size, planned=True), Take("b", size, planned=True), Give("a"), Give("b")]
    touched, block = touched_bytes(trace)
    assert block == 2 * size
    assert touched >= 2 * size + block - 4 * 4096


_SIZES = st.lists(st.integers(1, 5 * MIB), min_size=1, max_size=12)


@given(_SIZES, st.integers(1, 4))
def test_the_plan_is_never_below_what_lives_nor_above_the_sum(sizes: list[int], together: int) -> None:
    """Whatever the order, the block has room for all that live at a time, and no more than for all."""
    trace: list[Take | Give] = []
    now = peak = 0
    for index, size in enumerate(sizes):
        rounded = -(-size // 256) * 256
        trace.append(Take(str(index), size, planned=True))
        now += rounded
        peak = max(peak, now)
        if index >= together:
            trace.append(Give(str(index - together)))
            now -= -(-sizes[index - together] // 256) * 256
    assert peak <= planned_bytes(trace) <= sum(-(-size // 256) * 256 for size in sizes)
    touched, block = touched_bytes(trace)
    assert touched >= block
