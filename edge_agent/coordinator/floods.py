"""How many messages are opened of a sender that has nothing good to say. Pure.

A signature costs a hundred times more to check than to make up. So what is opened in vain is paid for from an
allowance: one for each agent, one that all strangers share, and one for all together. Whoever has used theirs up is no
longer listened to, and it fills again with time. Topics can be forged where the broker has no access control; then an
agent whose topic somebody floods is still heard when it names a job that it holds now: those ids are random, and only
its agent and the coordinator know them.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from edge_agent.coordinator.buckets import Bucket

BURST_SECONDS: Final = 10.0
"""An allowance that was left alone for so long is whole."""
STRANGERS_SHARE: Final = 4
"""Agents that we do not know together have so many times the allowance of one that we know."""
TOTAL_SHARE: Final = 20
"""And all together so many times."""

_JOB_FIELD: Final = b"\x63job\x50"
_PEEK_BYTES: Final = 1024


class Floods:
    """The allowances.

    Args:
        per_second: messages a second that one agent may send in vain, or about itself.
        max_kept: so many allowances are kept before those that are whole again are forgotten.
    """

    def __init__(self, per_second: float, max_kept: int = 20_000) -> None:
        self._per_second = per_second
        self._max_kept = max_kept
        self._buckets: dict[tuple[str, bool], Bucket] = {}
        self._strangers = _allowance(per_second * STRANGERS_SHARE, 0.0)
        self._total = _allowance(per_second * TOTAL_SHARE, 0.0)
        self._paid: Bucket | None = None
        self._paid_total = False

    def admits(self, agent_id: str, held: Container[bytes] | None, payload: bytes, monotonic: float) -> bool:
        """Whether a message may be opened; it is paid for if so.

        Args:
            agent_id: whom the topic names; nothing is verified.
            held: the jobs that this agent holds; None for an agent that we do not know.
            payload: the message.
            monotonic: now.
        """
        own = self._strangers if held is None else self._bucket(agent_id, monotonic, holds=False)
        if own.has_one(monotonic) and self._total.has_one(monotonic):
            self._pay(own, total=True)
            return True
        if held is None or not _names_one_of(held, payload):
            return False
        reserve = self._bucket(agent_id, monotonic, holds=True)
        if reserve.has_one(monotonic):
            self._pay(reserve, total=False)
            return True
        return False

    def was_good(self, *, answer: bool) -> None:
        """Give back what the last message paid: all of it for an answer to a job, which we asked for.

        What agents say of themselves is paid for by them even if it is true, but not by all.
        """
        if self._paid_total:
            self._total.put_back()
        if answer and self._paid is not None:
            self._paid.put_back()
        self._paid, self._paid_total = None, False

    def _pay(self, bucket: Bucket, *, total: bool) -> None:
        bucket.take()
        if total:
            self._total.take()
        self._paid, self._paid_total = bucket, total

    def _bucket(self, agent_id: str, monotonic: float, *, holds: bool) -> Bucket:
        found = self._buckets.get((agent_id, holds))
        if found is None:
            if len(self._buckets) >= self._max_kept:
                self._buckets = {key: b for key, b in self._buckets.items() if not b.is_full(monotonic)}
            found = self._buckets[agent_id, holds] = _allowance(self._per_second, monotonic)
        return found


def _allowance(per_second: float, monotonic: float) -> Bucket:
    return Bucket.full(per_second, per_second * BURST_SECONDS, monotonic)


def _names_one_of(held: Container[bytes], payload: bytes) -> bool:
    """Whether one of these jobs stands where the first job of a result or of a progress stands.

    Nothing is parsed: in the one encoding that there is, the field's name is followed by 16 bytes.
    """
    at = payload.find(_JOB_FIELD, 0, _PEEK_BYTES)
    return at >= 0 and payload[at + 5 : at + 21] in held
