"""Long requests are read by a process of their own, and mean what they mean when they are read here."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.coordinator.gateway import reading
from edge_agent.coordinator.gateway.json_numbers import in_binary_form
from edge_agent.coordinator.gateway.reading import LONG_BYTES, Reader
from edge_agent.errors import EdgeAgentError, InputError, TooLargeError
from edge_agent.wire.oip_json import OutputForm, Request, body_of, request_from_body, request_from_json, tensor_to_json
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = FINITE | st.integers(-(2**65), 2**65) | st.integers(-200, 300)
NUMERIC = sorted(set(DataType) - {DataType.BF16, DataType.BYTES, DataType.BOOL})


def request(data: object, datatype: str = "FP32", shape: object = None, **more: object) -> dict[str, Any]:
    """Return a request with one input."""
    count = len(data) if isinstance(data, list) else 1
    given = {"name": "x", "shape": [count] if shape is None else shape, "datatype": datatype, "data": data}
    return {"inputs": [given], **more}


def long(text: str) -> bytearray:
    """Return the text with so many spaces that it is long."""
    return bytearray(text.encode() + b" " * LONG_BYTES)


def moved_back(moved: tuple[bytes, int]) -> Request:
    """Read what numbers were moved out of."""
    return request_from_body(moved[0], str(moved[1]))


def here(text: bytes) -> Request | InputError:
    """Read a request in this process."""
    try:
        return request_from_json(text)
    except InputError as error:
        return error


def read(*bodies: bytearray, max_request_bytes: int = 1024 * 1024) -> list[Request | EdgeAgentError]:
    """Let one reader read these bodies; give what each became."""

    async def script() -> list[Request | EdgeAgentError]:
        reader = Reader(max_request_bytes=max_request_bytes)
        found: list[Request | EdgeAgentError] = []
        try:
            for body in bodies:
                try:
                    found.append(await reader.request(body, None))
                except EdgeAgentError as error:
                    found.append(error)
        finally:
            reader.close()
        return found

    return asyncio.run(script())


@given(st.lists(NUMBERS, max_size=6), st.sampled_from(NUMERIC), st.sampled_from([None, 1, "\n"]))
def test_moved_numbers_are_what_they_were(data: list[float], datatype: DataType, indent: int | str | None) -> None:
    """Of any data type: the same bits, or left to the reader that says what is wrong."""
    text = json.dumps(request(data, datatype.value, id="[a]", parameters={"priority": 3}), indent=indent).encode()
    moved = in_binary_form(text)
    if moved is not None:
        expected = here(text)
        assert isinstance(expected, Request)
        assert moved_back(moved) == expected


@pytest.mark.parametrize("datatype", NUMERIC)
def test_ordinary_numbers_are_moved(datatype: DataType) -> None:
    """Not left to the slow reader."""
    moved = in_binary_form(json.dumps(request([1, 2, 120], datatype.value)).encode())
    assert moved is not None
    assert moved_back(moved).inputs[0].spec.datatype is datatype


ODD: dict[str, dict[str, Any] | str] = {
    "nested": request([[1, 2], [3, 4]], shape=[2, 2]),
    "nested deeper than its shape": request([[1], [2]], shape=[2]),
    "ragged": request([[1, 2, 3], [4]], shape=[2, 2]),
    "too few": request([1.5], shape=[2]),
    "a truth": request([1.5, True]),
    "a text": request([1.5, "2"]),
    "null": request([None]),
    "an object": request([1.5, {}]),
    "a fraction as integer": request([1.0], "INT64"),
    "out of range": request([256], "UINT8"),
    "infinite as FP32": request([1e39]),
    "no such type": request([1], "FLOAT"),
    "BF16": request([1], "BF16"),
    "texts": request(["a"], "BYTES"),
    "truths": request([True], "BOOL"),
    "shape of fractions": request([1], shape=[1.0]),
    "a scalar as data": request(1),
    "a size that is not there": request([1], parameters={}) | {"inputs": [{"name": "x", "parameters": []}]},
    "given twice": '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"data":[2]}]}',
    "inputs given twice": '{"inputs":[],"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[2]}]}',
    "an own size": '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[2],"parameters":'
    '{"binary_data_size":4}}]}',
    "NaN": '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}',
    "beyond all floats": '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1e999]}]}',
    "an integer of 400 digits": f'{{"inputs":[{{"name":"x","shape":[1],"datatype":"INT64","data":[{"9" * 400}]}}]}}',
    "half of a surrogate pair": '{"id":"\\ud800","inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}',
    "cut": '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}',
    "unknown member with lists": request([1], more=[[1], [2]]),
    "no inputs": {"inputs": []},
    "a list": "[1]",
    "deep": "[" * 20_000,
    "nothing": "",
}


@pytest.fixture(scope="module")
def read_long() -> list[Request | EdgeAgentError]:
    """Return what one reader makes of all odd requests."""
    texts = [given if isinstance(given, str) else json.dumps(given) for given in ODD.values()]
    return read(*map(long, texts))


@pytest.mark.parametrize("name", ODD)
def test_odd_requests_are_read_and_refused_alike_long_and_short(
    read_long: list[Request | EdgeAgentError], name: str
) -> None:
    """With the same status, code, words and hint; where it is a position, the spaces behind it change nothing."""
    given = ODD[name]
    text = given if isinstance(given, str) else json.dumps(given)
    found = read_long[list(ODD).index(name)]
    expected = here(text.encode() + b" ")
    if isinstance(expected, Request):
        assert found == expected
        return
    assert isinstance(found, InputError)
    assert (found.error_code, found.hint) == (expected.error_code, expected.hint)
    if name not in {"nothing", "cut"}:  # which end where the spaces do
        assert found.message == expected.message


def test_outputs_and_parameters_come_through_either_way() -> None:
    """Also their forms, in which the answer depends on them."""
    more = {
        "id": "42",
        "parameters": {"binary_data_output": True, "priority": 1, "note": "a"},
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}],
    }
    quick, slow = request([1.5, 2], **more), request([[1.5], [2]], shape=[2, 1], **more)
    for found, body in zip(read(*(long(json.dumps(body)) for body in (quick, slow))), (quick, slow), strict=True):
        expected = request_from_json(body)
        assert isinstance(found, Request)
        assert found[:3] + found[4:] == expected[:3] + expected[4:]
        assert {**expected.parameters}.items() <= found.parameters.items()
        assert [found.form.is_binary(name) for name in "yz"] == [False, True]


def test_a_picture_is_read_bit_by_bit() -> None:
    """A usual long request."""
    data = b"".join(math.sin(n).hex().encode()[:4] for n in range(40_000))
    image = Tensor(TensorSpec("image", DataType.INT16, (80_000,)), data)
    body = bytearray(json.dumps({"inputs": [tensor_to_json(image)]}).encode())
    assert len(body) > LONG_BYTES
    (found,) = read(body)
    assert isinstance(found, Request)
    assert found.inputs == [image]


def test_json_with_binary_data_behind_it_is_read() -> None:
    """A long text, and a tensor that is not in it."""
    texts = tensor_to_json(Tensor(TensorSpec("x", DataType.INT8, (LONG_BYTES,)), bytes(LONG_BYTES)))
    raw = {"name": "y", "shape": [2], "datatype": "INT8", "parameters": {"binary_data_size": 2}}
    text, _ = body_of({"inputs": [texts, raw]}, "unused", [], OutputForm())

    async def script() -> Request:
        reader = Reader(max_request_bytes=1024 * 1024)
        try:
            return await reader.request(bytearray(text + b"\x01\x02"), str(len(text)))
        finally:
            reader.close()

    assert [tensor.data for tensor in asyncio.run(script()).inputs] == [bytes(LONG_BYTES), b"\x01\x02"]


def test_a_text_that_takes_too_much_memory_is_refused_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million empty lists in three megabytes; the coordinator keeps none of them."""
    monkeypatch.setattr(reading, "MEMORY_BYTES", 8 * 1024 * 1024)
    lists = bytearray(f'{{"inputs":[{{"name":"x","data":[{",".join(["[]"] * 1_000_000)}]}}]}}'.encode())
    bomb, found = read(lists, long(json.dumps(request([1.5]))), max_request_bytes=1024 * 1024)
    assert isinstance(bomb, TooLargeError)
    assert "binary data" in (bomb.hint or "")
    assert isinstance(found, Request)


