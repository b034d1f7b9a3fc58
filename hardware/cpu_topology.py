"""How the CPUs lie: which exist, which are on, which we may use, clocks, capacities, cores and caches."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from hardware import cgroup
from hardware.schema import Cache
from hardware.sysfs import parse_cpulist, parse_cpumask, parse_int

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hardware.cpuinfo import CpuInfo
    from hardware.sysfs import Root

_T = TypeVar("_T")

BASE = "sys/devices/system/cpu"
Cpus = tuple[int, ...]
_CPU_FOLDER = re.compile(r"cpu([0-9]{1,5})")
_SIZE = re.compile(r"([0-9]{1,9})\s*([KMG]?)B?", re.IGNORECASE)
_KIB = {"": 1 / 1024, "K": 1, "M": 1024, "G": 1024 * 1024}
_MIN_KHZ, _MAX_KHZ = 1_000, 20_000_000  # a clock outside 1 MHz to 20 GHz is a broken driver's
_MAX_CAPACITY = 1024


@dataclass(frozen=True)
class CpuLists:
    """The CPU numbers by state. `offline` is the kernel's: it may name CPUs that are not plugged in."""

    online: Cpus | None = None
    offline: Cpus | None = None
    present: Cpus | None = None
    folders: Cpus = ()
    """Those that have a folder in sysfs."""


@dataclass(frozen=True)
class Topology:
    """What sysfs says of single CPUs; a CPU it says nothing of has no entry."""

    max_khz: dict[int, int] = field(default_factory=dict)
    capacity: dict[int, int] = field(default_factory=dict)
    clock_domain: dict[int, Cpus] = field(default_factory=dict)
    package: dict[int, int] = field(default_factory=dict)
    governors: tuple[str, ...] = ()
    cores: tuple[Cpus, ...] | None = None
    caches: tuple[Cache, ...] = ()

    def threads(self, cpu: int) -> Cpus:
        """Return the CPUs of the core that `cpu` is a thread of."""
        return next((core for core in self.cores or () if cpu in core), (cpu,))


def cpu_lists(root: Root, info: CpuInfo) -> CpuLists:
    """Read which CPUs there are. sysfs is asked first: cpuinfo leaves out what is offline."""
    folders = tuple(int(match[1]) for name in root.listdir(BASE) if (match := _CPU_FOLDER.fullmatch(name)))
    present = root.read_cpulist(f"{BASE}/present") or None
    online = root.read_cpulist(f"{BASE}/online") or tuple(sorted(info.cpus)) or _only_cpu(info) or None
    if online is None and folders:
        switched_off = {cpu for cpu in folders if root.read_int(f"{BASE}/cpu{cpu}/online") == 0}
        online = tuple(cpu for cpu in folders if cpu not in switched_off) or None
    offline = root.read_cpulist(f"{BASE}/offline")
    if offline is None and present is not None and online is not None:
        switched_on = set(online)
        offline = tuple(cpu for cpu in present if cpu not in switched_on)
    return CpuLists(online, offline, present, folders)


def _only_cpu(info: CpuInfo) -> Cpus:
    # Kernels built for one CPU describe it without giving it a number.
    return (0,) if info.has("CPU implementer", "CPU architecture", "cpu family", "isa", "BogoMIPS") else ()


def usable(root: Root, online: Cpus | None) -> Cpus | None:
    """Return the CPUs this process may run on: affinity, which the kernel keeps inside the cpuset."""
    if root.live and hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    usable = None if online is None else set(online)
    for allowed in (_allowed(root), cgroup.cpuset(root).cpus):
        if allowed is not None:
            # A list that excludes every online CPU is not about this machine as it is now.
            usable = set(allowed) if usable is None else usable & set(allowed) or usable
    return None if usable is None else tuple(sorted(usable))


def _allowed(root: Root) -> Cpus | None:
    status = root.read_text("proc/self/status", 65_536) or ""
    match = re.search(r"^Cpus_allowed_list:[ \t]*(.*)$", status, re.MULTILINE)
    if match:
        return parse_cpulist(match[1]) or None
    match = re.search(r"^Cpus_allowed:[ \t]*(.*)$", status, re.MULTILINE)
    return (parse_cpumask(match[1]) or None) if match else None


def topology(root: Root, info: CpuInfo, lists: CpuLists) -> Topology:
    """Read what sysfs says of every online CPU that has a folder there."""
    online = lists.online or ()
    folders = set(lists.folders)
    seen = [cpu for cpu in online if cpu in folders]
    policies = _Policies.read(root, seen)
    caches = _caches(root, seen)
    return Topology(
        max_khz=policies.of(online, policies.max_khz),
        capacity={
            cpu: value
            for cpu in seen
            if (value := root.read_int(f"{BASE}/cpu{cpu}/cpu_capacity")) and 0 < value <= _MAX_CAPACITY
        },
        clock_domain=policies.of(online, policies.members),
        package={
            cpu: value
            for cpu in seen
            if (value := root.read_int(f"{BASE}/cpu{cpu}/topology/physical_package_id")) is not None
        },
        governors=tuple(sorted(set(policies.of(online, policies.governor).values()))),
        cores=_cores(root, info, online, seen, caches),
        caches=caches,
    )


