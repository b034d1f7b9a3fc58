"""The unmodified `tritonclient[grpc]` against a served gateway: what it sends is understood, what it gets it reads."""

from __future__ import annotations

import asyncio
import queue
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import Identity, issuer
from cryptography.hazmat.primitives import serialization
from fakes import digits, scan
from gateways import JOB, VARIANT, FakeService, echo, echoed
from needs import module
from signing import SigningService
from triton_values import VALUES as HTTP_VALUES

from edge_agent.clock import Now, system_now
from edge_agent.coordinator.access import Access, KeyRecord, Scope
from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.jobs import Blame, JobError, JobState
from edge_agent.coordinator.key_table import new_token
from edge_agent.errors import ResourceError, SettingsError
from edge_agent.wire.tensors import DataType

module("tritonclient.grpc")

import grpc  # noqa: E402 - skipped where it cannot be imported
import tritonclient.grpc as triton  # noqa: E402 - as above
import tritonclient.grpc.aio as triton_aio  # noqa: E402 - as above
from tritonclient.grpc import service_pb2  # noqa: E402 - its messages, for contents that it does not send itself
from tritonclient.utils import InferenceServerException  # noqa: E402

from edge_agent.coordinator.gateway import grpc_server  # noqa: E402
from edge_agent.coordinator.gateway.grpc_server import GrpcGateway, GrpcServer  # noqa: E402

VALUES: dict[str, Any] = {
    **HTTP_VALUES,  # and what JSON, over HTTP, has no form for
    "FP32": np.array([0.1, np.nan, np.inf], np.float32),
    "BYTES": np.array([b"", "größe".encode(), b"a\xff"], np.object_),
}
TYPED = {"BOOL": "bool", "INT32": "int", "INT64": "int64", "UINT32": "uint", "UINT64": "uint64"}
TYPED |= {"FP32": "fp32", "FP64": "fp64", "BYTES": "bytes", "INT8": "int", "UINT16": "uint"}


@contextmanager
def served(
    service: FakeService,
    access: Access | None = None,
    max_request_bytes: int = 1024 * 1024,
    tls: tuple[Path, Path] | None = None,
) -> Iterator[str]:
    """Serve gRPC on a free port, in a thread of its own; give its address."""
    ready: list[str] = []
    up, stop = threading.Event(), threading.Event()

    async def run() -> None:
        intake = Intake(max_request_bytes=max_request_bytes, max_bytes=4 * max_request_bytes)
        gateway = GrpcGateway(service, access or Access.open(), intake, wait_seconds=5.0)
        server = GrpcServer("127.0.0.1:0", gateway, max_request_bytes=max_request_bytes, tls=tls)
        await server.start()
        ready.append(server.address)
        up.set()
        await asyncio.to_thread(stop.wait)
        await server.stop()
        assert intake.held_bytes == 0

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert up.wait(30)
        yield ready[0]
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def service() -> FakeService:
    """Return a service that accepts and succeeds."""
    return FakeService()


@pytest.fixture
def client(service: FakeService) -> Iterator[Any]:
    """Return a client of a gateway in front of it."""
    with served(service) as address, triton.InferenceServerClient(address) as made:
        yield made


def image() -> Any:  # noqa: ANN401 tritonclient has no types
    """Return a scan as the client's input."""
    tensor = scan(3)
    made = triton.InferInput("image", list(tensor.spec.shape), "FP32")
    made.set_data_from_numpy(np.frombuffer(tensor.data, "<f4").reshape(tensor.spec.shape))
    return made