def test_a_reading_process_that_is_killed_costs_one_request() -> None:
    """The one that it reads; the next starts another process. At the end there is none."""

    async def script() -> tuple[list[object], int]:
        reader = Reader(max_request_bytes=1024 * 1024)
        body = long(json.dumps(request([1.5])))
        await reader.request(body, None)
        first = reader._helper
        assert first is not None
        os.kill(first._process.pid, signal.SIGSTOP)
        asking = asyncio.create_task(reader.request(body, None))
        await asyncio.sleep(0)
        os.kill(first._process.pid, signal.SIGKILL)
        with pytest.raises(TooLargeError):
            await asking
        found: list[object] = [await reader.request(body, None)]
        second = reader._helper
        assert second is not None
        reader.close()
        return found, second._process.returncode

    found, ended = asyncio.run(script())
    assert isinstance(found[0], Request)
    assert ended == -signal.SIGKILL


def test_a_request_that_is_given_up_does_not_answer_the_next() -> None:
    """Whoever stops waiting leaves nothing behind that another would take for his."""

    async def script() -> Request:
        reader = Reader(max_request_bytes=1024 * 1024)
        try:
            asking = asyncio.create_task(reader.request(long(json.dumps(request([1.5]))), None))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            return await reader.request(long(json.dumps(request([2.5, 3.5]))), None)
        finally:
            reader.close()

    assert asyncio.run(script()).inputs[0].spec.shape == (2,)


def test_long_requests_for_embeddings_keep_what_counts() -> None:
    """And nothing else."""
    texts = ["größe " * 4000, "x" * LONG_BYTES]

    async def script(body: object) -> object:
        reader = Reader(max_request_bytes=1024 * 1024)
        try:
            return await reader.embeddings(bytearray(json.dumps(body).encode()))
        finally:
            reader.close()

    wish = {"model": "m", "input": texts, "dimensions": 2, "encoding_format": "base64", "user": ["a"]}
    assert asyncio.run(script(wish)) == {name: wish[name] for name in wish if name != "user"}
    with pytest.raises(InputError, match="tokenizer is part of the model"):
        asyncio.run(script({"model": "m", "input": [1], "user": "x" * LONG_BYTES}))
