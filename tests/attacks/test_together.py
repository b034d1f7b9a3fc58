"""Statements that share one signature: each verifies alone, and no proof makes anything of what was not signed."""

from __future__ import annotations

from typing import Any

import pytest
from wire_samples import AGENT as AGENT_KEY
from wire_samples import COORDINATOR as COORDINATOR_KEY
from wire_samples import NETWORK

from edge_agent.errors import EdgeAgentError, MalformedError, RefusedError, SignatureRefusedError
from edge_agent.wire import cose, envelope, strict_cbor
from edge_agent.wire.envelope import CONTENT_TYPE, TOGETHER_TYPE, messages_in, open_envelope, seal, seal_together
from edge_agent.wire.messages import Failure, Settled, SettledAttempt

MAX_BYTES = 100_000
CONTROL = AGENT_KEY.public.id


def settled(number: int) -> Settled:
    """Make a statement of the coordinator's that differs from its neighbours."""
    attempt = SettledAttempt(job=number.to_bytes(16, "big"), epoch=1, outcome="accepted", code=None)
    return Settled(network=NETWORK, issued_ms=number, agent_id=CONTROL, settled=(attempt,))


def together(count: int) -> list[bytes]:
    """Sign so many with one signature."""
    return seal_together(COORDINATOR_KEY, [(settled(number), ()) for number in range(count)])


def opened(message: bytes) -> Settled:
    """Open one alone, as if none of the others had ever been."""
    cose._verify_once.cache_clear()
    return open_envelope(message, COORDINATOR_KEY.public, Settled, network=NETWORK, max_bytes=MAX_BYTES).statement


def rebuilt(
    message: bytes, *, protected: bytes | None = None, payload: bytes | None = None, **unprotected: object
) -> bytes:
    """Put a message together anew with some parts changed."""
    parts = cose.parse_sign1(message, MAX_BYTES)
    header = {**parts.unprotected, **unprotected}
    fields = [
        protected if protected is not None else parts.protected_bytes,
        {key: value for key, value in header.items() if value is not None},
        payload if payload is not None else parts.payload,
        parts.signature,
    ]
    return b"\xd2" + strict_cbor.encode(fields)


def proof(message: bytes) -> list[object]:
    """Return the proof that a message carries."""
    return list(cose.parse_sign1(message, MAX_BYTES).unprotected[cose.PROOF])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 64, 65, 130])
def test_each_of_many_verifies_alone(count: int) -> None:
    """Whatever their number; a single one, also the last of 65, is signed plainly."""
    messages = together(count)
    assert [opened(message) for message in messages] == [settled(number) for number in range(count)]
    plain = [message for message in messages if not cose.parse_sign1(message, MAX_BYTES).unprotected]
    assert len(plain) == (count % cose.MAX_TOGETHER == 1)
    longest = max(len(m) - len(cose.parse_sign1(m, MAX_BYTES).payload) for m in messages)
    assert longest <= cose.MAX_OVERHEAD_BYTES


def test_one_signature_is_verified_once_for_all_and_a_bad_one_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is that a signature was good, never that it was not."""
    messages = together(8)
    cose._verify_once.cache_clear()
    for message in messages:
        open_envelope(message, COORDINATOR_KEY.public, Settled, network=NETWORK, max_bytes=MAX_BYTES)
    assert cose._verify_once.cache_info().misses == 1
    forged = rebuilt(messages[0], payload=strict_cbor.encode(settled(99).model_dump()))
    for _ in range(2):
        with pytest.raises(SignatureRefusedError):
            open_envelope(forged, COORDINATOR_KEY.public, Settled, network=NETWORK, max_bytes=MAX_BYTES)
    assert cose._verify_once.cache_info().currsize == 1


def test_a_good_signature_vouches_for_nothing_beside_it() -> None:
    """Another payload under a neighbour's proof, a proof of another place, a cut or longer path: refused."""
    messages = together(8)
    other = cose.parse_sign1(messages[5], MAX_BYTES).payload
    good = proof(messages[2])
    wrong = [
        rebuilt(messages[2], payload=other),
        rebuilt(messages[2], payload=strict_cbor.encode(settled(77).model_dump())),
        rebuilt(messages[2], proof=[3, *good[1:]]),
        rebuilt(messages[2], proof=[2, 7, *good[2:]]),
        rebuilt(messages[2], proof=good[:-1]),
        rebuilt(messages[2], proof=[*good, bytes(32)]),
        rebuilt(messages[2], proof=[*good[:2], bytes(32), *good[3:]]),
        rebuilt(messages[2], proof=proof(messages[3])),
    ]
    for message in wrong:
        with pytest.raises((SignatureRefusedError, RefusedError)):
            opened(message)
    assert opened(messages[2]) == settled(2)


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [0],
        [0, 65, bytes(32)],
        [2, 2, bytes(32)],
        [-1, 2, bytes(32)],
        [True, 2, bytes(32)],
        [0, 2, b"short"],
        [0, 2, "text"],
        [0, 64, *[bytes(32)] * 7],
        "proof",
        {0: 2},
    ],
    ids=repr,
)
def test_a_proof_that_is_none_is_refused_before_any_arithmetic(bad: object) -> None:
    """Two small numbers and at most six hashes, or it is malformed."""
    with pytest.raises(MalformedError):
        opened(rebuilt(together(2)[0], proof=bad))