def test_health_and_metadata(client: Any, service: FakeService) -> None:  # noqa: ANN401 tritonclient has no types
    """Live, ready, a model and each version ready, its ports, the index, and what the server can."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", VARIANT.name)
    assert not client.is_model_ready("digits", digits().variants[0].name)
    assert client.get_server_metadata().name == "edge-agent"
    metadata = client.get_model_metadata("digits", as_json=True)
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["-1", "1", "8", "8"]}]
    assert metadata["versions"] == [variant.name for variant in digits().variants]
    index = client.get_model_repository_index().models
    assert {(line.version, line.state) for line in index} == {
        (v.name, "READY" if v == VARIANT else "UNAVAILABLE") for v in digits().variants
    }
    service.ready = False
    assert not client.is_server_ready()


def test_inference(client: Any, service: FakeService) -> None:  # noqa: ANN401 as above
    """With wanted outputs, an id, options as parameters; what came back says of itself what HTTP says."""
    wanted = [triton.InferRequestedOutput("label")]
    result = client.infer(
        "digits",
        [image()],
        model_version=VARIANT.name,
        outputs=wanted,
        request_id="mine",
        priority=2,
        parameters={"deadline_seconds": 2, "labels": "kitchen"},
        headers={"idempotency-key": "k"},
    )
    assert result.as_numpy("label").tolist() == [3]
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("mine", "digits", VARIANT.name)
    assert response.parameters["job_id"].string_param == JOB.hex()
    assert response.parameters["run_us"].int64_param == 250
    assert response.parameters["verification"].string_param == "signed"
    (submitted,) = service.submitted
    assert (submitted["inputs"], submitted["outputs"]) == ((scan(3),), ("label",))
    options = submitted["options"]
    assert (options.deadline_seconds, options.placement.labels, options.idempotency_key) == (2, ("kitchen",), "k")
    assert options.client == "127.0.0.1"


def test_asynchronous_inference(client: Any, service: FakeService) -> None:  # noqa: ANN401 as above
    """Several calls under way at once, by callbacks."""
    ended: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    for _ in range(8):
        client.async_infer("digits", [image()], callback=lambda result, error: ended.put((result, error)))
    for _ in range(8):
        result, error = ended.get(timeout=30)
        assert error is None
        assert result.as_numpy("label").tolist() == [3]
    assert len(service.submitted) == 8


def test_a_stream_of_requests(client: Any, service: FakeService) -> None:  # noqa: ANN401 as above
    """Each is answered, one that is wrong with an error; the stream goes on."""
    ended: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    client.start_stream(callback=lambda result, error: ended.put((result, error)))
    for number in range(40):
        client.async_stream_infer("digits" if number != 7 else "digit", [image()], request_id=str(number))
    seen, errors = set(), []
    for _ in range(40):
        result, error = ended.get(timeout=30)
        if error is not None:
            errors.append(str(error))
        else:
            seen.add(result.get_response().id)
    client.stop_stream()
    assert seen == {str(number) for number in range(40)} - {"7"}
    assert len(errors) == 1
    assert "unknown-family" in errors[0]


@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_comes_back_as_it_went(client: Any, service: FakeService, datatype: str) -> None:  # noqa: ANN401
    """As raw contents, as the client sends all of them; and as contents of their own types, as others do."""
    service.serve(echo(DataType(datatype)), echoed)
    array = VALUES[datatype]
    given = triton.InferInput("x", list(array.shape), datatype)
    given.set_data_from_numpy(array)
    np.testing.assert_array_equal(client.infer(f"echo-{datatype.lower()}", [given]).as_numpy("y"), array)
    if datatype not in TYPED:
        return
    request = service_pb2.ModelInferRequest(model_name=f"echo-{datatype.lower()}")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, f"{TYPED[datatype]}_contents").extend(array.tolist())
    response = client._client_stub.ModelInfer(request)
    assert service.submitted[0]["inputs"] == service.submitted[1]["inputs"]
    assert len(response.raw_output_contents) == 1


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression(client: Any, service: FakeService, compression: str) -> None:  # noqa: ANN401 as above
    """Requests that come packed."""
    service.serve(echo(DataType.INT32), echoed)
    given = triton.InferInput("x", [5000], "INT32")
    given.set_data_from_numpy(np.arange(5000, dtype=np.int32))
    found = client.infer("echo-int32", [given], compression_algorithm=compression)
    assert found.as_numpy("y").tolist() == list(range(5000))


def test_a_packed_bomb_is_refused(service: FakeService) -> None:
    """It is measured unpacked; the server lives on."""
    service.serve(echo(DataType.INT32), echoed)
    given = triton.InferInput("x", [1_000_000], "INT32")
    given.set_data_from_numpy(np.zeros(1_000_000, np.int32))
    with served(service, max_request_bytes=100_000) as address, triton.InferenceServerClient(address) as client:
        for compression in ("gzip", None):
            with pytest.raises(InferenceServerException) as refused:
                client.infer("echo-int32", [given], compression_algorithm=compression)
            assert "RESOURCE_EXHAUSTED" in refused.value.status()
        assert client.is_server_live()
    assert service.submitted == []


def test_the_asyncio_client(service: FakeService) -> None:
    """Calls and streams."""

    async def script(address: str) -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            asked = [client.infer("digits", [image()]) for _ in range(4)]
            assert [r.as_numpy("label").tolist() for r in await asyncio.gather(*asked)] == [[3]] * 4

            async def requests() -> Any:  # noqa: ANN401 as above
                for _ in range(3):
                    yield {"model_name": "digits", "inputs": [image()]}

            answers = [answer async for answer in client.stream_infer(requests())]
            assert [(result.as_numpy("label").tolist(), error) for result, error in answers] == [([3], None)] * 3

    with served(service) as address:
        asyncio.run(script(address))


def test_errors_are_statuses_with_our_codes(client: Any, service: FakeService) -> None:  # noqa: ANN401 as above
    """And with our words."""
    wrong = triton.InferInput("image", [1, 2], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 2), np.float32))
    for status, code, ask in (
        ("NOT_FOUND", "unknown-family", lambda: client.infer("digit", [image()])),
        ("NOT_FOUND", "unknown-family", lambda: client.is_model_ready("none")),
        ("NOT_FOUND", "unknown-version", lambda: client.get_model_metadata("digits", "fp8")),
        ("NOT_FOUND", "unknown-version", lambda: client.infer("digits", [image()], model_version="fp8")),
        ("INVALID_ARGUMENT", "bad-input", lambda: client.infer("digits", [wrong])),
        ("INVALID_ARGUMENT", "bad-input", lambda: client.infer("digits", [image()], parameters={"deadline": 1})),
        ("UNIMPLEMENTED", "not-supported", lambda: client.load_model("digits")),
        ("UNIMPLEMENTED", "", lambda: client.get_inference_statistics("digits")),
    ):
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert caught.value.status() == f"StatusCode.{status}"
        assert code in caught.value.message()
    assert service.submitted == []
    service.refuses = ResourceError("full", code="queue-full")
    with pytest.raises(InferenceServerException, match="queue-full"):
        client.infer("digits", [image()])
    service.refuses = None
    service.waits = Outcome(JOB, JobState.FAILED, error=JobError("model-run", "it broke", Blame.MODEL))
    with pytest.raises(InferenceServerException, match="it broke"):
        client.infer("digits", [image()])
    service.waits = None
    with pytest.raises(InferenceServerException) as caught:
        client.infer("digits", [image()])
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_keys_and_scopes(service: FakeService) -> None:
    """As over HTTP, in the metadata; nothing is submitted without."""
    key_id, token, digest = new_token()
    access = Access(required=True, clock=system_now)
    scopes = frozenset({Scope.INFER})
    access.adopt([KeyRecord(key_id, "reports", digest, scopes, 0, requests_per_minute=100, jobs_per_day=1)])
    headers = {"authorization": f"Bearer {token}"}
    with served(service, access) as address, triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        for ask in (
            lambda: client.infer("digits", [image()]),
            client.get_server_metadata,
            lambda: client.infer("digits", [image()], headers={"authorization": "Bearer ea_x"}),
        ):
            with pytest.raises(InferenceServerException) as caught:
                ask()
            assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        with pytest.raises(InferenceServerException) as caught:
            client.load_model("digits", headers=headers)
        assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
        assert service.submitted == []
        assert client.infer("digits", [image()], headers=headers).as_numpy("label").tolist() == [3]
        assert service.submitted[0]["options"].client == "reports"
        with pytest.raises(InferenceServerException, match="quota-exhausted"):
            client.infer("digits", [image()], headers=headers)
    assert len(service.submitted) == 1


def test_the_receipt_comes_with_the_answer_if_it_is_asked_for() -> None:
    """As over HTTP."""
    with served(SigningService()) as address, triton.InferenceServerClient(address) as client:
        result = client.infer("digits", [image()], parameters={"receipt_inline": True})
        assert len(result.get_response().parameters["receipt_cose"].string_param) > 400


def key_for(access: Access, *scopes: Scope, requests_per_minute: int = 100) -> dict[str, str]:
    """Make a key for all there is; return the metadata that show it."""
    key_id, token, digest = new_token()
    record = KeyRecord(key_id, "reports", digest, frozenset(scopes), 0, requests_per_minute, jobs_per_day=100)
    access.adopt([record])
    return {"authorization": f"Bearer {token}"}


def test_a_key_that_the_broker_sees_opens_nothing_over_grpc(service: FakeService) -> None:
    """Not even what any other key may."""
    access = Access(required=True, clock=system_now)
    headers = key_for(access, Scope.MQTT)
    with served(service, access) as address, triton.InferenceServerClient(address) as client:
        for ask in (
            lambda: client.get_server_metadata(headers=headers),
            lambda: client.is_model_ready("digits", headers=headers),
            lambda: client.infer("digits", [image()], headers=headers),
        ):
            with pytest.raises(InferenceServerException) as caught:
                ask()
            assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
    assert service.submitted == []


class Stream:
    """A stream of jobs, one asked after the other."""

    def __init__(self, client: Any, headers: dict[str, str]) -> None:  # noqa: ANN401 tritonclient has no types
        self._client = client
        self._ended: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        client.start_stream(callback=lambda result, error: self._ended.put((result, error)), headers=headers)

    def ask(self) -> str:
        """Return the label, or what went wrong."""
        self._client.async_stream_infer("digits", [image()])
        result, error = self._ended.get(timeout=30)
        return str(error) if error is not None else str(result.as_numpy("label")[0])


def test_a_stream_over_its_calls_is_told_and_goes_on(service: FakeService) -> None:
    """Each message counts once, and one too many is an error of its own: it does not end the others."""
    seconds = [0.0]
    access = Access(required=True, clock=lambda: Now(seconds[0], 0))
    headers = key_for(access, Scope.INFER, requests_per_minute=3)
    with served(service, access) as address, triton.InferenceServerClient(address) as client:
        stream = Stream(client, headers)
        assert [stream.ask() for _ in range(3)] == ["3"] * 3
        assert "too-many-calls" in stream.ask()
        assert len(service.submitted) == 3
        seconds[0] = 60.0
        assert stream.ask() == "3"
        client.stop_stream()
    assert access.changed()["reports"].requests == 4


def test_a_revoked_key_submits_nothing_more_on_a_stream_that_it_opened(service: FakeService) -> None:
    """A stream may last for days; what it was opened with counts for nothing."""
    access = Access(required=True, clock=system_now)
    headers = key_for(access, Scope.INFER)
    with served(service, access) as address, triton.InferenceServerClient(address) as client:
        stream = Stream(client, headers)
        assert stream.ask() == "3"
        access.adopt([])
        assert "unauthorized" in stream.ask()
        client.stop_stream()
    assert len(service.submitted) == 1


def test_silent_calls_keep_nobody_out(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that needs no key is answered before its request; one that does is waited for, but not for ever."""
    monkeypatch.setattr(grpc_server, "MAX_CALLS", 4)
    monkeypatch.setattr(grpc_server, "HEAD_SECONDS", 0.05)
    over = threading.Event()

    def silent() -> Iterator[bytes]:
        over.wait(60)
        yield from ()

    with served(service) as address, grpc.insecure_channel(address) as channel:
        live = channel.stream_unary("/inference.GRPCInferenceService/ServerLive")
        try:
            calls = [live.future(silent()) for _ in range(8)]
            assert all(call.result(timeout=30) for call in calls)
            metadata = channel.stream_unary("/inference.GRPCInferenceService/ServerMetadata")
            with pytest.raises(grpc.RpcError) as caught:
                metadata(silent(), timeout=30)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "[timeout]" in caught.value.details()
            with triton.InferenceServerClient(address) as client:
                assert client.is_server_live()
        finally:
            over.set()


