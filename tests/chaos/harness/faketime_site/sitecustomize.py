"""Lets `time.sleep` work under libfaketime, for a Python process with a faked wall clock.

libfaketime up to 0.9.10, which Debian 12 has, spoils clock_nanosleep(2) with an absolute time when the monotonic clock
is left alone (its issue 426), and Python sleeps that way since 3.11. select(2) it leaves alone.
"""

from __future__ import annotations

import select
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = _sleep
