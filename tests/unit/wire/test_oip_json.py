"""Tensors in JSON: nothing changes on the way, and nothing that could is taken silently."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import InputError
from edge_agent.wire.oip_json import (
    MAX_TENSORS,
    request_from_json,
    response_from_json,
    tensor_from_json,
    tensor_to_json,
)
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings

INTEGERS = {
    DataType.UINT8: (0, 2**8 - 1),
    DataType.UINT16: (0, 2**16 - 1),
    DataType.UINT32: (0, 2**32 - 1),
    DataType.UINT64: (0, 2**64 - 1),
    DataType.INT8: (-(2**7), 2**7 - 1),
    DataType.INT16: (-(2**15), 2**15 - 1),
    DataType.INT32: (-(2**31), 2**31 - 1),
    DataType.INT64: (-(2**63), 2**63 - 1),
}
LETTERS = {DataType.FP16: "e", DataType.FP32: "f", DataType.FP64: "d"}
LARGEST = {DataType.FP16: 65504.0, DataType.FP32: 3.4028234663852886e38, DataType.FP64: sys.float_info.max}


def tensor(datatype: str, shape: list[int], data: Any, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Return a tensor as JSON holds it."""
    return {"name": "x", "datatype": datatype, "shape": shape, "data": data, **more}


def packed(letter: str, values: list[Any]) -> bytes:
    """Return the values as little-endian bytes."""
    return struct.pack(f"<{len(values)}{letter}", *values)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any tensor that JSON has a form for."""
    datatype = draw(st.sampled_from(sorted(set(DataType) - {DataType.BF16})))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    count = math.prod(shape)

    def values(strategy: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    if datatype is DataType.BYTES:
        data = pack_strings([text.encode() for text in values(st.text(max_size=5))])
    elif datatype is DataType.BOOL:
        data = bytes(values(st.integers(0, 1)))
    elif datatype in LETTERS:
        width = {"e": 16, "f": 32, "d": 64}[LETTERS[datatype]]
        floats = st.floats(allow_nan=False, allow_infinity=False, width=width)
        data = packed(LETTERS[datatype], values(floats))
    else:
        low, high = INTEGERS[datatype]
        size = datatype.item_bytes or 0
        data = b"".join(n.to_bytes(size, "little", signed=low < 0) for n in values(st.integers(low, high)))
    return Tensor(TensorSpec(draw(st.sampled_from(["x", "größe", "a/b:0"])), datatype, shape), data)


def nested(flat: list[Any], shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - lists of lists
    """Return flat elements as lists in lists."""
    if len(shape) <= 1:
        return flat
    step = math.prod(shape[1:])
    return [nested(flat[row * step : (row + 1) * step], shape[1:]) for row in range(shape[0])]


@given(tensors())
def test_round_trip_changes_no_bit(given_tensor: Tensor) -> None:
    """Through JSON text and back every tensor has the same bytes, negative zero and subnormals included."""
    text = json.dumps(tensor_to_json(given_tensor), allow_nan=False)
    assert tensor_from_json(text) == given_tensor
    assert tensor_from_json(json.loads(text)) == given_tensor


@given(tensors())
def test_nested_data_is_the_same_tensor(given_tensor: Tensor) -> None:
    """The multi-dimensional form means what the flat one means."""
    body = tensor_to_json(given_tensor)
    body["data"] = nested(body["data"], given_tensor.spec.shape)
    assert tensor_from_json(body) == given_tensor


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_any_text_is_read_or_refused(text: bytes | str) -> None:
    """Whatever arrives is a request or an InputError."""
    with pytest.raises(InputError):
        request_from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "datatype", "shape", "data", "parameters"), JSON)))
def test_any_object_is_read_or_refused(body: dict[str, Any]) -> None:
    """Whatever JSON holds in the place of a tensor is one or an InputError."""
    good = tensor("FP32", [1], [1.5])
    for name, value in body.items():
        try:
            made = tensor_from_json(good | {name: value})
        except InputError:
            continue
        assert isinstance(made, Tensor)


@pytest.mark.parametrize(("datatype", "limits"), INTEGERS.items())
def test_integers_out_of_range_are_refused(datatype: DataType, limits: tuple[int, int]) -> None:
    """The limits themselves pass, one beyond either does not: nothing wraps around."""
    for value in limits:
        body = tensor(datatype, [1], [value])
        assert tensor_to_json(tensor_from_json(body))["data"] == [value]
    for value in (limits[0] - 1, limits[1] + 1, 10**400):
        with pytest.raises(InputError, match=f"out of the range of {datatype.value}"):
            tensor_from_json(tensor(datatype, [1], [value]))


@pytest.mark.parametrize(("datatype", "largest"), LARGEST.items())
def test_floats_that_would_become_infinite_are_refused(datatype: DataType, largest: float) -> None:
    """The largest finite number passes, larger ones do not, and neither does JSON's 1e999."""
    assert tensor_to_json(tensor_from_json(tensor(datatype, [2], [largest, -largest])))["data"] == [largest, -largest]
    too_large = ["1e999", "-1e999", str(10**400)] + ([] if datatype is DataType.FP64 else [str(largest * 2)])
    for text in too_large:
        with pytest.raises(InputError, match=f"out of the range of {datatype.value}"):
            tensor_from_json(f'{{"name":"x","datatype":"{datatype.value}","shape":[2],"data":[0.5,{text}]}}')


