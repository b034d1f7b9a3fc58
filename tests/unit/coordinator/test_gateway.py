"""The HTTP application with a coordinator that is played by the test: statuses, bodies, limits."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes import COORDINATOR_KEY, digits, klass, scan
from gateways import INFER, JOB, JOBS, MAX_REQUEST_BYTES, REQUEST, VARIANT, FakeService, call, echo, echoed, refused

from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.jobs import Blame, JobError, JobState
from edge_agent.coordinator.registry import Agent
from edge_agent.errors import EdgeAgentError, InputError, JobFailedError, ResourceError
from edge_agent.wire.job_options import JobOptions, Placement
from edge_agent.wire.oip_json import OutputForm, body_of, response_from_body
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec


@pytest.fixture
def service() -> FakeService:
    """Return a service that accepts and succeeds."""
    return FakeService()


# -- the Open Inference Protocol ----------------------------------------------------------------------------------


def test_inference_answers_as_the_protocol_says(service: FakeService) -> None:
    """Name, version, the caller's id, and each output with its shape and data."""
    answer = call(service, "POST", INFER, json=REQUEST)
    body = answer.json()
    assert answer.status_code == 200
    assert (body["model_name"], body["model_version"], body["id"]) == ("digits", VARIANT.name, "mine")
    assert [output["name"] for output in body["outputs"]] == ["logits", "label"]
    assert body["outputs"][1] == {"name": "label", "datatype": "INT64", "shape": [1], "data": [3]}
    assert body["parameters"]["receipt"] == f"{JOBS}/receipt"
    assert answer.headers["edge-agent-job"] == JOB.hex()
    (submitted,) = service.submitted
    assert submitted["inputs"] == (scan(3),)
    assert (submitted["durable"], submitted["variant"]) == (False, None)
    assert submitted["options"] == JobOptions(client="127.0.0.1")


def test_wanted_outputs_and_the_idempotency_key_are_passed_on(service: FakeService) -> None:
    """What the client asked for is what is submitted."""
    request = {**REQUEST, "outputs": [{"name": "label"}]}
    call(service, "POST", INFER, json=request, headers={"Idempotency-Key": "k"})
    assert service.submitted[0]["outputs"] == ("label",)
    assert service.submitted[0]["options"].idempotency_key == "k"


def test_every_option_of_a_job_can_be_set(service: FakeService) -> None:
    """On the calls that wait and on those that do not, in the parameters of the request."""
    options = JobOptions(
        deadline_seconds=2.5,
        priority=-3,
        idempotency_key="k",
        max_attempts=2,
        placement=Placement(("kitchen", "region=eu"), "ada", "0" * 32),
        client="reports",
    )
    for path in (INFER, "/api/v1/models/digits/jobs"):
        answer = call(service, "POST", path, json={**REQUEST, "parameters": options.parameters()})
        assert answer.status_code in {200, 202}
    assert [submitted["options"] for submitted in service.submitted] == [options, options]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"deadline_seconds": "5"}, "deadline_seconds"),
        ({"deadline_seconds": True}, "deadline_seconds"),
        ({"deadline_seconds": 1e300}, "deadline_seconds"),
        ({"priority": 101}, "priority"),
        ({"priority": 0.5}, "priority"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"labels": 3}, "labels"),
        ({"labels": "Kitchen"}, "labels"),
        ({"labels": ",".join(f"l{n}" for n in range(17))}, "labels"),
        ({"owner": "\u00e4da"}, "owner"),
        ({"class": "fast"}, "class"),
        ({"client": ""}, "client"),
        ({"deadline": 3}, "'deadline_seconds' is probably meant"),
        ({"max_attempt": 3}, "'max_attempts' is probably meant"),
    ],
)
def test_an_option_that_is_wrong_is_refused_and_named(
    service: FakeService, parameters: dict[str, Any], words: str
) -> None:
    """Nothing is silently left out of what a client asks for."""
    answer = call(service, "POST", INFER, json={**REQUEST, "parameters": parameters})
    assert words in refused(answer, 400, "bad-input")["error"]
    assert service.submitted == []


