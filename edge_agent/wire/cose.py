"""COSE_Sign1 (RFC 9052, section 4.2) with EdDSA over Ed25519 (RFC 9053, section 2.2) only.

What a signature covers is the Sig_structure of RFC 9052, section 4.4: the protected header exactly as
its bytes came, the external data, and the payload. Nothing is encoded again before a check.

What one key says at one moment may be signed at once: then the payload of the Sig_structure is not the one that the
message carries but the size and the root of a Merkle tree (RFC 9162), a leaf of which it is. The proof of that stands
in the unprotected header, so that each message can be verified alone; the content type says which of the two it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edge_agent.errors import MalformedError, SignatureRefusedError, TooLargeError
from edge_agent.wire import merkle, strict_cbor
from edge_agent.wire.cbor_items import byte_string_at, byte_string_head, item_end
from edge_agent.wire.keys import SIGNATURE_BYTES, PublicKey, SigningKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Header labels, RFC 9052 section 3.1.
ALGORITHM, CRITICAL, CONTENT_TYPE, KEY_ID = 1, 2, 3, 4
EDDSA = -8
SIGN1_TAG = 18
MAX_HEADER_BYTES = 1024
_MAX_HEADER_ITEMS = 64
PROOF = "proof"
"""Label of the proof in the unprotected header: the leaf's number, the tree's size, and the hashes of the path."""
MAX_TOGETHER = 64
"""Messages under one signature."""
_MAX_PATH = 6  # hashes of a proof in a tree of `MAX_TOGETHER` leaves
# What a COSE_Sign1 of ours adds to its payload (356 bytes at most, 133 without a proof), rounded up.
MAX_OVERHEAD_BYTES = 384
_VERIFIED = 256  # signatures that are remembered as good

TAGGED = 0xC0 | SIGN1_TAG
"""The first byte of a tagged COSE_Sign1."""
_ARRAY_OF_4 = b"\x84"
_HEAD = bytes((TAGGED,)) + _ARRAY_OF_4
_EMPTY_MAP = b"\xa0"
_SIGNED_ARRAY = _ARRAY_OF_4 + b"\x6aSignature1"


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
        (
            _SIGNED_ARRAY,
            byte_string_head(len(protected)),
            protected,
            byte_string_head(len(external_aad)),
            external_aad,
            byte_string_head(len(payload)),
            payload,
        )
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
    message = put_together(protected, unprotected or {}, payload, signature)
    return message if tagged else message[1:]


def put_together(protected: bytes, unprotected: Mapping[int | str, Any], payload: bytes, signature: bytes) -> bytes:
    """Return the tagged COSE_Sign1 of these parts."""
    return b"".join(
        (
            _HEAD,
            byte_string_head(len(protected)),
            protected,
            strict_cbor.encode(dict(unprotected)) if unprotected else _EMPTY_MAP,
            byte_string_head(len(payload)),
            payload,
            byte_string_head(len(signature)),
            signature,
        )
    )


def sign_together(
    key: SigningKey,
    payloads: Sequence[bytes],
    *,
    content_type: str,
    together_type: str,
    unprotected: Sequence[Mapping[int | str, Any]] = (),
) -> list[bytes]:
    """Sign several payloads with one signature, and return a tagged COSE_Sign1 of each; a single one is signed plainly.

    Args:
        key: who signs.
        payloads: at most `MAX_TOGETHER`.
        content_type: the media type of a payload that is signed alone.
        together_type: the media type that says that there is a proof.
        unprotected: for each payload, further header entries that the signature does not cover; or none at all.
    """
    more = unprotected or [{}] * len(payloads)
    if len(payloads) == 1:
        return [sign1(key, payloads[0], content_type=content_type, unprotected=more[0])]
    root, paths = merkle.whole_tree([merkle.leaf_hash(payload) for payload in payloads])
    protected = _protected(key.public.id_bytes, together_type)
    signature = _byte_string(key.sign(sig_structure(protected, b"", _tree(len(payloads), root))))
    head = _HEAD + _byte_string(protected)
    return [
        b"".join(
            (
                head,
                _header({**entries, PROOF: [index, len(payloads), *path]}),
                _byte_string(payload),
                signature,
            )
        )
        for index, (payload, path, entries) in enumerate(zip(payloads, paths, more, strict=True))
    ]


def _header(entries: dict[int | str, Any]) -> bytes:
    order = _text_order(tuple(entries))
    return strict_cbor.encode_ordered({name: entries[name] for name in order})


_text_order = lru_cache(maxsize=64)(strict_cbor.text_order)
"""The labels beside a proof are few, and all of them are texts."""


def sign1_end(data: bytes | memoryview, start: int = 0) -> int:
    """Return the offset behind the COSE_Sign1 that begins at `start`, looking only at lengths.

    Raises:
        MalformedError: there is none.
    """
    return _spans(data, start)[-1]


def parse_sign1(data: bytes | memoryview, max_bytes: int) -> Sign1:
    """Take a COSE_Sign1, tagged or not, apart. Checks its structure only.

    Raises:
        TooLargeError: longer than `max_bytes`, or a header longer than 1024 bytes.
        MalformedError: anything but one COSE_Sign1, in its one encoding, with its payload inside.
    """
    if len(data) > max_bytes:
        raise TooLargeError(f"A signed statement of {len(data)} bytes is longer than the limit of {max_bytes} bytes.")
    message, end = first_sign1(data, max_bytes)
    if end != len(data):
        raise MalformedError(f"{len(data) - end} bytes follow the end of the COSE_Sign1.")
    return message


def first_sign1(data: bytes | memoryview, max_bytes: int) -> tuple[Sign1, int]:
    """Take the COSE_Sign1 at the start of `data` apart; return the offset behind it, too.

    Raises:
        TooLargeError: longer than `max_bytes`, or a header longer than 1024 bytes.
        MalformedError: as `parse_sign1`.
    """
    protected_at, protected_end, unprotected_end, payload_at, payload_end, signature_at, end = _spans(data, 0)
    if end > max_bytes:
        raise TooLargeError(f"A signed statement of {end} bytes is longer than the limit of {max_bytes} bytes.")
    unprotected_bytes = bytes(data[protected_end:unprotected_end])
    unprotected = {} if unprotected_bytes == _EMPTY_MAP else _parse_header(unprotected_bytes, "unprotected header")
    protected_bytes = bytes(data[protected_at:protected_end])
    protected = dict(_protected_header(protected_bytes)) if protected_bytes else {}
    if unprotected and protected.keys() & unprotected.keys():
        raise MalformedError("A COSE header label stands in both the protected and the unprotected header.")
    payload, signature = bytes(data[payload_at:payload_end]), bytes(data[signature_at:end])
    return Sign1(protected, unprotected, payload, signature, protected_bytes), end


def unprotected_span(data: bytes) -> tuple[int, int] | None:
    """Return where the unprotected header of a COSE_Sign1 begins and ends, for who knows what it looks like.

    None if the rest of it is anything else than a tag and the protected header that all messages here have.

    Raises:
        MalformedError: there is no COSE_Sign1.
    """
    protected_at, protected_end, unprotected_end, *_, end = _spans(data, 0)
    usual = data[0] == TAGGED and end == len(data) and protected_at < protected_end
    if usual and _protected_header(data[protected_at:protected_end]).keys() == {ALGORITHM, CONTENT_TYPE, KEY_ID}:
        return protected_end, unprotected_end
    return None


def _spans(data: bytes | memoryview, start: int) -> tuple[int, int, int, int, int, int, int]:
    """Return where the protected header, the payload and the signature begin and end; between them is the other header.

    Raises:
        MalformedError: there is no COSE_Sign1 at `start`.
    """
    at = start + 1 if start < len(data) and data[start] == TAGGED else start
    if at >= len(data) or data[at] != _ARRAY_OF_4[0]:
        raise MalformedError("The message does not start with a COSE_Sign1 (CBOR tag 18, array of 4).")
    protected_at, protected_end = byte_string_at(data, at + 1, "The protected header of the COSE_Sign1")
    if protected_end < len(data) and data[protected_end] == _EMPTY_MAP[0]:
        unprotected_end = protected_end + 1
    else:
        unprotected_end = item_end(data, protected_end, max_depth=3, max_items=_MAX_HEADER_ITEMS)
    payload_at, payload_end = byte_string_at(data, unprotected_end, "The payload of the COSE_Sign1")
    signature_at, end = byte_string_at(data, payload_end, "The signature of the COSE_Sign1")
    return protected_at, protected_end, unprotected_end, payload_at, payload_end, signature_at, end


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
    payload = _tree_above(message) if PROOF in message.unprotected else message.payload
    signed = sig_structure(message.protected_bytes, external_aad, payload)
    if PROOF in message.unprotected:
        _verify_once(key, message.signature, signed)
    else:
        key.verify(message.signature, signed)
    return message.payload


@lru_cache(maxsize=_VERIFIED)
def _verify_once(key: PublicKey, signature: bytes, signed: bytes) -> None:
    """Verify the signature of several messages at the first of them; a refusal is remembered by nobody."""
    key.verify(signature, signed)


def _tree_above(message: Sign1) -> bytes:
    """Return what was signed in place of a payload: the tree in which its proof shows it to be."""
    proof = message.unprotected[PROOF]
    if not isinstance(proof, list) or not 2 <= len(proof) <= 2 + _MAX_PATH:
        raise MalformedError("The proof in the unprotected header is not two numbers and the hashes of a path.")
    index, size, *path = proof
    if not all(isinstance(entry, bytes) and len(entry) == merkle.HASH_BYTES for entry in path):
        raise MalformedError("An entry of the path in the unprotected header is no hash.")
    if type(index) is not int or type(size) is not int or not 0 <= index < size <= MAX_TOGETHER:
        raise MalformedError(f"The proof in the unprotected header is not for one of {MAX_TOGETHER} messages at most.")
    return _tree(size, merkle.root_above(merkle.leaf_hash(message.payload), index, size, path))


def _tree(size: int, root: bytes) -> bytes:
    return strict_cbor.encode([size, root])


@lru_cache(maxsize=64)
def _protected(key_id: bytes, content_type: str) -> bytes:
    """Return the protected header, which is the same under everything that a key signs."""
    return strict_cbor.encode({ALGORITHM: EDDSA, CONTENT_TYPE: content_type, KEY_ID: key_id})


def _byte_string(content: bytes) -> bytes:
    return byte_string_head(len(content)) + content


@lru_cache(maxsize=256)
def _protected_header(data: bytes) -> dict[int | str, Any]:
    # A peer's protected header is the same in each of its messages. At most 256 of at most MAX_HEADER_BYTES are kept.
    # The other header is not: salts and proofs are not said twice.
    return _parse_header(data, "protected header")


def _parse_header(data: bytes, what: str) -> dict[int | str, Any]:
    value = strict_cbor.decode(data, max_bytes=MAX_HEADER_BYTES, max_depth=3, max_items=_MAX_HEADER_ITEMS)
    if not isinstance(value, dict):
        raise MalformedError(f"The {what} of the COSE_Sign1 is not a map.")
    return value
