"""The limits and times that the agent's core goes by: from the settings, for one process. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rules:
    """Units are in the names.

    Attributes:
        max_in_flight: attempts without an answer.
        max_message_bytes: the largest job taken on, and the largest answer given.
        max_held_bytes: inputs and unsettled answers together; above it no job is taken on.
        worker_idle_seconds: a worker without work is ended after so long; 0 for never.
        spool_seconds: results that took at least so long to compute are kept on disk until they are settled.
        spool_bytes: answers on disk, together; 0 for none.
        spool_results: how many of them.
        unsettled_seconds: an answer that nobody settled for so long is given up.
    """

    max_in_flight: int = 8
    max_message_bytes: int = 17 * MIB
    worker_idle_seconds: float = 0.0
    max_held_bytes: int = 256 * MIB
    spool_seconds: float = 1.0
    spool_bytes: int = 64 * MIB
    spool_results: int = 256
    unsettled_seconds: float = 24 * 3600.0
