"""The Python client: retries, idempotency keys, errors turned back into errors."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from edge_agent.client import Client, JobOptions, Placement
from edge_agent.errors import (
    InputError,
    JobFailedError,
    RefusedError,
    ResourceError,
    TransportError,
    UnknownFamilyError,
    UsageError,
)
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

ANSWER = {
    "model_name": "digits",
    "model_version": "fp32",
    "outputs": [{"name": "y", "shape": [1], "datatype": "FP32", "data": [1.5]}],
    "parameters": {"job_id": "00" * 16, "agent_id": "a" * 32, "run_us": 30},
}
INPUT = Tensor(TensorSpec("x", DataType.FP32, (1,)), b"\0\0\0\0")


def client_of(handler: Callable[[httpx.Request], httpx.Response], deadline: float = 5.0) -> Client:
    """Make a client whose transport is a function."""

    def unread(request: httpx.Request) -> httpx.Response:
        made = handler(request)  # whole, and may be given out again: a client reads it as it would come
        return httpx.Response(made.status_code, headers=made.headers, content=iter((made.content,)))

    client = Client("http://coordinator.test", deadline_seconds=deadline, seed=1)
    client._http = httpx.Client(base_url="http://coordinator.test", transport=httpx.MockTransport(unread))
    return client


def test_answer_is_parsed() -> None:
    """A response becomes arrays, and tensors as they came; one to JSON keeps its bytes for the receipt."""
    with client_of(lambda _: httpx.Response(200, json=ANSWER)) as client:
        answer = client.infer("digits", [INPUT], verify=False)
        assert json.loads(client.infer_json("digits", b"{}").body) == ANSWER
    assert answer.tensors[0].data == b"\x00\x00\xc0?"
    assert answer.outputs["y"].tolist() == [1.5]
    assert (answer.variant, answer.tries, answer.job_id) == ("fp32", 1, "00" * 16)


def test_broken_way_is_tried_again_under_the_same_key() -> None:
    """A refused connection and a 503 are tried again with one idempotency key and one body."""
    seen: list[tuple[str, bytes]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["Idempotency-Key"], request.content))
        if len(seen) == 1:
            raise httpx.ConnectError("refused")
        if len(seen) == 2:
            return httpx.Response(503, json={"error": "no machine", "code": "no-agent", "retry": True})
        return httpx.Response(200, json=ANSWER)

    with client_of(handler) as client:
        assert client.infer("digits", [INPUT], verify=False).tries == 3
    assert len(set(seen)) == 1


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": "wrong shape", "code": "bad-input", "hint": "look"}, InputError),
        (404, {"error": "no family", "code": "unknown-family"}, UnknownFamilyError),
        (404, {"error": "not in the log", "code": "not-logged"}, RefusedError),
        (404, {"error": "no such job", "code": "unknown-job"}, RefusedError),
        (404, {"error": "no such version", "code": "unknown-version"}, RefusedError),
        (502, {"error": "the model failed", "code": "model-run", "blame": "model", "retry": False}, JobFailedError),
        (409, {"error": "key used", "code": "idempotency-conflict"}, InputError),
        (408, {"error": "too slow", "code": "timeout", "retry": False}, TransportError),
        (504, {"error": "too late", "code": "deadline", "blame": "deadline", "retry": True}, JobFailedError),
    ],
)
def test_final_errors_are_not_tried_again(status: int, body: dict[str, object], error: type[Exception]) -> None:
    """What another try would not change is raised at once, with the coordinator's own words."""
    calls: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(status, json=body)

    with client_of(handler) as client, pytest.raises(error, match=str(body["error"])) as caught:
        client.infer("digits", [INPUT], verify=False)
    assert len(calls) == 1
    assert caught.value.error_code == ("job-failed" if "model" in str(body) else body["code"])  # type: ignore[attr-defined] # ours


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx.Response(502, text="<html>Bad Gateway</html>"), "unreachable"),
        (httpx.Response(503, text="<html>no</html>"), "unreachable"),
        (httpx.Response(503, json={"error": "it is being stopped", "code": "stopping", "retry": True}), "stopping"),
    ],
    ids=["a proxy's 502", "a proxy's 503", "stopping"],
)
def test_a_coordinator_that_is_not_there_is_no_job_that_failed(answer: httpx.Response, code: str) -> None:
    """Whoever is patient, as a batch is, goes on later; and the exit status says that the way is broken."""
    with client_of(lambda _: answer, deadline=0.01) as client, pytest.raises(TransportError) as caught:
        client.infer("digits", [INPUT], verify=False)
    assert (caught.value.error_code, caught.value.retryable, caught.value.exit_status) == (code, True, 69)