def test_parameters_that_are_meant_for_other_servers_are_passed_over(service: FakeService) -> None:
    """Clients of the protocol send what their own server understands."""
    parameters = {"sequence_id": 7, "timeout": 1000, "max_tokens": 5}
    assert call(service, "POST", INFER, json={**REQUEST, "parameters": parameters}).status_code == 200
    assert service.submitted[0]["options"] == JobOptions(client="127.0.0.1")


def test_an_idempotency_key_that_is_given_twice_must_be_the_same(service: FakeService) -> None:
    """In the header and in the parameters."""
    request = {**REQUEST, "parameters": {"idempotency_key": "a"}}
    answer = call(service, "POST", INFER, json=request, headers={"Idempotency-Key": "b"})
    assert "differ" in refused(answer, 400, "bad-input")["error"]
    assert call(service, "POST", INFER, json=request, headers={"Idempotency-Key": "a"}).status_code == 200


def test_a_version_names_a_variant(service: FakeService) -> None:
    """Versions of the protocol are the variants of the family."""
    answer = call(service, "POST", f"/v2/models/digits/versions/{VARIANT.name}/infer", json=REQUEST)
    assert answer.status_code == 200
    assert service.submitted[0]["variant"] == VARIANT.digest_bytes


@pytest.mark.parametrize("path", ["", "/ready", "/infer"])
def test_an_unknown_version_names_those_there_are(service: FakeService, path: str) -> None:
    """On every route that takes one."""
    method = "POST" if path == "/infer" else "GET"
    answer = call(service, method, f"/v2/models/digits/versions/fp8{path}", json=REQUEST)
    assert VARIANT.name in refused(answer, 404, "unknown-version")["hint"]
    assert service.submitted == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/digit"),
        ("GET", "/v2/models/digit/ready"),
        ("POST", "/v2/models/digit/infer"),
        ("POST", "/api/v1/models/digit/jobs"),
    ],
)
def test_an_unknown_family_names_the_closest(service: FakeService, method: str, path: str) -> None:
    """A slip of the pen is answered with the right name."""
    assert (
        "Did you mean 'digits'?" in refused(call(service, method, path, json=REQUEST), 404, "unknown-family")["error"]
    )


