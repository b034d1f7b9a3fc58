"""Parties whose signature is right and whose words are hostile: coordinators, agents, registrars."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Final

import receipt_logs
import wire_samples
from fakes import NETWORK, CoordinatorScript, FakeAgent, ManualClock, jobs_for
from target import Target
from wire_samples import AGENT, COORDINATOR, NOW_MS, REGISTRAR

from edge_agent.coordinator.events import MessageReceived
from edge_agent.coordinator.rules import Rules
from edge_agent.errors import PeerError
from edge_agent.wire import cose, strict_cbor
from edge_agent.wire.bundles import verify_tree_head
from edge_agent.wire.certificates import check_certificate
from edge_agent.wire.envelope import CONTENT_TYPE
from edge_agent.wire.identity import Certificate, Revocations
from edge_agent.wire.in_toto import statement as in_toto
from edge_agent.wire.messages import TreeHead
from edge_agent.wire.receipts import make_receipt, verify_receipt
from edge_agent.wire.standing import check_belonged, check_not_revoked, open_revocations
from edge_agent.wire.terms import Terms

PEER: Final = (PeerError,)


def _payload(signed: bytes) -> bytes:
    return cose.parse_sign1(signed, len(signed)).payload


def _signed(key: wire_samples.SigningKey, payload: bytes) -> bytes:
    return cose.sign1(key, payload, content_type=CONTENT_TYPE)


# -- a coordinator, in its receipts -----------------------------------------------------------------------------------


@cache
def _receipt_samples() -> list[bytes]:
    """For `r` the receipt around a rightly signed result, for `a` the agent's result in a right receipt."""
    receipt = receipt_logs.receipt(1)
    heads = [each for _, each, _ in wire_samples.one_of_each() if isinstance(each, TreeHead)]
    result = strict_cbor.encode(wire_samples.result().said())
    return [b"r" + _payload(receipt), b"a" + result, *(b"h" + strict_cbor.encode(head.said()) for head in heads)]


def _receipt(data: bytes) -> None:
    rest = data[1:]
    if data[:1] == b"h":
        verify_tree_head(_signed(COORDINATOR, rest), COORDINATOR.public)
        return
    if data[:1] == b"a":
        made = make_receipt(
            COORDINATOR,
            result=_signed(AGENT, rest),
            agent_key=AGENT.public,
            network=wire_samples.NETWORK,
            salt=wire_samples.SALT,
            accepted_ms=NOW_MS,
        )
    else:
        made = _signed(COORDINATOR, rest)
    found = verify_receipt(made, COORDINATOR.public)
    in_toto(found, made)
    with suppress(PeerError):
        found.check_outputs((wire_samples.OUTPUT,))
    with suppress(PeerError):
        check_belonged(found, REGISTRAR.public)


# -- a registrar, or a coordinator, about identities ------------------------------------------------------------------


def _identity_samples() -> list[bytes]:
    kinds = {Certificate: b"c", Revocations: b"l"}
    said = [(each, kinds[type(each)]) for _, each, _ in wire_samples.one_of_each() if type(each) in kinds]
    return [first + strict_cbor.encode(each.said()) for each, first in said]


@cache
def _known_receipt() -> object:
    return verify_receipt(receipt_logs.receipt(1), COORDINATOR.public)


def _identity(data: bytes) -> None:
    signed = _signed(REGISTRAR, data[1:])
    if data[:1] == b"c":
        check_certificate(
            signed, REGISTRAR.public, network=wire_samples.NETWORK, at_ms=NOW_MS, agent_id=AGENT.public.id
        )
        return
    found = open_revocations(signed, (COORDINATOR.public, REGISTRAR.public), network=wire_samples.NETWORK)
    check_not_revoked(_known_receipt(), found)  # type: ignore[arg-type] # a VerifiedReceipt


# -- an agent that is enrolled ----------------------------------------------------------------------------------------

CHANNELS: Final = ("results", "birth", "offers", "progress", "gone", "status")


class _Scene:
    """A coordinator with a job at an agent; what is said may change how it stands, and must never end it."""

    def __init__(self) -> None:
        self.script = CoordinatorScript(ManualClock(), rules=Rules(messages_per_second=1e12))
        self.agent = FakeAgent("agent", self.script.clock)
        self.script.connect()
        self.script.join(self.agent)
        _, commands = self.script.submit(3)
        (self.opened,) = jobs_for(self.agent, commands)
        self.said = 0


_scenes: list[_Scene] = []


def _scene() -> _Scene:
    """Return the scene; a new one after some hundred messages, so that there is always a job to be answered."""
    if not _scenes or _scenes[0].said >= 200:
        _scenes[:] = [_Scene()]
    return _scenes[0]


def _agent_samples() -> list[bytes]:
    scene = _Scene()
    agent = scene.agent
    said = (
        agent.result(scene.opened),
        agent.birth(session=9),
        agent.offers(terms=Terms(clients=("ada",), first=("grace",), labels=("family",), denied=("press",))),
        agent.progress((scene.opened.statement.job, 1)),
        agent.gone(9),
        agent.status(),
    )
    return [
        bytes((number,)) + _payload(event.payload[: cose.sign1_end(event.payload)]) for number, event in enumerate(said)
    ]


def _agent(data: bytes) -> None:
    """Let the coordinator receive what its agent has signed, with the outputs that belong to the job."""
    scene = _scene()
    scene.said += 1
    agent = scene.agent
    channel = CHANNELS[data[0] % len(CHANNELS)] if data else "results"
    tensors = [tensor.data for tensor in agent.outputs(scene.opened)] if channel == "results" else []
    message = _signed(agent.key, data[1:]) + b"".join(map(strict_cbor.encode, tensors))
    scene.script.tell(MessageReceived(f"ea1/{NETWORK}/{agent.id}/{channel}", message))


HOSTILE_TARGETS: Final = (
    Target("signed-receipt", _receipt, PEER, _receipt_samples, "a coordinator that was taken over", 10, "cbor", 1),
    Target(
        "identity", _identity, PEER, _identity_samples, "a registrar or coordinator that was taken over", 5, "cbor", 1
    ),
    Target("enrolled-agent", _agent, (), _agent_samples, "an agent that is enrolled", 10, "cbor", 1),
)
