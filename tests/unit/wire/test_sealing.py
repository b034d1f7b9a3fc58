"""Sealed questions and answers: what goes through, what is refused, and RFC 9180 as the judge beneath."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import needs
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import EdgeAgentError, PeerError, RefusedError
from edge_agent.wire import hpke, strict_cbor
from edge_agent.wire.hpke import HYBRID, X25519, PublicHalf, SecretHalf, new_halves
from edge_agent.wire.sealing import (
    DIGEST,
    SEALED,
    Question,
    Unsealed,
    compared,
    is_sealed,
    open_answer,
    open_question,
    seal_answer,
    seal_question,
    why_not_sealed_inputs,
    why_not_sealed_outputs,
)
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

NETWORK, AGENT = "home", "a" * 32
IMAGE = Tensor(TensorSpec("image", DataType.FP32, (1, 4)), bytes(range(16)))
TEXT = Tensor(TensorSpec("text", DataType.BYTES, (1,)), b"\3\0\0\0abc")
LABEL = Tensor(TensorSpec("label", DataType.INT64, (1,)), b"\7" + bytes(7))
SALT = bytes(range(32))
OURS = SecretHalf(X25519PrivateKey.from_private_bytes(b"\1" * 32))
THEIRS = SecretHalf(X25519PrivateKey.from_private_bytes(b"\2" * 32))


def question(*reply: PublicHalf, **changes: Any) -> Question:  # noqa: ANN401 any field
    """Return a question with two inputs."""
    return replace(Question("digits", (IMAGE, TEXT), ("label",), SALT, reply or (THEIRS.public,)), **changes)


def asked(to: PublicHalf = OURS.public, **changes: Any) -> Tensor:  # noqa: ANN401 any field
    """Seal a question."""
    return seal_question(question(**changes), to, network=NETWORK, agent_id=AGENT)


def opened(sealed: Tensor, *keys: SecretHalf) -> Unsealed:
    """Open a question as the agent."""
    return open_question(sealed, keys or (OURS,), network=NETWORK, agent_id=AGENT)


def answer_of(sealed: tuple[Tensor, ...], to: Tensor, *keys: SecretHalf, salt: bytes = SALT) -> tuple[Tensor, ...]:
    """Open an answer as the client."""
    return open_answer(sealed, keys or (THEIRS,), asked=to, salt=salt, network=NETWORK, agent_id=AGENT)


def test_question_and_answer_go_through() -> None:
    """Every tensor as it was, and neither name nor data stands in what others see."""
    sealed = asked()
    there = opened(sealed)
    assert there.question == question()
    back = seal_answer(there, (LABEL, TEXT))
    assert answer_of(back, sealed) == (LABEL, TEXT)
    seen = sealed.data + back[0].data + back[1].data
    for secret in (IMAGE.data, b"abc", b"image", b"label", b"digits", SALT, THEIRS.public.raw):
        assert secret not in seen
    assert why_not_sealed_inputs([sealed.spec]) is None
    assert why_not_sealed_outputs([tensor.spec for tensor in back]) is None
    assert is_sealed([sealed.spec])
    assert not is_sealed([IMAGE.spec])


def test_the_hybrid_suite_is_taken_where_both_have_it() -> None:
    """The best key that is named comes first; an agent with keys of both suites opens either."""
    ours, theirs = new_halves(), new_halves()
    assert [half.suite for half in ours] == [HYBRID, X25519]
    for half in ours:
        sealed = seal_question(question(*(key.public for key in theirs)), half.public, network=NETWORK, agent_id=AGENT)
        assert sealed.data[0] == half.suite
        back = seal_answer(opened(sealed, *ours), (LABEL,))
        assert back[0].data[0] == HYBRID
        assert answer_of(back, sealed, *theirs) == (LABEL,)
    with pytest.raises(RefusedError, match="suite"):
        opened(seal_question(question(), ours[0].public, network=NETWORK, agent_id=AGENT))


def test_a_suite_that_nobody_knows_is_passed_over() -> None:
    """What a newer client offers first does not keep an older agent from answering."""
    reply = (PublicHalf(99, b"new"), THEIRS.public)
    sealed = seal_question(question(*reply), OURS.public, network=NETWORK, agent_id=AGENT)
    assert answer_of(seal_answer(opened(sealed), (LABEL,)), sealed) == (LABEL,)


@pytest.mark.parametrize(
    "reply", [PublicHalf(99, b"new"), PublicHalf(1, bytes(32)), PublicHalf(1, b"short"), PublicHalf(2, bytes(32))]
)
def test_a_reply_to_no_usable_key_is_refused(reply: PublicHalf) -> None:
    """A key of small order, through which anybody could read, included."""
    there = opened(seal_question(question(reply), OURS.public, network=NETWORK, agent_id=AGENT))
    with pytest.raises(RefusedError) as refused:
        seal_answer(there, (LABEL,))
    assert refused.value.error_code == "wrong-input"


def test_equal_questions_and_answers_look_different_and_compare_equal() -> None:
    """Two agents of one class: nothing shows that they computed the same, but for the digest, which the salt hides."""
    first, second = opened(asked()), opened(asked())
    one, two = seal_answer(first, (LABEL,)), seal_answer(second, (LABEL,))
    assert asked().data != asked().data
    assert one[0].data != two[0].data
    assert one[1] == two[1]
    assert one[1].data == compared(SALT, (LABEL,)) != compared(bytes(32), (LABEL,))
    assert seal_answer(first, (TEXT,))[1] != one[1]


def test_a_question_is_for_one_agent_of_one_network() -> None:
    """Nobody else opens it, and it is not taken for another's."""
    sealed = asked()
    for keys, network, agent_id in (((THEIRS,), NETWORK, AGENT), ((OURS,), "x", AGENT), ((OURS,), NETWORK, "b" * 32)):
        with pytest.raises(RefusedError) as refused:
            open_question(sealed, keys, network=network, agent_id=agent_id)
        assert refused.value.error_code == "wrong-input"


