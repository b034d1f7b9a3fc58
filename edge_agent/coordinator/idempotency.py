"""Which request each idempotency key stood for: the newest in memory, all in the database. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

MAX_KNOWN = 1_000
"""So many keys are kept in memory, about 0.4 MB; older ones are in the database alone. A client that repeats itself
does so within seconds, and a coordinator's memory should not grow with each job for days."""


class KnownRequests:
    """A bounded table of idempotency keys.

    Args:
        most: when there are more, the one that was remembered first is dropped.
    """

    def __init__(self, most: int = MAX_KNOWN) -> None:
        self._most = most
        self._known: dict[str, tuple[bytes, bytes]] = {}  # key -> (job, request digest), oldest first
        self._dropped = False

    def find(self, key: str) -> tuple[bytes, bytes] | None:
        """Return (job id, request digest) of a key, if it is known here."""
        return self._known.get(key)

    def may_be_stored(self, key: str) -> bool:
        """Whether only the database can say if a key was used: it is not known here, and others were dropped."""
        return self._dropped and key not in self._known

    def remember(self, key: str, job_id: bytes, digest: bytes) -> None:
        """Know a client's key again."""
        self._known[key] = (job_id, digest)
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]
            self._dropped = True

    def forget(self, keys: Iterable[str]) -> None:
        """Drop keys whose jobs were removed from the database."""
        for key in keys:
            self._known.pop(key, None)
