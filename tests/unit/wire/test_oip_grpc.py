"""The encoding of gRPC's messages: hostile bytes end in an error of ours, and cost no more than they are long."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import InputError
from edge_agent.wire.oip_grpc import infer_request, infer_response, model_named, only_ready
from edge_agent.wire.protobuf import field, packed, signed, varint, varints
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

SPEC = field(1, "x") + field(2, "FP32") + packed(3, (2,))
RAW = struct.pack("<2f", 1.0, 2.0)


def request(*parts: bytes) -> bytes:
    """Return a request for a model."""
    return field(1, "digits") + b"".join(parts)


def test_a_request_is_read() -> None:
    """Name, version, id, tensors and parameters of all kinds."""
    parameters = {"a": field(1, value=True), "b": field(2, -5), "c": field(3, "text"), "d": field(4, 0.5)}
    parts = [field(4, field(1, name) + field(2, value)) for name, value in parameters.items()]
    found = infer_request(request(field(2, "fp32"), field(3, "mine"), field(5, SPEC), *parts, field(7, RAW)))
    assert found[:2] == ("digits", "fp32")
    assert found[2].inputs == [Tensor(TensorSpec("x", DataType.FP32, (2,)), RAW)]
    assert found[2].parameters == {"a": True, "b": -5, "c": "text", "d": 0.5}
    assert found[2].id == "mine"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "no inputs"),
        (request(field(5, SPEC)), "needs 8 bytes"),
        (request(field(5, SPEC), field(7, RAW), field(7, RAW)), "2 raw_input_contents"),
        (request(field(5, SPEC + field(5, field(6, RAW))), field(7, RAW)), "both"),
        (request(field(5, SPEC + field(5, field(7, RAW)))), "contents of another type"),
        (request(field(5, SPEC), field(5, SPEC), field(7, RAW), field(7, RAW)), "twice"),
        (request(field(5, field(1, "x") + field(2, "FP31"))), "unknown datatype"),
        (request(field(5, field(1, "x") + field(2, "FP32") + packed(3, (-1,)))), "negative"),
        (request(field(5, field(1, "x") + field(2, "INT8") + packed(3, (1,)) + field(5, packed(2, (300,))))), "range"),
        (request(field(5, field(1, "x") + field(2, "FP16") + packed(3, (1,)) + field(5, b""))), "raw_input_contents"),
        (request(field(4, field(1, "classification") + field(2, field(2, 3))), field(5, SPEC)), "not spoken"),
        (request(field(5, 7)), "must be a message"),
        (request(varint(5 << 3 | 3)), "wire type"),
        (request(varint(5 << 3 | 2) + varint(1000) + b"x"), "cut"),
        (request(b"\xff" * 11), "64 bits"),
        (field(1, b"\xff\xfe"), "UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_request_is_refused(message: bytes, words: str) -> None:
    """With what is wrong."""
    with pytest.raises(InputError, match=words):
        infer_request(message)


@pytest.mark.parametrize("part", [field(5, b""), field(6, b""), field(4, b""), field(7, b""), field(99, 1)])
def test_millions_of_empty_parts_cost_nothing(part: bytes) -> None:
    """A general reader would make an object of each; memory stays far below the message."""
    message = part * 500_000
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more than"):
            infer_request(message)
        assert tracemalloc.get_traced_memory()[1] < len(message) / 5
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_error_of_ours(data: bytes) -> None:
    """Whatever they are."""
    for read in (infer_request, model_named, only_ready):
        try:
            read(data)
        except InputError:
            continue


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_numbers_come_back_as_they_went(numbers: list[int]) -> None:
    """Signed ones, packed."""
    data = b"".join(map(varint, numbers))
    assert list(map(signed, varints(memoryview(data), "x"))) == numbers


def test_a_response_is_written() -> None:
    """Tensors as raw bytes behind their descriptions."""
    tensor = Tensor(TensorSpec("y", DataType.FP32, (2,)), RAW)
    written = infer_response("digits", "fp32", "mine", {"run_us": 3, "verification": "signed"}, [tensor])
    assert written.endswith(field(6, RAW))
    assert field(1, "digits") in written