def test_an_answer_is_for_one_question() -> None:
    """That to another one, or to the same one asked again, is refused, whoever passed it on."""
    sealed, again = asked(), asked()
    back = seal_answer(opened(sealed), (LABEL,))
    other = seal_answer(opened(again), (LABEL,))
    for wrong, to, key in ((back, again, THEIRS), (other, sealed, THEIRS), (back, sealed, OURS)):
        with pytest.raises(RefusedError) as refused:
            answer_of(wrong, to, key)
        assert refused.value.error_code == "wrong-output"


def test_no_byte_can_be_changed_and_none_left_out() -> None:
    """Of neither; another digest beside the outputs is found out, too."""
    sealed = asked()
    back = seal_answer(opened(sealed), (LABEL,))
    for at in range(len(sealed.data)):
        altered = bytearray(sealed.data)
        altered[at] ^= 1
        with pytest.raises(RefusedError):
            opened(_bytes(SEALED, bytes(altered)))
        with pytest.raises(RefusedError):
            opened(_bytes(SEALED, sealed.data[:at]))
    with pytest.raises(RefusedError):
        answer_of((_bytes(SEALED, back[0].data[:-1]), back[1]), sealed)
    with pytest.raises(PeerError) as refused:
        answer_of((back[0], _bytes(DIGEST, bytes(32))), sealed)
    assert refused.value.error_code == "digest-mismatch"
    with pytest.raises(PeerError):
        answer_of(back, sealed, salt=bytes(32))
    for outputs in ((back[0],), (back[1], back[0]), (*back, back[0]), (LABEL, back[1])):
        with pytest.raises(RefusedError):
            answer_of(outputs, sealed)


GOOD: dict[str, Any] = {
    "v": 1,
    "family": "digits",
    "inputs": [],
    "outputs": [],
    "salt": SALT,
    "reply": [[1, THEIRS.public.raw]],
}


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {**GOOD, "v": 2},
        {**GOOD, "more": 1},
        {**GOOD, "family": 1},
        {**GOOD, "family": ""},
        {**GOOD, "family": "x" * 300},
        {**GOOD, "inputs": {}},
        {**GOOD, "inputs": [1]},
        {**GOOD, "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": b"1"}]},
        {**GOOD, "inputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": b"1"}]},
        {**GOOD, "inputs": [{"name": "x", "datatype": "FP31", "shape": [0], "data": b""}]},
        {**GOOD, "inputs": [{"name": "x", "datatype": ["FP32"], "shape": [0], "data": b""}]},
        {**GOOD, "inputs": [{"name": "x", "datatype": "FP32", "shape": [2**62, 2**62], "data": b""}]},
        {**GOOD, "inputs": [{"name": "x", "datatype": "FP32", "shape": [True], "data": b"1234"}]},
        {**GOOD, "outputs": [1]},
        {**GOOD, "outputs": ["x"] * 65},
        {**GOOD, "salt": b""},
        {**GOOD, "reply": []},
        {**GOOD, "reply": [[1]]},
        {**GOOD, "reply": [["1", b""]]},
        {**GOOD, "reply": [[1, bytes(5000)]]},
        {**GOOD, "reply": [[1, bytes(32)]] * 5},
    ],
)
def test_what_is_sealed_and_no_question_is_refused(content: Any) -> None:  # noqa: ANN401 whatever
    """Rightly sealed by a stranger, and still hostile."""
    info = b"edge-agent sealed question 1\0" + NETWORK.encode() + b"\0" + AGENT.encode()
    with pytest.raises(PeerError) as refused:
        opened(_bytes(SEALED, hpke.encrypt(strict_cbor.encode(content), OURS.public, info)))
    assert refused.value.error_code == "malformed"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    """With a peer's error, sealed or not."""
    info = b"edge-agent sealed question 1\0" + NETWORK.encode() + b"\0" + AGENT.encode()
    for sealed in (data, b"\1" + data, hpke.encrypt(data, OURS.public, info)):
        with pytest.raises(PeerError):
            opened(_bytes(SEALED, sealed))


