"""Who may look at the dashboard: whoever shows an API key with the scope `operator`, then a cookie. No I/O.

The key stays here and is looked at again with each call, so that revoking it ends the session; the browser has random
bits alone, in a cookie that no script can read and no other site can send.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SESSION_SECONDS: Final = 12 * 3600.0
MAX_SESSIONS: Final = 256
TRIES: Final = 5
TRY_AGAIN_SECONDS: Final = 30.0
"""After `TRIES` wrong keys from one address, one more may be tried in each such span."""
TRIES_OF_ALL: Final = 50
"""The same for all addresses together: many addresses are no way around it."""
MAX_ADDRESSES: Final = 1024


@dataclass(slots=True)
class _Session:
    token: str
    until: float


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Logins:
    """Sessions by the SHA-256 of their cookie, and how many wrong keys may still be tried.

    Args:
        may_operate: whether a key has the scope `operator` now.
        monotonic: reads the clock, seconds.
    """

    def __init__(self, may_operate: Callable[[str], bool], monotonic: Callable[[], float]) -> None:
        self._may_operate = may_operate
        self._monotonic = monotonic
        self._sessions: dict[bytes, _Session] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._all = _Bucket(TRIES_OF_ALL, monotonic())

    def log_in(self, token: str, address: str) -> str | None:
        """Return the cookie of a new session, or None for a key that will not do.

        Raises:
            PermissionError: too many wrong keys were tried; this one was not looked at.
        """
        now = self._monotonic()
        bucket = self._bucket(address, now)
        _refill(bucket, now, TRIES)
        _refill(self._all, now, TRIES_OF_ALL)
        if bucket.left < 1 or self._all.left < 1:
            raise PermissionError
        if not self._may_operate(token):
            bucket.left -= 1
            self._all.left -= 1
            return None
        self._sessions = {key: kept for key, kept in self._sessions.items() if kept.until > now}
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        cookie = secrets.token_urlsafe(32)
        self._sessions[_digest(cookie)] = _Session(token, now + SESSION_SECONDS)
        return cookie

    def holds(self, cookie: str | None) -> bool:
        """Whether a cookie is that of a session, and the key behind it still an operator's."""
        session = self._sessions.get(_digest(cookie)) if cookie else None
        if session is None or session.until <= self._monotonic():
            return False
        return self._may_operate(session.token)

    def log_out(self, cookie: str | None) -> None:
        """End a session."""
        if cookie:
            self._sessions.pop(_digest(cookie), None)

    def _bucket(self, address: str, now: float) -> _Bucket:
        if address not in self._buckets:
            if len(self._buckets) >= MAX_ADDRESSES:
                del self._buckets[next(iter(self._buckets))]
            self._buckets[address] = _Bucket(TRIES, now)
        return self._buckets[address]


def _refill(bucket: _Bucket, now: float, most: float) -> None:
    bucket.left = min(most, bucket.left + (now - bucket.at) / TRY_AGAIN_SECONDS)
    bucket.at = now


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()