def test_nobody_is_talked_out_of_the_proof_or_into_one() -> None:
    """The content type is signed: a message with a proof is not taken without it, nor a plain one with one."""
    plain, one_of_two = seal(COORDINATOR_KEY, settled(1)), together(2)[0]
    for message in (
        rebuilt(one_of_two, proof=None),
        rebuilt(plain, proof=[0, 1]),
        rebuilt(plain, proof=[0, 2, bytes(32)]),
    ):
        with pytest.raises(EdgeAgentError):
            opened(message)
    types = {plain: CONTENT_TYPE, one_of_two: TOGETHER_TYPE}
    for message, other in ((plain, TOGETHER_TYPE), (one_of_two, CONTENT_TYPE)):
        header = dict(cose.parse_sign1(message, MAX_BYTES).protected)
        assert header[cose.CONTENT_TYPE] == types[message]
        with pytest.raises(EdgeAgentError):
            opened(rebuilt(message, protected=strict_cbor.encode({**header, cose.CONTENT_TYPE: other})))


def test_a_signed_tree_is_no_statement() -> None:
    """What the signature covers, sent as a payload of its own, opens as nothing."""
    size_and_root = cose._tree_above(cose.parse_sign1(together(2)[0], MAX_BYTES))
    with pytest.raises(EdgeAgentError):
        opened(rebuilt(together(2)[0], payload=size_and_root, proof=None))


def test_another_header_beside_the_proof_is_refused() -> None:
    """Nothing rides along where no signature covers it."""
    with pytest.raises(MalformedError):
        opened(rebuilt(together(2)[0], salt=bytes(32)))


def test_a_packet_of_a_million_empty_tensors_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays one message after as many as one may have: the network's thread has other things to do."""
    looked = 0
    genuine = envelope.byte_string_at

    def counted(*arguments: Any) -> Any:  # noqa: ANN401 passed on
        nonlocal looked
        looked += 1
        return genuine(*arguments)

    monkeypatch.setattr(envelope, "byte_string_at", counted)
    first, second = together(2)
    packet = first + b"\x40" * 1_000_000 + second
    assert messages_in(packet) == [packet]
    assert looked < 1_000


def test_a_packet_of_messages_comes_apart_into_them_and_nothing_else_does() -> None:
    """What looks wrong stays one message, which whoever opens it refuses; nothing is lost or invented."""
    messages = [*together(3), seal(COORDINATOR_KEY, settled(9))]
    packet = b"".join(messages)
    assert messages_in(packet) == messages
    failure = seal(
        AGENT_KEY,
        Failure(
            network=NETWORK,
            issued_ms=1,
            job=bytes(16),
            epoch=1,
            agent_id=AGENT_KEY.public.id,
            code="worker-died",
            message="",
            blame="agent",
            retry=True,
            retry_after_ms=0,
        ),
    )
    for whole in (
        b"",
        b"\xd2",
        messages[0],
        messages[0][:-1],
        packet[:-1],
        packet + b"\x00",
        b"\x41a" + packet,
        failure,
    ):
        assert messages_in(whole) == [whole]
    too_many = messages[3] * 257
    assert messages_in(too_many) == [too_many]
    tensors = messages[3] + b"\x43abc" + messages[3] + b"\x40"
    assert messages_in(tensors) == [messages[3] + b"\x43abc", messages[3] + b"\x40"]
