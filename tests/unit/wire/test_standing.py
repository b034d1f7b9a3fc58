"""Whether the agent of a receipt belonged to the network, offline."""

from __future__ import annotations

import pytest
import wire_samples
from wire_samples import AGENT, COORDINATOR, NETWORK, NOW_MS, OTHER_AGENT, REGISTRAR, SALT

from edge_agent.errors import PeerError, RefusedError, SignatureRefusedError
from edge_agent.wire import standing
from edge_agent.wire.certificates import issue
from edge_agent.wire.envelope import seal, signed_part
from edge_agent.wire.identity import Revocations, Revoked
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.receipts import VerifiedReceipt, make_receipt, verify_receipt

LIMIT = 300_000


def certificate(agent: PublicKey = AGENT.public, issued_ms: int = NOW_MS, signer: SigningKey = REGISTRAR) -> bytes:
    """Return a certificate."""
    return issue(signer, network=NETWORK, agent=agent, sealing_key=bytes(32), owner="ada", now_ms=issued_ms)


def receipt(certified: bytes | None) -> VerifiedReceipt:
    """Return a verified receipt with this certificate in it."""
    signed = signed_part(seal(AGENT, wire_samples.result(), (wire_samples.OUTPUT.data,)), LIMIT)
    made = make_receipt(
        COORDINATOR,
        result=signed,
        agent_key=AGENT.public,
        network=NETWORK,
        salt=SALT,
        accepted_ms=NOW_MS + 10,
        certificate=certified,
    )
    assert len(made) <= 1536  # what a receipt of a small model may have
    return verify_receipt(made, COORDINATOR.public)


def test_the_certificate_in_a_receipt_counts() -> None:
    """It says whose the agent is."""
    said = standing.check_belonged(receipt(certificate()), REGISTRAR.public)
    assert (said.agent_id, said.owner) == (AGENT.public.id, "ada")


@pytest.mark.parametrize(
    ("certified", "code"),
    [
        (None, "no-certificate"),
        (certificate(OTHER_AGENT.public), "wrong-agent"),
        (certificate(issued_ms=NOW_MS - 31 * 86_400_000), "certificate-expired"),
        (certificate(issued_ms=NOW_MS + 86_400_000), "certificate-expired"),
        (certificate(signer=COORDINATOR), "unknown-key"),
        (certificate(signer=AGENT), "unknown-key"),
        (b"\xd2\x84", "malformed"),
    ],
    ids=["none", "another-agents", "too-old", "not-yet", "by-the-coordinator", "by-itself", "garbage"],
)
def test_any_other_certificate_does_not(certified: bytes | None, code: str) -> None:
    """The receipt itself stays as good as it was: only this is not proven."""
    verified = receipt(certified)
    with pytest.raises(PeerError) as refused:
        standing.check_belonged(verified, REGISTRAR.public)
    assert refused.value.error_code == code


def revocations(agent_id: str, since_ms: int, signer: SigningKey = COORDINATOR) -> bytes:
    """Return a signed list with one key."""
    entry = Revoked(id=agent_id, since_ms=since_ms, reason="stolen")
    return seal(signer, Revocations(network=NETWORK, issued_ms=NOW_MS, number=1, revoked=(entry,)))


def test_what_a_revoked_key_signed_is_refused_from_then_on() -> None:
    """By coordinator or registrar; what was accepted before stays good, and other keys do."""
    verified = receipt(certificate())
    signers = (COORDINATOR.public, REGISTRAR.public)
    for signer in (COORDINATOR, REGISTRAR):
        said = standing.open_revocations(revocations(AGENT.public.id, NOW_MS, signer), signers, network=NETWORK)
        with pytest.raises(RefusedError, match="stolen") as refused:
            standing.check_not_revoked(verified, said)
        assert refused.value.error_code == "revoked"
    for other in (revocations(AGENT.public.id, NOW_MS + 11), revocations(OTHER_AGENT.public.id, NOW_MS)):
        standing.check_not_revoked(verified, standing.open_revocations(other, signers, network=NETWORK))


def test_a_list_that_somebody_else_signed_is_none() -> None:
    """An agent revokes nobody."""
    with pytest.raises(SignatureRefusedError):
        standing.open_revocations(
            revocations(AGENT.public.id, 1, OTHER_AGENT), (COORDINATOR.public, REGISTRAR.public), network=NETWORK
        )
