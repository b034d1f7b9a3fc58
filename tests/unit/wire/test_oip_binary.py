"""The binary form: no bit changes on the way, and sizes that do not add up are told."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import InputError
from edge_agent.wire.oip_json import (
    OutputForm,
    Request,
    body_of,
    request_from_body,
    response_from_body,
)
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings

BINARY = OutputForm(binary=True)


@st.composite
def tensors(draw: st.DrawFn) -> list[Tensor]:
    """Some tensors of any type, with any bytes that the type allows: NaN, infinity, no text."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        datatype = draw(st.sampled_from(sorted(DataType)))
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
        count = math.prod(shape)
        if datatype is DataType.BYTES:
            data = pack_strings(draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count)))
        elif datatype is DataType.BOOL:
            data = bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
        else:
            size = count * (datatype.item_bytes or 0)
            data = draw(st.binary(min_size=size, max_size=size))
        made.append(Tensor(TensorSpec(f"t{number}", datatype, shape), data))
    return made


def split_up(body: bytes, json_length: int | None) -> tuple[dict[str, Any], bytes]:
    """Return the JSON part of a body as objects, and what is behind it."""
    assert json_length is not None
    found: dict[str, Any] = json.loads(body[:json_length])
    return found, body[json_length:]


@given(tensors())
def test_round_trip_changes_no_bit(given_tensors: list[Tensor]) -> None:
    """In requests and in responses, whatever the bits mean."""
    body, length = body_of({"id": "42"}, "inputs", given_tensors, BINARY)
    request = request_from_body(body, str(length))
    assert (request.inputs, request.id) == (given_tensors, "42")
    body, length = body_of({"model_name": "m"}, "outputs", given_tensors, BINARY)
    assert response_from_body(body, str(length)).outputs == given_tensors


@given(tensors(), st.data())
def test_any_tail_is_read_or_refused(given_tensors: list[Tensor], data: st.DataObject) -> None:
    """Bytes cut, added or changed behind right JSON, and any header: a request or an InputError."""
    body, length = body_of({}, "inputs", given_tensors, BINARY)
    at = data.draw(st.integers(0, len(body)))
    changed = body[:at] + data.draw(st.binary(max_size=4)) + body[data.draw(st.integers(0, len(body))) :]
    header = data.draw(st.sampled_from([str(length), "0", "-1", "1e3", "", "99999999999999"]) | st.text(max_size=5))
    with suppress(InputError):
        assert isinstance(request_from_body(changed, header), Request)


@given(st.binary(max_size=60), st.none() | st.integers(-5, 70).map(str))
def test_any_body_is_read_or_refused(body: bytes, header: str | None) -> None:
    """Whatever arrives is an InputError: so few bytes are no request."""
    with pytest.raises(InputError):
        request_from_body(body, header)


def test_the_bytes_follow_the_text_in_the_order_of_the_tensors() -> None:
    """As the extension's own example has it: two inputs of 16 and 3 bytes."""
    numbers = Tensor(TensorSpec("input0", DataType.UINT32, (2, 2)), bytes(range(16)))
    flags = Tensor(TensorSpec("input1", DataType.BOOL, (3,)), b"\1\0\1")
    text, tail = split_up(*body_of({}, "inputs", [numbers, flags], BINARY))
    assert text["inputs"] == [
        {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "parameters": {"binary_data_size": 16}},
        {"name": "input1", "shape": [3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}},
    ]
    assert tail == bytes(range(16)) + b"\1\0\1"


def test_forms_can_be_mixed() -> None:
    """One tensor as JSON, one behind it; only then is there a header."""
    one, two = (Tensor(TensorSpec(name, DataType.INT8, (2,)), b"\1\2") for name in ("a", "b"))
    body, length = body_of({}, "inputs", [one, two], OutputForm(exceptions=frozenset({"b"})))
    text, tail = split_up(body, length)
    assert (text["inputs"][0]["data"], "data" in text["inputs"][1], tail) == ([1, 2], False, b"\1\2")
    assert request_from_body(body, str(length)).inputs == [one, two]
    assert body_of({}, "inputs", [one, two], OutputForm())[1] is None