@pytest.mark.parametrize("datatype", LETTERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_a_number_has_no_form_in_json(datatype: DataType, value: float) -> None:
    """Neither read from text, nor from objects, nor written."""
    word = {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    with pytest.raises(InputError, match=f"{word} is not JSON"):
        tensor_from_json(f'{{"name":"x","datatype":"{datatype.value}","shape":[1],"data":[{word}]}}')
    with pytest.raises(InputError, match="out of the range"):
        tensor_from_json(tensor(datatype, [2], [0.5, value]))
    odd = Tensor(TensorSpec("x", datatype, (2,)), packed(LETTERS[datatype], [0.5, value]))
    with pytest.raises(InputError, match="holds NaN or infinity"):
        tensor_to_json(odd)


def test_sums_that_overflow_are_not_mistaken_for_infinity() -> None:
    """Two of the largest FP64 numbers are finite, though their sum is not."""
    largest = sys.float_info.max
    assert tensor_to_json(tensor_from_json(tensor("FP64", [2], [largest, largest])))["data"] == [largest, largest]


def test_integers_are_fine_floats() -> None:
    """JSON writers drop the fraction of whole numbers."""
    assert tensor_from_json(tensor("FP32", [3], [1, 2.5, -0.0])).data == packed("f", [1.0, 2.5, -0.0])


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("FP32", [True], "true or false"),
        ("FP32", ["1"], "a string"),
        ("FP32", [None], "null"),
        ("FP32", [1.5, {}], "an object"),
        ("FP32", [1.5, [1]], "a list"),
        ("INT32", [1.0], "a fraction"),
        ("INT32", [False], "true or false"),
        ("UINT8", ["a"], "a string"),
        ("BOOL", [1], "a number"),
        ("BOOL", ["true"], "a string"),
        ("BYTES", [1], "a number"),
        ("BYTES", [True, 1.5], "a fraction and true or false"),
    ],
)
def test_elements_of_another_type_are_refused(datatype: str, data: list[Any], said: str) -> None:
    """No coercion: the message says what was found."""
    with pytest.raises(InputError, match=f"its data holds {said}"):
        tensor_from_json(tensor(datatype, [len(data)], data))


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2], [1]),
        ([2], [1, 2, 3]),
        ([], []),
        ([], [1, 2]),
        ([0], [1]),
        ([2, 2], [[1, 2], [3]]),
        ([2, 2], [[1, 2], 3]),
        ([2, 2], [[1, 2], [3, [4]]]),
        ([4], [[1, 2], [3, 4]]),
        ([2, 2], [[1, 2, 3, 4]]),
        ([2, 2], [[[1, 2], [3, 4]]]),
        ([2, 0], [[], [1]]),
        ([1], [[1]]),
        ([2**40, 2**40], [1]),
        ([1] * 33, [1]),
    ],
)
def test_data_of_another_shape_is_refused(shape: list[int], data: list[Any]) -> None:
    """Too few, too many, ragged, nested too deep, or a shape beyond all limits."""
    with pytest.raises(InputError):
        tensor_from_json(tensor("INT64", shape, data))


