"""A stolen coordinator, without the registrar, shows results of agents that it made up to a client with both keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import COORDINATOR_KEY, NETWORK, START_MS, answer_to, key, scan
from gateways import served
from signing import AGENT, SigningService, signed_receipt

from edge_agent.cli import main
from edge_agent.client import AsyncClient, Client, JobOptions, Placement, infer_sealed
from edge_agent.coordinator.events import AgentCertificates
from edge_agent.coordinator.registry import Agent
from edge_agent.errors import PeerError, UsageError
from edge_agent.wire.certificates import MAX_LIFETIME_MS, issue
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.oip_json import tensor_to_json

REGISTRAR = key("registrar")
MALLORY = key("mallory")
IMAGE = np.full((1, 1, 8, 8), 3.0, np.float32)
JOB = bytes(16)
REQUEST = json.dumps({"inputs": [tensor_to_json(scan(3))]}).encode()
DAY_MS = 86_400_000


def certificate(
    agent: SigningKey = AGENT, signer: SigningKey = REGISTRAR, network: str = NETWORK, at_ms: int = START_MS
) -> bytes:
    """Return a certificate of ada's agent."""
    return issue(signer, network=network, agent=agent.public, sealing_key=None, owner="ada", now_ms=at_ms)


def shown(certified: bytes | None, agent: SigningKey = AGENT) -> dict[str, Any]:
    """Return what a coordinator says of the first job, everything but the certificate being right."""
    return {"receipt": signed_receipt(JOB, (scan(3),), answer_to(scan(3)), agent=agent, certificate=certified)}


@pytest.fixture
def service() -> SigningService:
    """Return an honest coordinator, until a test changes what it says."""
    made = SigningService()
    made.change = shown(certificate())
    return made


class At:
    """Clients of a service whose clock says a time of the tests."""

    def __init__(self, url: str, service: SigningService) -> None:
        self.url = url
        self.now_ms = START_MS
        self._service = service

    def forget(self) -> None:
        """Let the next job be the first one again, which receipts here are for."""
        self._service.keys.clear()
        self._service._outcomes.clear()

    def client(self, **more: Any) -> Client:  # noqa: ANN401 as Client takes it
        """Return one that knows both keys."""
        made = Client(self.url, **{"coordinator_key": COORDINATOR_KEY.public, "registrar_key": REGISTRAR.public} | more)
        made._steps._wall = lambda: self.now_ms / 1000
        return made


@pytest.fixture
def at(service: SigningService) -> Iterator[At]:
    """Serve it."""
    with served(service) as url:
        yield At(url, service)


def refused(at: At, code: str, **options: Any) -> None:  # noqa: ANN401 as JobOptions takes them
    """Assert that no way of asking gives a result out."""
    chosen = JobOptions(**options)
    with at.client() as client:
        for ask in (
            lambda: client.infer("digits", IMAGE, options=chosen),
            lambda: client.infer_json("digits", REQUEST, options=chosen),
        ):
            at.forget()
            with pytest.raises(PeerError) as seen:
                ask()
            assert seen.value.error_code == code


def test_an_agent_that_the_registrar_let_in_is_believed(at: At) -> None:
    """Without this the tests below could refuse for a wrong reason; it is said whose the machine is."""
    with at.client() as client:
        verified = client.infer("digits", IMAGE, options=JobOptions(placement=Placement(owner="ada"))).verified
        assert verified is not None
        assert (verified.owner, verified.registrar) == ("ada", REGISTRAR.public)
        assert any("a machine of ada" in sentence for sentence in verified.means())
    at.forget()
    with at.client() as client:
        assert client.infer_json("digits", REQUEST).agent_id == AGENT.public.id
    at.forget()
    with at.client(registrar_key=None) as client:
        less = client.infer("digits", IMAGE).verified
        assert less is not None
        assert less.owner is None
        assert any("stolen coordinator can invent" in sentence for sentence in less.means())


def test_agent_without_a_certificate(at: At, service: SigningService) -> None:
    """It exists in the coordinator's words alone."""
    service.change = shown(None, MALLORY)
    refused(at, "no-certificate")


@pytest.mark.parametrize(
    ("certified", "code"),
    [
        (certificate(MALLORY, COORDINATOR_KEY), "unknown-key"),
        (certificate(MALLORY, MALLORY), "unknown-key"),
        (certificate(MALLORY)[:-1] + b"\0", "bad-signature"),
        (certificate(AGENT), "wrong-agent"),
        (certificate(MALLORY, network="other"), "wrong-network"),
    ],
    ids=["by-the-coordinator", "by-itself", "altered", "of-another-key", "of-another-network"],
)
def test_certificate_that_the_registrar_did_not_sign_for_that_key(
    at: At, service: SigningService, certified: bytes, code: str
) -> None:
    """The coordinator's own signature is no certificate, and a genuine one covers one key in one network."""
    service.change = shown(certified, MALLORY)
    refused(at, code)


