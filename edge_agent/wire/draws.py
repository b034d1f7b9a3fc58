"""The draw of checks: a keyed hash of what an agent signed, so that neither it nor the coordinator can steer it.

The hash of the key is published before its period begins and the key after it is over: everybody can draw again.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

PERIOD_MS: Final = 86_400_000
"""The key is another one each day, by Universal Time."""

_KEY_LABEL: Final = b"edge-agent check key 1"
_DRAW_LABEL: Final = b"edge-agent check draw 1"


def period_of(at_ms: int) -> int:
    """Return the period of a moment, Unix milliseconds."""
    return at_ms // PERIOD_MS


def period_key(secret: bytes, period: int) -> bytes:
    """Return the 32 bytes of the key of a period; keys of other periods cannot be found from it."""
    return hmac.digest(secret, _KEY_LABEL + period.to_bytes(8, "big"), "sha256")


def commitment(key: bytes) -> bytes:
    """Return what is published of a key before its period begins."""
    return hashlib.sha256(_KEY_LABEL + key).digest()


@dataclass(frozen=True, slots=True)
class Draw:
    """The numbers that a result drew, 0 to 1, each independent of the others.

    Attributes:
        check: below the probability of a check, the result is checked.
        trusted: below the share of trusted machines, one of those checks it, where there are any.
        seed: puts the machines that may check it in order.
    """

    check: float
    trusted: float
    seed: bytes

    @classmethod
    def of(cls, key: bytes, signed: bytes) -> Draw:
        """Draw for the bytes that an agent signed; the key is that of the period in which they were accepted."""
        # `hmac.digest` lets go of the interpreter, for longer than it takes.
        found = hmac.new(key, _DRAW_LABEL + hashlib.sha256(signed).digest(), "sha256").digest()
        return cls(_unit(found[:8]), _unit(found[8:16]), found[16:])


def _unit(data: bytes) -> float:
    return int.from_bytes(data, "big") / (1 << 8 * len(data))
