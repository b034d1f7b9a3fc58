"""Control groups: which limits hold for a process, in either version of them, on any mount.

What applies to a process is the strictest of its own cgroup and all its ancestors, so that every level up to
the mount is read. Three things decide where that is, and none is assumed: `/proc/<pid>/cgroup` says which
hierarchy owns a controller (a `0::` line alone doesn't make it version 2) and under which name,
`mountinfo` says where that hierarchy is mounted and which part of it. See cgroups(7), the kernel's
`cgroup-v2.rst` and `cgroup-v1/memory.rst`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hardware.sysfs import clean, parse_cpulist

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hardware.sysfs import Root

MAX_LEVELS = 64
"""Deeper trees are read from their leaf up to here; systemd nests about ten."""
_V2_TEXT_LIMIT = 64 * 1024
# Version 1 has no word for "no limit" but the largest number of pages: 2^63 less one page (of up to 64 KiB)
# on 64-bit kernels, 2^31-1 pages on 32-bit ones, and all ones before Linux 3.19.
_UNLIMITED_FROM = 2**63 - 64 * 1024
_UNLIMITED_32_BIT = frozenset({(2**31 - 1) * 4096, 2**31 * 4096 - 4096})
_OCTAL = re.compile(r"\\([0-7]{3})")
_CGROUP_TYPES = frozenset({"cgroup", "cgroup2"})


class Mount(NamedTuple):
    """One mounted hierarchy: which part of it (`root`) is seen where (`point`)."""

    root: str | None
    """The cgroup at the mount point, as the hierarchy names it; None where the list of mounts doesn't say."""
    point: str
    version: int
    controllers: frozenset[str]


