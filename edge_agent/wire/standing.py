"""Whether the agent of a receipt belonged to the network, and whether its key was revoked: checked offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edge_agent.errors import RefusedError, SignatureRefusedError, TooLargeError
from edge_agent.wire import cose
from edge_agent.wire.certificates import check_certificate
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.identity import MAX_REVOCATIONS_BYTES, MAX_REVOKED, Certificate, Revocations, Revoked
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.receipts import VerifiedReceipt

MAX_LIST_BYTES: Final = MAX_REVOCATIONS_BYTES + cose.MAX_OVERHEAD_BYTES


def check_belonged(receipt: VerifiedReceipt, registrar: PublicKey, *, at_ms: int | None = None) -> Certificate:
    """Check the certificate in a receipt: by this registrar, for this agent, when the result was accepted.

    Args:
        receipt: with the certificate.
        registrar: the key that must have signed it.
        at_ms: another time at which it must count, Unix milliseconds.

    Raises:
        RefusedError: `no-certificate`, `certificate-expired`, `wrong-agent`.
        PeerError: it is none of this registrar's.
    """
    if receipt.certificate is None:
        raise RefusedError(
            "The receipt carries no certificate of its agent.",
            code="no-certificate",
            hint="Its coordinator asks for none, or let the agent in before there was a registrar.",
        )
    checked = check_certificate(
        receipt.certificate,
        registrar,
        network=receipt.result.network,
        at_ms=receipt.accepted_ms if at_ms is None else at_ms,
        agent_id=receipt.agent.id,
    )
    return checked.statement


def open_revocations(data: bytes, signers: Sequence[PublicKey], *, network: str | None) -> Revocations:
    """Open a list of revoked keys, signed by one of these keys, for this network, or for the one that its signer names.

    Raises:
        PeerError: it is none.
    """
    limit = MAX_LIST_BYTES
    for signer in signers[:-1]:
        try:
            return open_envelope(data, signer, Revocations, network=network, max_bytes=limit).statement
        except SignatureRefusedError as error:
            if error.error_code != "unknown-key":
                raise
    return open_envelope(data, signers[-1], Revocations, network=network, max_bytes=limit).statement


def merge_revocations(
    lists: Sequence[Revocations], more: Sequence[Revoked], *, network: str, now_ms: int
) -> Revocations:
    """Return a list with all keys of others and some more, which goes on from each of those.

    Of a key that stands in several, the entry counts that revokes it the earliest: nothing is ever taken back.

    Raises:
        TooLargeError: there are too many for one list.
    """
    found: dict[str, Revoked] = {}
    for entry in [*(entry for each in lists for entry in each.revoked), *more]:
        if entry.id not in found or entry.since_ms < found[entry.id].since_ms:
            found[entry.id] = entry
    if len(found) > MAX_REVOKED:
        raise TooLargeError(f"A list of revoked keys holds {MAX_REVOKED} at most, not {len(found)}.")
    entries = tuple(sorted(found.values(), key=lambda each: (each.since_ms, each.id)))
    number = max([len(entries), *(each.number for each in lists)])
    return Revocations(network=network, issued_ms=now_ms, number=number, revoked=entries)


def check_not_revoked(receipt: VerifiedReceipt, revocations: Revocations) -> None:
    """Refuse the receipt of an agent, or by a coordinator, whose key was revoked before it was accepted.

    A key that was stolen can sign for any time, so what is dated before its revocation is believed only as far as the
    coordinator's log says when it was accepted.

    Raises:
        RefusedError: `revoked`.
    """
    for entry in revocations.revoked:
        if entry.id in {receipt.agent.id, receipt.coordinator.id} and entry.since_ms <= receipt.accepted_ms:
            whose = "agent" if entry.id == receipt.agent.id else "coordinator"
            raise RefusedError(f"The key of the {whose} {entry.id} was revoked: {entry.reason}.", code="revoked")
