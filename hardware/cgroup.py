"""Control groups: which limits hold for a process, in either version of them.

What applies to a process is the strictest of its own cgroup and all its ancestors, so that every level up to
the mount is read; cgroup_place.py finds them. See the kernel's `cgroup-v2.rst` and `cgroup-v1/memory.rst`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hardware.cgroup_place import locate
from hardware.sysfs import parse_cpulist

if TYPE_CHECKING:
    from hardware.sysfs import Root

_TEXT_LIMIT = 64 * 1024
# Version 1 has no word for "no limit" but the largest number of pages: 2^63 less one page (of up to 64 KiB)
# on 64-bit kernels, 2^31-1 pages on 32-bit ones, and all ones before Linux 3.19.
_UNLIMITED_FROM = 2**63 - 64 * 1024
_UNLIMITED_32_BIT = frozenset({(2**31 - 1) * 4096, 2**31 * 4096 - 4096})


class MemoryLevel(NamedTuple):
    """Memory accounting of one cgroup: its limit, and what is used at this very level."""

    path: str
    limit_bytes: int | None
    limit_source: str | None
    usage_bytes: int | None
    inactive_file_bytes: int | None

    @property
    def room_bytes(self) -> int | None:
        """What may still be taken: limit - usage + the page cache the kernel drops first. None if unknown."""
        if self.limit_bytes is None or self.usage_bytes is None:
            return None
        room = self.limit_bytes - self.usage_bytes + (self.inactive_file_bytes or 0)
        return max(0, min(room, self.limit_bytes))


class MemoryLimit(NamedTuple):
    """The strictest memory limit over all levels; None is none, or unknown if `why` says so."""

    limit_bytes: int | None
    source: str | None
    levels: tuple[MemoryLevel, ...]
    why: str | None


class CpuQuota(NamedTuple):
    """How many CPUs' worth of time the process may use; None is no quota, or unknown if `why` says so."""

    cpus: float | None
    source: str | None
    why: str | None


class Cpuset(NamedTuple):
    """The CPUs the cgroups allow; None is all, or unknown if `why` says so."""

    cpus: tuple[int, ...] | None
    source: str | None
    why: str | None


def memory_limit(root: Root, pid: str = "self") -> MemoryLimit:
    """Return the memory limit (bytes) that holds for `pid`, and every level's own limit and usage."""
    place = locate(root, "memory", pid)
    if isinstance(place, str):
        return MemoryLimit(None, None, (), place)
    read = _memory_v2 if place.version == 2 else _memory_v1
    trouble: list[str] = []
    levels = tuple(read(root, path, trouble, leaf=i == 0) for i, path in enumerate(place.levels))
    limited = [level for level in levels if level.limit_bytes is not None]
    if not limited:
        return MemoryLimit(None, None, levels, next(iter(trouble), place.why))
    strictest = min(limited, key=lambda level: level.limit_bytes or 0)
    return MemoryLimit(strictest.limit_bytes, strictest.limit_source, levels, None)


def cpu_quota(root: Root, pid: str = "self") -> CpuQuota:
    """Return the CPU quota that holds for `pid`, in CPUs (1.5 is one and a half)."""
    place = locate(root, "cpu", pid)
    if isinstance(place, str):
        return CpuQuota(None, None, place)
    strictest: tuple[float, str] | None = None
    trouble: list[str] = []
    read = _quota_v2 if place.version == 2 else _quota_v1
    for path in place.levels:
        found = read(root, path, trouble)
        if found is not None and (strictest is None or found < strictest):
            strictest = found
    if strictest is None:
        return CpuQuota(None, None, next(iter(trouble), place.why))
    return CpuQuota(round(strictest[0], 6), strictest[1], None)


def cpuset(root: Root, pid: str = "self") -> Cpuset:
    """Return the CPUs that the cgroups of `pid` allow: what all levels agree on."""
    place = locate(root, "cpuset", pid)
    if isinstance(place, str):
        return Cpuset(None, None, place)
    names = ("cpuset.cpus.effective", "cpuset.cpus") if place.version == 2 else ("cpuset.effective_cpus", "cpuset.cpus")
    allowed: set[int] | None = None
    source = None
    for path in place.levels:
        for name in names:
            cpus = parse_cpulist(root.read_text(f"{path}/{name}", _TEXT_LIMIT))
            if not cpus:  # absent, unreadable, or empty: "as the level above"
                continue
            narrowed = set(cpus) if allowed is None else allowed & set(cpus)
            if narrowed and narrowed != allowed:
                allowed, source = narrowed, f"/{path}/{name}"
            break
    if allowed is None:
        return Cpuset(None, None, place.why)
    return Cpuset(tuple(sorted(allowed)), source, None)


