"""What a client may ask for, held against the catalogue."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import digits, scan
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.coordinator.requests import arranged, check_inputs, mismatch, ordered, request_digest
from edge_agent.errors import InputError
from edge_agent.models.catalogue import Port
from edge_agent.wire.job_options import JobOptions, Placement
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

FAMILY = digits()
TWO_INPUTS = FAMILY.model_copy(
    update={
        "inputs": (
            Port(name="ids", datatype="INT64", shape=("N", "S")),
            Port(name="mask", datatype="INT64", shape=("N", "S")),
        )
    }
)


def _ints(name: str, *shape: int) -> Tensor:
    spec = TensorSpec(name, DataType.INT64, shape)
    return Tensor(spec, bytes(spec.byte_count or 0))


def test_what_fits_is_accepted_and_binds_the_symbols() -> None:
    """A batch of three is three."""
    assert check_inputs(FAMILY, [scan(batch=3)], ["label"]) == {"N": 3}


def _image(**changes: Any) -> Tensor:  # noqa: ANN401 any field
    fields = {"name": "image", "datatype": DataType.FP32, "shape": (1, 1, 8, 8), **changes}
    spec = TensorSpec(**fields)
    return Tensor(spec, bytes(spec.byte_count or 0))


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ([], [], "'image' of digits is missing"),
        ([_image(name="picture")], [], "no input named 'picture'; it takes 'image'"),
        ([_image(), _image()], [], "two inputs have the same name"),
        ([_image(datatype=DataType.FP64)], [], "must be FP32, not FP64"),
        ([_image(shape=(1, 64))], [], r"must have the shape \[N, 1, 8, 8\], not \[1, 64\]"),
        ([_image(shape=(2, 1, 8, 7))], [], r"\(N = 2\), not \[2, 1, 8, 7\]"),
        ([_image()], ["lable"], "no output named 'lable'; it gives 'label', 'logits'"),
        ([_image()], ["label", "label"], "asked for twice"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(inputs: list[Tensor], outputs: list[str], said: str) -> None:
    """The message names the tensor, what was expected and what came."""
    with pytest.raises(InputError, match=said):
        check_inputs(FAMILY, inputs, outputs)


def test_one_symbol_has_one_value_in_a_request() -> None:
    """Inputs that share a symbol must agree on it."""
    check_inputs(TWO_INPUTS, [_ints("ids", 2, 7), _ints("mask", 2, 7)], [])
    with pytest.raises(
        InputError, match=r"'mask' of digits must have the shape \[N, S\] \(N = 2, S = 7\), not \[2, 8\]"
    ):
        check_inputs(TWO_INPUTS, [_ints("ids", 2, 7), _ints("mask", 2, 8)], [])


def test_inputs_are_put_into_the_order_of_the_family() -> None:
    """Equal requests have equal bytes, however the client sorted them."""
    ids, mask = _ints("ids", 1, 2), _ints("mask", 1, 2)
    assert ordered(TWO_INPUTS, [mask, ids]) == (ids, mask)


REQUESTS = st.tuples(
    st.sampled_from(["digits", "letters"]),
    st.sampled_from([None, bytes(32), b"\x01" * 32]),
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([(2,), (1, 2), (2, 1)]), st.binary(min_size=2, max_size=2)),
        max_size=2,
    ),
    st.lists(st.sampled_from(["x", "y", "x', 'y"]), max_size=2, unique=True),
)


def _digest(request: tuple[str, bytes | None, list[tuple[str, tuple[int, ...], bytes]], list[str]]) -> bytes:
    family, variant, inputs, outputs = request
    tensors = [Tensor(TensorSpec(name, DataType.UINT8, shape), data) for name, shape, data in inputs]
    return request_digest(family, variant, tensors, outputs)


@given(REQUESTS, REQUESTS)
def test_two_requests_have_one_digest_exactly_if_they_ask_for_the_same(first: Any, second: Any) -> None:  # noqa: ANN401 generated
    """An idempotency key is never answered with the result of another request."""
    same = (*first[:3], sorted(first[3])) == (*second[:3], sorted(second[3]))
    assert (_digest(first) == _digest(second)) == same


@given(
    st.lists(st.integers(0, 3), max_size=3), st.lists(st.one_of(st.integers(0, 3), st.sampled_from("NS")), max_size=3)
)
def test_a_shape_fits_exactly_if_one_value_for_each_symbol_makes_it_equal(
    given_shape: list[int], wanted: list[int | str]
) -> None:
    """The rule, said in another way: fill the symbols in and compare."""
    symbols: dict[str, int] = {}
    port = Port(name="x", datatype="UINT8", shape=tuple(wanted))
    problem = mismatch(port, TensorSpec("x", DataType.UINT8, tuple(given_shape)), symbols)
    filled = [symbols.get(size, -1) if isinstance(size, str) else size for size in wanted]
    consistent = len(given_shape) == len(wanted) and filled == given_shape
    assert (problem is None) == consistent


def test_sealed_inputs_are_checked_for_what_can_be_seen() -> None:
    """One tensor of bytes, no outputs in the clear, exactly one agent: and then they are left as they are."""
    sealed = Tensor(TensorSpec("#sealed", DataType.UINT8, (3,)), b"abc")
    placed = Placement(agents=("a" * 32,))
    assert arranged(FAMILY, (sealed,), (), JobOptions(placement=placed)) == (sealed,)
    wrong = Tensor(TensorSpec("#sealed", DataType.INT8, (3,)), b"abc")
    for inputs, outputs, placement in (
        ((sealed,), (), Placement()),
        ((sealed,), ("label",), placed),
        ((sealed, sealed), (), placed),
        ((wrong,), (), placed),
    ):
        with pytest.raises(InputError, match="seal"):
            arranged(FAMILY, inputs, outputs, JobOptions(placement=placement))
