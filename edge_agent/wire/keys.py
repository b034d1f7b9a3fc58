"""Ed25519 keys (RFC 8032): every agent and every coordinator is one.

A key's id is the lower-case base32 of the first 20 bytes of the SHA-256 of its 32 public bytes: 32
characters that fit into an MQTT topic, a file name and a URL. Secret keys lie in PKCS#8 PEM files with
mode 0600, public ones in SubjectPublicKeyInfo PEM files, so that `openssl pkey` reads both.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_agent.errors import KeyFileError, MalformedError, SignatureRefusedError
from edge_agent.wire.key_files import read_key_file, read_secret_key, write_key_file, write_secret_key

PUBLIC_KEY_BYTES = 32
SECRET_SEED_BYTES = 32
SIGNATURE_BYTES = 64
KEY_ID_BYTES = 20
FINGERPRINT_CHARACTERS = 8

_FIELD_PRIME = 2**255 - 19
_Y_MASK = 2**255 - 1
# The y coordinates of the eight points of small order. A "key" among them has signatures that verify for
# any message, so what it signed proves nothing.
_SMALL_ORDER_Y = frozenset(
    (
        0,
        1,
        _FIELD_PRIME - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    )
)


def key_id(raw: bytes) -> str:
    """Return the id of the 32 public bytes `raw`: 32 characters of a-z and 2-7."""
    return key_id_text(hashlib.sha256(raw).digest()[:KEY_ID_BYTES])


def key_id_text(key_id_bytes: bytes) -> str:
    """Return the written form of the 20 bytes of a key id."""
    return base64.b32encode(key_id_bytes).decode("ascii").lower()


class PublicKey:
    """A public key that signatures are checked with. Two are equal when their 32 bytes are."""

    __slots__ = ("_key", "id", "id_bytes", "raw")

    raw: bytes
    id: str
    id_bytes: bytes

    def __init__(self, raw: bytes, key: Ed25519PublicKey) -> None:
        self.raw = raw
        self._key = key
        self.id_bytes = hashlib.sha256(raw).digest()[:KEY_ID_BYTES]
        self.id = key_id_text(self.id_bytes)

    @classmethod
    def from_bytes(cls, raw: bytes) -> PublicKey:
        """Take the 32 bytes of RFC 8032, section 5.1.5.

        Raises:
            MalformedError: another length, a coordinate outside the field, or a point of small order.
        """
        if len(raw) != PUBLIC_KEY_BYTES:
            raise MalformedError(f"A public key has {PUBLIC_KEY_BYTES} bytes, not {len(raw)}.")
        y = int.from_bytes(raw, "little") & _Y_MASK
        if y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:
            raise MalformedError("The public key is a weak one that anybody can sign for.")
        return cls(bytes(raw), Ed25519PublicKey.from_public_bytes(bytes(raw)))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> PublicKey:
        """Read a SubjectPublicKeyInfo PEM file.

        Raises:
            KeyFileError: missing, cut, or not an Ed25519 public key.
        """
        file = Path(path)
        pem = read_key_file(file, secret=False)
        if b"PRIVATE KEY-----" in pem:
            raise KeyFileError(
                f"{file} holds a secret key where a public one is needed.",
                hint=f"Give the .pub file that was written beside it, and keep {file} to yourself.",
            )
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{file} is not a whole PEM public key.") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(f"{file} holds a public key of another type than Ed25519.")
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        try:
            return cls.from_bytes(raw)
        except MalformedError as error:
            raise KeyFileError(f"{file}: {error}") from error

    @property
    def fingerprint(self) -> str:
        """The first eight characters of the id: enough for people to tell keys apart, not to trust one."""
        return self.id[:FINGERPRINT_CHARACTERS]

    def pem(self) -> bytes:
        """Return the key as SubjectPublicKeyInfo PEM."""
        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a new PEM file that everybody may read.

        Raises:
            KeyFileError: the file is there already, or cannot be written.
        """
        write_key_file(Path(path), self.pem(), 0o644)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return if `signature` is this key's for `message`.

        Raises:
            SignatureRefusedError: it is not.
        """
        try:
            self._key.verify(signature, message)
        except InvalidSignature as error:
            raise SignatureRefusedError(
                f"The signature is not by the key {self.fingerprint}, or the message was altered."
            ) from error

    def for_x509(self) -> Ed25519PublicKey:
        """Return the key in the form that X.509 certificates are made of."""
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.id})"


class SigningKey:
    """A secret key. Its `repr` shows only the public id, and it cannot be pickled."""

    __slots__ = ("_key", "public")

    public: PublicKey

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = PublicKey.from_bytes(raw)

    @classmethod
    def generate(cls, seed: bytes | None = None) -> SigningKey:
        """Make a new key, from the operating system's randomness or from a seed of 32 bytes.

        Raises:
            ValueError: a seed of another length.
        """
        if seed is None:
            return cls(Ed25519PrivateKey.generate())
        if len(seed) != SECRET_SEED_BYTES:
            raise ValueError(f"A seed has {SECRET_SEED_BYTES} bytes, not {len(seed)}.")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], passphrase: bytes | None = None) -> SigningKey:
        """Read a PKCS#8 PEM file that only its owner can read.

        Args:
            path: of the file.
            passphrase: that it is encrypted with; a file that is not encrypted is read all the same.

        Raises:
            KeyFileError: missing, cut, readable by others, encrypted otherwise, or not an Ed25519 secret key.
        """
        return cls(read_secret_key(Path(path), Ed25519PrivateKey, passphrase))  # type: ignore[type-abstract] # only isinstance

    def write(self, path: str | os.PathLike[str], passphrase: bytes | None = None) -> None:
        """Write the key to a new file with mode 0600, through to the disk.

        Args:
            path: of the file.
            passphrase: to encrypt it with, for keys that a person unlocks; None leaves it as it is.

        Raises:
            KeyFileError: the file is there already, or cannot be written.
        """
        write_secret_key(Path(path), self._key, passphrase)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature for `message`."""
        return self._key.sign(message)

    def for_x509(self) -> Ed25519PrivateKey:
        """Return the key in the form that X.509 certificates are signed with."""
        return self._key

    def __reduce__(self) -> str:
        raise TypeError("A secret key is not pickled.")

    def __repr__(self) -> str:
        return f"SigningKey(public id {self.public.id})"
