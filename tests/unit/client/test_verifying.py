"""The Python client against a served gateway whose results are really signed: what it accepts, and what it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import COORDINATOR_KEY, answer_to, key, scan
from gateways import served
from signing import AGENT, SigningService, signed_receipt

from edge_agent.client import AsyncClient, Client, JobOptions, quorum
from edge_agent.errors import DeniedError, InputError, PeerError, UnknownFamilyError

IMAGE = np.full((1, 1, 8, 8), 3.0, np.float32)
JOB = bytes(16)


@pytest.fixture
def service() -> SigningService:
    """Return a service that computes and signs."""
    return SigningService()


@pytest.fixture
def client(service: SigningService) -> Iterator[Client]:
    """Return a client of it that knows its key."""
    with served(service) as base_url, Client(base_url, coordinator_key=COORDINATOR_KEY.public) as made:
        yield made


@pytest.mark.parametrize(
    "inputs",
    [
        {"image": IMAGE},
        {"image": IMAGE[0]},
        IMAGE,
        IMAGE.astype(np.float64),
        IMAGE.tolist(),
        {"image": IMAGE[0].tolist()},
        [scan(3)],
    ],
    ids=["array", "one", "alone", "double", "list", "list-of-one", "tensor"],
)
def test_a_result_is_checked_and_its_outputs_are_arrays(
    client: Client, service: SigningService, inputs: object
) -> None:
    """Whatever form the inputs have; the receipt comes with the answer, in one call."""
    result = client.infer("digits", inputs)
    assert result.outputs["label"].tolist() == [3]
    assert (result.verification, result.tries) == ("signed", 1)
    assert result.verified is not None
    assert result.verified.agent_id == AGENT.public.id == result.agent_id
    assert result.verified.pinned
    words = " ".join(result.verified.means())
    assert "Proven: the agent" in words
    assert "Not proven: that the agent computed" in words
    assert service.submitted[0]["inputs"] == (scan(3),)


def test_wanted_outputs_and_options(client: Client, service: SigningService) -> None:
    """They travel as over any other client."""
    result = client.infer("digits", IMAGE, outputs=["label"], options=JobOptions(priority=3, idempotency_key="k"))
    assert set(result.outputs) == {"label"}
    assert (service.submitted[0]["options"].priority, service.submitted[0]["options"].idempotency_key) == (3, "k")
    assert client.infer("digits", IMAGE, options=JobOptions(idempotency_key="k")).job_id == result.job_id


@pytest.mark.parametrize(
    ("receipt", "code"),
    [
        (signed_receipt(JOB, (scan(4),), answer_to(scan(3))), "wrong-input"),
        (signed_receipt(JOB, (scan(3),), answer_to(scan(4))), "wrong-output"),
        (signed_receipt(bytes([1] * 16), (scan(3),), answer_to(scan(3))), "wrong-job"),
        (signed_receipt(JOB, (scan(3),), answer_to(scan(3)), family="other"), "wrong-model"),
        (signed_receipt(JOB, (scan(3),), answer_to(scan(3)), coordinator=key("impostor")), "unknown-key"),
        (signed_receipt(JOB, (scan(3),), answer_to(scan(3)))[:-1] + b"\0", "bad-signature"),
        (b"receipt", "malformed"),
    ],
    ids=["input", "output", "job", "model", "coordinator", "signature", "none"],
)
def test_a_receipt_of_something_else_is_no_proof(
    client: Client, service: SigningService, receipt: bytes, code: str
) -> None:
    """Nothing is given out as verified."""
    service.change = {"receipt": receipt}
    with pytest.raises(PeerError) as refused:
        client.infer("digits", IMAGE)
    assert refused.value.error_code == code


def test_outputs_that_were_changed_on_the_way_are_told(client: Client, service: SigningService) -> None:
    """The receipt is right, the outputs beside it are not."""
    service.change = {"outputs": answer_to(scan(4))}
    with pytest.raises(PeerError) as refused:
        client.infer("digits", IMAGE)
    assert refused.value.error_code == "wrong-output"


@pytest.mark.parametrize("mode", ["rechecked", quorum(3)])
def test_a_coordinator_that_does_less_than_the_mode_asks_for_is_told(client: Client, mode: str) -> None:
    """One that does not know the mode says `signed`."""
    with pytest.raises(PeerError) as refused:
        client.infer("digits", IMAGE, mode)
    assert refused.value.error_code == "unverified"


@pytest.mark.parametrize("mode", ["quorum(1)", "quorum(6)", "zkml", ""])
def test_a_mode_that_is_none_is_told_before_anything_is_sent(
    client: Client, service: SigningService, mode: str
) -> None:
    """And so is a quorum of too few or too many."""
    with pytest.raises(InputError):
        client.infer("digits", IMAGE, mode)
    with pytest.raises(InputError):
        quorum(6)
    assert service.submitted == []


def test_without_a_key_the_coordinator_is_asked_for_its_own(service: SigningService, tmp_path: Path) -> None:
    """It is said that this proves less; a wrong key that was pinned is told."""
    file = tmp_path / "coordinator.pub"
    key("impostor").public.write(file)
    with served(service) as base_url:
        with Client(base_url) as client:
            verified = client.infer("digits", IMAGE).verified
        assert verified is not None
        assert not verified.pinned
        assert any("pin" in sentence for sentence in verified.means())
        with Client(base_url, coordinator_key=file) as client, pytest.raises(PeerError):
            client.infer("digits", IMAGE)
        with Client(base_url, coordinator_key=file) as client:
            assert client.infer("digits", IMAGE, verify=False).verified is None


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"picture": IMAGE}, "no input 'picture'"),
        ({"image": IMAGE.astype(np.complex64)}, "needs float32"),
        ({"image": [[1.0], [1.0, 2.0]]}, "one length"),
        ({"image": "text"}, "numbers"),
        ({"image": IMAGE[:, :, :7]}, "must have the shape"),
        ([1.0, "a"], "numbers"),
    ],
    ids=["name", "type", "ragged", "text", "shape", "mixed"],
)
def test_inputs_that_do_not_fit_are_told(client: Client, service: SigningService, inputs: object, words: str) -> None:
    """With the name of the input; nothing is submitted."""
    with pytest.raises(InputError, match=words):
        client.infer("digits", inputs)
    assert service.submitted == []


def test_the_asyncio_client_does_the_same(service: SigningService) -> None:
    """Many at once; errors are the same."""

    async def script(base_url: str) -> None:
        async with AsyncClient(base_url, coordinator_key=COORDINATOR_KEY.public) as client:
            results = await asyncio.gather(
                *(client.infer("digits", np.full((8, 8), n, np.float32)[None]) for n in range(8))
            )
            assert [result.outputs["label"].tolist() for result in results] == [[n] for n in range(8)]
            assert all(result.verified for result in results)
            assert (await client.inputs("digits"))[0].name == "image"
            assert isinstance(await client.agents(), list)
            assert isinstance(await client.jobs(), list)
            with pytest.raises(UnknownFamilyError):
                await client.infer("digit", IMAGE)

    with served(service) as base_url:
        asyncio.run(script(base_url))


def test_a_key_that_is_missing_is_told(service: SigningService, monkeypatch: pytest.MonkeyPatch) -> None:
    """As what it is."""
    monkeypatch.setattr("gateways.make_app", _closed)
    with served(service) as base_url, Client(base_url) as client, pytest.raises(DeniedError, match="API key"):
        client.infer("digits", IMAGE)


def _closed(*arguments: object, **options: object) -> object:
    from edge_agent.clock import system_now  # noqa: PLC0415 used here alone
    from edge_agent.coordinator.access import Access  # noqa: PLC0415 as above
    from edge_agent.coordinator.gateway.app import make_app  # noqa: PLC0415 as above

    return make_app(*arguments, **options, access=Access(required=True, clock=system_now))  # type: ignore[arg-type]
