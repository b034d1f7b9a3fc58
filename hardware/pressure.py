"""Pressure: how much of the time programs wait for CPU, memory or disk. See the kernel's `accounting/psi.rst`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware.sysfs import Root

_LINE = re.compile(r"(some|full) avg10=([0-9]{1,3}\.[0-9]{2}) avg60=([0-9]{1,3}\.[0-9]{2}) .*")


def parse_pressure(text: str) -> float | None:
    """Return the share of the last 10 s (0 to 1) in which some program waited, or None if the text does not say."""
    for line in text.split("\n"):
        match = _LINE.fullmatch(line.strip())
        if match is not None and match[1] == "some":
            share = float(match[2]) / 100
            return share if share <= 1 else None
    return None


def memory_pressure_share(root: Root) -> float | str:
    """Return the share of the last 10 s in which some program waited for memory, or why it is unknown."""
    path = "proc/pressure/memory"
    text = root.read_text(path, 4096)
    if text is None:
        return root.reason(path)
    share = parse_pressure(text)
    return f"/{path} is not as the kernel writes it" if share is None else share
