"""Bytes that processes wrote to disks, as the kernel counts them (proc_pid_io(5))."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hardware.sysfs import Root

_WRITTEN = re.compile(r"^write_bytes: ([0-9]{1,19})$", re.MULTILINE)
_TAKEN_BACK = re.compile(r"^cancelled_write_bytes: ([0-9]{1,19})$", re.MULTILINE)


def parse_io(text: str) -> int | None:
    """Return what reached the disk of `/proc/PID/io`, or None if it does not say."""
    written, taken_back = _WRITTEN.search(text), _TAKEN_BACK.search(text)
    if written is None:
        return None
    return max(0, int(written[1]) - (int(taken_back[1]) if taken_back else 0))


class Writes:
    """Counts from one look to the next. What a process wrote between the last look and its end is missed.

    Args:
        root: of the machine.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._seen: dict[int, int] = {}

    def since(self, pids: Iterable[int]) -> int:
        """Return how many bytes these processes wrote since the last look; all, for one that was not there then."""
        now: dict[int, int] = {}
        for pid in pids:
            count = parse_io(self._root.read_text(f"proc/{pid}/io", 4096) or "")
            if count is not None:
                now[pid] = count
        more = sum(max(0, count - self._seen.get(pid, 0)) for pid, count in now.items())
        self._seen = now
        return more