@pytest.mark.parametrize("shape", [None, "3", 3, [1.0], [-1], [True], [None], {"0": 1}])
def test_shapes_are_lists_of_whole_numbers(shape: object) -> None:
    """-1 belongs into a model's description, not into a tensor's shape."""
    with pytest.raises(InputError, match="needs a shape"):
        tensor_from_json(tensor("INT64", [], [1]) | {"shape": shape})


def test_empty_tensors_and_scalars() -> None:
    """A shape with a 0 has no elements, the shape [] has one."""
    assert tensor_from_json(tensor("FP32", [0, 3], [])).data == b""
    assert tensor_from_json(tensor("FP32", [2, 0], [[], []])).data == b""
    assert tensor_from_json(tensor("INT8", [], [-1])).data == b"\xff"


def test_half_precision_is_written_as_numbers() -> None:
    """FP16 travels as the number that it is; what it cannot hold exactly is rounded to nearest."""
    made = tensor_from_json(tensor("FP16", [2], [0.1, 65504]))
    assert made.data == packed("e", [0.1, 65504])
    assert tensor_to_json(made)["data"] == [0.0999755859375, 65504.0]


def test_bfloat16_is_refused_with_a_way_out() -> None:
    """There is no agreed form, so guessing one would change numbers."""
    with pytest.raises(InputError, match="BF16") as caught:
        tensor_from_json(tensor("BF16", [1], [1.0]))
    assert "FP32" in caught.value.hint
    with pytest.raises(InputError, match="BF16"):
        tensor_to_json(Tensor(TensorSpec("x", DataType.BF16, (1,)), b"\x80\x3f"))


def test_strings_are_text() -> None:
    """UTF-8 both ways; half a surrogate pair and other bytes have no form."""
    made = tensor_from_json(tensor("BYTES", [2], ["größe", ""]))
    assert made.data == pack_strings(["größe".encode(), b""])
    with pytest.raises(InputError, match="surrogate"):
        tensor_from_json('{"name":"x","datatype":"BYTES","shape":[1],"data":["\\ud800"]}')
    with pytest.raises(InputError, match="not UTF-8 text"):
        tensor_to_json(Tensor(TensorSpec("x", DataType.BYTES, (1,)), pack_strings([b"\xff"])))


def test_unknown_datatype_names_the_closest() -> None:
    """Names of numpy and of ONNX are not the protocol's."""
    with pytest.raises(InputError, match="unknown datatype 'fp32'") as caught:
        tensor_from_json(tensor("fp32", [1], [1]))
    assert caught.value.hint == "Did you mean FP32?"


