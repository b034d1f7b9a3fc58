from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import PeerError
from edge_agent.models.catalogue import Golden
from edge_agent.models.golden import Case, decode_cases, difference, encode_cases
from edge_agent.wire import strict_cbor
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

GOLDEN = Golden(file="g.cbor", digest="0" * 64, size_bytes=1, atol=0.1, rtol=0.01)


def _floats(*values: float, name: str = "y") -> Tensor:
    return Tensor(TensorSpec(name, DataType.FP32, (len(values),)), struct.pack(f"<{len(values)}f", *values))


def _labels(*values: int) -> Tensor:
    return Tensor(TensorSpec("label", DataType.INT64, (len(values),)), struct.pack(f"<{len(values)}q", *values))


def _answer(right: Tensor, given_output: Tensor) -> str | None:
    return difference(GOLDEN, Case((_floats(0.0),), (right,)), [given_output])


_TENSORS = st.builds(
    lambda name, values: _floats(*values, name=name),
    st.text(st.characters(categories=["L"]), min_size=1, max_size=8),
    st.lists(st.floats(width=32), max_size=5),
)


@given(
    st.lists(
        st.builds(
            Case,
            st.lists(_TENSORS, min_size=1, max_size=2).map(tuple),
            st.lists(_TENSORS, min_size=1, max_size=2).map(tuple),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_cases_survive_the_way_to_bytes_and_back(cases: list[Case]) -> None:
    """NaN and infinities included: tensors are raw bytes."""
    assert list(decode_cases(encode_cases(cases))) == cases


@given(st.binary(max_size=200))
def test_any_bytes_are_cases_or_refused(data: bytes) -> None:
    """Nothing but the one kind of error leaves the parser."""
    try:
        cases = decode_cases(data)
    except PeerError:
        return
    assert cases


_GOOD = ["y", "FP32", [1], bytes(4)]


@pytest.mark.parametrize(
    "document",
    [
        {"v": 1, "cases": []},
        {"v": 2, "cases": [{"inputs": [_GOOD], "outputs": [_GOOD]}]},
        {"v": 1, "cases": [{"inputs": [_GOOD], "outputs": [_GOOD]}], "more": 1},
        {"v": 1, "cases": [{"inputs": [_GOOD], "outputs": []}]},
        {"v": 1, "cases": [{"inputs": [_GOOD], "outputs": [_GOOD], "more": 1}]},
        {"v": 1, "cases": [{"inputs": [_GOOD], "outputs": [["y", "FP8", [1], b"\0"]]}]},
        {"v": 1, "cases": [{"inputs": [_GOOD], "outputs": [["y", "FP32", ["1"], bytes(4)]]}]},
        {"v": 1, "cases": [{"inputs": [_GOOD], "outputs": [["y", "FP32", [True], bytes(4)]]}]},
        {"v": 1, "cases": [{"inputs": [_GOOD], "outputs": [["y", "FP32", [2], bytes(4)]]}]},
        {"v": 1, "cases": [{"inputs": [_GOOD], "outputs": [["y", "FP32", 1, bytes(4)]]}]},
        [1],
    ],
)
def test_a_wrong_document_is_refused(document: object) -> None:
    """Each part is checked."""
    with pytest.raises(PeerError):
        decode_cases(strict_cbor.encode(document))


@pytest.mark.parametrize(
    ("right", "answer", "passes"),
    [
        (1.0, 1.0, True),
        (1.0, 1.10, True),
        (1.0, 1.12, False),
        (100.0, 101.0, True),
        (100.0, 101.2, False),
        (-1.0, 1.0, False),
        (1.0, math.nan, False),
        (1.0, math.inf, False),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (math.inf, 1e30, False),
        (math.nan, math.nan, True),
        (math.nan, 0.0, False),
    ],
)
def test_floats_pass_within_the_tolerance(right: float, answer: float, *, passes: bool) -> None:
    """Absolute and relative together; what is not finite must be met exactly."""
    wrong = _answer(_floats(0.0, right), _floats(0.0, answer))
    assert (wrong is None) is passes
    assert passes or "element 1" in str(wrong)


def test_integers_must_be_equal() -> None:
    """A label one too high is wrong."""
    assert _answer(_labels(3), _labels(3)) is None
    assert "label" in str(_answer(_labels(3), _labels(4)))


def test_a_missing_renamed_or_reshaped_output_is_wrong() -> None:
    """The words say which and how."""
    case = Case((_floats(0.0),), (_floats(1.0),))
    assert "missing" in str(difference(GOLDEN, case, []))
    assert "missing" in str(difference(GOLDEN, case, [_floats(1.0, name="z")]))
    assert "[2] instead of FP32 [1]" in str(difference(GOLDEN, case, [_floats(1.0, 1.0)]))
    assert difference(GOLDEN, case, [_floats(9.0, name="more"), _floats(1.0)]) is None