def test_full_queue_until_the_deadline() -> None:
    """A coordinator that stays full is told as such once the deadline is over."""
    refusal = httpx.Response(429, json={"error": "full", "code": "queue-full"}, headers={"Retry-After": "1"})
    with client_of(lambda _: refusal, deadline=0.5) as client, pytest.raises(ResourceError, match="full"):
        client.infer("digits", [INPUT], verify=False)


def test_nobody_there() -> None:
    """An address where nobody listens names the address."""
    unreachable = pytest.raises(TransportError, match=r"http://127\.0\.0\.1:1")
    with Client("http://127.0.0.1:1", deadline_seconds=0.2) as client, unreachable as caught:
        client.infer("digits", [INPUT], verify=False)
    assert caught.value.error_code == "unreachable"


def test_answer_of_something_else() -> None:
    """An error that is not JSON, from a proxy say, still becomes an error of ours."""
    with (
        client_of(lambda _: httpx.Response(403, text="<html>no</html>")) as client,
        pytest.raises(InputError, match="403"),
    ):
        client.job("00")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"outputs": [{}]}', b'{"outputs": 7}'])
def test_server_of_something_else_is_told(body: bytes) -> None:
    """An answer that is none of a coordinator's is an error of ours that says where to look, not a traceback."""
    with client_of(lambda _: httpx.Response(200, content=body)) as client:
        with pytest.raises(TransportError, match="is no coordinator") as caught:
            client.infer("digits", [INPUT], verify=False)
        with pytest.raises(TransportError, match="is no coordinator"):
            client.submit_json("digits", b"{}")
    assert "address" in caught.value.hint


def test_agents_and_jobs_of_something_else_are_told() -> None:
    """The same where an object or a list is expected."""
    with client_of(lambda _: httpx.Response(200, content=b"7")) as client:
        with pytest.raises(TransportError, match="is no coordinator"):
            client.agents()
        with pytest.raises(TransportError, match="is no coordinator"):
            client.job("00")


@pytest.mark.parametrize("address", ["127.0.0.1:8420", "ftp://x", "http://", "mqtt://x:1883"])
def test_address_that_is_none_of_http_is_refused(address: str) -> None:
    """A missing scheme is told at once instead of being tried for a minute and a half."""
    with pytest.raises(UsageError, match="not the address of a coordinator"):
        Client(address)


def test_further_tries_are_told() -> None:
    """Whoever waits learns why, before each further try."""
    told: list[str] = []

    def handler(_: httpx.Request) -> httpx.Response:
        if told:
            return httpx.Response(200, json=ANSWER)
        return httpx.Response(503, json={"error": "no machine", "code": "no-agent", "retry": True})

    with client_of(handler) as client:
        client._way.on_retry = lambda error: told.append(error.error_code)
        client.infer("digits", [INPUT], verify=False)
    assert told == ["no-agent"]


def test_asynchronous_job_insists_on_its_variant() -> None:
    """A variant that was asked for is in the path, for both ways to submit."""
    paths: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(202, json={"job_id": "00"})

    with client_of(handler) as client:
        client.submit_json("digits", b"{}", version="fp32")
        client.submit_json("digits", b"{}")
    assert paths == ["/api/v1/models/digits/versions/fp32/jobs", "/api/v1/models/digits/jobs"]


