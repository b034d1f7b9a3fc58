"""Key files: who may read them, how long they may be; written whole or not at all, and never over another."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge_agent.errors import KeyFileError

MAX_KEY_FILE_BYTES = 16_384

K = TypeVar("K", Ed25519PrivateKey, X25519PrivateKey)


def file_is_encrypted(path: str | os.PathLike[str]) -> bool:
    """Whether a secret key's file needs a passphrase.

    Raises:
        KeyFileError: it is missing, not a file, or readable by others.
    """
    return is_encrypted(read_key_file(Path(path), secret=True))


def is_encrypted(pem: bytes) -> bool:
    """Whether a secret key in PEM needs a passphrase."""
    return b"ENCRYPTED PRIVATE KEY-----" in pem or b"Proc-Type: 4,ENCRYPTED" in pem  # the latter by old OpenSSL


def read_secret_key(path: Path, kind: type[K], passphrase: bytes | None) -> K:
    """Read a secret key from a PKCS#8 PEM file that only its owner can read.

    Args:
        path: of the file.
        kind: what it must be.
        passphrase: that it is encrypted with; a file that is not encrypted is read all the same.

    Raises:
        KeyFileError: missing, cut, readable by others, encrypted otherwise, or a key of another kind.
    """
    pem = read_key_file(path, secret=True)
    if b"PUBLIC KEY-----" in pem:
        raise KeyFileError(f"{path} holds a public key where the secret one is needed.")
    encrypted = is_encrypted(pem)
    if encrypted and passphrase is None:
        raise KeyFileError(
            f"{path} is encrypted with a passphrase, and none was given.",
            hint="Name its file with keys.passphrase_file, or give it as the credential key-passphrase.",
        )
    try:
        key = serialization.load_pem_private_key(pem, password=passphrase if encrypted else None)
    except (ValueError, UnsupportedAlgorithm, TypeError) as error:
        reason = ", or the passphrase is wrong" if encrypted else ""
        raise KeyFileError(f"{path} is not a whole PEM secret key{reason}.") from error
    if not isinstance(key, kind):
        wanted = kind.__name__.removesuffix("PrivateKey")
        raise KeyFileError(f"{path} holds a secret key of another type than {wanted}.")
    return key


def write_secret_key(path: Path, key: Ed25519PrivateKey | X25519PrivateKey, passphrase: bytes | None) -> None:
    """Write a secret key to a new PKCS#8 PEM file with mode 0600, through to the disk.

    Args:
        path: of the file.
        key: the key.
        passphrase: to encrypt it with; None leaves it as it is.

    Raises:
        KeyFileError: the file is there already, or cannot be written.
    """
    cipher: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        cipher = serialization.BestAvailableEncryption(passphrase)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
    write_key_file(path, pem, 0o600)


def read_key_file(path: Path, *, secret: bool) -> bytes:
    """Return what a key file holds.

    Args:
        path: of the file.
        secret: refuse one that others than its owner can use.

    Raises:
        KeyFileError: it cannot be read, is no file, too long, or open to others.
    """
    try:
        # A pipe in the place of the file must not make us wait.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise KeyFileError(f"{path} is not a file.")
            if secret:
                _refuse_readable_by_others(path, facts.st_mode)
            pem = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(
            f"The key file {path} cannot be read: {error.strerror}.",
            hint="Check the path and who may read it; the coordinator's is coordinator.pub in its state directory.",
        ) from error
    if len(pem) > MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"{path} is longer than {MAX_KEY_FILE_BYTES} bytes and so not a key file.")
    return pem


def _refuse_readable_by_others(path: Path, mode: int) -> None:
    forbidden = 0o077
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and path.parent == Path(credentials):
        # systemd gives the service access by an ACL; the group bits then show the ACL's mask, not the group.
        forbidden = 0o037
    if mode & forbidden:
        raise KeyFileError(
            f"The secret key {path} can be used by others than its owner (mode {stat.S_IMODE(mode):04o}).",
            hint=f"Run: chmod 600 {path} - and make a new key if others had access to it.",
        )


def write_key_file(path: Path, content: bytes, mode: int) -> None:
    """Write a new file with this mode, through to the disk.

    Raises:
        KeyFileError: it is there already, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise KeyFileError(
            f"{path} is there already and is not overwritten.",
            hint="Choose another name, or move the old key away first.",
        ) from error
    except OSError as error:
        raise KeyFileError(
            f"The key file {path} cannot be written: {error.strerror}.",
            hint="Name a place in a folder that is there and that you may write to.",
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)  # the umask may have taken bits away from a public key
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key would be in the way of the next attempt
        raise KeyFileError(
            f"The key file {path} cannot be written: {error.strerror}.",
            hint="Name a place in a folder that is there and that you may write to.",
        ) from error