class Place(NamedTuple):
    """Where a process stands in the hierarchy of one controller."""

    version: int
    levels: tuple[str, ...]
    """Folders relative to the root file system, the process's own cgroup first, the mount point last."""
    why: str | None = None
    """What keeps the first level from being the process's own cgroup; None if it is."""


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


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Return the cgroup mounts in a `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5))."""
    mounts = []
    for line in text.split("\n"):
        if "cgroup" not in line:
            continue
        before, separator, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not separator or len(left) < 6 or right[0] not in _CGROUP_TYPES:
            continue
        mounts.append(_mount(unescape(left[3]), left[4], right[0], right[2] if len(right) > 2 else ""))
    return tuple(mounts)


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Return the cgroup mounts in a `/proc/mounts`, which doesn't tell what part of the hierarchy is seen."""
    mounts = []
    for line in text.split("\n"):
        parts = line.split(" ")
        if len(parts) >= 4 and parts[2] in _CGROUP_TYPES:
            mounts.append(_mount(None, parts[1], parts[2], parts[3]))
    return tuple(mounts)


def parse_cgroup(text: str) -> dict[str, str]:
    """Return controller → cgroup name from a `/proc/<pid>/cgroup`; version 2 has the empty string as key."""
    names: dict[str, str] = {}
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, separator, name = rest.partition(":")
        if not separator or not number.isdecimal() or not name.startswith("/"):
            continue
        # The kernel marks a cgroup that was removed under its last processes.
        name = name.removesuffix(" (deleted)")
        for controller in controllers.split(","):
            names.setdefault(controller, name)
    return names


def locate(root: Root, controller: str, pid: str = "self") -> Place | str:
    """Return where `pid` stands for `controller`, or in words why that can't be known.

    A controller that no mounted hierarchy owns gives a place without levels: nothing limits the process.
    """
    text = root.read_text(f"proc/{pid}/cgroup", _V2_TEXT_LIMIT)
    if text is None:
        return root.reason(f"proc/{pid}/cgroup")
    names = parse_cgroup(text)
    if not names:
        return f"/proc/{pid}/cgroup names no cgroup"
    mounts = _mounts(root, pid)
    if isinstance(mounts, str):
        return mounts
    # A controller belongs to one hierarchy only, and version 1 lists by name what it owns.
    version = 1 if controller in names else 2
    name = names.get(controller, names.get(""))
    if name is None:
        return Place(version, ())
    fitting = [m for m in mounts if m.version == version and (version == 2 or controller in m.controllers)]
    if not fitting:
        absent = f"the cgroup hierarchy of the {controller} controller is not mounted here"
        return Place(version, ()) if _is_off(root, controller) else absent
    places = [_place(root, mount, name) for mount in reversed(fitting)]
    # The same hierarchy may be mounted often (containers): the mount that shows our own cgroup tells most.
    return next((place for place in places if place.why is None), places[0])


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
            cpus = parse_cpulist(root.read_text(f"{path}/{name}", _V2_TEXT_LIMIT))
            if not cpus:  # absent, unreadable, or empty: "as the level above"
                continue
            narrowed = set(cpus) if allowed is None else allowed & set(cpus)
            if narrowed and narrowed != allowed:
                allowed, source = narrowed, f"/{path}/{name}"
            break
    if allowed is None:
        return Cpuset(None, None, place.why)
    return Cpuset(tuple(sorted(allowed)), source, None)


def _is_off(root: Root, controller: str) -> bool:
    """Whether the kernel runs without the controller (`cgroup_disable=memory`, usual on a Raspberry Pi)."""
    for line in (root.read_text("proc/cgroups", _V2_TEXT_LIMIT) or "").split("\n"):
        fields = line.split()
        if len(fields) == 4 and fields[0] == controller:
            return fields[3] == "0"
    return False


def _mount(seen: str | None, point: str, kind: str, options: str) -> Mount:
    return Mount(seen, unescape(point), 2 if kind == "cgroup2" else 1, frozenset(options.split(",")))


def unescape(text: str) -> str:
    """Return a field of a mount list with its octal escapes (040 is a blank) undone."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8) & 0xFF), text)


def _mounts(root: Root, pid: str) -> tuple[Mount, ...] | str:
    """Return the cgroup mounts that `pid` sees, from the best list there is."""
    first = None
    for rel, parse in (
        (f"proc/{pid}/mountinfo", parse_mountinfo),
        ("proc/self/mountinfo", parse_mountinfo),
        (f"proc/{pid}/mounts", parse_mounts),
        ("proc/mounts", parse_mounts),
    ):
        text = root.read_text(rel)
        if text is not None:
            return parse(text)
        first = first or root.reason(rel)
    return first or "the mounts are not known"


def _place(root: Root, mount: Mount, name: str) -> Place:
    """Return the levels between the cgroup `name` and the mount point, for one mount of its hierarchy."""
    point = _point(mount.point)
    if not root.is_dir(point):
        return Place(mount.version, (), f"the cgroup mount {root.reason(point)}")
    for parts in _below(mount.root, name):
        if len(parts) > MAX_LEVELS:
            return Place(mount.version, (point,), f"the cgroup lies more than {MAX_LEVELS} levels deep")
        if root.is_dir("/".join([point, *parts])):
            # A mount from outside of our namespace starts above what we have names for.
            lost = (mount.root or "").startswith("/..") and not name.startswith(mount.root or "")
            why = f"the cgroup {clean(name)} lies below /{point} under a name that is not told" if lost else None
            return Place(mount.version, _upward(point, parts), why)
    # Not visible here (another namespace, a part of the tree): what is visible above it still holds.
    parts = next(_below(mount.root, name), ())[:MAX_LEVELS]
    while parts and not root.is_dir("/".join([point, *parts])):
        parts = parts[:-1]
    why = f"the cgroup {clean(name)} is not visible below /{point}"
    return Place(mount.version, _upward(point, parts), why)


def _below(seen: str | None, name: str) -> Iterator[tuple[str, ...]]:
    """Yield the paths below the mount point where the cgroup `name` may be, the surest first.

    In a container the mount often shows just the container's own cgroup while the process is told its full
    name (`/docker/1234`): the part that the mount starts at is taken off. From inside a cgroup namespace a
    name outside of it starts with `/..`, which ends at the mount as `..` ends at the root of a file system.
    """
    if seen is not None and seen != "/" and (name == seen or name.startswith(seen.rstrip("/") + "/")):
        yield _components(name[len(seen.rstrip("/")) :])
        return
    whole = _components(name)
    if seen in {None, "/"} or whole:
        yield whole
    if seen != "/":
        yield ()


def _components(name: str) -> tuple[str, ...]:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return tuple(parts)


def _upward(point: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("/".join([point, *parts[:depth]]) for depth in range(len(parts), -1, -1))


def _point(point: str) -> str:
    # The kernel writes absolute paths. Captures made under a prefix ("testdata/sys/fs/cgroup") are read from
    # the system folder on.
    if not point.startswith("/"):
        _, found, rest = f"/{point}".partition("/sys/")
        point = f"sys/{rest}" if found else point
    return point.strip("/")


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
    for line in (root.read_text(f"{path}/memory.stat", _V2_TEXT_LIMIT) or "").split("\n"):
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
