from __future__ import annotations

import copy
import json
import os
import pickle
import stat
from typing import TYPE_CHECKING, Any

import needs
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import KeyFileError, MalformedError, SignatureRefusedError
from edge_agent.wire.keys import KEY_ID_BYTES, PublicKey, SigningKey, key_id, key_id_text

if TYPE_CHECKING:
    from pathlib import Path

# RFC 8032, section 7.1, test 2.
RFC_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)
PRIME = 2**255 - 19


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with the secret key of the RFC."""
    path = tmp_path / "agent.key"
    SigningKey.generate(RFC_SEED).write(path)
    return path


def test_the_rfc_example_is_signed_as_printed() -> None:
    """RFC 8032 is the judge of the signatures."""
    key = SigningKey.generate(RFC_SEED)
    assert key.public.raw == RFC_PUBLIC
    assert key.sign(b"\x72") == RFC_SIGNATURE
    PublicKey.from_bytes(RFC_PUBLIC).verify(RFC_SIGNATURE, b"\x72")


@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
                "d25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            (
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
                "4a7c15e9716ed28dc027beceea1ec40a"
            ),
        ),
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            (
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd"
                "454d4423643ce80e2a9ac94fa54ca49f"
            ),
            (
                "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
                "3dca179c138ac17ad9bef1177331a704"
            ),
        ),
    ],
    ids=["1", "3", "SHA(abc)"],
)
def test_the_other_vectors_of_the_rfc_are_signed_as_printed(
    seed: str, public: str, message: str, signature: str
) -> None:
    """RFC 8032, section 7.1; test 2 is above."""
    key = SigningKey.generate(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    key.public.verify(bytes.fromhex(signature), bytes.fromhex(message))


def test_an_id_fits_a_topic_and_a_file_name() -> None:
    """32 characters of a-z and 2-7, from the hash of the public bytes, and the same everywhere."""
    public = SigningKey.generate(RFC_SEED).public
    assert public.id == key_id(RFC_PUBLIC) == key_id_text(public.id_bytes)
    assert len(public.id) == 32
    assert set(public.id) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert len(public.id_bytes) == KEY_ID_BYTES
    assert public.fingerprint == public.id[:8]


def test_two_generated_keys_differ() -> None:
    """Without a seed the key comes from the system's randomness."""
    assert SigningKey.generate().public != SigningKey.generate().public


def test_equal_keys_are_equal_and_can_be_looked_up() -> None:
    """Keys serve as entries of sets and keys of dicts."""
    one, two = PublicKey.from_bytes(RFC_PUBLIC), PublicKey.from_bytes(RFC_PUBLIC)
    assert one == two
    assert len({one, two}) == 1
    assert one != RFC_PUBLIC


def test_a_signature_for_another_message_or_by_another_key_is_refused() -> None:
    """The one error for both, because the two cannot be told apart."""
    key = SigningKey.generate(RFC_SEED)
    signature = key.sign(b"message")
    with pytest.raises(SignatureRefusedError):
        key.public.verify(signature, b"massage")
    with pytest.raises(SignatureRefusedError):
        SigningKey.generate().public.verify(signature, b"message")


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_random_signatures_are_refused(signature: bytes, message: bytes) -> None:
    """Any length of signature gives the same error."""
    with pytest.raises(SignatureRefusedError):
        PublicKey.from_bytes(RFC_PUBLIC).verify(signature, message)


def test_the_wycheproof_vectors_hold() -> None:
    """Malleable, cut and wrongly encoded signatures are refused, valid ones verify."""
    path = needs.reference_data() / "vectors" / "wycheproof" / "ed25519_test.json"
    groups = json.loads(path.read_text())["testGroups"]
    verdicts = {"valid": 0, "invalid": 0}
    for group in groups:
        key = PublicKey.from_bytes(bytes.fromhex(group["publicKey"]["pk"]))
        for case in group["tests"]:
            signature, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
            verdicts[case["result"]] += 1
            if case["result"] == "valid":
                key.verify(signature, message)
            else:
                with pytest.raises(SignatureRefusedError):
                    key.verify(signature, message)
    assert sum(verdicts.values()) == 151
    assert min(verdicts.values()) > 50


