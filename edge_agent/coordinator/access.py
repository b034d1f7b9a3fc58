"""Who may use the coordinator: API keys with scopes, and how much each may do. No I/O.

A key is `ea_<id>_<secret>`. The id, 10 random letters and digits, finds the record; of the secret, 256 random bits,
only the SHA-256 of the whole key is kept: there is nothing to guess, so that a slow hash would only slow ourselves.
A key's *name* is the client: several keys may have one, to change keys without a gap; jobs, shares and quotas are the
client's.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from edge_agent.clock import Now
from edge_agent.coordinator.buckets import Bucket
from edge_agent.errors import DeniedError, ResourceError

PREFIX: Final = "ea_"
_TOKEN = re.compile(r"ea_([a-z2-7]{10})_([A-Za-z0-9_-]{43})")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
DAY_MS: Final = 86_400_000


class Scope(StrEnum):
    """What a key may be used for."""

    INFER = "infer"
    READ = "read"
    OPERATOR = "operator"
    MQTT = "mqtt"
    """Jobs over plain MQTT alone: the broker sees such a key, so that it must open nothing else."""


ALL_SCOPES: Final = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of an API key.

    Attributes:
        id: finds it; part of the key itself.
        name: of the client that uses it.
        digest: SHA-256 of the key.
        expires_ms: Unix milliseconds; None for never.
        revoked_ms: when it was revoked; None while it holds.
        requests_per_minute: calls of all kinds.
        jobs_per_day: from midnight to midnight, UTC.
    """

    id: str
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    created_ms: int
    requests_per_minute: int
    jobs_per_day: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def state(self, wall_ms: int) -> str:
        """Say how it stands: `active`, `expired` or `revoked`."""
        if self.revoked_ms is not None:
            return "revoked"
        return "expired" if self.expires_ms is not None and wall_ms >= self.expires_ms else "active"


def digest_of(token: str) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        name: of the client; None for whoever needs no key.
        key_id: of the key that was shown.
    """

    name: str | None
    scopes: frozenset[Scope]
    key_id: str | None = None

    def may(self, scope: Scope) -> bool:
        """Whether this is within its scopes; an operator may do everything."""
        return scope in self.scopes or Scope.OPERATOR in self.scopes

    def owns(self, client: str) -> bool:
        """Whether it may see and cancel the jobs of a client: its own, or all."""
        return self.may(Scope.READ) or self.name == client


ANYBODY: Final = Caller(None, ALL_SCOPES)
"""Where no key is asked for."""


@dataclass(slots=True)
class Usage:
    """What a client has done on one day, by the UTC day's number since 1970."""

    day: int = 0
    requests: int = 0
    jobs: int = 0


@dataclass(slots=True)
class _Use:
    usage: Usage = field(default_factory=Usage)
    changed: bool = False


class Access:
    """Knows the keys and what each client has done; lives in the coordinator's loop.

    Args:
        required: whether a caller without a key is refused.
        clock: both clocks.
    """

    def __init__(self, *, required: bool, clock: Callable[[], Now]) -> None:
        self.required = required
        self._clock = clock
        self._keys: dict[str, KeyRecord] = {}
        self._buckets: dict[str, Bucket] = {}
        self._uses: dict[str, _Use] = {}

    @classmethod
    def open(cls) -> Self:
        """Return what lets everybody do everything, for who serves nobody but himself."""
        return cls(required=False, clock=lambda: Now(0.0, 0))

    # -- what is known --------------------------------------------------------------------------------------------

    def adopt(self, keys: Iterable[KeyRecord]) -> None:
        """Go by these keys from now on; buckets of keys that are gone go with them."""
        self._keys = {key.id: key for key in keys}
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if key in self._keys}

    def restore(self, usages: Mapping[str, Usage]) -> None:
        """Take over what clients did before a restart."""
        self._uses = {name: _Use(usage) for name, usage in usages.items()}

    def changed(self) -> dict[str, Usage]:
        """Return what clients did since this was last asked, to be stored."""
        found = {}
        for name, use in self._uses.items():
            if use.changed:
                use.changed = False
                found[name] = Usage(use.usage.day, use.usage.requests, use.usage.jobs)
        return found

    # -- what callers want ----------------------------------------------------------------------------------------

    def caller(self, token: str | None) -> Caller:
        """Say who shows this key; whatever is not a key of ours counts as none where none is needed.

        Raises:
            DeniedError: `unauthorized`.
        """
        match = _TOKEN.fullmatch(token) if token is not None else None
        if match is None or token is None:
            if not self.required:
                return ANYBODY
            what = "no API key came with the call" if token is None else "what came with the call is no API key"
            raise DeniedError(f"{what}; this coordinator wants one", hint=_HOW)
        record = self._keys.get(match[1])
        # Compared in the same time wherever they differ.
        if record is None or not hmac.compare_digest(record.digest, digest_of(token)):
            raise DeniedError("the API key is not known here", hint=_HOW)
        state = record.state(self._clock().wall_ms)
        if state != "active":
            raise DeniedError(f"the API key {record.id} of {record.name} is {state}", hint=_HOW)
        return Caller(record.name, record.scopes, record.id)

    def charge_request(self, caller: Caller) -> None:
        """Count a call.

        Raises:
            ResourceError: `too-many-calls`: it is one too many, and is not counted.
        """
        record = self._keys.get(caller.key_id or "")
        if record is None or caller.name is None:
            return
        now = self._clock()
        most = float(record.requests_per_minute)
        bucket = self._buckets.setdefault(record.id, Bucket.full(most / 60, most, now.monotonic))
        if not bucket.has_one(now.monotonic):
            raise ResourceError(
                f"{record.name} makes more than {record.requests_per_minute} calls in a minute",
                code="too-many-calls",
                hint="Send fewer, larger requests, or wait as long as Retry-After says.",
                retry_after_seconds=bucket.seconds_to_one(),
            )
        bucket.take()
        self._today(record.name, now.wall_ms).requests += 1

    def charge_jobs(self, caller: Caller, count: int = 1) -> None:
        """Count jobs that are about to be submitted.

        Raises:
            ResourceError: `quota-exhausted`: they are more than this day has left, and none of them is counted.
        """
        record = self._keys.get(caller.key_id or "")
        if record is None or caller.name is None:
            return
        now = self._clock()
        usage = self._today(record.name, now.wall_ms)
        if usage.jobs + count > record.jobs_per_day:
            raise ResourceError(
                f"{record.name} has submitted {usage.jobs} of the {record.jobs_per_day} jobs that a day may have",
                code="quota-exhausted",
                hint="It begins anew at midnight UTC; the operator can make a key with a larger quota.",
                retry_after_seconds=(DAY_MS - now.wall_ms % DAY_MS) / 1000,
            )
        usage.jobs += count

    def refund_job(self, caller: Caller) -> None:
        """Take back a job that was counted and is none."""
        use = self._uses.get(caller.name or "")
        if use is not None and use.usage.jobs > 0:
            use.usage.jobs -= 1
            use.changed = True

    def _today(self, name: str, wall_ms: int) -> Usage:
        use = self._uses.setdefault(name, _Use())
        day = wall_ms // DAY_MS
        if use.usage.day != day:
            use.usage = Usage(day)
        use.changed = True
        return use.usage


_HOW = (
    "Send it as `Authorization: Bearer KEY`. The operator makes one with: edge-agent coordinator keys add NAME; "
    "our own client and commands take it from client.api_key_file or EDGE_AGENT_CLIENT_API_KEY."
)
