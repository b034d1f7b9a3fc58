"""X25519 keys (RFC 7748): what inputs for an agent are sealed to.

An agent has one beside its signing key. Its public half, 32 bytes, stands in the agent's birth, signed with the signing
key, and in its certificate. The secret half lies in a PKCS#8 PEM file, like that of a signing key.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge_agent.wire.key_files import read_secret_key, write_secret_key
from edge_agent.wire.keys import SECRET_SEED_BYTES


class SealingKey:
    """A secret key that sealed messages are opened with. Its `repr` shows no secret, and it cannot be pickled.

    Attributes:
        private: for whoever opens messages with it.
        public: its public half, 32 bytes.
    """

    __slots__ = ("private", "public")

    private: X25519PrivateKey
    public: bytes

    def __init__(self, private: X25519PrivateKey) -> None:
        self.private = private
        self.public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    @classmethod
    def generate(cls, seed: bytes | None = None) -> SealingKey:
        """Make a new key, from the operating system's randomness or from 32 secret bytes.

        Raises:
            ValueError: another number of bytes.
        """
        if seed is None:
            return cls(X25519PrivateKey.generate())
        if len(seed) != SECRET_SEED_BYTES:
            raise ValueError(f"A secret key has {SECRET_SEED_BYTES} bytes, not {len(seed)}.")
        return cls(X25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], passphrase: bytes | None = None) -> SealingKey:
        """Read a PKCS#8 PEM file that only its owner can read; see `SigningKey.from_file`.

        Raises:
            KeyFileError: missing, cut, readable by others, encrypted otherwise, or not an X25519 secret key.
        """
        return cls(read_secret_key(Path(path), X25519PrivateKey, passphrase))  # type: ignore[type-abstract] # only isinstance

    def write(self, path: str | os.PathLike[str], passphrase: bytes | None = None) -> None:
        """Write the key to a new file with mode 0600, through to the disk.

        Raises:
            KeyFileError: the file is there already, or cannot be written.
        """
        write_secret_key(Path(path), self.private, passphrase)

    def __reduce__(self) -> str:
        raise TypeError("A secret key is not pickled.")

    def __repr__(self) -> str:
        return f"SealingKey(public {self.public.hex()[:16]}…)"
