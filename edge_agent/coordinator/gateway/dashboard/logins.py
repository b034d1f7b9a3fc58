"""Who may look at the dashboard: whoever shows an API key with the scope `operator`, then a cookie. No I/O.

The key stays here and is looked at again with each call, so that revoking it ends the session; the browser has random
bits alone, in a cookie that no script can read and no other site can send. Wrong keys are not counted: there are 256
random bits to guess, and whoever counted them would let strangers keep the operator out.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SESSION_SECONDS: Final = 12 * 3600.0
MAX_SESSIONS: Final = 256


@dataclass(slots=True)
class _Session:
    token: str
    until: float


class Logins:
    """Sessions by the SHA-256 of their cookie.

    Args:
        may_operate: whether a key has the scope `operator` now.
        monotonic: reads the clock, seconds.
    """

    def __init__(self, may_operate: Callable[[str], bool], monotonic: Callable[[], float]) -> None:
        self._may_operate = may_operate
        self._monotonic = monotonic
        self._sessions: dict[bytes, _Session] = {}

    def log_in(self, token: str) -> str | None:
        """Return the cookie of a new session, or None for a key that will not do."""
        if not self._may_operate(token):
            return None
        now = self._monotonic()
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


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()
