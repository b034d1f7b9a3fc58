"""OpenAI's interface with a coordinator that is played by the test: which models, which vectors, which errors."""

from __future__ import annotations

import base64
import struct
from typing import Any

import httpx
import pytest
from fakes import digits
from gateways import VECTOR_SIZE, VECTORS, FakeService, call, embedded, family_of
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.gateway.embeddings import TEXTS_PER_JOB, embedder, wish_from
from edge_agent.coordinator.jobs import Blame, JobError, JobState
from edge_agent.errors import InputError, JobFailedError, ResourceError
from edge_agent.models.catalogue import Family
from edge_agent.wire.tensors import Tensor


@pytest.fixture
def service() -> FakeService:
    """Return a service with an embedder."""
    made = FakeService()
    made.serve(VECTORS, embedded)
    return made


def embed(service: FakeService, **body: Any) -> httpx.Response:  # noqa: ANN401 any JSON
    """Ask for embeddings."""
    return call(service, "POST", "/v1/embeddings", json={"model": "vectors", **body})


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check an error of OpenAI's form; return what is in it."""
    assert list(answer.json()) == ["error"]
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert isinstance(error["message"], str)
    assert answer.headers["x-should-retry"] == ("true" if error["retry"] else "false")
    return error


# -- which families -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    [
        digits(),
        family_of("a", {"x": ("BYTES", ("N",))}, {"y": ("FP32", ("N",))}),
        family_of("a", {"x": ("BYTES", ("N",))}, {"y": ("FP32", ("N", "D"))}),
        family_of("a", {"x": ("BYTES", ("N",))}, {"y": ("FP32", ("M", 3))}),
        family_of("a", {"x": ("BYTES", (1,))}, {"y": ("FP32", (1, 3))}),
        family_of("a", {"x": ("BYTES", ("N", 1))}, {"y": ("FP32", ("N", 3))}),
        family_of("a", {"x": ("BYTES", ("N",))}, {"y": ("FP16", ("N", 3))}),
        family_of("a", {"x": ("INT64", ("N",))}, {"y": ("FP32", ("N", 3))}),
        family_of("a", {"x": ("BYTES", ("N",)), "z": ("BYTES", ("N",))}, {"y": ("FP32", ("N", 3))}),
        family_of("a", {"x": ("BYTES", ("N",))}, {"y": ("FP32", ("N", 3)), "z": ("FP32", ("N", 3))}),
        VECTORS.model_copy(update={"metric": "top1"}),
        VECTORS.model_copy(update={"inputs": (), "outputs": ()}),
    ],
)
def test_what_is_no_embedder(family: Family) -> None:
    """Pictures, other shapes and types, several inputs or outputs, choosers between classes, unknown ports."""
    assert embedder(family) is None


