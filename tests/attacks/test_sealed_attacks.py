"""A coordinator that wants to read sealed jobs, or to answer them itself: the client believes nothing of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
import wire_samples
from fakes import COORDINATOR_KEY, NETWORK, START_MS, FakeAgent, ManualClock, answer_to, key, scan

from edge_agent.client import Answer, infer_sealed
from edge_agent.client.http import Client
from edge_agent.errors import PeerError
from edge_agent.wire.envelope import seal, signed_part
from edge_agent.wire.hpke import SecretHalf
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.messages import Result, TensorDigest
from edge_agent.wire.oip_json import request_from_json
from edge_agent.wire.receipts import make_receipt
from edge_agent.wire.sealing import open_question, seal_answer
from edge_agent.wire.sealing_key import SealingKey
from edge_agent.wire.tensors import Tensor

SALT = bytes(32)
IMAGE = scan(3)
AGENT = FakeAgent("agent", ManualClock())
MALLORY = FakeAgent("mallory", ManualClock())
SEALING = SealingKey.generate(b"\7" * 32)
HALF = SecretHalf(SEALING.private)


def birth_of(agent: FakeAgent, signer: SigningKey | None = None, sealing: SealingKey = SEALING) -> bytes:
    """Return a birth with a sealing key."""
    statement = wire_samples.birth().model_copy(
        update={
            "agent_id": agent.id,
            "public_key": agent.key.public.raw,
            "sealing_key": sealing.public,
            "hybrid_key": None,
            "network": NETWORK,
        }
    )
    return seal(signer or agent.key, statement)


class Coordinator(Client):
    """A coordinator as a client meets it, honest until a test changes what it says; and a record of what it was sent.

    Attributes:
        answers: who signs the result.
        claims: fields of the result that are not as they should be.
        shows: which of its receipts and outputs it gives out, the newest as a rule.
    """

    def __init__(self, pinned: PublicKey | None = None) -> None:
        super().__init__("http://127.0.0.1:9", coordinator_key=pinned)
        self._http.close()
        answering = httpx.MockTransport(
            lambda request: httpx.Response(200, content=iter((self.get(request.url.path),)))
        )
        self._http = httpx.Client(base_url="http://127.0.0.1:9", transport=answering)
        self.birth = birth_of(AGENT)
        self.sent: list[Tensor] = []
        self.answers = AGENT
        self.claims: dict[str, Any] = {}
        self.receipts: list[bytes] = []
        self.outputs: list[tuple[Tensor, ...]] = []
        self.shows = -1

    def get(self, path: str) -> bytes:
        """Answer what a client asks about the network and the agent."""
        about = {"network": NETWORK, "public_key": COORDINATOR_KEY.public.raw.hex()}
        return self.birth if path.endswith("/birth") else json.dumps(about).encode()

    def infer_json(self, family: str, request: bytes, **given: Any) -> Answer:  # noqa: ANN401 passed over
        """Let the agent compute, and keep the receipt."""
        (asked,) = request_from_json(request).inputs
        self.sent.append(asked)
        unsealed = open_question(asked, (HALF,), network=NETWORK, agent_id=AGENT.id)
        outputs = seal_answer(unsealed, answer_to(unsealed.question.inputs[0]))
        result = wire_samples.result().model_copy(
            update={
                "agent_id": self.answers.id,
                "network": NETWORK,
                "family": family,
                "inputs": (TensorDigest.of(asked, SALT),),
                "outputs": tuple(TensorDigest.of(tensor) for tensor in outputs),
                **self.claims,
            }
        )
        signed = seal(self.answers.key, Result.model_validate(dict(result)), [tensor.data for tensor in outputs])
        bare = signed_part(signed, Result.max_statement_bytes)
        self.receipts.append(
            make_receipt(
                COORDINATOR_KEY,
                result=bare,
                agent_key=self.answers.key.public,
                network=NETWORK,
                salt=SALT,
                accepted_ms=START_MS,
            )
        )
        self.outputs.append(outputs)
        return Answer("job", self.outputs[self.shows], "v", "c", AGENT.id, 1, b"{}", 0.0, 1)

    def receipt(self, job_id: str) -> bytes:
        """Return the receipt of a job: by default the right one."""
        return self.receipts[self.shows]


@pytest.fixture
def coordinator() -> Any:  # noqa: ANN401 a generator of one
    """Return a coordinator, and close the client that it stands in for."""
    with Coordinator() as found:
        yield found


def refused(coordinator: Coordinator, *codes: str) -> None:
    """Assert that nothing is opened, with one of these codes."""
    with pytest.raises(PeerError) as caught:
        infer_sealed(coordinator, "digits", (IMAGE,), agent=AGENT.id)
    assert caught.value.error_code in codes


def test_an_honest_coordinator_is_believed(coordinator: Coordinator) -> None:
    """Without this the tests below could refuse for a wrong reason."""
    assert infer_sealed(coordinator, "digits", (IMAGE,), agent=AGENT.id).outputs == answer_to(IMAGE)


def test_a_receipt_by_another_key_than_the_pinned_one_is_refused() -> None:
    """Whatever key the coordinator says is its own: the client was given one from a source that its user trusts."""
    with Coordinator(pinned=key("another coordinator").public) as other:
        refused(other, "bad-signature", "unknown-key")
    with Coordinator(pinned=COORDINATOR_KEY.public) as right:
        assert infer_sealed(right, "digits", (IMAGE,), agent=AGENT.id).outputs == answer_to(IMAGE)


def test_a_coordinator_that_names_its_own_key_gets_nothing(coordinator: Coordinator) -> None:
    """In a birth of its own, of another agent, of another network, or with one byte changed: nothing is sent."""
    own = SealingKey.generate(b"\6" * 32)
    altered = birth_of(AGENT).replace(SEALING.public, own.public)
    births = [
        (birth_of(AGENT, COORDINATOR_KEY, own), ("unknown-key", "wrong-agent", "bad-signature")),
        (birth_of(MALLORY, sealing=own), ("wrong-agent",)),
        (altered, ("bad-signature",)),
        (b"", ("malformed",)),
    ]
    assert altered != birth_of(AGENT)
    for birth, codes in births:
        coordinator.birth = birth
        refused(coordinator, *codes)
    assert coordinator.sent == []


def test_a_coordinator_that_answers_itself_is_not_believed(coordinator: Coordinator) -> None:
    """By another agent's signature, with the answer to another question, for another model, or with other outputs."""
    coordinator.answers = MALLORY
    refused(coordinator, "wrong-agent")
    coordinator.answers = AGENT
    coordinator.shows = 0
    coordinator.receipts.clear()
    coordinator.outputs.clear()
    assert infer_sealed(coordinator, "digits", (IMAGE,), agent=AGENT.id).outputs
    refused(coordinator, "wrong-input")  # the first answer and its receipt, once more
    coordinator.shows = -1
    coordinator.claims = {"family": "letters"}
    refused(coordinator, "wrong-agent")
    coordinator.claims = {"outputs": (TensorDigest.of(IMAGE), TensorDigest.of(IMAGE))}
    refused(coordinator, "wrong-output", "malformed")


def test_outputs_of_another_sealed_job_are_not_taken(coordinator: Coordinator) -> None:
    """The right receipt beside the outputs of an earlier answer."""
    infer_sealed(coordinator, "digits", (IMAGE,), agent=AGENT.id)
    earlier = coordinator.outputs[0]
    genuine = coordinator.infer_json

    def swapped(family: str, request: bytes, **given: Any) -> Answer:  # noqa: ANN401 passed over
        return replace(genuine(family, request, **given), outputs=earlier)

    coordinator.infer_json = swapped  # type: ignore[method-assign] # a liar from now on
    refused(coordinator, "wrong-output")


def test_keys_are_not_mixed_up() -> None:
    """The names in this file are of different keys."""
    assert len({AGENT.id, MALLORY.id, COORDINATOR_KEY.public.id, key("other").public.id}) == 4