def test_keys_of_small_order_in_the_cctv_vectors_are_refused() -> None:
    """The vectors whose key has small order are exactly those that are refused as keys."""
    path = needs.reference_data() / "vectors" / "cctv" / "ed25519vectors.json"
    vectors: list[dict[str, Any]] = json.loads(path.read_text())
    keys = {vector["key"]: set(vector["flags"] or ()) for vector in vectors}
    refused = set()
    for raw in keys:
        try:
            PublicKey.from_bytes(bytes.fromhex(raw))
        except MalformedError:
            refused.add(raw)
    weak = {raw for raw, flags in keys.items() if flags & {"low_order_A", "non_canonical_A"}}
    assert weak
    assert refused == weak


def _add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    """Add two points of the curve of RFC 8032, section 5.1, in affine coordinates."""
    d = -121665 * pow(121666, -1, PRIME)
    (x1, y1), (x2, y2) = one, two
    product = d * x1 * x2 * y1 * y2
    x = (x1 * y2 + y1 * x2) * pow(1 + product, -1, PRIME)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, PRIME)
    return x % PRIME, y % PRIME


def test_every_point_of_small_order_is_refused_as_a_key() -> None:
    """The eight points are computed here from one of order 8, not taken from the list in the code."""
    y8 = int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little")
    d = -121665 * pow(121666, -1, PRIME)
    square = (y8 * y8 - 1) * pow(d * y8 * y8 + 1, -1, PRIME) % PRIME
    x8 = pow(square, (PRIME + 3) // 8, PRIME)
    if x8 * x8 % PRIME != square:
        x8 = x8 * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    point, seen = (0, 1), set()
    for _ in range(8):
        seen.add(point)
        x, y = point
        for sign in (x & 1, 1 - (x & 1)):
            with pytest.raises(MalformedError):
                PublicKey.from_bytes((y | sign << 255).to_bytes(32, "little"))
        point = _add(point, (x8, y8))
    assert len(seen) == 8
    assert point == (0, 1)


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33), (PRIME + 3).to_bytes(32, "little"), b"\xff" * 32])
def test_bytes_that_are_no_key_are_refused(raw: bytes) -> None:
    """Wrong lengths and coordinates outside the field."""
    with pytest.raises(MalformedError):
        PublicKey.from_bytes(raw)


def test_a_seed_of_another_length_is_a_value_error() -> None:
    """A short seed is a mistake of the caller."""
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey.generate(b"short")


def test_the_secret_shows_nowhere(key_file: Path) -> None:
    """Neither repr nor str, and it cannot be pickled or copied into another process."""
    key = SigningKey.from_file(key_file)
    for shown in (repr(key), str(key), f"{key}"):
        assert RFC_SEED.hex() not in shown
        assert key.public.id in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            leak(key)
    assert key.public.id in repr(key.public)


def test_files_read_back_what_was_written(tmp_path: Path, key_file: Path) -> None:
    """Secret and public files, the secret one for its owner only whatever the umask says."""
    assert SigningKey.from_file(key_file).public.raw == RFC_PUBLIC
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    before = os.umask(0o077)
    try:
        PublicKey.from_bytes(RFC_PUBLIC).write(tmp_path / "agent.pub")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "agent.pub").stat().st_mode) == 0o644
    assert PublicKey.from_file(str(tmp_path / "agent.pub")).raw == RFC_PUBLIC


def test_a_key_is_never_overwritten(key_file: Path) -> None:
    """The only copy of a key survives a second keygen."""
    before = key_file.read_bytes()
    with pytest.raises(KeyFileError, match="not overwritten"):
        SigningKey.generate().write(key_file)
    with pytest.raises(KeyFileError, match="not overwritten"):
        SigningKey.generate().public.write(key_file)
    assert key_file.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_secret_key_that_others_can_use_is_refused(key_file: Path, mode: int) -> None:
    """The hint says what to type."""
    key_file.chmod(mode)
    with pytest.raises(KeyFileError) as refused:
        SigningKey.from_file(key_file)
    assert f"chmod 600 {key_file}" in refused.value.hint