def test_models_are_the_families_that_can_be_used(service: FakeService) -> None:
    """Not `digits`, which has no use here; one alone can be looked up."""
    listed = call(service, "GET", "/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["vectors"]
    assert call(service, "GET", "/v1/models/vectors").json() == listed["data"][0]
    assert listed["data"][0]["uses"] == ["embeddings"]
    problem(call(service, "GET", "/v1/models/digits"), 400, "bad-input")
    assert "'vectors'" in problem(call(service, "GET", "/v1/models/vector"), 404, "unknown-family")["hint"]


# -- vectors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_input", ["four", ["four"]])
def test_a_text_becomes_a_vector(service: FakeService, given_input: object) -> None:
    """Alone or in a list."""
    answer = embed(service, input=given_input)
    body = answer.json()
    assert body["data"] == [{"object": "embedding", "index": 0, "embedding": [4.0, 2.0, 1.0]}]
    assert (body["object"], body["model"]) == ("list", "vectors")
    assert set(body["usage"]) == {"prompt_tokens", "total_tokens"}
    (about,) = body["parameters"]["jobs"]
    assert about["receipt"] == answer.headers["edge-agent-receipt"]
    assert answer.headers["edge-agent-verification"] == about["verification"] == "signed"


def test_base64_holds_the_very_bytes(service: FakeService) -> None:
    """Little-endian FP32."""
    (entry,) = embed(service, input="four", encoding_format="base64").json()["data"]
    assert base64.b64decode(entry["embedding"]) == struct.pack("<3f", 4, 2, 1)


def test_fewer_dimensions_are_the_first_ones_with_length_one_again(service: FakeService) -> None:
    """As OpenAI shortens vectors; all of them stay as they are."""
    (entry,) = embed(service, input="ab", dimensions=2).json()["data"]
    assert entry["embedding"] == pytest.approx([0.5**0.5, 0.5**0.5])
    (entry,) = embed(service, input="ab", dimensions=VECTOR_SIZE).json()["data"]
    assert entry["embedding"] == [2.0, 2.0, 1.0]
    assert "at most 3" in problem(embed(service, input="ab", dimensions=VECTOR_SIZE + 1), 400, "bad-input")["message"]


def test_a_vector_without_length_stays_without(service: FakeService) -> None:
    """Nothing is divided by zero."""
    service.compute = lambda inputs: (Tensor(embedded(inputs)[0].spec, bytes(12)),)
    (entry,) = embed(service, input="ab", dimensions=2).json()["data"]
    assert entry["embedding"] == [0.0, 0.0]


def test_many_texts_are_several_jobs_in_their_order(service: FakeService) -> None:
    """Each with a key of its own, so that all of it can be sent again."""
    texts = ["x" * number for number in range(1, 2 * TEXTS_PER_JOB + 2)]
    answer = call(
        service,
        "POST",
        "/v1/embeddings",
        json={"model": "vectors", "input": texts},
        headers={"Idempotency-Key": "k"},
    ).json()
    assert [entry["index"] for entry in answer["data"]] == list(range(len(texts)))
    assert [entry["embedding"][0] for entry in answer["data"]] == [len(text) for text in texts]
    assert [submitted["options"].idempotency_key for submitted in service.submitted] == ["k", "k/1", "k/2"]
    assert len({about["job_id"] for about in answer["parameters"]["jobs"]}) == 3


def test_a_variant_can_be_insisted_on(service: FakeService) -> None:
    """As on the command line: family/variant."""
    name = VECTORS.variants[0].name
    assert embed(service, model=f"vectors/{name}", input="a").json()["model"] == f"vectors/{name}"
    assert service.submitted[0]["variant"] == VECTORS.variants[0].digest_bytes
    problem(embed(service, model="vectors/none", input="a"), 404, "unknown-version")


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"input": []},
        {"input": ""},
        {"input": ["a", ""]},
        {"input": None},
        {"input": {"a": 1}},
        {"input": ["a", None]},
        {"input": ["a", 1.5]},
        {"input": ["a"] * 2049},
        {"input": "a", "dimensions": 0},
        {"input": "a", "dimensions": True},
        {"input": "a", "dimensions": "2"},
        {"input": "a", "encoding_format": "int8"},
        {"input": "a", "encoding_format": ["float"]},
        {"input": "a", "model": ""},
        {"input": "a", "model": 7},
        {"input": "a", "model": "digits"},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(service: FakeService, body: dict[str, Any]) -> None:
    """In OpenAI's form; nothing is submitted."""
    assert problem(embed(service, **body), 400, "bad-input")["type"] == "invalid_request_error"
    assert service.submitted == []


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]]])
def test_tokens_are_refused_with_the_reason(service: FakeService, tokens: object) -> None:
    """The tokenizer is part of the model, so that there is no place for them."""
    assert "tokenizer is part of the model" in problem(embed(service, input=tokens), 400, "bad-input")["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", b"[" * 10_000, b'{"input": NaN}', b'{"model": "vectors", "input": "\\ud800"}'],
)
def test_text_that_is_no_json_is_refused_in_openais_form(service: FakeService, body: bytes) -> None:
    """As every other error here."""
    problem(call(service, "POST", "/v1/embeddings", content=body), 400, "bad-input")


