"""What a model takes and gives, in the words of a family."""

from __future__ import annotations

import pytest
from float_models import conv_net, sentences, word_net
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_agent.errors import InputError
from edge_agent.models.publishing import signature


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_free_extents_get_symbols_that_tell_them_apart(names: list[str]) -> None:
    """Equal names, equal symbols; different names, different symbols; and nameless ones are all different."""
    model = conv_net()
    del model.graph.input[:]
    for index, name in enumerate(names):
        model.graph.input.append(helper.make_tensor_value_info(f"in{index}", TensorProto.FLOAT, [name or None]))
    inputs, _ = signature.ports(model)
    symbols = [port.shape[0] for port in inputs]
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            if i != j:
                assert (symbols[i] == symbols[j]) == (bool(one) and one == other)


def test_what_the_protocol_does_not_carry_is_refused() -> None:
    """A sequence or a complex number is no tensor of ours."""
    model = conv_net()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.COMPLEX64
    with pytest.raises(InputError, match=r"'image' is .*COMPLEX64"):
        signature.ports(model)
    model.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("image", TensorProto.FLOAT, None))
    with pytest.raises(InputError, match="sequence_type"):
        signature.ports(model)


def test_extents_inside_the_graph_are_measured() -> None:
    """A name that only an inner tensor has gets the median that the samples give it."""
    model = word_net()
    model.graph.value_info.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", "pieces", 32]))
    feeds = sentences(9).feeds
    extents = sorted(feed["words"].shape[1] for feed in feeds)
    (usual,) = signature.inner_extents(model, feeds, library=False)
    assert (usual.symbol, usual.extent) == ("pieces", extents[len(extents) // 2])
