"""The X25519 key of an agent: made, kept, read back; refused where it is not what it should be."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from edge_agent.errors import KeyFileError
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.sealing_key import SealingKey


def test_a_key_comes_back_from_its_file(tmp_path: Path) -> None:
    """With mode 0600, and with a passphrase only for who knows it."""
    key = SealingKey.generate()
    key.write(tmp_path / "plain.key")
    key.write(tmp_path / "locked.key", b"correct horse")
    assert (tmp_path / "plain.key").stat().st_mode & 0o777 == 0o600
    assert SealingKey.from_file(tmp_path / "plain.key").public == key.public
    assert SealingKey.from_file(tmp_path / "locked.key", b"correct horse").public == key.public
    for wrong in (None, b"wrong horse"):
        with pytest.raises(KeyFileError):
            SealingKey.from_file(tmp_path / "locked.key", wrong)


def test_public_and_private_halves_belong_together() -> None:
    """Both sides compute the same secret."""
    alice = SealingKey.generate()
    bob = SealingKey.generate()
    shared = alice.private.exchange(X25519PublicKey.from_public_bytes(bob.public))
    assert shared == bob.private.exchange(X25519PublicKey.from_public_bytes(alice.public))


def test_a_signing_key_is_no_sealing_key(tmp_path: Path) -> None:
    """The two files cannot be mixed up."""
    SigningKey.generate().write(tmp_path / "a.key")
    SealingKey.generate().write(tmp_path / "b.key")
    with pytest.raises(KeyFileError, match="another type than X25519"):
        SealingKey.from_file(tmp_path / "a.key")
    with pytest.raises(KeyFileError, match="another type than Ed25519"):
        SigningKey.from_file(tmp_path / "b.key")


def test_others_may_not_read_it_and_cut_files_are_refused(tmp_path: Path) -> None:
    """Like signing keys."""
    key = SealingKey.generate()
    key.write(tmp_path / "open.key")
    (tmp_path / "open.key").chmod(0o644)
    with pytest.raises(KeyFileError, match="can be used by others"):
        SealingKey.from_file(tmp_path / "open.key")
    (tmp_path / "cut.key").write_bytes(b"-----BEGIN PRIVATE KEY-----\nMC4C")
    (tmp_path / "cut.key").chmod(0o600)
    with pytest.raises(KeyFileError, match="not a whole"):
        SealingKey.from_file(tmp_path / "cut.key")


def test_no_secret_shows() -> None:
    """Not in its `repr`, and it cannot be pickled."""
    key = SealingKey.generate(bytes(range(32)))
    assert bytes(range(32)).hex() not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(ValueError, match="32 bytes"):
        SealingKey.generate(b"short")