def test_metadata_describes_the_family(service: FakeService) -> None:
    """Symbols are -1, as the protocol writes free sizes."""
    for path in ("/v2/models/digits", f"/v2/models/digits/versions/{VARIANT.name}"):
        body = call(service, "GET", path).json()
        assert body["name"] == "digits"
        assert body["versions"] == [variant.name for variant in digits().variants]
        assert body["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert call(service, "GET", "/v2").json()["name"] == "edge-agent"


@pytest.mark.parametrize("yes", [True, False])
def test_readiness_is_a_status(service: FakeService, *, yes: bool) -> None:
    """Probes look at the status only."""
    service.ready = service.offers = yes
    status = 200 if yes else 503
    assert call(service, "GET", "/v2/health/ready").status_code == status
    assert call(service, "GET", "/v2/models/digits/ready").status_code == status
    assert call(service, "GET", f"/v2/models/digits/versions/{VARIANT.name}/ready").status_code == status
    assert call(service, "GET", "/v2/health/live").status_code == 200


def test_a_version_is_ready_only_if_a_machine_offers_that_very_variant(service: FakeService) -> None:
    """The family's being ready is not enough."""
    other = digits().variants[0].name
    assert call(service, "GET", "/v2/models/digits/ready").status_code == 200
    answer = call(service, "GET", f"/v2/models/digits/versions/{other}/ready")
    assert (answer.status_code, answer.json()) == (503, {"name": "digits", "ready": False})


def test_the_state_of_a_result_stands_in_headers_too(service: FakeService) -> None:
    """For clients that show headers and not parameters."""
    answer = call(service, "POST", INFER, json=REQUEST)
    assert answer.headers["edge-agent-receipt"] == f"{JOBS}/receipt"
    assert answer.headers["edge-agent-verification"] == answer.json()["parameters"]["verification"] == "signed"


# -- the binary form ----------------------------------------------------------------------------------------------


def test_outputs_come_as_binary_data_when_they_are_asked_for_so(service: FakeService) -> None:
    """The JSON text ends where the header says; the bytes of the outputs follow in their order."""
    answer = call(service, "POST", INFER, json={**REQUEST, "parameters": {"binary_data_output": True}})
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    assert [output["parameters"]["binary_data_size"] for output in outputs] == [40, 8]
    assert service.waits is not None
    assert answer.content[length:] == b"".join(tensor.data for tensor in service.waits.outputs)


def test_inputs_can_be_binary_data(service: FakeService) -> None:
    """What is submitted is the same as from JSON; the answer is JSON unless it is asked for otherwise."""
    body, length = body_of({}, "inputs", [scan(3)], OutputForm(binary=True))
    answer = call(service, "POST", INFER, content=body, headers={"Inference-Header-Content-Length": str(length)})
    assert answer.headers["content-type"] == "application/json"
    assert service.submitted[0]["inputs"] == (scan(3),)


@pytest.mark.parametrize("datatype", [DataType.FP16, DataType.BF16, DataType.FP32, DataType.FP64])
def test_what_json_cannot_hold_comes_as_binary_data(service: FakeService, datatype: DataType) -> None:
    """NaN, infinity and BF16: the very bits."""
    service.serve(echo(datatype), echoed)
    given = Tensor(TensorSpec("x", datatype, (3,)), b"\xff" * 3 * (datatype.item_bytes or 0))
    body, length = body_of({"parameters": {"binary_data_output": True}}, "inputs", [given], OutputForm(binary=True))
    headers = {"Inference-Header-Content-Length": str(length)}
    path = f"/v2/models/echo-{datatype.value.lower()}/infer"
    answer = call(service, "POST", path, content=body, headers=headers)
    response = response_from_body(answer.content, answer.headers["inference-header-content-length"])
    assert response.outputs == list(echoed((given,)))
    text = json.dumps({"inputs": [{"name": "x", "shape": [0], "datatype": datatype.value, "data": []}]})
    if datatype is not DataType.BF16:
        assert call(service, "POST", path, content=text).json()["outputs"][0]["data"] == []


# -- what could be served -----------------------------------------------------------------------------------------


def test_the_index_lists_each_variant_with_its_state(service: FakeService) -> None:
    """Or only those that are ready; what is not says why."""
    listed = call(service, "POST", "/v2/repository/index", json={}).json()
    assert [line["version"] for line in listed] == [variant.name for variant in digits().variants]
    by_version = {line["version"]: line for line in listed}
    assert by_version[VARIANT.name] == {"name": "digits", "version": VARIANT.name, "state": "READY", "reason": ""}
    assert by_version[digits().variants[0].name]["reason"] == "no machine offers it now"
    assert call(service, "POST", "/v2/repository/index").json() == listed
    ready = call(service, "POST", "/v2/repository/index", json={"ready": True}).json()
    assert [line["version"] for line in ready] == [VARIANT.name]


def test_a_family_whose_ports_are_unknown_is_listed_as_one_that_cannot_be_served(service: FakeService) -> None:
    """It can be fetched."""
    unknown = digits().model_copy(update={"inputs": (), "outputs": ()})
    service.catalogue = service.catalogue.model_copy(update={"families": (unknown,)})
    service.offers = False
    for line in call(service, "POST", "/v2/repository/index", json={}).json():
        assert "not known" in line["reason"]


@pytest.mark.parametrize("body", ["[]", "1", '{"ready": 1}', '{"ready": null}', "{", "\xff", "[" * 5000])
def test_an_index_request_that_makes_no_sense_is_refused(service: FakeService, body: str) -> None:
    """As every other one."""
    refused(call(service, "POST", "/v2/repository/index", content=body.encode("latin-1")), 400, "bad-input")


@pytest.mark.parametrize("action", ["load", "unload"])
def test_loading_says_who_decides(service: FakeService, action: str) -> None:
    """Not the client: the agents and their owners. An unknown model is unknown."""
    body = refused(call(service, "POST", f"/v2/repository/models/digits/{action}"), 501, "not-supported")
    assert "agent.families" in body["hint"]
    refused(call(service, "POST", f"/v2/repository/models/digit/{action}"), 404, "unknown-family")


# -- packed bodies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_requests_are_read(service: FakeService, coding: str, pack: Callable[[bytes], bytes]) -> None:
    """As Triton's clients pack them."""
    answer = call(
        service, "POST", INFER, content=pack(json.dumps(REQUEST).encode()), headers={"Content-Encoding": coding}
    )
    assert answer.status_code == 200
    assert service.submitted[0]["inputs"] == (scan(3),)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br, gzip;q=0, deflate;q=0.5", "deflate"),
        ("gzip; q=0.0", None),
        ("br, zstd", None),
        ("identity", None),
        ("", None),
        ("," * 900, None),
    ],
)
def test_long_answers_are_packed_as_the_client_accepts_it(
    service: FakeService, accepted: str, coding: str | None
) -> None:
    """And short ones are not packed."""
    service.serve(echo(DataType.UINT8), echoed)
    for size, expected in ((4000, coding), (10, None)):
        request = {"inputs": [{"name": "x", "shape": [size], "datatype": "UINT8", "data": [7] * size}]}
        answer = call(
            service, "POST", "/v2/models/echo-uint8/infer", json=request, headers={"Accept-Encoding": accepted}
        )
        assert answer.headers.get("content-encoding") == expected
        assert answer.json()["outputs"][0]["data"] == [7] * size


