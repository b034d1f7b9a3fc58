"""Sealed jobs from the client's side: neither broker nor coordinator can read the inputs or the outputs.

The agent that computes can. So the client chooses it, by its id, which is the hash of the key that it signs with; the
key that inputs are sealed to stands in the agent's own signed birth, and the outputs' digests in its signed result: the
coordinator passes both on and can change neither.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_agent.client.http import Client
from edge_agent.client.procedures import NO_OPTIONS, Answer
from edge_agent.errors import JobFailedError, MalformedError, RefusedError
from edge_agent.wire.envelope import announced_key, open_envelope
from edge_agent.wire.hpke import HYBRID, X25519, PublicHalf, SecretHalf, new_halves
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import MAX_STATEMENT_BYTES, Birth
from edge_agent.wire.oip_json import tensor_to_json
from edge_agent.wire.receipts import verify_receipt
from edge_agent.wire.sealing import Question, new_salt, open_answer, seal_question
from edge_agent.wire.standing import check_belonged
from edge_agent.wire.tensors import Tensor


@dataclass(frozen=True, slots=True)
class SealedAnswer:
    """What a sealed job gave.

    Attributes:
        outputs: in the clear.
        digest: salted, of the outputs: equal for agents that computed the same on the same inputs with the same salt.
        salt: of the question.
        receipt: the signed receipt; it is about the sealed tensors.
        question: the sealed input, which the receipt names.
        answer: the job as the coordinator saw it, with the sealed outputs.
    """

    outputs: tuple[Tensor, ...]
    agent_id: str
    digest: bytes
    salt: bytes
    receipt: bytes
    question: Tensor
    answer: Answer


def infer_sealed(  # noqa: PLR0913 what a sealed job consists of, all but two by name
    client: Client,
    family: str,
    inputs: Sequence[Tensor],
    *,
    agent: str | None = None,
    outputs: Sequence[str] = (),
    version: str | None = None,
    options: JobOptions = NO_OPTIONS,
    salt: bytes | None = None,
    coordinator: PublicKey | None = None,
) -> SealedAnswer:
    """Run a sealed job and wait for its verified result.

    Args:
        client: of the coordinator that passes it on.
        family: what to run; this, the sizes and the times are not secret.
        inputs: one tensor for each input.
        agent: the id of the agent that may read them. Without one, the first that serves the family is taken: then the
            choice is the coordinator's, who could name one of its own.
        outputs: names of the wanted ones; none means all.
        version: insist on this variant.
        options: deadline, priority and so on; its placement is not used.
        salt: 32 bytes, to compare the digests of several agents; a new one by default.
        coordinator: its key, from a source you trust; by default the one that the client was given, else what the
            coordinator says itself, which is enough for the agent's signature and not for the coordinator's.

    Raises:
        JobFailedError: `no-agent`, or as `Client.infer`.
        PeerError: the agent's birth, its result or the receipt is not what it must be: nothing is believed. With the
            registrar's key given, also its certificate, and then nothing is sent.
        UsageError: `not-supported`: the package cryptography is too old.
    """
    agent_id = agent or _some_agent(client, family)
    about = _object(client.get("/api/v1/coordinator"))
    network = str(about.get("network"))
    if client.registrar_key is not None:  # before anything is sealed to a machine that a coordinator made up
        client.certificate(agent_id)
    birth = _birth(client.get(f"/api/v1/agents/{agent_id}/birth"), agent_id, network)
    keys, salt = new_halves(), salt or new_salt()
    question = Question(family, tuple(inputs), tuple(outputs), salt, tuple(key.public for key in keys))
    asked = seal_question(question, _half(birth, keys), network=network, agent_id=agent_id)
    request = json.dumps({"inputs": [tensor_to_json(asked)]}).encode()
    placed = replace(options, placement=replace(options.placement, agents=(agent_id,)))
    answer = client.infer_json(family, request, version=version, options=placed)
    receipt = client.receipt(answer.job_id)
    trusted = coordinator or client.coordinator_key()
    verified = verify_receipt(receipt, trusted, network=network)
    if verified.agent.id != agent_id or verified.result.family != family:
        raise RefusedError("The receipt is by another agent or for another model than was asked.", code="wrong-agent")
    if client.registrar_key is not None:
        check_belonged(verified, client.registrar_key)
    verified.check_inputs((asked,))
    verified.check_outputs(answer.outputs)
    opened = open_answer(answer.outputs, keys, asked=asked, salt=salt, network=network, agent_id=agent_id)
    return SealedAnswer(opened, agent_id, answer.outputs[1].data, salt, receipt, asked, answer)


def _some_agent(client: Client, family: str) -> str:
    # First those that work for everybody: the others may not take this client's jobs.
    for agent in sorted(client.agents(), key=lambda each: not each.get("for_everybody", True)):
        if agent.get("presence") == "online" and agent.get("sealing_key") and family in agent.get("offers", ()):
            return str(agent["agent_id"])
    raise JobFailedError(f"no agent that takes sealed jobs offers {family} at the moment", code="no-agent")


def _birth(signed: bytes, agent_id: str, network: str) -> Birth:
    """Open an agent's birth; its key proves itself, because the id is its hash."""
    key = announced_key(signed, 2 * MAX_STATEMENT_BYTES)
    if key.id != agent_id:
        raise RefusedError(f"The birth is not that of the agent {agent_id}.", code="wrong-agent")
    return open_envelope(signed, key, Birth, network=network, max_bytes=2 * MAX_STATEMENT_BYTES).statement


def _half(birth: Birth, ours: Sequence[SecretHalf]) -> PublicHalf:
    """Return the best key of an agent that can be sealed to here."""
    if birth.hybrid_key is not None and any(key.suite == HYBRID for key in ours):
        return PublicHalf(HYBRID, birth.hybrid_key)
    if birth.sealing_key is None:
        raise RefusedError(f"the agent {birth.agent_id} takes no sealed jobs", code="wrong-agent")
    return PublicHalf(X25519, birth.sealing_key)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise MalformedError("The coordinator does not say who it is.")
    return found