@dataclass
class _Policies:
    """The clock policies: in cpufreq/policyN, or on older kernels in the folder of each CPU."""

    members: dict[str, Cpus] = field(default_factory=dict)
    max_khz: dict[str, int] = field(default_factory=dict)
    governor: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Root, cpus: Iterable[int]) -> _Policies:
        found = cls()
        for name in root.listdir(f"{BASE}/cpufreq"):
            if name.startswith("policy"):
                found._add(root, f"{BASE}/cpufreq/{name}", parse_int(name[6:]))
        covered = {cpu for members in found.members.values() for cpu in members}
        for cpu in cpus:
            if cpu not in covered:
                found._add(root, f"{BASE}/cpu{cpu}/cpufreq", cpu)
        return found

    def _add(self, root: Root, folder: str, cpu: int | None) -> None:
        khz = root.read_int(f"{folder}/cpuinfo_max_freq")
        # related_cpus holds the offline ones too; affected_cpus only those that are on now.
        members = root.read_cpulist(f"{folder}/related_cpus") or root.read_cpulist(f"{folder}/affected_cpus")
        if khz is None and members is None:
            return
        if cpu is not None and cpu not in (members or ()):
            members = (cpu,)  # a list without its own CPU is a broken driver's
        self.members[folder] = members or ()
        if khz is not None and _MIN_KHZ <= khz <= _MAX_KHZ:
            self.max_khz[folder] = khz
        governor = root.read_value(f"{folder}/scaling_governor")
        if governor and re.fullmatch(r"[a-z0-9_-]{1,32}", governor):
            self.governor[folder] = governor

    def of(self, cpus: Iterable[int], values: dict[str, _T]) -> dict[int, _T]:
        by_cpu: dict[int, _T] = {}
        for folder, members in self.members.items():
            if folder in values:
                for cpu in members:
                    by_cpu.setdefault(cpu, values[folder])
        return {cpu: by_cpu[cpu] for cpu in cpus if cpu in by_cpu}


def _cores(
    root: Root, info: CpuInfo, online: Cpus, seen: list[int], caches: tuple[Cache, ...]
) -> tuple[Cpus, ...] | None:
    """Return the CPUs of each core (its threads), or None if nothing says how they belong together."""
    if len(online) < 2:
        return (online,) if online else None
    groups: dict[int, Cpus] = {}
    switched_on = set(online)
    for cpu in seen:
        if cpu in groups:
            continue
        folder = f"{BASE}/cpu{cpu}/topology"
        threads = (
            root.read_cpulist(f"{folder}/core_cpus_list")
            or root.read_cpulist(f"{folder}/thread_siblings_list")
            or parse_cpumask(root.read_text(f"{folder}/core_cpus", 16_384))
            or parse_cpumask(root.read_text(f"{folder}/thread_siblings", 16_384))
        )
        # Where the kernel knows nothing of cores it numbers none, and takes all CPUs for threads of one.
        numbered = (root.read_int(f"{folder}/core_id") or 0) >= 0
        if threads and cpu in threads and numbered:
            together = tuple(one for one in threads if one in switched_on and one not in groups)
            groups.update(dict.fromkeys(together, together))
    if len(groups) == len(online):
        return tuple(sorted(set(groups.values())))
    return _cores_from_caches(caches, online) or _cores_from_cpuinfo(info, online)


def _cores_from_caches(caches: tuple[Cache, ...], online: Cpus) -> tuple[Cpus, ...] | None:
    # The threads of a core, and no others, share its level 1 data cache.
    groups: dict[int, Cpus] = {}
    switched_on = set(online)
    for cache in caches:
        if (cache.level, cache.kind) == (1, "data"):
            together = tuple(cpu for cpu in cache.cpus or () if cpu in switched_on and cpu not in groups)
            groups.update(dict.fromkeys(together, together))
    return tuple(sorted(set(groups.values()))) if len(groups) == len(online) else None


def _cores_from_cpuinfo(info: CpuInfo, online: Cpus) -> tuple[Cpus, ...] | None:
    cores: dict[tuple[str, str], list[int]] = {}
    for cpu in online:
        core = info.of(cpu, "core id") or info.of(cpu, "core")
        package = info.of(cpu, "physical id") or info.of(cpu, "package")
        if core is None or package is None:
            return None
        cores.setdefault((package, core), []).append(cpu)
    return tuple(tuple(core) for core in cores.values()) or None


def parse_size_kib(text: str | None) -> int | None:
    """Return KiB of a cache size as the kernel writes it (`32K`, `24576K`, `12M`), or None."""
    match = _SIZE.fullmatch(text.strip()) if text else None
    return round(int(match[1]) * _KIB[match[2].upper()]) or None if match else None


def _caches(root: Root, cpus: Iterable[int]) -> tuple[Cache, ...]:
    """Return each cache once, however many CPUs report it."""
    found: dict[tuple[object, ...], Cache] = {}
    for cpu in cpus:
        folder = f"{BASE}/cpu{cpu}/cache"
        for name in root.listdir(folder):
            if not name.startswith("index"):
                continue
            cache = _cache(root, f"{folder}/{name}")
            if cache is not None:
                found.setdefault((cache.level, cache.kind, cache.cpus or cpu), cache)
    return tuple(sorted(found.values(), key=lambda cache: (cache.level or 0, cache.kind or "", cache.cpus or ())))


def _cache(root: Root, folder: str) -> Cache | None:
    level = root.read_int(f"{folder}/level")
    kind = (root.read_value(f"{folder}/type") or "").lower()
    if level is None or not 1 <= level <= 9 or kind not in {"data", "instruction", "unified"}:
        return None
    shared = root.read_cpulist(f"{folder}/shared_cpu_list") or parse_cpumask(
        root.read_text(f"{folder}/shared_cpu_map", 16_384)
    )
    return Cache(level, kind, parse_size_kib(root.read_value(f"{folder}/size")), shared or None)


def group_by(cpus: Iterable[int], key: Callable[[int], object]) -> list[Cpus]:
    """Return the CPUs grouped by a property, groups in the order of their first CPU."""
    groups: dict[object, list[int]] = {}
    for cpu in cpus:
        groups.setdefault(key(cpu), []).append(cpu)
    return [tuple(group) for group in groups.values()]