@pytest.mark.parametrize(
    ("coding", "body", "status", "code"),
    [
        ("br", b"x", 415, "unsupported-encoding"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), 415, "unsupported-encoding"),
        ("x" * 5000, b"x", 415, "unsupported-encoding"),
        ("gzip", b"{}", 400, "bad-input"),
        ("gzip", b"", 400, "bad-input"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400, "bad-input"),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"more", 400, "bad-input"),
        ("deflate", gzip.compress(b"{}", mtime=0), 400, "bad-input"),
        ("gzip", gzip.compress(bytes(10 * MAX_REQUEST_BYTES), mtime=0), 413, "too-large"),
        ("deflate", zlib.compress(bytes(MAX_REQUEST_BYTES + 1)), 413, "too-large"),
    ],
)
def test_a_packed_body_that_is_wrong_is_refused(
    service: FakeService, coding: str, body: bytes, status: int, code: str
) -> None:
    """Another coding, twice, cut, with bytes behind its end, or a bomb: it is given up where it becomes too long."""
    answer = call(service, "POST", INFER, content=body, headers={"Content-Encoding": coding})
    assert not refused(answer, status, code)["retry"]
    assert service.submitted == []


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 10_000,
        json.dumps({"inputs": []}).encode(),
        json.dumps(REQUEST).replace("[3.0", "[NaN").encode(),
        json.dumps(REQUEST).replace("[3.0", "[Infinity").encode(),
        json.dumps(REQUEST).replace("[3.0", "[1e999").encode(),
        json.dumps(REQUEST).replace('"image"', '"picture"').encode(),
        json.dumps(REQUEST).replace("FP32", "FP64").encode(),
        json.dumps(REQUEST).replace("[3.0, ", "[").encode(),
    ],
    ids=["empty", "cut", "list", "binary", "deep", "no inputs", "NaN", "inf", "1e999", "name", "type", "short"],
)
def test_a_request_that_makes_no_sense_isrefused(service: FakeService, body: bytes) -> None:
    """Status 400 with the reason; nothing is submitted."""
    problem = refused(call(service, "POST", INFER, content=body), 400, "bad-input")
    assert not problem["retry"]
    assert service.submitted == []


