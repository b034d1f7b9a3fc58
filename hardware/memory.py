"""Memory: how much there is, what limits us, and what a model may take now."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hardware import cgroup
from hardware.devices import devices
from hardware.schema import Memory, Zram
from hardware.sysfs import clean

if TYPE_CHECKING:
    from hardware.sysfs import Root

_MEMINFO_LINE = re.compile(r"([A-Za-z][A-Za-z0-9_()]*):\s*([0-9]{1,15})(?:\s+kB)?\s*")
_ALGORITHM = re.compile(r"\[([^\]\s]{1,32})\]")


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the fields of `/proc/meminfo` in KiB (proc_meminfo(5)); lines of another form are left out."""
    fields: dict[str, int] = {}
    for line in text.split("\n"):
        match = _MEMINFO_LINE.fullmatch(line)
        if match is not None:
            fields.setdefault(match[1], int(match[2]))
    return fields


def parse_swaps(text: str) -> dict[str, int]:
    """Return device name → size in KiB from `/proc/swaps`."""
    sizes = {}
    for line in text.split("\n")[1:]:
        parts = line.split()
        if len(parts) >= 3 and re.fullmatch(r"[0-9]{1,15}", parts[2]):
            sizes[clean(parts[0])] = int(parts[2])
    return sizes


def probe(root: Root, pid: str = "self") -> tuple[Memory, dict[str, str]]:
    """Return the memory of the machine and of the cgroups that hold `pid`, and why fields are unknown.

    `budget_bytes` is the least of what the kernel calls available and, for each cgroup level, its limit - its
    own usage + the inactive part of its page cache.
    """
    unknown: dict[str, str] = {}
    text = root.read_text("proc/meminfo", 256 * 1024)
    fields = parse_meminfo(text or "")
    for name, key in (
        ("total_kib", "MemTotal"),
        ("available_kib", "MemAvailable"),
        ("swap_total_kib", "SwapTotal"),
    ):
        if key not in fields:
            unknown[f"memory.{name}"] = _why_missing(root, key, read=text is not None)
    if "SwapFree" not in fields:
        unknown["memory.swap_free_kib"] = _why_missing(root, "SwapFree", read=text is not None)
    limit = cgroup.memory_limit(root, pid)
    if limit.limit_bytes is None and limit.why is not None:
        unknown["memory.limit_bytes"] = limit.why
    budget = _budget(fields, limit)
    if isinstance(budget, str):
        unknown["memory.budget_bytes"] = budget
    return (
        Memory(
            total_kib=fields.get("MemTotal"),
            available_kib=fields.get("MemAvailable"),
            limit_bytes=limit.limit_bytes,
            limit_source=limit.source,
            swap_total_kib=fields.get("SwapTotal"),
            zram=_zram(root),
            budget_bytes=budget if isinstance(budget, int) else None,
            swap_free_kib=fields.get("SwapFree"),
        ),
        unknown,
    )


def _why_missing(root: Root, key: str, *, read: bool) -> str:
    if not read:
        return root.reason("proc/meminfo")
    if key == "MemAvailable":
        return "/proc/meminfo has no MemAvailable (kernels before 3.14 don't estimate it)"
    return f"/proc/meminfo has no {key}"


def _budget(fields: dict[str, int], limit: cgroup.MemoryLimit) -> int | str:
    """Return the bytes a model may take now, or why that is unknown."""
    # What is free is certainly available: a lower bound where the kernel gives no estimate.
    free_kib = fields.get("MemAvailable", fields.get("MemFree"))
    if free_kib is None:
        return "neither MemAvailable nor MemFree is known"
    budget = free_kib * 1024
    for level in limit.levels:
        if level.limit_bytes is None:
            continue
        room = level.room_bytes
        if room is None:
            return f"/{level.path} has a limit of {level.limit_bytes} bytes, but its usage can't be read"
        budget = min(budget, room)
    return budget


def _zram(root: Root) -> tuple[Zram, ...]:
    found = {}
    for device in devices(root, "sys/block", "zram"):
        size = root.read_int(f"{device.path}/disksize")
        if not size or size < 0:  # every kernel with the module has an empty zram0
            continue
        match = _ALGORITHM.search(root.read_text(f"{device.path}/comp_algorithm", 4096) or "")
        found[clean(device.name)] = Zram(clean(device.name), size, match[1] if match else None)
    for path, kib in parse_swaps(root.read_text("proc/swaps", 256 * 1024) or "").items():
        name = path.rpartition("/")[2]
        if re.fullmatch(r"zram[0-9]{1,4}", name) and name not in found:
            found[name] = Zram(name, kib * 1024, None)
    return tuple(found.values())
