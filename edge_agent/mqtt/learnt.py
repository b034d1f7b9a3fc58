"""Learns how large a packet a broker takes when it does not say so, but ends the connection instead. Pure.

MQTT 3.1.1 has no word for it. Without this, a message that is too large would be sent again after each reconnection,
and end each connection for everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

STRIKES: Final = 3
"""So many connections in a row must end over a packet that is larger than any that was ever acknowledged."""
LEAST_BYTES: Final = 64 * 1024
"""No broker in its right mind takes less; a smaller packet was under way by chance."""
FORGET_SECONDS: Final = 600.0
"""After so long a connection may try again: the broker may have been set otherwise, or it was the network."""


class LearntLimit:
    """What one link has learnt so far."""

    def __init__(self) -> None:
        self._acknowledged = LEAST_BYTES
        self._suspects: list[int] = []
        self._limit: int | None = None
        self._learnt_at = 0.0

    def limit(self, now: float) -> int | None:
        """Return the largest packet that is worth a try at this monotonic second, or None if all are."""
        if self._limit is not None and now >= self._learnt_at + FORGET_SECONDS:
            self._limit = None
            self._suspects.clear()
        return self._limit

    def on_end(self, unacknowledged: Sequence[int], acknowledged: int, now: float) -> int | None:
        """Take note of a connection that broke, or that the broker ended.

        Args:
            unacknowledged: sizes of the packets that were under way.
            acknowledged: size of the largest packet that was acknowledged on it; 0 for none.
            now: monotonic seconds.

        Returns:
            The limit, if this was the last piece of evidence for it.
        """
        self._acknowledged = max(self._acknowledged, acknowledged)
        self._suspects = [size for size in self._suspects if size > self._acknowledged]
        largest = max(unacknowledged, default=0)
        if largest <= self._acknowledged:
            self._suspects.clear()
            return None
        self._suspects.append(largest)
        if len(self._suspects) < STRIKES:
            return None
        self._limit, self._learnt_at = min(self._suspects) - 1, now
        self._suspects.clear()
        return self._limit
