"""The change of an agent's key: signed with the old one, and inside it with the new one, so that both agree."""

from __future__ import annotations

from edge_agent.errors import MalformedError, PeerError, SignatureRefusedError
from edge_agent.wire import strict_cbor
from edge_agent.wire.envelope import seal, signed_payload
from edge_agent.wire.identity import Succession
from edge_agent.wire.keys import PublicKey, SigningKey


def make(old: SigningKey, new: SigningKey, *, network: str, new_sealing_key: bytes | None, now_ms: int) -> bytes:
    """Sign that `new` follows `old`."""
    return seal(
        old,
        Succession(
            network=network,
            issued_ms=now_ms,
            agent_id=old.public.id,
            new_key=new.public.raw,
            new_sealing_key=new_sealing_key,
            consent=new.sign(_agreed(network, old.public.id, new.public)),
        ),
    )


def check(statement: Succession) -> PublicKey:
    """Return the new key, which agrees.

    Raises:
        PeerError: it is none, or does not agree.
    """
    new = PublicKey.from_bytes(statement.new_key)
    if new.id == statement.agent_id:
        raise MalformedError("A key cannot follow itself.")
    try:
        new.verify(statement.consent, _agreed(statement.network, statement.agent_id, new))
    except SignatureRefusedError as error:
        raise SignatureRefusedError("The new key does not agree to follow the old one.") from error
    return new


def is_one(data: bytes, max_bytes: int) -> bool:
    """Whether a message would be a succession: not verified, only to tell it from an enrolment."""
    try:
        fields = strict_cbor.decode(signed_payload(data, max_bytes), max_bytes=max_bytes)
    except PeerError:
        return False
    return isinstance(fields, dict) and fields.get("kind") == "succession"


def _agreed(network: str, old_id: str, new: PublicKey) -> bytes:
    return b"\0".join((b"edge-agent succession v1", network.encode(), old_id.encode(), new.raw))
