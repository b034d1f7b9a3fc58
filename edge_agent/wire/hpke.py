"""HPKE (RFC 9180), mode base, in two suites: X25519, and X25519 with ML-KEM-768 beside it for the time after it.

The only place that knows how `cryptography` calls it. What is sealed is the suite's number, one byte, then what the
library gives: the encapsulated key and the ciphertext.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from edge_agent.errors import RefusedError, UsageError

X25519: Final = 1
HYBRID: Final = 2
"""X25519 and ML-KEM-768 in one, `MLKEM768_X25519` of the library: safe while one of both is."""
X25519_BYTES: Final = 32
MLKEM768_BYTES: Final = 1184
SUITES: Final = (X25519, HYBRID)
_KEY_BYTES: Final = {X25519: X25519_BYTES, HYBRID: MLKEM768_BYTES + X25519_BYTES}


@dataclass(frozen=True, slots=True)
class PublicHalf:
    """What can be sealed to.

    Attributes:
        suite: its number.
        raw: 32 bytes of X25519; in the hybrid suite 1184 bytes of ML-KEM-768 in front of them.
    """

    suite: int
    raw: bytes


class SecretHalf:
    """What opens what was sealed to its public half; shows no secret.

    Args:
        x25519: of either suite.
        mlkem: of the hybrid suite.
    """

    __slots__ = ("_key", "public", "suite")

    def __init__(self, x25519: X25519PrivateKey, mlkem: Any = None) -> None:  # noqa: ANN401 of ML-KEM-768
        raw = x25519.public_key().public_bytes_raw()
        self._key: Any = x25519
        self.suite = X25519
        if mlkem is not None:
            raw = mlkem.public_key().public_bytes_raw() + raw
            self._key = _library().MLKEM768X25519PrivateKey(mlkem, x25519)
            self.suite = HYBRID
        self.public = PublicHalf(self.suite, raw)

    def open(self, data: bytes, info: bytes) -> bytes:
        """Decrypt what follows the suite's number.

        Raises:
            RefusedError: `wrong-input`: altered, or not for this key or this `info`.
        """
        try:
            plain: bytes = _suite(self.suite).decrypt(data, self._key, info=info)
        except (InvalidTag, ValueError):
            raise RefusedError(
                "What was sealed cannot be opened: it is for another key or purpose, or was altered.",
                code="wrong-input",
            ) from None
        return plain

    def __reduce__(self) -> str:
        raise TypeError("A secret key is not pickled.")

    def __repr__(self) -> str:
        return f"SecretHalf(suite {self.suite})"


def new_halves() -> tuple[SecretHalf, ...]:
    """Make keys for one use, of every suite that is spoken here, the best first.

    Raises:
        UsageError: `not-supported`.
    """
    _library()
    plain = SecretHalf(X25519PrivateKey.generate())
    hybrid = new_hybrid()
    return (plain,) if hybrid is None else (hybrid, plain)


def new_hybrid() -> SecretHalf | None:
    """Make a key of the hybrid suite; None where the library has none."""
    try:
        _library()
        return SecretHalf(X25519PrivateKey.generate(), _mlkem().MLKEM768PrivateKey.generate())
    except UsageError:
        return None


def encrypt(plain: bytes, to: PublicHalf, info: bytes) -> bytes:
    """Seal.

    Raises:
        UsageError: `not-supported`: the library lacks the suite.
        ValueError: the key is none.
    """
    if len(to.raw) != _KEY_BYTES.get(to.suite, -1):
        raise ValueError(f"a key of suite {to.suite} does not have {len(to.raw)} bytes")
    x25519 = X25519PublicKey.from_public_bytes(to.raw[-X25519_BYTES:])
    key: Any = x25519
    if to.suite == HYBRID:
        key = _library().MLKEM768X25519PublicKey(
            _mlkem().MLKEM768PublicKey.from_public_bytes(to.raw[:-X25519_BYTES]), x25519
        )
    sealed: bytes = _suite(to.suite).encrypt(plain, key, info=info)
    return bytes((to.suite,)) + sealed


def decrypt(sealed: bytes, keys: Sequence[SecretHalf], info: bytes) -> bytes:
    """Open what was sealed to one of these keys.

    Raises:
        RefusedError: `wrong-input`.
    """
    for key in keys:
        if sealed[:1] == bytes((key.suite,)):
            return key.open(sealed[1:], info)
    raise RefusedError("What was sealed is of a suite for which there is no key here.", code="wrong-input")


@cache
def _suite(number: int) -> Any:  # noqa: ANN401 the library's
    library = _library()
    kem = library.KEM.X25519 if number == X25519 else library.KEM.MLKEM768_X25519
    return library.Suite(kem, library.KDF.HKDF_SHA256, library.AEAD.CHACHA20_POLY1305)


def _library() -> Any:  # noqa: ANN401 a module
    try:
        from cryptography.hazmat.primitives import hpke  # noqa: PLC0415 older versions lack it, and serve plain jobs
    except ImportError as error:
        raise _too_old() from error
    return hpke


@cache
def _mlkem() -> Any:  # noqa: ANN401 a module
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 as below

    try:
        from cryptography.hazmat.primitives.asymmetric import mlkem  # noqa: PLC0415 as above

        mlkem.MLKEM768PrivateKey.generate()  # the module is there also where the library beneath it has none
    except (ImportError, UnsupportedAlgorithm) as error:
        raise _too_old() from error
    return mlkem


def _too_old() -> UsageError:
    return UsageError(
        "the package cryptography here has no HPKE, so that jobs can be neither sealed nor opened",
        code="not-supported",
        hint="Bring it up to date: pip install --upgrade cryptography",
    )
