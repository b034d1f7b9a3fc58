"""COSE_Sign1 (RFC 9052, section 4.2) with EdDSA over Ed25519 (RFC 9053, section 2.2) only.

What a signature covers is the Sig_structure of RFC 9052, section 4.4: the protected header exactly as
its bytes came, the external data, and the payload. Nothing is encoded again before a check.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edge_agent.errors import MalformedError, SignatureRefusedError, TooLargeError
from edge_agent.wire import strict_cbor
from edge_agent.wire.keys import SIGNATURE_BYTES, PublicKey, SigningKey

if TYPE_CHECKING:
    from collections.abc import Mapping

# Header labels, RFC 9052 section 3.1.
ALGORITHM, CRITICAL, CONTENT_TYPE, KEY_ID = 1, 2, 3, 4
EDDSA = -8
SIGN1_TAG = 18
MAX_HEADER_BYTES = 1024
# What a COSE_Sign1 of ours adds to its payload (133 bytes at most), rounded up.
MAX_OVERHEAD_BYTES = 160

_TAGGED = bytes((0xC0 | SIGN1_TAG,))
_ARRAY_OF_4 = b"\x84"
_EMPTY_MAP = b"\xa0"
_SIGNATURE1 = b"\x6aSignature1"


@dataclass(frozen=True, slots=True)
class Sign1:
    """A COSE_Sign1 taken apart. Nothing in it is to be trusted before `verify_sign1` has returned."""

    protected: dict[int | str, Any]
    unprotected: dict[int | str, Any]
    payload: bytes
    signature: bytes
    protected_bytes: bytes

    @property
    def key_id(self) -> bytes | None:
        """The id of the key that is said to have signed: a hint, from either header."""
        value = self.protected.get(KEY_ID, self.unprotected.get(KEY_ID))
        return value if isinstance(value, bytes) else None


def sig_structure(protected: bytes, external_aad: bytes, payload: bytes) -> bytes:
    """Return the bytes that are signed (RFC 9052, section 4.4)."""
    return b"".join(
        (_ARRAY_OF_4, _SIGNATURE1, _byte_string(protected), _byte_string(external_aad), _byte_string(payload))
    )


def sign1(  # noqa: PLR0913 - the parts of a COSE_Sign1, all but two by name
    key: SigningKey,
    payload: bytes,
    *,
    content_type: str,
    external_aad: bytes = b"",
    unprotected: Mapping[int | str, Any] | None = None,
    tagged: bool = True,
) -> bytes:
    """Sign `payload` and return the COSE_Sign1.

    Args:
        key: who signs; its id goes into the protected header.
        payload: the bytes to be signed, which are carried inside.
        content_type: the media type of the payload, in the protected header.
        external_aad: bytes that both sides know and that are signed but not carried.
        unprotected: header entries that the signature does not cover.
        tagged: whether the CBOR tag 18 stands in front.
    """
    protected = _protected(key.public.id_bytes, content_type)
    signature = key.sign(sig_structure(protected, external_aad, payload))
    return b"".join(
        (
            _TAGGED if tagged else b"",
            _ARRAY_OF_4,
            _byte_string(protected),
            strict_cbor.encode(dict(unprotected)) if unprotected else _EMPTY_MAP,
            _byte_string(payload),
            _byte_string(signature),
        )
    )


def sign1_end(data: bytes | memoryview) -> int:
    """Return the length of the COSE_Sign1 that `data` starts with, looking only at lengths.

    Raises:
        MalformedError: it does not start with one.
    """
    at = 0
    if len(data) and data[0] == _TAGGED[0]:
        at = 1
    if at >= len(data) or data[at] != _ARRAY_OF_4[0]:
        raise MalformedError("The message does not start with a COSE_Sign1 (CBOR tag 18, array of 4).")
    return strict_cbor.item_end(data, at, max_depth=4, max_items=64)


def parse_sign1(data: bytes | memoryview, max_bytes: int) -> Sign1:
    """Take a COSE_Sign1, tagged or not, apart. Checks its structure only.

    Raises:
        TooLargeError: longer than `max_bytes`, or a header longer than 1024 bytes.
        MalformedError: anything but one COSE_Sign1, in its one encoding, with its payload inside.
    """
    if len(data) > max_bytes:
        raise TooLargeError(f"A signed statement of {len(data)} bytes is longer than the limit of {max_bytes} bytes.")
    end = sign1_end(data)
    if end != len(data):
        raise MalformedError(f"{len(data) - end} bytes follow the end of the COSE_Sign1.")
    at = 2 if data[0] == _TAGGED[0] else 1
    protected_bytes, at = _take_bytes(data, at, "protected header")
    behind = strict_cbor.item_end(data, at)
    unprotected = _header(bytes(data[at:behind]), "unprotected header")
    payload, at = _take_bytes(data, behind, "payload")
    signature, _ = _take_bytes(data, at, "signature")
    protected = _header(protected_bytes, "protected header") if protected_bytes else {}
    if protected.keys() & unprotected.keys():
        raise MalformedError("A COSE header label stands in both the protected and the unprotected header.")
    return Sign1(protected, unprotected, payload, signature, protected_bytes)


def verify_sign1(message: Sign1, key: PublicKey, *, external_aad: bytes = b"") -> bytes:
    """Return the payload if `key` signed it.

    The algorithm is the key's, Ed25519: a message that names another one, or names it where no signature
    covers it, is refused before any arithmetic.

    Raises:
        SignatureRefusedError: code `wrong-algorithm` or `bad-signature`.
        MalformedError: the message insists on header entries that are not understood here (RFC 9052, `crit`).
    """
    algorithm = message.protected.get(ALGORITHM)
    if type(algorithm) is not int or algorithm != EDDSA:
        raise SignatureRefusedError(
            "The signed message does not name EdDSA in its protected header; keys here are Ed25519 keys.",
            code="wrong-algorithm",
        )
    if CRITICAL in message.protected or CRITICAL in message.unprotected:
        raise MalformedError("The signed message has critical header entries, and none is understood here.")
    if len(message.signature) != SIGNATURE_BYTES:
        raise SignatureRefusedError(f"An Ed25519 signature has {SIGNATURE_BYTES} bytes.")
    key.verify(message.signature, sig_structure(message.protected_bytes, external_aad, message.payload))
    return message.payload


@lru_cache(maxsize=64)
def _protected(key_id: bytes, content_type: str) -> bytes:
    """Return the protected header, which is the same under everything that a key signs."""
    return strict_cbor.encode({ALGORITHM: EDDSA, CONTENT_TYPE: content_type, KEY_ID: key_id})


def _byte_string(content: bytes) -> bytes:
    return strict_cbor.byte_string_head(len(content)) + content


def _take_bytes(data: bytes | memoryview, at: int, what: str) -> tuple[bytes, int]:
    head = strict_cbor.read_head(data, at)
    if head.major != strict_cbor.BYTES:
        raise MalformedError(f"The {what} of the COSE_Sign1 is not a byte string.")
    end = head.content + head.argument
    return bytes(data[head.content : end]), end


def _header(data: bytes, what: str) -> dict[int | str, Any]:
    if data == _EMPTY_MAP:
        return {}
    return dict(_parsed_header(data, what))


@lru_cache(maxsize=256)
def _parsed_header(data: bytes, what: str) -> dict[int | str, Any]:
    # A peer's header is the same in each of its messages. At most 256 of at most MAX_HEADER_BYTES are kept.
    value = strict_cbor.decode(data, max_bytes=MAX_HEADER_BYTES, max_depth=3, max_items=64)
    if not isinstance(value, dict):
        raise MalformedError(f"The {what} of the COSE_Sign1 is not a map.")
    return value
