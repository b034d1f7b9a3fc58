"""Receipts: the evidence, checked offline, of who ran which model on which input and got which output.

A receipt is the coordinator's tagged COSE_Sign1 over a `Receipt` statement, which carries the agent's
COSE_Sign1 over its `Result`, untouched. The unprotected header may hold, under the label "salt", the 32 bytes
that open the commitments to the inputs: who has the salt and an input can see that it is the one, and who has
no salt cannot guess small inputs. The salt needs no signature: SHA-256 over its 32 bytes and the input fits
or it does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge_agent.errors import InputError, MalformedError, RefusedError, SignatureRefusedError
from edge_agent.wire import cose, merkle, strict_cbor
from edge_agent.wire.envelope import CONTENT_TYPE, TOGETHER_TYPE, open_envelope
from edge_agent.wire.keys import PublicKey, SigningKey, key_id_text
from edge_agent.wire.messages import MAX_RECEIPT_BYTES, Receipt, Result, TensorDigest
from edge_agent.wire.tensors import Tensor, digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SALT_LABEL = "salt"
SALT_BYTES = 32
SHORT_RECEIPT_BYTES = 1_536
"""A receipt that can be so short is: it is what clients keep of each result of a model with one or two outputs."""
MAX_RECEIPT_FILE_BYTES = MAX_RECEIPT_BYTES + 2 * cose.MAX_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """A receipt whose two signatures and whose statements were checked; only `verify_receipt` makes one.

    Attributes:
        coordinator: the key that accepted the result, as given by whoever checks.
        agent: the key that signed the result, as named by the coordinator.
        result: what the agent states.
        accepted_ms: when the coordinator says it accepted it, Unix milliseconds.
        salt: opens the commitments to the inputs; None if the receipt came without it.
        certificate: of the agent, as the coordinator added it: not checked, see `standing`.
    """

    coordinator: PublicKey
    agent: PublicKey
    result: Result
    accepted_ms: int
    salt: bytes | None
    certificate: bytes | None

    def check_inputs(self, tensors: Sequence[Tensor]) -> None:
        """Return if these are the inputs that the result is for: all of them, in any order.

        Raises:
            InputError: the receipt came without its salt, so that this cannot be checked.
            RefusedError: `wrong-input`.
        """
        if self.salt is None:
            raise InputError(
                "The receipt came without its salt, so that no input can be compared with it.",
                hint="Whoever sent the job can fetch the receipt with its salt from the coordinator.",
            )
        _check("input", self.result.inputs, tensors, self.salt)

    def check_outputs(self, tensors: Sequence[Tensor]) -> None:
        """Return if these are the outputs that the agent computed: all of them, in any order.

        Raises:
            RefusedError: `wrong-output`.
        """
        _check("output", self.result.outputs, tensors, b"")


def make_receipt(  # noqa: PLR0913 - what a receipt consists of, all but one by name
    coordinator: SigningKey,
    *,
    result: bytes,
    agent_key: PublicKey,
    network: str,
    salt: bytes | None,
    accepted_ms: int,
    certificate: bytes | None = None,
) -> bytes:
    """Countersign a verified result.

    Args:
        coordinator: signs.
        result: the agent's COSE_Sign1, exactly as it came.
        agent_key: the key that it was verified with.
        network: that both are in.
        salt: of the job, 32 bytes, or None to leave it out.
        accepted_ms: when the result was accepted, Unix milliseconds.
        certificate: the agent's, by the registrar, where there is one.

    Raises:
        ValueError: a salt of another length.
    """
    one = Countersigned(result=result, agent_key=agent_key, salt=salt, certificate=certificate)
    return make_receipts(coordinator, [one], network=network, accepted_ms=accepted_ms)[0]


@dataclass(frozen=True, slots=True)
class Countersigned:
    """A verified result that gets a receipt.

    Attributes:
        result: the agent's COSE_Sign1, exactly as it came.
        agent_key: the key that it was verified with.
        salt: of the job, 32 bytes, or None to leave it out.
        certificate: the agent's, by the registrar, where there is one.
    """

    result: bytes
    agent_key: PublicKey
    salt: bytes | None
    certificate: bytes | None = None

    def __post_init__(self) -> None:
        if self.salt is not None and len(self.salt) != SALT_BYTES:
            raise ValueError(f"A salt has {SALT_BYTES} bytes, not {len(self.salt)}.")


def make_receipts(
    coordinator: SigningKey, results: Sequence[Countersigned], *, network: str, accepted_ms: int
) -> list[bytes]:
    """Countersign verified results of one moment, up to `Receipt.together` of them with one signature.

    Each receipt carries what it takes to verify it alone. One that is longer than `SHORT_RECEIPT_BYTES` only for that,
    as with an owner's long name in its certificate, is signed alone.

    Args:
        coordinator: signs.
        results: in order.
        network: that all are in.
        accepted_ms: when they were accepted, Unix milliseconds.
    """
    receipts: list[bytes] = []
    for at in range(0, len(results), Receipt.together):
        some = results[at : at + Receipt.together]
        payloads = [
            Receipt(
                network=network,
                issued_ms=accepted_ms,
                result=one.result,
                agent_key=one.agent_key.raw,
                certificate=one.certificate,
                accepted_ms=accepted_ms,
            ).encoded()
            for one in some
        ]
        salts: list[dict[int | str, Any]] = [{SALT_LABEL: one.salt} if one.salt is not None else {} for one in some]
        together = cose.sign_together(
            coordinator, payloads, content_type=CONTENT_TYPE, together_type=TOGETHER_TYPE, unprotected=salts
        )
        for made, payload, salt in zip(together, payloads, salts, strict=True):
            receipts.append(made if len(made) <= SHORT_RECEIPT_BYTES else _shorter(coordinator, payload, salt, made))
    return receipts


def _shorter(coordinator: SigningKey, payload: bytes, salt: Mapping[int | str, Any], together: bytes) -> bytes:
    """Return a receipt without a proof, with a signature of its own, if that is what makes it short."""
    alone = cose.sign1(coordinator, payload, content_type=CONTENT_TYPE, unprotected=salt)
    return alone if len(alone) <= SHORT_RECEIPT_BYTES else together


def without_salt(receipt: bytes) -> bytes:
    """Return the receipt without its salt, to be shown to people who must not be able to test inputs.

    Raises:
        PeerError: it is no receipt.
    """
    span = cose.unprotected_span(receipt) if len(receipt) <= MAX_RECEIPT_FILE_BYTES else None
    usual = _USUAL.fullmatch(receipt, *span) if span is not None else None
    if span is None or usual is None or not _is_whole(usual):
        return _bare(cose.parse_sign1(receipt, MAX_RECEIPT_FILE_BYTES))
    at, end = span
    kept = receipt[at + _SALTED_BYTES : end]
    return receipt[:at] + (b"\xa1" + kept if kept else b"\xa0") + receipt[end:]


def _is_whole(usual: re.Match[bytes]) -> bool:
    """Whether a proof has as many hashes as it says, if there is one: two numbers stand before them."""
    return usual["items"] is None or len(usual["hashes"]) == _ITEM_BYTES * (usual["items"][0] - 0x82)


_SALTED_BYTES: Final = len(b"\xa1\x64salt\x58\x20") + SALT_BYTES
_ITEM_BYTES: Final = len(b"\x58\x20") + merkle.HASH_BYTES
_USUAL: Final = re.compile(
    rb"\xa1\x64salt\x58\x20.{32}|\xa2\x64salt\x58\x20.{32}\x65proof"
    rb"(?P<items>[\x82-\x88])(?:[\x00-\x17]|\x18[\x18-\xff]){2}(?P<hashes>(?:\x58\x20.{32})*)",
    re.DOTALL,
)
"""The unprotected header of nearly all receipts, in its one encoding: a salt, and a proof or none."""


def receipt_leaf(receipt: bytes) -> bytes:
    """Return the leaf of a receipt in the coordinator's log: the hash of the receipt without its salt.

    Raises:
        PeerError: it is no receipt.
    """
    return merkle.leaf_hash(without_salt(receipt))


def verify_receipt(data: bytes | memoryview, coordinator: PublicKey, *, network: str | None = None) -> VerifiedReceipt:
    """Check a receipt, offline, step by step.

    Args:
        data: the whole file.
        coordinator: the key that must have signed it; whoever checks must have it from a source they trust.
        network: that it must be for; None takes the one that the coordinator signed.

    Raises:
        TooLargeError: `too-large`.
        MalformedError: `malformed`: cut, or no receipt.
        SignatureRefusedError: `unknown-key`, `wrong-algorithm` or `bad-signature`, of either signature.
        RefusedError: `wrong-kind`, `wrong-version`, `wrong-network`, `wrong-agent`.
    """
    # 1. One COSE_Sign1, whose unprotected header holds a salt or nothing.
    message = cose.parse_sign1(data, MAX_RECEIPT_FILE_BYTES)
    salt = _salt(message)

    # 2. By the coordinator that we were told to trust.
    if message.key_id != coordinator.id_bytes:
        raise SignatureRefusedError(_other_signer(message, coordinator), code="unknown-key")
    receipt = open_envelope(
        _bare(message), coordinator, Receipt, network=network, max_bytes=MAX_RECEIPT_FILE_BYTES
    ).statement

    # 3. In it, the result, by the agent that the coordinator names and for the same network.
    agent = PublicKey.from_bytes(receipt.agent_key)
    opened = open_envelope(receipt.result, agent, Result, network=receipt.network, max_bytes=MAX_RECEIPT_FILE_BYTES)
    result = opened.statement
    if len(opened.signed) != len(receipt.result):
        raise MalformedError("The result in the receipt is followed by bytes that its signature does not cover.")
    if result.agent_id != agent.id:
        raise RefusedError("The result in the receipt names another agent than its signer.", code="wrong-agent")
    return VerifiedReceipt(coordinator, agent, result, receipt.accepted_ms, salt, receipt.certificate)


def _bare(message: cose.Sign1) -> bytes:
    """Return the message without a salt: all else in its unprotected header is needed to verify it."""
    kept = {label: value for label, value in message.unprotected.items() if label != SALT_LABEL}
    return cose.put_together(message.protected_bytes, kept, message.payload, message.signature)


def _salt(message: cose.Sign1) -> bytes | None:
    if not message.unprotected.keys() - {cose.PROOF}:
        return None
    salt = message.unprotected.get(SALT_LABEL)
    labels = message.unprotected.keys() - {cose.PROOF}
    if labels != {SALT_LABEL} or not isinstance(salt, bytes) or len(salt) != SALT_BYTES:
        # With a salt of another length, bytes could be moved between it and the input.
        raise MalformedError(f"The receipt's unprotected header holds something else than {SALT_BYTES} bytes of salt.")
    return salt


def result_in(receipt: bytes) -> bytes:
    """Return the agent's COSE_Sign1 that a receipt carries, unchecked: what was drawn for.

    Raises:
        PeerError: it is no receipt.
    """
    message = cose.parse_sign1(receipt, MAX_RECEIPT_FILE_BYTES)
    fields = strict_cbor.decode(message.payload, max_bytes=MAX_RECEIPT_FILE_BYTES)
    found = fields.get("result") if isinstance(fields, dict) else None
    if not isinstance(found, bytes):
        raise MalformedError("The receipt carries no result.")
    return found


def _other_signer(message: cose.Sign1, coordinator: PublicKey) -> str:
    key_id = message.key_id
    named = f"the key {key_id_text(key_id)}" if key_id is not None else "no key"
    return f"The receipt names {named}, not the coordinator's key {coordinator.id} that was given."


def _check(what: str, signed: Sequence[TensorDigest], tensors: Sequence[Tensor], salt: bytes) -> None:
    given = {tensor.name: tensor for tensor in tensors}
    code = f"wrong-{what}"
    wanted = {entry.name for entry in signed}
    if len(given) != len(tensors) or given.keys() != wanted:
        said, meant = (", ".join(sorted(names)) or "none" for names in (given, wanted))
        raise RefusedError(f"The {what}s given are {said}; the receipt is for {meant}.", code=code, hint=_hint(what))
    for entry in signed:
        tensor = given[entry.name]
        if tensor.spec != entry.spec:
            raise RefusedError(
                f"The {what} {entry.name!r} is {_described(tensor.spec.datatype, tensor.spec.shape)}; "
                f"the receipt is for {_described(entry.datatype, entry.shape)}.",
                code=code,
                hint=_hint(what),
            )
        if digest(tensor.data, salt) != entry.digest:
            raise RefusedError(
                f"The {what} {entry.name!r} is not the one that the receipt is for: its digest differs.",
                code=code,
                hint=_hint(what),
            )


def _described(datatype: str, shape: Sequence[int]) -> str:
    return f"{datatype} of shape {list(shape)}"


def _hint(what: str) -> str:
    return f"Is it the {what} file of another job, or was it changed since?"
