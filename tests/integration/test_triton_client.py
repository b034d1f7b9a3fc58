"""The unmodified `tritonclient[http]` against a served gateway: what it sends is understood, what it gets it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fakes import digits, scan
from gateways import JOB, VARIANT, FakeService, echo, echoed, served
from needs import module
from triton_values import VALUES

from edge_agent.wire.tensors import DataType, pack_strings

module("tritonclient.http")

import ml_dtypes  # noqa: E402 - the client's own dependency
import tritonclient.http as triton  # noqa: E402 - skipped where it cannot be imported
import tritonclient.http.aio as triton_aio  # noqa: E402 - as above
from tritonclient.utils import InferenceServerException  # noqa: E402


@pytest.fixture
def service() -> FakeService:
    """Return a service that accepts and succeeds."""
    return FakeService()


@pytest.fixture
def client(service: FakeService) -> Iterator[Any]:
    """Return a client of a gateway in front of it."""
    with served(service, max_request_bytes=1024 * 1024) as base_url:
        made = triton.InferenceServerClient(base_url.removeprefix("http://"), concurrency=4)
        try:
            yield made
        finally:
            made.close()


def image(*, binary: bool) -> Any:  # noqa: ANN401 tritonclient has no types
    """Return a scan as the client's input."""
    tensor = scan(3)
    made = triton.InferInput("image", list(tensor.spec.shape), "FP32")
    made.set_data_from_numpy(np.frombuffer(tensor.data, "<f4").reshape(tensor.spec.shape), binary_data=binary)
    return made


