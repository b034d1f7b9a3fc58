"""Sealing and opening: the only way in and out of the network.

On the wire a message is a CBOR sequence (RFC 8742): one tagged COSE_Sign1 whose payload is a statement,
then one byte string for each tensor that the statement names as attached, in that order, and nothing
else. The signature covers the tensors through their digests, which `attach` checks. A packet of the broker carries one
message, or several behind each other; what one key says at one moment may have one signature.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic import ValidationError

from edge_agent.errors import (
    DigestMismatchError,
    MalformedError,
    PeerError,
    RefusedError,
    SignatureRefusedError,
    TooLargeError,
)
from edge_agent.wire import cose, strict_cbor
from edge_agent.wire.cbor_items import byte_string_at, byte_string_head
from edge_agent.wire.keys import KEY_ID_BYTES, PublicKey, SigningKey, key_id_text
from edge_agent.wire.messages import MAX_TENSORS, PROTOCOL_VERSION, WITH_TERMS, Statement, TensorDigest
from edge_agent.wire.tensors import Tensor, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTENT_TYPE = "application/edge-agent+cbor"
TOGETHER_TYPE = "application/edge-agent-together+cbor"
"""Of a statement that was signed with others: the proof stands in the unprotected header."""
_LARGE_BYTES = 64 * 1024
_HEADER_LABELS = {cose.ALGORITHM, cose.CONTENT_TYPE, cose.KEY_ID}
_PROOF_ALONE = {cose.PROOF}
MAX_MESSAGES = 256
"""In one packet."""
_ANNOUNCED_KEY_FIELDS = ("public_key", "coordinator_key")

S = TypeVar("S", bound=Statement)
S_co = TypeVar("S_co", bound=Statement, covariant=True)


@dataclass(frozen=True, slots=True)
class Opened(Generic[S_co]):
    """A statement whose signature, kind, version and network were checked.

    Only `open_envelope` makes these. `attachments` are views of the message and not yet compared with their
    digests; `signed` is the COSE_Sign1 exactly as it came, to be kept as evidence.
    """

    statement: S_co
    attachments: tuple[memoryview, ...]
    signed: bytes
    key: PublicKey


def seal(key: SigningKey, statement: Statement, tensors: Sequence[bytes | memoryview] = ()) -> bytes:
    """Sign `statement` and return the whole message.

    Args:
        key: who signs.
        statement: what is said.
        tensors: the bytes of `statement.attached`, in that order.

    Raises:
        ValueError: another number of tensors than the statement names.
        TooLargeError: the statement is longer than its kind may be.
    """
    return seal_together(key, [(statement, tensors)])[0]


def seal_together(key: SigningKey, statements: Sequence[tuple[Statement, Sequence[bytes | memoryview]]]) -> list[bytes]:
    """Sign statements, as many of them with one signature as their kinds say; return a message of each.

    Args:
        key: who signs.
        statements: each with its tensors, as `seal` takes them.

    Raises:
        ValueError, TooLargeError: as `seal`; nothing is signed then.
    """
    payloads = [_encoded(statement, tensors) for statement, tensors in statements]
    signed: list[bytes] = []
    most = min((statement.together for statement, _ in statements), default=cose.MAX_TOGETHER)
    for at in range(0, len(payloads), most):
        some = payloads[at : at + most]
        signed += cose.sign_together(key, some, content_type=CONTENT_TYPE, together_type=TOGETHER_TYPE)
    messages = []
    for head, (_, tensors) in zip(signed, statements, strict=True):
        parts: list[bytes | memoryview] = [head]
        for tensor in tensors:
            parts.append(byte_string_head(len(tensor)))
            parts.append(tensor)
        messages.append(b"".join(parts) if tensors else head)
    return messages


def attached_bytes(tensors: Sequence[bytes | memoryview]) -> int:
    """Return how much of a message its tensors take: all that stands behind what is signed."""
    return sum([len(byte_string_head(len(tensor))) + len(tensor) for tensor in tensors])


def _encoded(statement: Statement, tensors: Sequence[bytes | memoryview]) -> bytes:
    if len(tensors) != len(statement.attached):
        raise ValueError(f"A {statement.kind} with {len(statement.attached)} tensors was given {len(tensors)}.")
    payload = statement.encoded()
    if len(payload) > statement.max_statement_bytes:
        raise TooLargeError(
            f"A {statement.kind} of {len(payload)} bytes is longer than its limit of "
            f"{statement.max_statement_bytes} bytes."
        )
    return payload


def messages_in(packet: bytes) -> list[bytes]:
    """Return the messages that a packet carries, in order; nothing about them is verified.

    What does not look like several messages is given back as one, for whoever opens it to refuse.
    """
    view = memoryview(packet)
    starts: list[int] = []
    at = tensors = 0
    try:
        while at < len(view):
            if view[at] == cose.TAGGED:
                if len(starts) == MAX_MESSAGES:
                    return [packet]
                starts.append(at)
                at = cose.sign1_end(view, at)
                tensors = 0
                continue
            tensors += 1
            if tensors > MAX_TENSORS:  # megabytes of empty ones would take seconds to walk
                return [packet]
            _, at = byte_string_at(view, at, "A tensor")
    except PeerError:
        return [packet]
    if len(starts) < 2 or starts[0]:
        return [packet]
    return [packet[start:end] for start, end in itertools.pairwise([*starts, len(packet)])]


def peek_key_id(data: bytes | memoryview, max_bytes: int) -> str:
    """Return the id of the key that the message names: a hint for looking the key up, not yet verified.

    Raises:
        TooLargeError: longer than `max_bytes`.
        MalformedError: not a message of this protocol.
    """
    _refuse_longer(data, max_bytes)
    message, _ = _split(data, cose.MAX_OVERHEAD_BYTES + max_bytes)
    return key_id_text(_signer(message))


def signed_payload(data: bytes | memoryview, max_bytes: int) -> bytes:
    """Return the payload of a message: not verified, a hint at what kind of statement it is.

    Raises:
        TooLargeError: longer than `max_bytes`.
        MalformedError: not a message of this protocol.
    """
    _refuse_longer(data, max_bytes)
    message, _ = _split(data, cose.MAX_OVERHEAD_BYTES + max_bytes)
    return message.payload


def announced_key(data: bytes | memoryview, max_bytes: int) -> PublicKey:
    """Return the key that a birth or a hello announces for itself: not verified, and worth nothing by itself.

    For meeting a peer for the first time. The caller opens the message with this key, which proves that the
    sender has it, and then decides by enrolment or pinning whether that key means anything.

    Raises:
        TooLargeError: longer than `max_bytes`.
        MalformedError: not a message that announces a key.
    """
    _refuse_longer(data, max_bytes)
    message, _ = _split(data, cose.MAX_OVERHEAD_BYTES + max_bytes)
    payload = strict_cbor.decode(message.payload, max_bytes=max_bytes)
    if isinstance(payload, dict):
        for name in _ANNOUNCED_KEY_FIELDS:
            raw = payload.get(name)
            if isinstance(raw, bytes):
                return PublicKey.from_bytes(raw)
    raise MalformedError("The message announces no key.")


def open_envelope(  # noqa: PLR0913 - every limit and expectation is named by the caller
    data: bytes | memoryview,
    key: PublicKey,
    expected: type[S] | tuple[type[S], ...],
    *,
    network: str | None,
    max_bytes: int,
    max_statement_bytes: int | None = None,
) -> Opened[S]:
    """Check a message and return its statement. Cheap checks first; nothing is parsed before it is verified.

    Args:
        data: the whole message as it came.
        key: the one key that may have signed it.
        expected: the kinds of statement that are acceptable here.
        network: the network that it must be for; None for whichever the owner of `key` names in it.
        max_bytes: the longest acceptable message, tensors included.
        max_statement_bytes: the longest acceptable statement; by default what the expected kinds allow.

    Raises:
        TooLargeError: `too-large`.
        MalformedError: `malformed`.
        SignatureRefusedError: `wrong-algorithm`, `unknown-key` (another key than `key`), `bad-signature`.
        RefusedError: `wrong-kind`, `wrong-version`, `wrong-network`, `wrong-agent` (speaks for another).
    """
    kinds = expected if isinstance(expected, tuple) else (expected,)
    limit = max_statement_bytes or max(kind.max_statement_bytes for kind in kinds)

    # 1. Sizes and outer structure.
    _refuse_longer(data, max_bytes)
    message, end = _split(data, limit + cose.MAX_OVERHEAD_BYTES)
    if len(message.payload) > limit:
        raise TooLargeError(f"A statement of {len(message.payload)} bytes is above its limit of {limit} bytes.")
    attachments = _split_attachments(memoryview(data), end) if end < len(data) else ()

    # 2. Headers: exactly ours, and this key's.
    signer = _signer(message)
    if signer != key.id_bytes:
        raise SignatureRefusedError(
            f"The message names the key {key_id_text(signer)[:8]}, not {key.fingerprint}.",
            code="unknown-key",
        )

    # 3. The signature. From here on the bytes are the key owner's.
    payload = cose.verify_sign1(message, key)

    # 4. What kind of statement, of which version, for which network.
    fields = strict_cbor.decode(payload, max_bytes=limit)
    if not isinstance(fields, dict):
        raise MalformedError("The signed payload is not a map.")
    kind = _choose(fields, kinds)
    latest = WITH_TERMS if kind.since_terms else PROTOCOL_VERSION
    if type(fields.get("v")) is not int or not PROTOCOL_VERSION <= fields["v"] <= latest:
        raise RefusedError(
            f"The statement is of protocol version {_short(fields.get('v'))}, not {latest}.",
            code="wrong-version",
            hint="Update the older side.",
        )
    if network is not None and fields.get("network") != network:
        raise RefusedError(
            f"The statement is for the network {_short(fields.get('network'))}, not {network!r}.",
            code="wrong-network",
        )

    # 5. Every field.
    statement = _validate(kind, fields)
    _check_signer(statement, key)
    if attachments and len(attachments) != len(statement.attached):
        raise MalformedError(
            f"{len(attachments)} tensors travel with a {statement.kind} that names {len(statement.attached)}."
        )
    return Opened(statement, attachments, bytes(data[:end]), key)


def signed_part(data: bytes | memoryview, max_statement_bytes: int) -> bytes:
    """Return a message without its tensors, as evidence of what was said; nothing about it is verified.

    Args:
        data: the whole message as it came.
        max_statement_bytes: the longest acceptable statement.

    Raises:
        TooLargeError: `too-large`.
        MalformedError: `malformed`.
    """
    _, end = _split(data, max_statement_bytes + cose.MAX_OVERHEAD_BYTES)
    return bytes(data[:end])


def attach(
    specs: Sequence[TensorDigest],
    attachments: Sequence[bytes | memoryview],
    salt: bytes = b"",
    *,
    copied: bool = True,
) -> list[Tensor]:
    """Return the tensors that a statement names, made of the bytes that came beside it.

    Args:
        specs: the statement's `inputs` or `outputs`.
        attachments: what `open_envelope` returned with it.
        salt: the job's salt for inputs, nothing for outputs.
        copied: whether tensors have bytes of their own; else large ones are views of the message, which stays in
            memory as long as one of them, for who hands them on and does nothing else with them.

    Raises:
        MalformedError: another number of tensors, or another length than a shape asks for.
        DigestMismatchError: the bytes are not those that were signed for.
    """
    if len(specs) != len(attachments):
        raise MalformedError(f"The statement names {len(specs)} tensors but {len(attachments)} came with it.")
    tensors = []
    for spec, attachment in zip(specs, attachments, strict=True):
        # The digest comes first: a BYTES tensor is only walked when it is what was signed for.
        if spec.spec.byte_count not in (None, len(attachment)):
            raise MalformedError(
                f"The tensor {spec.name!r} needs {spec.spec.byte_count} bytes but {len(attachment)} came."
            )
        if digest(attachment, salt) != spec.digest:
            raise DigestMismatchError(f"The bytes of the tensor {spec.name!r} do not have the signed digest.")
        own = copied or len(attachment) < _LARGE_BYTES
        tensors.append(Tensor(spec.spec, bytes(attachment) if own else cast("bytes", attachment)))
    return tensors


def _refuse_longer(data: bytes | memoryview, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise TooLargeError(f"A message of {len(data)} bytes is longer than the limit of {max_bytes} bytes.")


def _split(data: bytes | memoryview, max_sign1_bytes: int) -> tuple[cose.Sign1, int]:
    """Return the signed part and where it ends."""
    if len(data) and data[0] == 0x84:
        raise MalformedError("The COSE_Sign1 of a message must carry its tag.")
    return cose.first_sign1(data, max_sign1_bytes)


def _split_attachments(view: memoryview, at: int) -> tuple[memoryview, ...]:
    attachments: list[memoryview] = []
    while at < len(view):
        if len(attachments) == MAX_TENSORS:
            raise TooLargeError(f"More than {MAX_TENSORS} tensors travel with one statement.")
        begin, at = byte_string_at(view, at, "Something that follows the signed statement")
        attachments.append(view[begin:at])
    return tuple(attachments)


def _signer(message: cose.Sign1) -> bytes:
    """Return the id of the key that a message names, its headers being exactly ours.

    Raises:
        MalformedError, SignatureRefusedError: they are not.
    """
    if message.unprotected and message.unprotected.keys() != _PROOF_ALONE:
        raise MalformedError("The message has header entries that no signature covers.")
    header = message.protected
    if cose.ALGORITHM in header and header[cose.ALGORITHM] != cose.EDDSA:
        raise SignatureRefusedError("The message names another algorithm than EdDSA.", code="wrong-algorithm")
    if header.keys() != _HEADER_LABELS:
        raise MalformedError("The protected header does not hold exactly the algorithm, content type and key id.")
    wanted = TOGETHER_TYPE if message.unprotected else CONTENT_TYPE
    if header[cose.CONTENT_TYPE] != wanted:
        raise MalformedError(f"The content type of the message is not {wanted}.")
    key_id = header[cose.KEY_ID]
    if not isinstance(key_id, bytes) or len(key_id) != KEY_ID_BYTES:
        raise MalformedError(f"The key id in the protected header is not {KEY_ID_BYTES} bytes.")
    return key_id


@cache
def _name_of(kind: type[Statement]) -> str:
    name: str = kind.model_fields["kind"].default
    return name


def _choose(fields: dict[Any, Any], kinds: tuple[type[S], ...]) -> type[S]:
    said = fields.get("kind")
    for kind in kinds:
        if said == _name_of(kind):
            return kind
    raise RefusedError(f"A statement of the kind {_short(said)} is not acceptable here.", code="wrong-kind")


def _validate(kind: type[S], fields: object) -> S:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        # The peer's values stay out of the message: they may be long, secret, or made for the log's reader.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(_short(part).strip("'") for part in first["loc"]) or "the whole"
        raise MalformedError(
            f"A signed {kind.__name__} does not follow the protocol: {where}: {first['msg']}."
        ) from None


def _check_signer(statement: Statement, key: PublicKey) -> None:
    """An agent speaks only for itself, and a coordinator only announces its own key."""
    if statement.signed_by == "agent":
        if vars(statement).get("agent_id") != key.id:
            raise RefusedError("An agent's statement is signed by another agent's key.", code="wrong-agent")
    elif vars(statement).get("coordinator_key", key.raw) != key.raw:
        raise SignatureRefusedError("A hello announces another key than the one that signed it.", code="unknown-key")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