def test_options_of_a_job_travel_in_its_parameters() -> None:
    """Beside those that the request has already; the key in its header, the same in every try."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=ANSWER)

    placement = Placement(("kitchen",), "ada", "0" * 32)
    options = JobOptions(2.5, 7, "k", 3, placement, "reports")
    request = json.dumps({"inputs": [], "parameters": {"sequence_id": 1}}).encode()
    with client_of(handler) as client:
        client.infer("digits", [INPUT], options=options, verify=False)
        client.infer_json("digits", request, options=options)
        client.infer_json("digits", request)
    sent = options.parameters()
    del sent["idempotency_key"]
    text = seen[0].content[: int(seen[0].headers["Inference-Header-Content-Length"])]
    assert json.loads(text)["parameters"] == {"binary_data_output": True, **sent}
    assert json.loads(seen[1].content)["parameters"] == {"sequence_id": 1, **sent}
    assert seen[2].content == request
    assert [one.headers["Idempotency-Key"] for one in seen[:2]] == ["k", "k"]


@pytest.mark.parametrize("request_bytes", [b"[]", b"{", b'{"parameters": 3}'])
def test_options_cannot_be_added_to_what_is_no_request(request_bytes: bytes) -> None:
    """Told before anything is sent."""
    with client_of(lambda _: httpx.Response(500)) as client, pytest.raises(InputError):
        client.submit_json("digits", request_bytes, options=JobOptions(priority=1))


def test_a_deadline_of_the_job_is_also_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not go on trying for a minute and a half for a job that has two seconds."""
    now = [1000.0]
    monkeypatch.setattr("edge_agent.client.http.time.monotonic", lambda: now[0])
    monkeypatch.setattr("edge_agent.client.http.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    refusal = httpx.Response(503, json={"error": "no machine", "code": "no-agent", "retry": True})
    with client_of(lambda _: refusal, deadline=90.0) as client, pytest.raises(JobFailedError):
        client.infer("digits", [INPUT], options=JobOptions(deadline_seconds=2.0), verify=False)
    assert now[0] + 2.0 >= 1002.0
    assert now[0] <= 1003.0


def test_jobs_are_listed_and_cancelled() -> None:
    """With what the client's name needs to stand in a URL."""
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.raw_path.decode()}")
        return httpx.Response(200, json=[] if request.method == "GET" else {"state": "cancelled"})

    with client_of(handler) as client:
        assert client.jobs(3, "a b&c") == []
        assert client.cancel("00" * 16) == {"state": "cancelled"}
    assert seen == ["GET /api/v1/jobs?limit=3&client=a%20b%26c", f"DELETE /api/v1/jobs/{'00' * 16}"]


@pytest.mark.parametrize("code", ["poison", "attempts-exhausted", "cancelled", "no-agent"])
def test_how_a_job_failed_is_told_by_its_code(code: str) -> None:
    """The codes of the coordinator come out as they went in."""
    failure = httpx.Response(409, json={"error": "it failed", "code": code, "retry": False})
    with client_of(lambda _: failure) as client, pytest.raises(JobFailedError) as caught:
        client.infer("digits", [INPUT], verify=False)
    assert caught.value.error_code == code


def test_what_a_family_takes_comes_from_the_coordinator() -> None:
    """So that an array can be sent to a family that no program has built in; -1 is an extent of the caller's choice."""
    about = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 224, 224]}], "name": "squeezenet-1.0"}
    with client_of(lambda _: httpx.Response(200, json=about)) as client:
        (port,) = client.inputs("squeezenet-1.0")
    assert (port.name, port.datatype, port.shape) == ("x", "FP32", ("D0", 3, 224, 224))


@pytest.mark.parametrize("about", [{}, {"inputs": 5}, {"inputs": [{"name": "x"}]}, {"inputs": [{"shape": [1.5]}]}])
def test_nonsense_about_a_family_is_told(about: dict[str, object]) -> None:
    """Whatever answers there, it is no coordinator of ours."""
    with client_of(lambda _: httpx.Response(200, json=about)) as client, pytest.raises(TransportError):
        client.inputs("digits")
