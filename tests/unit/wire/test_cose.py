from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import needs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MalformedError, PeerError, SignatureRefusedError
from edge_agent.wire import cose, strict_cbor
from edge_agent.wire.keys import PublicKey, SigningKey

KEY = SigningKey.generate(bytes(range(32)))
SIGN1_TESTS = ("pass-01", "pass-02", "pass-03", "fail-02", "fail-03", "fail-04", "fail-06", "fail-07")


def vector(*parts: str) -> dict[str, Any]:
    """Return one of the COSE working group's examples."""
    path = needs.reference_data() / "vectors" / "cose" / Path(*parts)
    example: dict[str, Any] = json.loads(path.read_text())
    return example


def test_the_working_groups_ed25519_example_verifies_and_is_reproduced() -> None:
    """Sig_structure, message and signature are theirs, byte for byte; Ed25519 is deterministic."""
    example = vector("eddsa-examples", "eddsa-sig-01.json")
    given_key = example["input"]["sign0"]["key"]
    data = bytes.fromhex(example["output"]["cbor"])
    message = cose.parse_sign1(data, 1000)
    to_be_signed = bytes.fromhex(example["intermediates"]["ToBeSign_hex"])
    assert cose.sig_structure(message.protected_bytes, b"", message.payload) == to_be_signed
    assert message.key_id == given_key["kid"].encode()
    key = PublicKey.from_bytes(bytes.fromhex(given_key["x_hex"]))
    assert cose.verify_sign1(message, key) == example["input"]["plaintext"].encode()
    assert SigningKey.generate(bytes.fromhex(given_key["d_hex"])).sign(to_be_signed) == message.signature


def test_the_working_groups_ed448_example_is_read_and_refused() -> None:
    """The same algorithm number with another curve's signature length."""
    message = cose.parse_sign1(bytes.fromhex(vector("eddsa-examples", "eddsa-sig-02.json")["output"]["cbor"]), 1000)
    with pytest.raises(SignatureRefusedError):
        cose.verify_sign1(message, KEY.public)


@pytest.mark.parametrize("name", ["eddsa-01.json", "eddsa-02.json"])
def test_the_working_groups_messages_with_many_signers_are_refused(name: str) -> None:
    """COSE_Sign is another structure, with another tag."""
    with pytest.raises(MalformedError):
        cose.parse_sign1(bytes.fromhex(vector("eddsa-examples", name)["output"]["cbor"]), 10_000)


@pytest.mark.parametrize("name", SIGN1_TESTS)
def test_the_working_groups_other_algorithms_are_read_and_refused(name: str) -> None:
    """These are ES256: our structure agrees with theirs, the algorithm is not ours."""
    example = vector("sign1-tests", f"sign-{name}.json")
    message = cose.parse_sign1(bytes.fromhex(example["output"]["cbor"]), 1000)
    external = bytes.fromhex(example["input"]["sign0"].get("external", ""))
    if name.startswith("pass"):
        # An empty protected header stands in the structure as an empty string (RFC 9052, section 4.4).
        protected = b"" if message.protected_bytes == b"\xa0" else message.protected_bytes
        ours = cose.sig_structure(protected, external, message.payload)
        assert ours.hex().upper() == example["intermediates"]["ToBeSign_hex"]
    with pytest.raises(SignatureRefusedError) as refused:
        cose.verify_sign1(message, KEY.public, external_aad=external)
    assert refused.value.error_code == "wrong-algorithm"


def test_the_working_groups_wrong_tag_is_refused() -> None:
    """Tag 998 in the place of 18."""
    data = bytes.fromhex(vector("sign1-tests", "sign-fail-01.json")["output"]["cbor"])
    with pytest.raises(MalformedError):
        cose.parse_sign1(data, 1000)


@given(st.binary(max_size=300), st.binary(max_size=40), st.booleans())
def test_what_was_signed_verifies(payload: bytes, external: bytes, tagged: bool) -> None:  # noqa: FBT001 - drawn
    """Tagged or not, with external data or without; only with the same external data."""
    data = cose.sign1(KEY, payload, content_type="text/plain", external_aad=external, tagged=tagged)
    assert data.startswith(b"\xd2\x84" if tagged else b"\x84")
    assert cose.sign1_end(data + b"more") == len(data)
    message = cose.parse_sign1(data, len(data))
    assert message.protected == {1: -8, 3: "text/plain", 4: KEY.public.id_bytes}
    assert cose.verify_sign1(message, KEY.public, external_aad=external) == payload
    with pytest.raises(SignatureRefusedError):
        cose.verify_sign1(message, KEY.public, external_aad=external + b"!")


def test_the_unprotected_header_is_carried() -> None:
    """Not signed, and said so by its name."""
    data = cose.sign1(KEY, b"payload", content_type="text/plain", unprotected={"note": "hello"})
    message = cose.parse_sign1(data, 1000)
    assert message.unprotected == {"note": "hello"}
    assert cose.verify_sign1(message, KEY.public) == b"payload"


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    """Only PeerError leaves the parser."""
    for prefix in (b"", b"\xd2\x84", b"\xd2\x84\x43\xa1\x01\x27\xa0"):
        try:
            cose.parse_sign1(prefix + data, 1000)
        except PeerError:
            continue


@pytest.mark.parametrize("payload", [0, 23, 24, 255, 256, 65_535, 65_536, 262_144])
def test_the_overhead_is_within_its_bound(payload: int) -> None:
    """Whoever limits a statement can add the constant for the whole."""
    data = cose.sign1(KEY, bytes(payload), content_type="application/edge-agent+cbor")
    assert len(data) - payload <= cose.MAX_OVERHEAD_BYTES


def test_long_payloads_have_the_right_length_in_the_signature() -> None:
    """The structure is the CBOR that a library would make of it."""
    for size in (0, 23, 24, 255, 256, 65_535, 65_536):
        expected = strict_cbor.encode(["Signature1", b"\xa0", b"", bytes(size)])
        assert cose.sig_structure(b"\xa0", b"", bytes(size)) == expected