def test_other_errors_have_openais_form_too(service: FakeService) -> None:
    """Too large, no route, another method."""
    problem(embed(service, input="a" * 30_000), 413, "too-large")
    problem(call(service, "GET", "/v1/chat/completions"), 404, "usage")
    problem(call(service, "GET", "/v1/embeddings"), 405, "usage")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ResourceError("full", code="queue-full"), 429, "rate_limit_error"),
        (JobFailedError("nobody", code="no-agent"), 503, "server_error"),
    ],
)
def test_what_may_be_tried_again_says_so(
    service: FakeService, error: ResourceError | JobFailedError, status: int, kind: str
) -> None:
    """Also to clients that go by headers."""
    service.refuses = error
    answer = embed(service, input="a")
    body = problem(answer, status, error.error_code)
    assert (body["type"], body["retry"]) == (kind, True)
    assert answer.headers["retry-after"]


def test_one_job_that_fails_cancels_the_others(service: FakeService) -> None:
    """There is no half of an answer; what had ended is not touched."""
    real = service.outcome

    async def outcome(job_id: bytes, timeout_seconds: float) -> Outcome | None:
        if job_id == (2).to_bytes(16, "big"):
            return Outcome(job_id, JobState.FAILED, error=JobError("model-run", "It broke.", Blame.MODEL))
        return await real(job_id, timeout_seconds)

    service.outcome = outcome  # type: ignore[method-assign] # one of its answers
    error = problem(embed(service, input=["a"] * (3 * TEXTS_PER_JOB)), 502, "model-run")
    assert (error["blame"], error["job_id"]) == ("model", (2).to_bytes(16, "big").hex())
    assert service.cancelled == [(2).to_bytes(16, "big"), (3).to_bytes(16, "big")]
    assert len(service.submitted) == 3


def test_jobs_that_were_taken_are_cancelled_when_a_further_one_is_not(service: FakeService) -> None:
    """A queue that becomes full in the middle."""

    def compute(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        service.refuses = ResourceError("full", code="queue-full")
        return embedded(inputs)

    service.compute = compute
    problem(embed(service, input=["a"] * (2 * TEXTS_PER_JOB)), 429, "queue-full")
    assert service.cancelled == [(1).to_bytes(16, "big")]


def test_under_a_key_the_jobs_that_were_taken_go_on(service: FakeService) -> None:
    """Whoever sends the request again under its key, as the error says, is not told that it was cancelled."""

    def compute(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        service.refuses = ResourceError("full", code="queue-full")
        return embedded(inputs)

    service.compute = compute
    body = {"model": "vectors", "input": ["a"] * (2 * TEXTS_PER_JOB)}
    answer = call(service, "POST", "/v1/embeddings", json=body, headers={"Idempotency-Key": "k"})
    problem(answer, 429, "queue-full")
    assert service.cancelled == []


def test_a_vector_with_nan_is_no_fault_of_the_client(service: FakeService) -> None:
    """JSON has no form for it; base64 has."""
    service.compute = lambda inputs: (Tensor(embedded(inputs)[0].spec, b"\x00\x00\xc0\x7f" * VECTOR_SIZE),)
    problem(embed(service, input="a"), 500, "job-failed")
    assert embed(service, input="a", encoding_format="base64").status_code == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@given(JSON | st.fixed_dictionaries({"model": st.just("m"), "input": JSON}, optional={"dimensions": JSON}))
def test_any_body_is_read_or_refused(body: object) -> None:
    """Whatever JSON holds is a wish or an InputError."""
    try:
        wish = wish_from(body)
    except InputError:
        return
    assert wish.texts
    assert all(wish.texts)