def test_the_secret_shows_nowhere() -> None:
    """Not in a text, and not in a pickle."""
    assert "01" not in repr(OURS)
    with pytest.raises(TypeError):
        pickle.dumps(OURS)


def test_an_old_library_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain jobs need nothing of this."""
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.hpke", None)
    monkeypatch.delattr("cryptography.hazmat.primitives.hpke", raising=False)
    hpke._suite.cache_clear()
    with pytest.raises(EdgeAgentError) as refused:
        asked()
    assert refused.value.error_code == "not-supported"
    assert "upgrade" in refused.value.hint


# -- outside judges -----------------------------------------------------------------------------------------------

KDFS = {1: "HKDF_SHA256", 3: "HKDF_SHA512"}
AEADS = {1: "AES_128_GCM", 2: "AES_256_GCM", 3: "CHACHA20_POLY1305"}


def test_rfc_9180_agrees_with_the_library() -> None:
    """Each vector of mode base and X25519, with every KDF and AEAD: their ciphertext opens, an altered one does not.

    The public interface has no associated data, which the vectors have: the library's own tests take this door, too.
    """
    vectors = json.loads((needs.reference_data() / "vectors" / "hpke_rfc9180.json").read_text())
    judged = 0
    for vector in vectors:
        if vector["mode"] != 0 or vector["kem_id"] != 0x20 or vector["aead_id"] not in AEADS:
            continue
        suite = library.Suite(
            library.KEM.X25519,
            getattr(library.KDF, KDFS[vector["kdf_id"]]),
            getattr(library.AEAD, AEADS[vector["aead_id"]]),
        )
        key = X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["skRm"]))
        assert key.public_key().public_bytes_raw().hex() == vector["pkRm"]
        first = vector["encryptions"][0]
        sealed = bytes.fromhex(vector["enc"] + first["ct"])
        info, aad = bytes.fromhex(vector["info"]), bytes.fromhex(first["aad"])
        assert openssl.hpke._decrypt_with_aad(suite, sealed, key, info, aad).hex() == first["pt"]
        with pytest.raises(InvalidTag):
            openssl.hpke._decrypt_with_aad(suite, sealed[:-1] + bytes((sealed[-1] ^ 1,)), key, info, aad)
        judged += 1
    assert judged == 6


def test_wycheproof_agrees_on_x25519() -> None:
    """All 518: shared secrets as printed, and keys of small order refused where the secret would be zero."""
    groups = json.loads((needs.reference_data() / "vectors" / "wycheproof" / "x25519_test.json").read_text())[
        "testGroups"
    ]
    judged = refused = 0
    for case in (case for group in groups for case in group["tests"]):
        key = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["private"]))
        judged += 1
        try:
            shared = key.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(case["public"])))
        except ValueError:
            assert set(case["shared"]) == {"0"}
            assert case["result"] != "valid"
            refused += 1
        else:
            assert shared.hex() == case["shared"]
    assert judged == 518
    assert refused > 0


def test_wycheproof_agrees_on_the_aead() -> None:
    """ChaCha20-Poly1305, which is what HPKE encrypts with here: every vector with a nonce of its 96 bits."""
    path = needs.reference_data() / "vectors" / "wycheproof" / "chacha20_poly1305_test.json"
    judged = {"valid": 0, "invalid": 0}
    for group in json.loads(path.read_text())["testGroups"]:
        for case in group["tests"]:
            cipher = ChaCha20Poly1305(bytes.fromhex(case["key"]))
            sealed = bytes.fromhex(case["ct"] + case["tag"])
            judged[case["result"]] += 1
            try:
                plain = cipher.decrypt(bytes.fromhex(case["iv"]), sealed, bytes.fromhex(case["aad"]))
            except (InvalidTag, ValueError):
                assert case["result"] == "invalid", case
            else:
                assert (case["result"], plain.hex()) == ("valid", case["msg"]), case
    assert min(judged.values()) > 30


def _bytes(name: str, data: bytes) -> Tensor:
    return Tensor(TensorSpec(name, DataType.UINT8, (len(data),)), data)