class Certified:
    """A server's certificate of an authority, in the files that the settings name.

    Attributes:
        authority: whom clients are to trust.
        files: the certificate and its key.
    """

    def __init__(self, folder: Path) -> None:
        self._issue = issuer(folder)
        self.authority = self._issue("authority")
        server = self._issue("server", self.authority)
        self.files = (server.cert, server.key)

    def renew(self, *, key_too: bool = True) -> Identity:
        """Put another one in the place of the files; with a key that does not fit, only the certificate."""
        renewed = self._issue("renewed", self.authority)
        for file, new in zip(self.files, (renewed.cert, renewed.key)[: 2 if key_too else 1], strict=False):
            file.write_bytes(new.read_bytes())
        return renewed


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    """Return a certificate for 127.0.0.1."""
    return Certified(tmp_path)


def over_tls(address: str, trusted: Path) -> Any:  # noqa: ANN401 tritonclient has no types
    """Return a client that trusts one authority."""
    return triton.InferenceServerClient(address, ssl=True, root_certificates=str(trusted))


def label_over_tls(address: str, trusted: Path) -> int:
    """Run a job over a connection of its own."""
    with over_tls(address, trusted) as client:
        return int(client.infer("digits", [image()], client_timeout=30).as_numpy("label")[0])


def shown_at(address: str) -> bytes:
    """Return the certificate that the server shows to a new connection, DER."""
    host, _, port = address.rpartition(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port)), timeout=30))


