"""Enrolment tokens, the proofs made from them, and the short code that both sides of an enrolment show.

A token is what an operator hands to an owner: a secret of 128 bits with the id of the coordinator that it is from and
the network's name. The secret never travels: an enrolment carries a MAC over the two keys that meet, which is worth
nothing to whoever is in between (`proof`). Without a token a person compares a code on both sides. It comes from both
keys and two random numbers, of which the agent's is committed to before it knows the other, so that nobody in between
can search for keys that give the same code on both sides: they are right once in 2^40 attempts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

from edge_agent.errors import UsageError
from edge_agent.wire.keys import KEY_ID_BYTES, PublicKey, key_id_text
from edge_agent.wire.topics import NETWORK_PATTERN

SECRET_BYTES = 16
NONCE_BYTES = 32
CODE_BYTES = 5
MAX_TOKEN_CHARACTERS = 160
_PREFIX = "ea1-"
_CHECK_BYTES = 3
_NETWORK = re.compile(NETWORK_PATTERN)


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart. Its `repr` shows no secret.

    Attributes:
        network: that it is for.
        coordinator_id: of the coordinator that it is from.
        secret: 16 random bytes.
    """

    network: str
    coordinator_id: str
    secret: bytes

    def text(self) -> str:
        """Return what the operator hands over: one word of letters and digits."""
        content = self.secret + _id_bytes(self.coordinator_id) + self.network.encode()
        encoded = base64.b32encode(content + _check(content)).decode().rstrip("=").lower()
        return _PREFIX + encoded

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token; spaces and line breaks around it do not matter.

        Raises:
            UsageError: it is none, or was not copied whole.
        """
        content, check = _decoded(text.strip())
        network = content[SECRET_BYTES + KEY_ID_BYTES :].decode("latin-1")
        if check != _check(content) or not _NETWORK.fullmatch(network):
            # Without the text: what was copied in part is still half a secret.
            raise UsageError(
                "That is no enrolment token, or not the whole of it.",
                hint="Copy the whole line that `edge-agent coordinator token` printed, from ea1- to its end.",
            )
        coordinator = key_id_text(content[SECRET_BYTES : SECRET_BYTES + KEY_ID_BYTES])
        return cls(network, coordinator, content[:SECRET_BYTES])

    @property
    def id(self) -> bytes:
        """What names the token without showing it, 16 bytes."""
        return token_id(self.secret)

    def proof(self, agent: PublicKey) -> bytes:
        """Return the proof that the holder of the agent's key knows this token."""
        return proof(mac_key(self.secret), self.network, self.coordinator_id, agent)

    def __repr__(self) -> str:
        return f"Token({self.network!r}, {self.coordinator_id!r}, …)"


def token_id(secret: bytes) -> bytes:
    """Return what names a token, 16 bytes."""
    return hashlib.sha256(b"edge-agent token id v1\0" + secret).digest()[:16]


def mac_key(secret: bytes) -> bytes:
    """Return what proofs of a token are made with: all that the coordinator keeps of it besides its id."""
    return hashlib.sha256(b"edge-agent token key v1\0" + secret).digest()


def proof(key: bytes, network: str, coordinator_id: str, agent: PublicKey) -> bytes:
    """Return the MAC, 32 bytes: for this network, this coordinator and this agent's key."""
    said = b"\0".join((b"edge-agent enrol v1", network.encode(), coordinator_id.encode(), agent.raw))
    return hmac.digest(key, said, "sha256")


def commitment(opening: bytes) -> bytes:
    """Return the commitment to 32 random bytes."""
    return hashlib.sha256(b"edge-agent opening v1\0" + opening).digest()


def code(network: str, coordinator: PublicKey, agent: PublicKey, opening: bytes, nonce: bytes) -> str:
    """Return the code that both sides show: `abcd-efgh`."""
    said = b"\0".join((b"edge-agent code v1", network.encode(), coordinator.raw + agent.raw + opening + nonce))
    text = base64.b32encode(hashlib.sha256(said).digest()[:CODE_BYTES]).decode().lower()
    return f"{text[:4]}-{text[4:]}"


def _decoded(word: str) -> tuple[bytes, bytes]:
    """Return what a token says, and its check; nothing where it is none."""
    body = word.removeprefix(_PREFIX).upper()
    if not word.startswith(_PREFIX) or len(word) > MAX_TOKEN_CHARACTERS:
        return b"", b""
    try:
        content = base64.b32decode(body + "=" * (-len(body) % 8))
    except (ValueError, binascii.Error):
        return b"", b""
    return content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]


def _id_bytes(key_id: str) -> bytes:
    return base64.b32decode(key_id.upper())


def _check(content: bytes) -> bytes:
    return hashlib.sha256(b"edge-agent token v1\0" + content).digest()[:_CHECK_BYTES]