class TestRequest:
    """Whole requests."""

    def test_all_members_are_read(self) -> None:
        """Id, inputs in order, wanted outputs, parameters."""
        request = request_from_json(
            {
                "id": "42",
                "parameters": {"priority": 1},
                "inputs": [tensor("INT8", [1], [1]), tensor("INT8", [1], [2]) | {"name": "y"}],
                "outputs": [{"name": "label", "parameters": {"binary_data": False}}],
            }
        )
        assert request.id == "42"
        assert [item.name for item in request.inputs] == ["x", "y"]
        assert request.outputs == ["label"]
        assert request.parameters == {"priority": 1}

    def test_only_inputs_are_needed(self) -> None:
        """No id is None, no outputs means all."""
        request = request_from_json(json.dumps({"inputs": [tensor("INT8", [1], [1])]}).encode())
        assert (request.id, request.outputs, request.parameters) == (None, [], {})

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"inputs": []}, "no inputs"),
            ({"inputs": None}, "must be a list, not null"),
            ({"inputs": [1]}, "must be a JSON object, not a number"),
            ({"inputs": [tensor("INT8", [1], [1])] * 2}, "given twice"),
            ({"inputs": [tensor("INT8", [1], [1])] * (MAX_TENSORS + 1)}, "at most 64"),
            ({"inputs": [{"name": "x"}]}, "needs a shape"),
            ({"inputs": [tensor("INT8", [1], [1]) | {"name": "a\nb"}]}, "control character"),
            ({"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "dta": [1]}]}, "unknown member 'dta'"),
            ({"outputs": [{}]}, "'name' is missing"),
            ({"outputs": [{"name": "a"}, {"name": "a"}]}, "given twice"),
            ({"id": 5}, "must be a string, not a number"),
            ({"id": "x" * 257}, "more than 256 characters"),
            ({"parameters": []}, "must be an object"),
            ({"parameters": {"a": None}}, "must be a string, a number"),
            ({"output": []}, "unknown member 'output'"),
        ],
    )
    def test_what_is_wrong_is_named(self, change: dict[str, Any], problem: str) -> None:
        """One message for each mistake, in words."""
        body = {"inputs": [tensor("INT8", [1], [1])]} | change
        with pytest.raises(InputError, match=problem):
            request_from_json(body)

    def test_members_of_other_servers_are_ignored(self) -> None:
        """KServe's client adds the name of the model; a member like a right one beside it changes nothing."""
        body = {"model_name": "digits", "inputs": [tensor("INT8", [1], [1], dta=1)]}
        assert len(request_from_json(body).inputs) == 1

    def test_binary_data_without_its_header_is_refused_with_the_reason(self) -> None:
        """Only the header says where the JSON text ends."""
        described = {"name": "x", "datatype": "INT8", "shape": [1], "parameters": {"binary_data_size": 1}}
        with pytest.raises(InputError, match="Inference-Header-Content-Length is missing"):
            request_from_json({"inputs": [described]})

    @pytest.mark.parametrize("name", ["shared_memory_region", "classification"])
    @pytest.mark.parametrize("where", ["inputs", "outputs"])
    def test_extensions_that_change_what_is_asked_for_are_not_passed_over(self, name: str, where: str) -> None:
        """Another answer than the one that was asked for would be taken for it."""
        body = {"inputs": [tensor("INT8", [1], [1])], "outputs": [{"name": "y"}]}
        body[where][0]["parameters"] = {name: 3}
        with pytest.raises(InputError, match=name):
            request_from_json(body)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (b"\xff{}", "not UTF-8"),
            ('{"inputs": [', "line 1, column 13"),
            ("[" * 100_000, "nested too deep"),
            ('{"inputs": [' + "9" * 5000 + "]}", "cannot be read"),
            ("[]", "must be a JSON object, not a list"),
            ("", "not JSON"),
        ],
    )
    def test_text_that_is_no_json(self, text: str | bytes, problem: str) -> None:
        """Cut, too deep, digits without end: each is said."""
        with pytest.raises(InputError, match=problem):
            request_from_json(text)


class TestResponse:
    """Whole responses."""

    def test_all_members_are_read(self) -> None:
        """What the gateway answers."""
        response = response_from_json(
            {
                "model_name": "digits",
                "model_version": "fp32",
                "id": "42",
                "outputs": [tensor("INT64", [1], [7])],
                "parameters": {"run_us": 3},
            }
        )
        assert (response.id, response.model_name, response.parameters) == ("42", "digits", {"run_us": 3})
        assert response.outputs == [tensor_from_json(tensor("INT64", [1], [7]))]

    def test_an_error_answer_is_no_response(self) -> None:
        """A file with the coordinator's error in it is said to lack what it lacks."""
        with pytest.raises(InputError, match="'outputs' is missing"):
            response_from_json({"error": "no"})


def test_no_numpy_is_needed() -> None:
    """The gateway and the client read JSON without it."""
    code = "import sys, edge_agent.wire.oip_json; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
