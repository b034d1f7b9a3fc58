"""Time as the cores see it: an argument, never something they read themselves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


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


def utc_stamp() -> str:
    """Return the time of day as it stands in the names of files that are set aside."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def boot_number(path: str = BOOT_ID) -> int:
    """Return a number that changes when the machine is started anew, and with it the monotonic clock; 0 if unknown.

    Inside one boot, monotonic seconds of different processes can be compared.
    """
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 this module imports next to nothing
            return int(file.read(64).replace("-", "")[:15], 16)
    except (OSError, ValueError):
        return 0