def _limit(text: str) -> int | None:
    """Return the bytes that a limit stands for; None is no limit. Raises ValueError for what is neither."""
    text = text.strip(" \t\n\0")
    if text == "max" or re.fullmatch(r"-[0-9]{1,20}", text):
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise ValueError(text)
    value = int(text)
    return None if value >= _UNLIMITED_FROM or value in _UNLIMITED_32_BIT else value


def _read_limit(root: Root, rel: str, trouble: list[str]) -> int | None:
    """Return the limit in the file `rel`; one that is there and can't be understood goes to `trouble`."""
    text = root.read_text(rel, 4096)
    if text is None:
        # The root of a hierarchy has no such file, and no level where the controller is off.
        if root.exists(rel):
            trouble.append(root.reason(rel))
        return None
    try:
        return _limit(text)
    except ValueError:
        trouble.append(f"/{rel} does not hold a limit")
        return None


def _stat(root: Root, path: str) -> dict[str, int]:
    values = {}
    for line in (root.read_text(f"{path}/memory.stat", _TEXT_LIMIT) or "").split("\n"):
        key, _, number = line.partition(" ")
        if re.fullmatch(r"[0-9]{1,20}", number):
            values[key] = int(number)
    return values


def _memory_v2(root: Root, path: str, trouble: list[str], *, leaf: bool) -> MemoryLevel:
    del leaf  # version 2 binds children always
    limit, source = None, None
    # Above memory.high the kernel throttles and reclaims: a limit for all practical purposes.
    for name in ("memory.max", "memory.high"):
        value = _read_limit(root, f"{path}/{name}", trouble)
        if value is not None and (limit is None or value < limit):
            limit, source = value, f"/{path}/{name}"
    if limit is None:
        return MemoryLevel(path, None, None, None, None)
    usage = root.read_int(f"{path}/memory.current")
    return MemoryLevel(path, limit, source, usage, _stat(root, path).get("inactive_file"))


def _memory_v1(root: Root, path: str, trouble: list[str], *, leaf: bool) -> MemoryLevel:
    if not leaf and root.read_int(f"{path}/memory.use_hierarchy") == 0:
        return MemoryLevel(path, None, None, None, None)  # it binds its own processes, not its children
    limit = _read_limit(root, f"{path}/memory.limit_in_bytes", trouble)
    source = f"/{path}/memory.limit_in_bytes" if limit is not None else None
    stat = _stat(root, path)
    if leaf and "hierarchical_memory_limit" in stat:
        # What the ancestors allow, those outside of our view included.
        inherited = _limit(str(stat["hierarchical_memory_limit"]))
        if inherited is not None and (limit is None or inherited < limit):
            limit, source = inherited, f"/{path}/memory.stat hierarchical_memory_limit"
    if limit is None:
        return MemoryLevel(path, None, None, None, None)
    usage = root.read_int(f"{path}/memory.usage_in_bytes")
    inactive = stat.get("total_inactive_file", stat.get("inactive_file"))
    return MemoryLevel(path, limit, source, usage, inactive)


def _quota_v2(root: Root, path: str, trouble: list[str]) -> tuple[float, str] | None:
    rel = f"{path}/cpu.max"
    text = root.read_text(rel, 4096)
    if text is None:
        if root.exists(rel):
            trouble.append(root.reason(rel))
        return None
    match = re.fullmatch(r"\s*(max|[0-9]{1,18})(?:\s+([0-9]{1,18}))?\s*", text)
    if match is None:
        trouble.append(f"/{rel} does not hold a quota")
        return None
    return None if match[1] == "max" else _ratio(int(match[1]), int(match[2] or 100_000), f"/{rel}", trouble)


def _quota_v1(root: Root, path: str, trouble: list[str]) -> tuple[float, str] | None:
    rel = f"{path}/cpu.cfs_quota_us"
    quota = root.read_int(rel)
    if quota is None:
        if root.exists(rel):
            trouble.append(root.reason(rel))
        return None
    if quota < 0:
        return None
    period = root.read_int(f"{path}/cpu.cfs_period_us")
    return _ratio(quota, 100_000 if period is None else period, f"/{rel}", trouble)


def _ratio(quota: int, period: int, source: str, trouble: list[str]) -> tuple[float, str] | None:
    if quota <= 0 or period <= 0:
        trouble.append(f"{source} does not hold a quota")
        return None
    return quota / period, source
