"""x86 CPUs: vendor, model, the two kinds of Intel's hybrid processors, and what instructions all have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware.cpu_clusters import Kind
from hardware.sysfs import printable

if TYPE_CHECKING:
    from hardware.cpu_topology import CpuLists, Cpus, Topology
    from hardware.cpuinfo import CpuInfo
    from hardware.sysfs import Root

ISAS = frozenset(("x86_64", "x86"))
_VENDORS = {
    "GenuineIntel": "Intel",
    "AuthenticAMD": "AMD",
    "HygonGenuine": "Hygon",
    "CentaurHauls": "Centaur",
    "Shanghai": "Zhaoxin",
    "GenuineTMx86": "Transmeta",
    "CyrixInstead": "Cyrix",
    "Vortex86 SoC": "DM&P",
}
# Our names are the kernel's, except that its plain names of AVX-512 parts have no underscore.
FEATURES = {
    name: name
    for name in (
        "ssse3",
        "sse4_1",
        "sse4_2",
        "avx",
        "f16c",
        "fma",
        "bmi2",
        "avx2",
        "avx_vnni",
        "avx_vnni_int8",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
    )
}
_PMU_FOLDERS = ("sys/devices", "sys/bus/event_source/devices")


def identify(
    root: Root, info: CpuInfo, lists: CpuLists, online: Cpus, topology: Topology
) -> tuple[dict[int, Kind], str]:
    """Return the kind of each CPU that can be told, and why the others cannot."""
    efficient = _efficient(root, info, lists, online, topology)
    kinds = {}
    for cpu in online:
        vendor = info.of(cpu, "vendor_id")
        name = info.of(cpu, "model name")
        if not name and not vendor:
            # A CPU that cpuinfo lacks (cut, or just switched on) is not known to be like the others.
            continue
        number = (info.of(cpu, "cpu family"), info.of(cpu, "model"))
        kinds[cpu] = Kind(
            name=printable(name or "") or None,
            vendor=_VENDORS.get(vendor, printable(vendor)) if vendor else None,
            efficiency=cpu in efficient if efficient else None,
            key=number,
        )
    return kinds, "/proc/cpuinfo does not describe this CPU"


def _efficient(root: Root, info: CpuInfo, lists: CpuLists, online: Cpus, topology: Topology) -> frozenset[int]:
    """Return the efficiency cores of a hybrid processor; none if it is not one, or nothing shows it."""
    for folder in _PMU_FOLDERS:
        core = set(root.read_cpulist(f"{folder}/cpu_core/cpus") or ())
        atom = set(root.read_cpulist(f"{folder}/cpu_atom/cpus") or ())
        # Newer kernels give the low-power island of Core Ultra a list of its own.
        atom |= set(root.read_cpulist(f"{folder}/cpu_lowpower/cpus") or ())
        if core and atom and not core & atom:
            return frozenset(atom & set(online))
    if (info.anywhere("vendor_id") or "") != "GenuineIntel":
        return frozenset()  # AMD's and Zhaoxin's mixed processors have one design of core in two densities
    return _by_first_caches(online, topology) or _by_second_caches(lists, online, topology)


def _by_first_caches(online: Cpus, topology: Topology) -> frozenset[int]:
    """Tell the kinds by their level 1 caches: a design has one size of them."""
    sizes: dict[int, dict[str, int]] = {}
    for cache in topology.caches:
        if cache.level == 1 and cache.kind and cache.size_kib:
            for cpu in cache.cpus or ():
                sizes.setdefault(cpu, {})[cache.kind] = cache.size_kib
    kinds: dict[tuple[int | None, int | None], set[int]] = {}
    for cpu in online:
        own = sizes.get(cpu, {})
        kinds.setdefault((own.get("data"), own.get("instruction")), set()).add(cpu)
    if len(kinds) != 2 or any(None in kind for kind in kinds):
        return frozenset()
    # Performance cores have the larger data cache in all of Intel's pairings (48 against 32 KiB).
    small, large = sorted(kinds, key=lambda kind: kind[0] or 0)
    return frozenset(kinds[small]) if small[0] != large[0] else frozenset()


def _by_second_caches(lists: CpuLists, online: Cpus, topology: Topology) -> frozenset[int]:
    """Tell the kinds by who shares a level 2 cache: several efficiency cores, or the threads of one core."""
    shared: set[int] = set()
    private: set[int] = set()
    for cache in topology.caches:
        if cache.level == 2 and cache.cpus:
            cpus = set(cache.cpus) & set(online)
            cores = {topology.threads(cpu) for cpu in cpus}
            (shared if len(cores) > 1 else private).update(cpus)
    if not shared or not private or shared | private != set(online):
        return frozenset()
    # One core left of a group whose others are offline looks private: only threads or a full house exclude
    # that.
    missing = {cpu for cpu in lists.present or () if cpu not in set(online)}
    threaded = all(len(topology.threads(cpu)) > 1 for cpu in private)
    alone = all(len(topology.threads(cpu)) == 1 for cpu in shared)
    return frozenset(shared) if alone and (threaded or not missing) else frozenset()


def words(info: CpuInfo, cpu: int) -> frozenset[str] | None:
    """Return the kernel's words for what one CPU can do, or None."""
    line = info.of(cpu, "flags")
    return None if line is None else frozenset(line.split())