def test_a_systemd_credential_may_show_the_mask_of_its_acl(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials have mode 0440 because of their ACL; anything wider is still refused."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key_file.parent))
    key_file.chmod(0o440)
    assert SigningKey.from_file(key_file).public.raw == RFC_PUBLIC
    key_file.chmod(0o444)
    with pytest.raises(KeyFileError):
        SigningKey.from_file(key_file)


@pytest.mark.parametrize("reader", [SigningKey.from_file, PublicKey.from_file])
def test_a_missing_file_a_folder_and_a_pipe_are_clear_errors(tmp_path: Path, reader: Any) -> None:  # noqa: ANN401
    """A pipe in the place of a key does not hang the start."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", ".", "pipe"):
        with pytest.raises(KeyFileError):
            reader(tmp_path / name)


@pytest.mark.parametrize("reader", [SigningKey.from_file, PublicKey.from_file])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 40, b"-----BEGIN PRIVATE KEY-----", b"x" * 20_000])
def test_a_file_without_a_key_is_a_clear_error(tmp_path: Path, reader: Any, content: bytes) -> None:  # noqa: ANN401
    """Empty, text, binary, cut and far too long files."""
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError):
        reader(path)


def test_a_cut_key_file_is_refused_at_every_length(key_file: Path) -> None:
    """A disk that filled up while writing leaves no key that works differently."""
    whole = key_file.read_bytes()
    for keep in range(0, len(whole.rstrip()), 7):
        key_file.write_bytes(whole[:keep])
        with pytest.raises(KeyFileError):
            SigningKey.from_file(key_file)


def test_a_key_of_the_wrong_half_is_named_as_such(tmp_path: Path, key_file: Path) -> None:
    """Mixing up the two files is the likeliest mistake."""
    public_file = tmp_path / "agent.pub"
    SigningKey.from_file(key_file).public.write(public_file)
    public_file.chmod(0o600)
    with pytest.raises(KeyFileError, match="holds a public key"):
        SigningKey.from_file(public_file)
    with pytest.raises(KeyFileError, match="holds a secret key"):
        PublicKey.from_file(key_file)


def test_keys_of_other_types_are_refused(tmp_path: Path) -> None:
    """An elliptic-curve or X25519 key is not silently taken."""
    for number, other in enumerate((ec.generate_private_key(ec.SECP256R1()), x25519.X25519PrivateKey.generate())):
        secret, public = tmp_path / f"{number}.key", tmp_path / f"{number}.pub"
        secret.write_bytes(
            other.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        secret.chmod(0o600)
        public.write_bytes(
            other.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        with pytest.raises(KeyFileError, match="another type"):
            SigningKey.from_file(secret)
        with pytest.raises(KeyFileError, match="another type"):
            PublicKey.from_file(public)


def test_an_encrypted_key_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """A daemon has nobody who could type a password."""
    path = tmp_path / "agent.key"
    path.write_bytes(
        SigningKey.generate()._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    path.chmod(0o600)
    with pytest.raises(KeyFileError) as refused:
        SigningKey.from_file(path)
    assert "keys.passphrase_file" in refused.value.hint


def test_a_public_key_file_of_small_order_is_refused(tmp_path: Path) -> None:
    """The weak keys are refused from files too."""
    path = tmp_path / "weak.pub"
    raw = (1).to_bytes(32, "little")
    der = bytes.fromhex("302a300506032b6570032100") + raw
    path.write_bytes(
        serialization.load_der_public_key(der).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(KeyFileError, match="weak"):
        PublicKey.from_file(path)


def test_a_key_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    """A folder that is not there."""
    with pytest.raises(KeyFileError, match="cannot be written"):
        SigningKey.generate().write(tmp_path / "missing" / "agent.key")


def test_half_a_key_does_not_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full the next attempt finds a free name."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        SigningKey.generate().write(tmp_path / "agent.key")
    assert list(tmp_path.iterdir()) == []