def test_a_tensor_without_elements_has_a_size_of_zero() -> None:
    """And so a header, though nothing is behind the text."""
    empty = Tensor(TensorSpec("x", DataType.FP32, (0, 3)), b"")
    body, length = body_of({}, "inputs", [empty], BINARY)
    assert length == len(body)
    assert request_from_body(body, str(length)).inputs == [empty]


@pytest.mark.parametrize(
    ("parameters", "outputs", "binary"),
    [
        ({}, [], []),
        ({"binary_data_output": True}, [], ["a", "b"]),
        ({"binary_data_output": True}, [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}], ["b"]),
        ({}, [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}], ["a"]),
        ({"binary_data_output": False}, [{"name": "a"}], []),
    ],
)
def test_the_form_of_each_output_is_what_was_asked_for(
    parameters: dict[str, Any], outputs: list[dict[str, Any]], binary: list[str]
) -> None:
    """`binary_data` of one output counts more than `binary_data_output` for all."""
    body: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}]}
    request = request_from_body(json.dumps({**body, "parameters": parameters, "outputs": outputs}).encode(), None)
    assert [name for name in ("a", "b") if request.form.is_binary(name)] == binary


def described(size: object, **more: object) -> bytes:
    """Return the JSON text of a request with one input of two INT8."""
    entry = {"name": "x", "shape": [2], "datatype": "INT8", "parameters": {"binary_data_size": size}, **more}
    return json.dumps({"inputs": [entry]}).encode()


@pytest.mark.parametrize("header", ["-1", "+5", "1.0", "0x10", "", " ", "²", "1" * 13, "9" * 5000, "1 2"])
def test_a_header_that_is_no_length_is_refused(header: str) -> None:
    """Signs, fractions, other digits, or more of them than any body has bytes."""
    with pytest.raises(InputError, match="must be the number of bytes"):
        request_from_body(described(2) + b"\1\2", header)


@pytest.mark.parametrize(
    ("text", "tail", "add", "problem"),
    [
        (described(2), b"\1\2", 3, "but the body has"),
        (described(2), b"\1\2", 1, "not JSON|only 1 bytes"),
        (described(2), b"\1\2", -1, "not JSON"),
        (described(3), b"\1\2", 0, "only 2 bytes are left"),
        (described(2), b"\1\2\3", 0, "1 bytes are left"),
        (described(1), b"\1", 0, "needs 2 bytes, not 1"),
        (described(2**62), b"\1\2", 0, "only 2 bytes are left"),
        (described(-2), b"\1\2", 0, "whole number, not negative"),
        (described(2.0), b"\1\2", 0, "whole number"),
        (described("2"), b"\1\2", 0, "whole number"),
        (described(True), b"\1\2", 0, "whole number"),
        (described(2, data=[1, 2]), b"\1\2", 0, "both"),
    ],
)
def test_sizes_that_do_not_add_up_are_refused(text: bytes, tail: bytes, add: int, problem: str) -> None:
    """Beyond the body, too few, too many, negative, or no number."""
    with pytest.raises(InputError, match=problem):
        request_from_body(text + tail, str(len(text) + add))


def test_a_body_without_text_is_refused() -> None:
    """Raw tensors need a shape that nobody told."""
    with pytest.raises(InputError, match="says 0"):
        request_from_body(b"\1\2", "0")


@pytest.mark.parametrize("name", ["binary_data", "binary_data_output"])
@pytest.mark.parametrize("value", [1, "true", 0.5])
def test_a_form_is_true_or_false(name: str, value: object) -> None:
    """No guess about what else might be meant."""
    body: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}]}
    if name == "binary_data":
        body["outputs"] = [{"name": "y", "parameters": {name: value}}]
    else:
        body["parameters"] = {name: value}
    with pytest.raises(InputError, match=f"'{name}' must be true or false"):
        request_from_body(json.dumps(body).encode(), None)