def test_a_body_that_is_announced_too_long_is_not_read(service: FakeService) -> None:
    """The length in the header is enough."""

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    headers = {"Content-Length": str(MAX_REQUEST_BYTES + 1)}
    refused(call(service, "POST", INFER, content=body(), headers=headers), 413, "too-large")


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "10"}, {"Content-Length": "²"}])
def test_a_body_that_turns_out_too_long_is_given_up(service: FakeService, headers: dict[str, str]) -> None:
    """Reading ends at the limit, whatever was announced."""
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 1000

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    refused(call(service, "POST", INFER, content=body(), headers=raw), 413, "too-large")
    assert sent * 1000 <= MAX_REQUEST_BYTES + 1000


def test_tensors_that_grow_beyond_the_limit_arerefused(service: FakeService) -> None:
    """Short JSON can stand for long tensors, which no broker would carry."""
    family = service.catalogue.family("digits")
    wide = family.model_copy(
        update={"inputs": (family.inputs[0].model_copy(update={"datatype": "INT64", "shape": ("N",)}),)}
    )
    service.catalogue = service.catalogue.model_copy(update={"families": (wide,)})
    request = {"inputs": [{"name": "image", "shape": [8000], "datatype": "INT64", "data": [0] * 8000}]}
    body = json.dumps(request, separators=(",", ":"))
    assert len(body) < MAX_REQUEST_BYTES
    refused(call(service, "POST", INFER, content=body), 413, "too-large")
    assert service.submitted == []


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_an_idempotency_key_has_a_length(service: FakeService, key: str) -> None:
    """One to 255 characters."""
    answer = call(service, "POST", INFER, json=REQUEST, headers={"Idempotency-Key": key})
    refused(answer, 400, "bad-input")


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (ResourceError("full", code="queue-full"), 429, "1"),
        (JobFailedError("nobody", code="no-agent"), 503, "2"),
        (JobFailedError("only yours", code="too-few-owners"), 503, None),
        (InputError("another request", code="idempotency-conflict"), 409, None),
    ],
)
def test_what_the_coordinator_refuses_has_a_status_of_its_own(
    service: FakeService, error: EdgeAgentError, status: int, retry_after: str | None
) -> None:
    """And says when to come back."""
    service.refuses = error
    answer = call(service, "POST", INFER, json=REQUEST)
    body = refused(answer, status, error.error_code)
    assert answer.headers.get("retry-after") == retry_after
    assert body["retry"] == (retry_after is not None)


@pytest.mark.parametrize(
    ("blame", "status", "retry"),
    [
        (Blame.REQUESTER, 400, False),
        (Blame.MODEL, 502, False),
        (Blame.AGENT, 502, True),
        (Blame.DEADLINE, 504, True),
        (Blame.CANCELLED, 409, False),
    ],
)
def test_a_job_that_failed_says_whose_fault_it_was(
    service: FakeService, blame: Blame, status: int, *, retry: bool
) -> None:
    """The status follows the blame."""
    service.waits = Outcome(JOB, JobState.FAILED, error=JobError("some-code", "It broke.", blame))
    body = refused(call(service, "POST", INFER, json=REQUEST), status, "some-code")
    assert (body["blame"], body["retry"], body["job_id"]) == (blame.value, retry, JOB.hex())


def test_a_call_whose_time_is_over_says_where_the_job_is(service: FakeService) -> None:
    """The job goes on; the client can ask for it."""
    service.waits = None
    answer = call(service, "POST", INFER, json=REQUEST)
    body = refused(answer, 504, "deadline")
    assert JOBS in body["hint"]
    assert answer.headers["edge-agent-job"] == body["job_id"] == JOB.hex()


