"""Where our own secret keys come from: a file in the state directory, or a credential that systemd hands over.

A systemd credential of the file's name (`agent.key`, `sealing.key`, `coordinator.key`, `registrar.key`) wins over the
file. Either may be encrypted with a passphrase, which comes from the credential `key-passphrase` or from the file that
the settings name, never from the command line. What is made at the first start is encrypted with that passphrase, too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge_agent import tpm
from edge_agent.errors import KeyFileError
from edge_agent.folders import make_private
from edge_agent.settings import Settings
from edge_agent.settings.passwords import read_password
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.sealing_key import SealingKey

log = logging.getLogger("edge_agent.agent")

PASSPHRASE_CREDENTIAL = "key-passphrase"  # noqa: S105 the name of a credential

K = TypeVar("K", SigningKey, SealingKey)


@dataclass(frozen=True, slots=True)
class KeySource:
    """How key files are opened.

    Attributes:
        passphrase: that they are encrypted with; None: they are not.
        credentials: systemd's folder for this service, if there is one.
        tpm: seal new keys to the machine's TPM.
    """

    passphrase: bytes | None = None
    credentials: Path | None = None
    tpm: bool = False


PLAIN = KeySource()


@dataclass(frozen=True, slots=True)
class AgentKeys:
    """An agent's two secret keys: with one it signs, with the other it opens what was sealed to it."""

    signing: SigningKey
    sealing: SealingKey


def agent_keys(settings: Settings) -> AgentKeys:
    """Read an agent's keys, or make them at the first start.

    Raises:
        KeyFileError: as `signing_key`.
        StateError: as above.
        SettingsError: the passphrase's file cannot be read.
    """
    source, own = source_of(settings), settings.agent
    return AgentKeys(signing_key(own.key_file, source), sealing_key(own.sealing_key_file, source))


def keys_to_run_with(settings: Settings) -> AgentKeys:
    """As `agent_keys`, for an agent that works on: where no sealing key can be kept, one that holds until its end.

    An agent of an earlier version has none yet, and its disk may take nothing more.

    Raises:
        KeyFileError: as `agent_keys`, but for a sealing key that is not there.
        StateError: as above.
        SettingsError: as above.
    """
    source, own = source_of(settings), settings.agent
    signing = signing_key(own.key_file, source)
    try:
        return AgentKeys(signing, sealing_key(own.sealing_key_file, source))
    except KeyFileError as error:
        if place(own.sealing_key_file, source).exists():
            raise
        text = "Inputs can be sealed to this agent until it ends, with a key that is not kept: %s"
        log.warning(text, error.message, extra={"action": "sealing-key-not-kept"})
        return AgentKeys(signing, SealingKey.generate())


def source_of(settings: Settings, environ: Mapping[str, str] | None = None) -> KeySource:
    """Read from settings and environment how key files are opened.

    Raises:
        SettingsError: the passphrase's file cannot be read.
    """
    folder = (os.environ if environ is None else environ).get("CREDENTIALS_DIRECTORY")
    credentials = Path(folder) if folder else None
    file = settings.keys.passphrase_file
    if file is None and credentials is not None and (credentials / PASSPHRASE_CREDENTIAL).exists():
        file = credentials / PASSPHRASE_CREDENTIAL
    passphrase = read_password(None, file, "keys.passphrase_file")
    return KeySource(passphrase.encode() if passphrase is not None else None, credentials, settings.keys.tpm == "on")


def place(path: Path, source: KeySource = PLAIN) -> Path:
    """Return where a key really lies: the credential of its name, or the file."""
    if source.credentials is not None and (credential := source.credentials / path.name).exists():
        return credential
    return path


def plain_file(path: Path, settings: Settings) -> Path | None:
    """Return where a key lies in a form that other libraries can read, too: a file that is not encrypted."""
    source = source_of(settings)
    if (
        source.passphrase is not None
        or tpm.sealed_file(path).exists()
        or place(path, source) != path
        or not path.exists()
    ):
        return None
    return path


def signing_key(path: Path, source: KeySource = PLAIN) -> SigningKey:
    """Read our signing key, or make it at the first start; its public half lies beside the file.

    Raises:
        KeyFileError: what is there is no key or cannot be read, or nothing can be written.
        StateError: the folder cannot be made.
    """
    found = _read(SigningKey, path, source)
    if found is not None:
        if place(path, source) != path:
            publish(found.public, path)
        return found
    key = _make(SigningKey, path, source)
    path.with_suffix(".pub").unlink(missing_ok=True)  # that of a key that is no more: who pinned it would wait for ever
    key.public.write(path.with_suffix(".pub"))
    return key


def existing_signing_key(path: Path, source: KeySource = PLAIN) -> SigningKey | None:
    """Read a signing key if there is one.

    Raises:
        KeyFileError: it cannot be read.
    """
    return _read(SigningKey, path, source)


def sealing_key(path: Path, source: KeySource = PLAIN) -> SealingKey:
    """Read our sealing key, or make it at the first start.

    Raises:
        KeyFileError: what is there is no key or cannot be read, or nothing can be written.
        StateError: the folder cannot be made.
    """
    return _read(SealingKey, path, source) or _make(SealingKey, path, source)


def _read(kind: type[K], path: Path, source: KeySource) -> K | None:
    file = place(path, source)
    if file == path and tpm.sealed_file(path).exists():
        return kind.generate(tpm.read_seed(path))
    return kind.from_file(file, source.passphrase) if file.exists() else None


def _make(kind: type[K], path: Path, source: KeySource) -> K:
    make_private(path.parent)
    if source.tpm:
        return kind.generate(tpm.make_seed(path))
    key = kind.generate()
    key.write(path, source.passphrase)
    return key


def publish(public: PublicKey, path: Path) -> None:
    """Keep the public half of a key beside its place in the state directory, where others look for it.

    Raises:
        KeyFileError: it cannot be written.
        StateError: the folder cannot be made.
    """
    file = path.with_suffix(".pub")
    make_private(file.parent)
    try:
        if PublicKey.from_file(file) == public:
            return
    except KeyFileError:
        pass
    file.unlink(missing_ok=True)
    public.write(file)
