"""The unmodified `openai` package against a served gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from gateways import VECTORS, FakeService, embedded, served
from needs import module

from edge_agent.errors import JobFailedError, ResourceError

module("openai")

import openai  # noqa: E402 - skipped where it cannot be imported

if TYPE_CHECKING:
    from openai import OpenAI


@pytest.fixture
def service() -> FakeService:
    """Return a service with an embedder."""
    made = FakeService()
    made.serve(VECTORS, embedded)
    return made


@pytest.fixture
def client(service: FakeService) -> Iterator[OpenAI]:
    """Return a client of a gateway in front of it; it tries nothing again."""
    with served(service) as base_url, openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_models_are_listed_and_found(client: OpenAI) -> None:
    """Those that can be used through this interface."""
    assert [model.id for model in client.models.list()] == ["vectors"]
    assert client.models.retrieve("vectors").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_embeddings(client: OpenAI, form: str | None) -> None:
    """One text and several; without a form the client asks for base64 and unpacks it."""
    more = {} if form is None else {"encoding_format": form}
    made = client.embeddings.create(model="vectors", input=["four", "five!"], **more)
    assert [entry.index for entry in made.data] == [0, 1]
    if form != "base64":
        assert [entry.embedding for entry in made.data] == [[4.0, 2.0, 1.0], [5.0, 2.0, 1.0]]
    assert made.usage.total_tokens == 0
    assert client.embeddings.create(model="vectors", input="four", **more).model == "vectors"


def test_fewer_dimensions(client: OpenAI) -> None:
    """The first ones, with length 1."""
    (entry,) = client.embeddings.create(model="vectors", input="ab", dimensions=2).data
    assert entry.embedding == pytest.approx([0.5**0.5, 0.5**0.5])


def test_receipt_and_verification_stand_in_the_headers(client: OpenAI) -> None:
    """Where the client shows them: in the raw response."""
    raw = client.embeddings.with_raw_response.create(model="vectors", input="four")
    assert raw.headers["edge-agent-verification"] == "signed"
    assert raw.headers["edge-agent-receipt"].endswith("/receipt")


def test_errors_are_the_clients_own(client: OpenAI, service: FakeService) -> None:
    """By status, with our code; nothing is submitted."""
    for kind, code, body in (
        (openai.NotFoundError, "unknown-family", {"model": "vector", "input": "a"}),
        (openai.NotFoundError, "unknown-version", {"model": "vectors/none", "input": "a"}),
        (openai.BadRequestError, "bad-input", {"model": "digits", "input": "a"}),
        (openai.BadRequestError, "bad-input", {"model": "vectors", "input": [[1, 2]]}),
        (openai.BadRequestError, "bad-input", {"model": "vectors", "input": "a", "dimensions": 4}),
    ):
        with pytest.raises(kind) as caught:
            client.embeddings.create(**body)
        assert caught.value.code == code
        assert caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="vectors", messages=[{"role": "user", "content": "hello"}])
    assert service.submitted == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ResourceError("full", code="queue-full"), openai.RateLimitError),
        (JobFailedError("nobody", code="no-agent"), openai.InternalServerError),
    ],
)
def test_the_client_tries_again_what_may_be(
    client: OpenAI, service: FakeService, error: ResourceError | JobFailedError, kind: type[openai.APIStatusError]
) -> None:
    """And raises its own error when it has tried enough."""
    service.refuses = error
    with pytest.raises(kind) as caught:
        client.embeddings.create(model="vectors", input="a")
    assert caught.value.code == error.error_code
    assert caught.value.response.headers["x-should-retry"] == "true"
