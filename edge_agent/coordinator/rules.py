"""The settings that the coordinator's core goes by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits and times; units are in the names.

    Attributes:
        max_queued_bytes: of inputs of all jobs that have not ended.
        hedge_share: share of the synchronous jobs that may have a second attempt when they are late.
        max_clock_skew_seconds: an agent whose clock is further off is given nothing, and its results are refused.
        messages_per_second: of one agent that are refused, or are about itself; more are not opened.
    """

    lease_seconds: float = 30.0
    max_attempts: int = 5
    max_queued_jobs: int = 10_000
    max_queued_bytes: int = 256 * 1024 * 1024
    offer_grace_seconds: float = 30.0
    max_message_bytes: int = 17 * 1024 * 1024
    max_output_bytes: int = 16 * 1024 * 1024
    hedge_share: float = 0.02
    max_clock_skew_seconds: float = 86_400.0
    messages_per_second: float = 50.0
