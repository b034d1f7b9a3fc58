"""Secret random bytes in small pieces.

Each question to the system lets go of the interpreter, and another thread then keeps it for longer than the answer
takes: it is asked for many at once. The pieces that were not taken yet are as secret as keys in the same memory.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

POOL_BYTES: Final = 4096


class Entropy:
    """Gives each byte that the system drew once; for one thread, in a process that does not fork.

    Args:
        source: draws so many bytes; the system, unless a test says otherwise.
    """

    def __init__(self, source: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._source = source
        self._pool = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return so many bytes, at most `POOL_BYTES`, which nobody was given before."""
        if self._at + size > len(self._pool):
            self._pool, self._at = self._source(POOL_BYTES), 0
        taken = self._pool[self._at : self._at + size]
        self._at += size
        return taken