def test_health_and_metadata(client: Any, service: FakeService) -> None:  # noqa: ANN401 tritonclient has no types
    """Live, ready, a model and each version ready, its ports, and what the server can."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", VARIANT.name)
    assert not client.is_model_ready("digits", digits().variants[0].name)
    assert not client.is_model_ready("none")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("digits", VARIANT.name)
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    service.ready = False
    assert not client.is_server_ready()


def test_the_index_of_what_could_be_served(client: Any) -> None:  # noqa: ANN401 tritonclient has no types
    """Each variant is a version; loading is refused with who decides."""
    index = client.get_model_repository_index()
    assert {(line["name"], line["version"]) for line in index} == {("digits", v.name) for v in digits().variants}
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="each agent chooses"):
            change("digits")


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
def test_inference(
    client: Any,  # noqa: ANN401 tritonclient has no types
    service: FakeService,
    *,
    binary_input: bool,
    binary_output: bool | None,
) -> None:
    """In both forms, each way; without wanted outputs all come, as binary data."""
    wanted = [triton.InferRequestedOutput("label", binary_data=binary_output)] if binary_output is not None else None
    result = client.infer("digits", [image(binary=binary_input)], outputs=wanted, request_id="mine")
    assert result.as_numpy("label").tolist() == [3]
    assert service.submitted[0]["inputs"] == (scan(3),)
    assert service.submitted[0]["outputs"] == (() if wanted is None else ("label",))
    response = result.get_response()
    assert (response["id"], response["model_version"]) == ("mine", VARIANT.name)
    assert response["parameters"]["job_id"] == JOB.hex()
    assert response["parameters"]["verification"] == "signed"


def test_options_of_a_job_travel_as_parameters(client: Any, service: FakeService) -> None:  # noqa: ANN401 as above
    """Its own `priority`, `timeout` and sequences disturb nobody."""
    client.infer(
        "digits",
        [image(binary=True)],
        model_version=VARIANT.name,
        priority=2,
        timeout=1_000_000,
        sequence_id=7,
        parameters={"deadline_seconds": 2.5, "labels": "kitchen"},
    )
    options = service.submitted[0]["options"]
    assert (options.priority, options.deadline_seconds, options.placement.labels) == (2, 2.5, ("kitchen",))
    assert service.submitted[0]["variant"] == VARIANT.digest_bytes


def test_asynchronous_inference(client: Any, service: FakeService) -> None:  # noqa: ANN401 tritonclient has no types
    """Several calls under way at once."""
    calls = [client.async_infer("digits", [image(binary=True)]) for _ in range(8)]
    assert [asked.get_result().as_numpy("label").tolist() for asked in calls] == [[3]] * 8
    assert len(service.submitted) == 8


@pytest.mark.parametrize("datatype", VALUES)
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("empty", [False, True])
def test_every_datatype_comes_back_as_it_went(
    client: Any,  # noqa: ANN401 tritonclient has no types
    service: FakeService,
    datatype: str,
    *,
    binary: bool,
    empty: bool,
) -> None:
    """In both forms, and without elements."""
    service.serve(echo(DataType(datatype)), echoed)
    array = VALUES[datatype][:0] if empty else VALUES[datatype]
    given = triton.InferInput("x", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
    found = client.infer(f"echo-{datatype.lower()}", [given], outputs=wanted).as_numpy("y")
    expected = array if binary or datatype != "BYTES" else [item.decode() for item in array]
    assert found.tolist() == list(expected if isinstance(expected, list) else expected.tolist())


def test_bfloat16_comes_back_as_it_went(client: Any, service: FakeService) -> None:  # noqa: ANN401 as above
    """In binary form only: JSON has none for it."""
    service.serve(echo(DataType.BF16), echoed)
    array = np.array([1.0, -2.0, np.nan], ml_dtypes.bfloat16)
    given = triton.InferInput("x", [3], "BF16")
    given.set_data_from_numpy(array)
    found = client.infer("echo-bf16", [given]).as_numpy("y")
    assert service.submitted[0]["inputs"][0].data == array.tobytes()
    assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())
    with pytest.raises(InferenceServerException, match="no form in JSON"):
        client.infer("echo-bf16", [given], outputs=[triton.InferRequestedOutput("y", binary_data=False)])


def test_bytes_that_are_no_text_need_the_binary_form(client: Any, service: FakeService) -> None:  # noqa: ANN401 as above
    """And pass in it untouched."""
    service.serve(echo(DataType.BYTES), echoed)
    given = triton.InferInput("x", [1], "BYTES")
    given.set_data_from_numpy(np.array([b"\xff\x00"], np.object_))
    assert client.infer("echo-bytes", [given]).as_numpy("y").tolist() == [b"\xff\x00"]
    assert service.submitted[0]["inputs"][0].data == pack_strings([b"\xff\x00"])
    with pytest.raises(InferenceServerException, match="no form in JSON"):
        client.infer("echo-bytes", [given], outputs=[triton.InferRequestedOutput("y", binary_data=False)])


@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_coding", [None, "gzip", "deflate"])
def test_compression(
    client: Any,  # noqa: ANN401 tritonclient has no types
    service: FakeService,
    request_coding: str | None,
    response_coding: str | None,
) -> None:
    """Each way, as the client offers it."""
    service.serve(echo(DataType.INT32), echoed)
    array = np.arange(5000, dtype=np.int32)
    given = triton.InferInput("x", [5000], "INT32")
    given.set_data_from_numpy(array)
    result = client.infer(
        "echo-int32",
        [given],
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), array)


def test_the_asyncio_client_accepts_packed_answers_without_being_asked(service: FakeService) -> None:
    """It says so in each request, but unpacks answers to inference only: nothing else is packed."""
    service.serve(echo(DataType.INT32), echoed)
    array = np.arange(5000, dtype=np.int32)
    given = triton.InferInput("x", [5000], "INT32")
    given.set_data_from_numpy(array)

    async def script(address: str) -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            asked = [client.infer("echo-int32", [given]) for _ in range(4)]
            for result in await asyncio.gather(*asked):
                np.testing.assert_array_equal(result.as_numpy("y"), array)
            many = digits().model_copy(update={"variants": digits().variants * 40})
            service.catalogue = service.catalogue.model_copy(update={"families": (many,)})
            assert len(await client.get_model_repository_index()) == 40 * len(digits().variants)
            with pytest.raises(InferenceServerException, match="no family"):
                await client.infer("none", [given])

    with served(service, max_request_bytes=1024 * 1024) as base_url:
        asyncio.run(script(base_url.removeprefix("http://")))


def test_errors_are_the_clients_own(client: Any, service: FakeService) -> None:  # noqa: ANN401 tritonclient has no types
    """With the status and our words; nothing is submitted."""
    wrong = triton.InferInput("image", [1, 2], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 2), np.float32))
    classified = triton.InferRequestedOutput("logits", class_count=3)
    for status, words, ask in (
        ("404", "no family 'digit'", lambda: client.infer("digit", [image(binary=True)])),
        ("404", "no version 'fp8'", lambda: client.infer("digits", [image(binary=True)], model_version="fp8")),
        ("400", "must have the shape", lambda: client.infer("digits", [wrong])),
        ("400", "classification", lambda: client.infer("digits", [image(binary=True)], outputs=[classified])),
        ("404", "Not Found", lambda: client.get_inference_statistics("digits")),
        ("404", "no family", lambda: client.get_model_metadata("none")),
    ):
        with pytest.raises(InferenceServerException, match=words) as caught:
            ask()
        assert caught.value.status() == status
    assert service.submitted == []
