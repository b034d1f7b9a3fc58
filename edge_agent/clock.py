"""Time as the cores see it: an argument, never something they read themselves."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks.

    Attributes:
        monotonic: seconds on a clock that never jumps; leases, deadlines and back-off are measured on it.
        wall_ms: Unix time in milliseconds; only written into statements and shown to people.
    """

    monotonic: float
    wall_ms: int


def system_now() -> Now:
    """Read both clocks of this machine."""
    return Now(time.monotonic(), time.time_ns() // 1_000_000)