@pytest.mark.parametrize("path", [INFER, JOBS])
def test_a_result_that_json_cannot_hold_is_no_fault_of_the_client(service: FakeService, path: str) -> None:
    """NaN was computed: the job succeeded, and the receipt is there."""
    nan = Tensor(TensorSpec("logits", DataType.FP32, (1,)), b"\x00\x00\xc0\x7f")
    assert service.waits is not None
    assert service.stored is not None
    service.waits = replace(service.waits, outputs=(nan,))
    service.stored = replace(service.stored, outputs=(nan,))
    answer = call(service, "POST", path, json=REQUEST) if path == INFER else call(service, "GET", path)
    assert "no form in JSON" in refused(answer, 500, "job-failed")["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v3", 404), ("GET", INFER, 405), ("PUT", "/v2/health/live", 405)]
)
def test_what_is_not_there_is_said_in_json_too(service: FakeService, method: str, path: str, status: int) -> None:
    """Every error has the same form."""
    refused(call(service, method, path), status, "usage")


def test_no_page_loads_anything_from_elsewhere(service: FakeService) -> None:
    """The generated pages with foreign scripts are switched off."""
    assert [call(service, "GET", path).status_code for path in ("/docs", "/redoc")] == [404, 404]


# -- jobs ---------------------------------------------------------------------------------------------------------


def test_an_asynchronous_job_is_stored_and_can_be_found(service: FakeService) -> None:
    """202 with its address."""
    service.repeated = True
    for path in ("/api/v1/models/digits/jobs", f"/api/v1/models/digits/versions/{VARIANT.name}/jobs"):
        answer = call(service, "POST", path, json=REQUEST)
        assert (answer.status_code, answer.headers["location"]) == (202, JOBS)
        assert answer.json() == {"job_id": JOB.hex(), "state": "queued", "repeated": True}
    assert [submitted["durable"] for submitted in service.submitted] == [True, True]
    assert [submitted["variant"] for submitted in service.submitted] == [None, VARIANT.digest_bytes]


def test_a_job_shows_its_state_and_its_outputs(service: FakeService) -> None:
    """With who computed it, as what, and where the receipt is."""
    body = call(service, "GET", JOBS).json()
    assert (body["state"], body["attempts"], body["agent_id"]) == ("succeeded", 1, "someone")
    assert (body["variant"], body["receipt"]) == (VARIANT.name, f"{JOBS}/receipt")
    assert body["outputs"][1]["data"] == [3]


def test_a_job_that_failed_shows_why(service: FakeService) -> None:
    """And has no receipt."""
    assert service.stored is not None
    error = JobError("worker-died", "It was killed.", Blame.AGENT)
    service.stored = replace(service.stored, state=JobState.FAILED, error=error, receipt=None, outputs=(), variant=None)
    body = call(service, "GET", JOBS).json()
    assert body["error"] == {"code": "worker-died", "message": "It was killed.", "blame": "agent"}
    assert "receipt" not in body
    refused(call(service, "GET", f"{JOBS}/receipt"), 404, "unknown-job")


def test_a_receipt_is_given_as_it_was_signed(service: FakeService) -> None:
    """Bytes, with the type of COSE and a file name."""
    answer = call(service, "GET", f"{JOBS}/receipt")
    assert (answer.content, answer.headers["content-type"]) == (b"receipt", "application/cose")
    assert f'filename="{JOB.hex()}.receipt"' in answer.headers["content-disposition"]


def test_cancelling_a_job_answers_with_what_became_of_it(service: FakeService) -> None:
    """Also when it had ended before."""
    answer = call(service, "DELETE", JOBS)
    assert service.cancelled == [JOB]
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")


@pytest.mark.parametrize("job_id", ["00", "zz" * 16, "ff" * 16, "f" * 31, "%C3%A9" * 32])
@pytest.mark.parametrize(("method", "rest"), [("GET", ""), ("DELETE", ""), ("GET", "/receipt")])
def test_a_job_that_is_not_known_is_not_found(service: FakeService, job_id: str, method: str, rest: str) -> None:
    """Whatever stands in its place."""
    refused(call(service, method, f"/api/v1/jobs/{job_id}{rest}"), 404, "unknown-job")
    assert service.cancelled == []


def test_the_coordinator_shows_its_key_and_counts_what_itrefused(service: FakeService) -> None:
    """For operators and for those who check receipts."""
    body = call(service, "GET", "/api/v1/coordinator").json()
    assert body["public_key"] == COORDINATOR_KEY.public.raw.hex()
    assert body["counters"] == {"refused:bad-signature": 3}