def test_inference_over_tls(service: FakeService, certified: Certified) -> None:
    """With the certificate and key of the HTTP interface; API keys travel in it."""
    access = Access(required=True, clock=system_now)
    headers = key_for(access, Scope.INFER)
    with (
        served(service, access, tls=certified.files) as address,
        over_tls(address, certified.authority.cert) as client,
    ):
        assert client.is_server_live()
        assert client.infer("digits", [image()], headers=headers).as_numpy("label").tolist() == [3]
        with pytest.raises(InferenceServerException, match="unauthorized"):
            client.infer("digits", [image()])
    assert len(service.submitted) == 1


def test_clients_that_trust_somebody_else_or_speak_in_the_clear_send_nothing(
    service: FakeService, certified: Certified, tmp_path: Path
) -> None:
    """The one breaks off before its key and its job are out; of the other nothing is read."""
    stranger = issuer(tmp_path)("stranger")
    with served(service, tls=certified.files) as address:
        for client in (over_tls(address, stranger.cert), triton.InferenceServerClient(address)):
            with client, pytest.raises(InferenceServerException) as caught:
                client.infer("digits", [image()], client_timeout=30)
            assert caught.value.status() == "StatusCode.UNAVAILABLE"
        assert service.submitted == []
        assert label_over_tls(address, certified.authority.cert) == 3


def test_a_renewed_certificate_is_used_for_new_connections(service: FakeService, certified: Certified) -> None:
    """Without a restart; half a renewal, a certificate whose key is still the old one, changes nothing."""
    with served(service, tls=certified.files) as address:
        first = shown_at(address)
        certified.renew(key_too=False)
        assert shown_at(address) == first
        assert label_over_tls(address, certified.authority.cert) == 3
        renewed = certified.renew()
        assert shown_at(address) == renewed.certificate.public_bytes(serialization.Encoding.DER)
        assert label_over_tls(address, certified.authority.cert) == 3


def test_a_certificate_that_cannot_be_read_is_told_at_once(service: FakeService, certified: Certified) -> None:
    """Nothing listens without the encryption that was asked for."""
    cert, key = certified.files
    key.unlink()
    intake = Intake(max_request_bytes=1, max_bytes=4)
    gateway = GrpcGateway(service, Access.open(), intake, wait_seconds=5.0)

    async def start() -> None:
        GrpcServer("127.0.0.1:0", gateway, max_request_bytes=1, tls=(cert, key))

    with pytest.raises(SettingsError, match="tls_cert_file"):
        asyncio.run(start())
