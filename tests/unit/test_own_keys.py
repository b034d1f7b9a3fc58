"""Where secret keys come from: files, systemd's credentials, passphrases that are never arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import own_keys
from edge_agent.errors import KeyFileError
from edge_agent.settings import load
from edge_agent.wire.keys import PublicKey, SigningKey


def source(tmp_path: Path, **environ: str) -> own_keys.KeySource:
    """Return what the settings of this environment say."""
    environ = {"HOME": str(tmp_path), **environ}
    return own_keys.source_of(load(None, environ, {}).settings, environ)


def test_a_credential_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its public half is kept where others look for it; nothing secret is written."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    given = SigningKey.generate()
    given.write(credentials / "agent.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    found = own_keys.signing_key(
        tmp_path / "state" / "agent.key", source(tmp_path, CREDENTIALS_DIRECTORY=str(credentials))
    )
    assert found.public == given.public
    assert PublicKey.from_file(tmp_path / "state" / "agent.pub") == given.public
    assert not (tmp_path / "state" / "agent.key").exists()


def test_keys_are_made_with_the_passphrase_of_a_credential(tmp_path: Path) -> None:
    """And cannot be read without it."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "key-passphrase").write_text("correct horse\n")
    locked = source(tmp_path, CREDENTIALS_DIRECTORY=str(credentials))
    key = own_keys.signing_key(tmp_path / "agent.key", locked)
    sealing = own_keys.sealing_key(tmp_path / "sealing.key", locked)
    assert b"ENCRYPTED" in (tmp_path / "agent.key").read_bytes()
    assert b"ENCRYPTED" in (tmp_path / "sealing.key").read_bytes()
    assert own_keys.signing_key(tmp_path / "agent.key", locked).public == key.public
    assert own_keys.sealing_key(tmp_path / "sealing.key", locked).public == sealing.public
    with pytest.raises(KeyFileError, match="encrypted") as refused:
        own_keys.signing_key(tmp_path / "agent.key")
    assert "keys.passphrase_file" in (refused.value.hint or "")


def test_a_wrong_passphrase_makes_no_new_key(tmp_path: Path) -> None:
    """What is there stays, byte for byte."""
    (tmp_path / "right").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("battery staple\n")
    right = source(tmp_path, EDGE_AGENT_KEYS_PASSPHRASE_FILE=str(tmp_path / "right"))
    own_keys.signing_key(tmp_path / "agent.key", right)
    before = (tmp_path / "agent.key").read_bytes()
    with pytest.raises(KeyFileError, match="passphrase is wrong"):
        own_keys.signing_key(
            tmp_path / "agent.key", source(tmp_path, EDGE_AGENT_KEYS_PASSPHRASE_FILE=str(tmp_path / "wrong"))
        )
    assert (tmp_path / "agent.key").read_bytes() == before