def test_certificate_that_is_over(at: At, service: SigningService) -> None:
    """When the result was accepted, or now: whoever stole an old agent's key can date its results back."""
    service.change = shown(certificate(at_ms=START_MS - MAX_LIFETIME_MS))
    refused(at, "certificate-expired")
    service.change = shown(certificate(at_ms=START_MS - 20 * DAY_MS))
    at.now_ms = START_MS + 11 * DAY_MS
    refused(at, "certificate-expired")


def test_a_result_of_long_ago_is_given_out_again(at: At) -> None:
    """Under a key of the caller's own: its agent's certificate counted then."""
    at.now_ms = START_MS + 40 * DAY_MS
    with at.client() as client:
        found = client.infer("digits", IMAGE, options=JobOptions(idempotency_key="mine"))
    assert found.verified is not None
    assert found.verified.owner == "ada"


def test_machine_of_another_owner_than_was_asked_for(at: At) -> None:
    """The coordinator would have to have it certified for that owner."""
    refused(at, "wrong-owner", placement=Placement(owner="bert"))


def test_another_agent_than_was_asked_for(at: At) -> None:
    """Also for clients that have no registrar's key: the receipt says who it was."""
    options = {"placement": Placement(agents=(MALLORY.public.id,))}
    refused(at, "wrong-agent", **options)
    at.forget()
    with at.client(registrar_key=None) as client, pytest.raises(PeerError) as seen:
        client.infer("digits", IMAGE, options=JobOptions(**options))
    assert seen.value.error_code == "wrong-agent"


@pytest.mark.parametrize("certified", [None, certificate(MALLORY, COORDINATOR_KEY), certificate()])
def test_nothing_is_sealed_to_an_invented_agent(at: At, service: SigningService, certified: bytes | None) -> None:
    """The coordinator lists a machine of its own as the only one; the client sends it nothing."""
    registry = service.operations.registry
    registry.agents[MALLORY.public.id] = Agent(MALLORY.public.id, MALLORY.public)
    if certified is not None:
        registry.certificates = {MALLORY.public.id: AgentCertificates(certified, b"")}
    with at.client() as client:
        with pytest.raises(PeerError) as seen:
            infer_sealed(client, "digits", (scan(3),), agent=MALLORY.public.id)
        assert seen.value.error_code in {"no-certificate", "unknown-key", "wrong-agent"}
    assert service.submitted == []


def test_a_certificate_is_served_and_checked(at: At, service: SigningService) -> None:
    """For both kinds of clients; one without the registrar's key says what it lacks."""
    service.operations.registry.certificates = {AGENT.public.id: AgentCertificates(certificate(), b"")}
    with at.client() as client:
        assert client.certificate(AGENT.public.id).owner == "ada"
        at.now_ms += MAX_LIFETIME_MS
        with pytest.raises(PeerError) as seen:
            client.certificate(AGENT.public.id)
        assert seen.value.error_code == "certificate-expired"
    with at.client(registrar_key=None) as client, pytest.raises(UsageError):
        client.certificate(AGENT.public.id)

    async def ask() -> str | None:
        async with AsyncClient(at.url, registrar_key=REGISTRAR.public) as client:
            client._steps._wall = lambda: START_MS / 1000
            return (await client.certificate(AGENT.public.id)).owner

    assert asyncio.run(ask()) == "ada"


def test_the_registrars_key_may_come_from_the_environment(
    at: At, service: SigningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the setting `client.registrar_file` does for commands."""
    REGISTRAR.public.write(tmp_path / "registrar.pub")
    monkeypatch.setenv("EDGE_AGENT_CLIENT_REGISTRAR_FILE", str(tmp_path / "registrar.pub"))
    service.change = shown(None)
    with at.client(registrar_key=None) as client, pytest.raises(PeerError) as seen:
        client.infer("digits", IMAGE)
    assert seen.value.error_code == "no-certificate"


def test_commands_show_nothing_of_an_invented_agent(
    at: At, service: SigningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`submit` prints no answer and ends with 76; `batch` writes the row down as failed."""
    registrar, scans, out = tmp_path / "registrar.pub", tmp_path / "scan.json", tmp_path / "results.jsonl"
    REGISTRAR.public.write(registrar)
    scans.write_bytes(REQUEST + b"\n")
    service.change = shown(None, MALLORY)
    known = ["--coordinator", at.url, "--registrar", str(registrar)]
    assert main(["submit", "digits", "--input", str(scans), *known]) == 76
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "carries no certificate" in printed.err
    at.forget()
    rows = scans.rename(tmp_path / "rows.jsonl")
    assert main(["batch", "run", str(rows), "--model", "digits", "--output", str(out), *known]) == 1
    row = json.loads(out.read_text().splitlines()[1])
    assert row["error"]["code"] == "no-certificate"
    assert "outputs" not in row
