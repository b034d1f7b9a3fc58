"""Whether the agent of a receipt belonged to the network, offline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import wire_samples
from wire_samples import AGENT, COORDINATOR, NETWORK, NOW_MS, OTHER_AGENT, REGISTRAR, SALT

from edge_agent.errors import PeerError, RefusedError, SignatureRefusedError
from edge_agent.wire import cose, standing, strict_cbor
from edge_agent.wire.certificates import issue
from edge_agent.wire.envelope import CONTENT_TYPE, seal, seal_together, signed_part, signed_payload
from edge_agent.wire.identity import Revocations, Revoked
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.messages import TensorDigest
from edge_agent.wire.receipts import Countersigned, VerifiedReceipt, make_receipt, make_receipts, verify_receipt
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

LIMIT = 300_000
SCORES = Tensor(TensorSpec("logits", DataType.FP32, (1, 10)), bytes(40))


def certificate(
    agent: PublicKey = AGENT.public, issued_ms: int = NOW_MS, signer: SigningKey = REGISTRAR, owner: str = "ada"
) -> bytes:
    """Return a certificate."""
    return issue(signer, network=NETWORK, agent=agent, sealing_key=bytes(32), owner=owner, now_ms=issued_ms)


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


def test_a_receipt_of_before_certificates_left_out_what_follows_from_the_key_still_verifies() -> None:
    """Its certificate says id and login, and both its signatures are shared by 64."""
    kept = (Path(__file__).parent / "receipt-of-before.cbor").read_bytes()
    assert b"login" in kept
    verified = verify_receipt(kept, COORDINATOR.public)
    said = standing.check_belonged(verified, REGISTRAR.public)
    assert (said.agent_id, said.login, said.owner) == (AGENT.public.id, AGENT.public.id, "ada")


@pytest.mark.parametrize("owner", ["ada", "a" * 26, "a" * 27, "a" * 64])
def test_a_receipt_is_never_longer_than_a_kilobyte_and_a_half(owner: str) -> None:
    """Of a model with two outputs, with a certificate, both signatures shared by as many as may."""
    outputs = (TensorDigest.of(SCORES), TensorDigest.of(wire_samples.OUTPUT))
    said = wire_samples.result().model_copy(update={"outputs": outputs})
    data = (SCORES.data, wire_samples.OUTPUT.data)
    results = [signed_part(message, LIMIT) for message in seal_together(AGENT, [(said, data)] * 100)]
    certified = certificate(owner=owner)
    countersigned = [Countersigned(result, AGENT.public, SALT, certified) for result in results]
    made = make_receipts(COORDINATOR, countersigned, network=NETWORK, accepted_ms=NOW_MS + 10)
    assert 1400 < max(map(len, made)) <= 1536
    for each in made:
        assert standing.check_belonged(verify_receipt(each, COORDINATOR.public), REGISTRAR.public).owner == owner


def test_a_receipt_that_cannot_be_short_shares_its_signature() -> None:
    """Of a model with twenty outputs: a signature of its own would not help."""
    outputs = tuple(TensorDigest.of(replace(SCORES, spec=replace(SCORES.spec, name=f"y{n}"))) for n in range(20))
    said = wire_samples.result().model_copy(update={"outputs": outputs})
    results = [signed_part(seal(AGENT, said, [SCORES.data] * 20), LIMIT)] * 4
    countersigned = [Countersigned(result, AGENT.public, SALT, certificate()) for result in results]
    made = make_receipts(COORDINATOR, countersigned, network=NETWORK, accepted_ms=NOW_MS + 10)
    assert {bool(cose.PROOF in cose.parse_sign1(each, LIMIT).unprotected) for each in made} == {True}
    assert len(made[0]) > 1536


@pytest.mark.parametrize("field", ["agent_id", "login"])
def test_a_certificate_that_says_what_does_not_follow(field: str) -> None:
    """Another id than that of the key is refused; another login is one."""
    other = OTHER_AGENT.public.id
    said = {**strict_cbor.decode(signed_payload(certificate(), LIMIT), max_bytes=LIMIT), field: other}  # type: ignore[dict-item] # a map
    forged = cose.sign1(REGISTRAR, strict_cbor.encode(said), content_type=CONTENT_TYPE)
    if field == "login":
        assert standing.check_belonged(receipt(forged), REGISTRAR.public).login == other
    else:
        with pytest.raises(PeerError) as refused:
            standing.check_belonged(receipt(forged), REGISTRAR.public)
        assert refused.value.error_code == "malformed"


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