def test_agents_are_shown_with_what_jobs_can_ask_for(service: FakeService) -> None:
    """Owner, labels, and the class for each family; also an agent that was never here is listed."""
    agent, absent = call(service, "GET", "/api/v1/agents").json()
    assert (agent["agent_id"], agent["presence"], agent["offers"]) == ("someone", "online", ["digits"])
    assert (agent["owner"], agent["labels"], agent["loaded"]) == ("ada", ["kitchen", "region=eu"], ["digits"])
    assert agent["classes"] == {"digits": klass(digits().variants[0].digest_bytes).id}
    assert (absent["agent_id"], absent["presence"], absent["labels"]) == ("other", "gone", [])


def test_the_newest_jobs_are_listed_without_their_tensors(service: FakeService) -> None:
    """So many as are asked for, of one client or of all."""
    (job,) = call(service, "GET", "/api/v1/jobs?limit=7&client=reports").json()
    assert (job["job_id"], job["state"], "outputs" in job) == (JOB.hex(), "succeeded", False)
    call(service, "GET", "/api/v1/jobs")
    assert service.listed == [(7, "reports"), (50, None)]
    for limit in ("0", "1001", "x", "-1", "\u0661"):
        refused(call(service, "GET", f"/api/v1/jobs?limit={limit}"), 400, "bad-input")


def test_a_job_of_a_family_that_left_the_catalogue_hides_no_others(service: FakeService) -> None:
    """It is listed and shown like all, but for the name of its variant; and so is one whose variant left."""
    assert service.stored is not None
    kept = service.stored
    for gone in (replace(kept, family="gone-1.0"), replace(kept, variant=bytes(32))):
        service.stored = gone
        listed = call(service, "GET", "/api/v1/jobs")
        shown = call(service, "GET", JOBS)
        assert (listed.status_code, shown.status_code) == (200, 200)
        for job in (listed.json()[0], shown.json()):
            assert (job["job_id"], job["model"], job["variant"]) == (JOB.hex(), gone.family, None)
    assert call(service, "GET", JOBS.upper().replace("/API/V1/JOBS", "/api/v1/jobs")).status_code == 200


def test_an_agents_birth_is_given_without_asking_the_database(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever seals jobs asks for it again and again; one agent is not all of them."""

    async def agents() -> None:
        raise AssertionError("all agents were read")

    monkeypatch.setattr(service, "agents", agents)
    live = Agent("someone", COORDINATOR_KEY.public)
    service.operations.registry.agents["someone"] = live
    refused(call(service, "GET", "/api/v1/agents/someone/birth"), 404, "not-enrolled")
    live.birth = b"signed"
    answer = call(service, "GET", "/api/v1/agents/someone/birth")
    assert (answer.status_code, answer.content) == (200, b"signed")
    refused(call(service, "GET", "/api/v1/agents/other/birth"), 404, "not-enrolled")


@pytest.mark.parametrize(
    ("agent", "action", "body"),
    [
        ("a" * 32 + "%0A", "drain", {}),
        ("a" * 32, "approve", {"owner": "ada\n"}),
        ("a" * 32, "label", {"labels": ["attic\n"]}),
    ],
    ids=["id", "owner", "label"],
)
def test_a_name_that_ends_with_a_line_is_refused(
    service: FakeService, agent: str, action: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look like another one's wherever it is shown."""
    done: list[str] = []

    async def note(*_: object, **__: object) -> None:
        done.append(action)

    for name in ("approve", "drain", "label"):
        monkeypatch.setattr(service.operations, name, note)
    refused(call(service, "POST", f"/api/v1/agents/{agent}/{action}", json=body), 400, "bad-input")
    assert done == []
    good = json.loads(json.dumps(body).replace("\\n", ""))
    assert call(service, "POST", f"/api/v1/agents/{'a' * 32}/{action}", json=good).status_code == 200
    assert done == [action]
