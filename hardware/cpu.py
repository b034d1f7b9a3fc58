"""The processors: which there are, which may be used, what they are and what all of them can do.

The reading and the rules are in `cpu_topology` (states, clocks, caches), `cpu_clusters` (kinds, big and
little) and one module for each family of instruction sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware import cgroup, cpu_arm, cpu_clusters, cpu_other, cpu_riscv, cpu_topology, cpu_x86
from hardware.schema import Cpu
from hardware.sysfs import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hardware.cpu_clusters import Kind
    from hardware.cpu_topology import CpuLists, Cpus, Topology
    from hardware.cpuinfo import CpuInfo
    from hardware.sysfs import Root

    Words = Callable[[CpuInfo, int], frozenset[str] | None]


def probe(root: Root, info: CpuInfo, isa: str | None) -> tuple[Cpu, dict[str, str]]:
    """Return the processors, and for each field that cannot be known its path and the reason."""
    unknown: dict[str, str] = {}
    lists = cpu_topology.cpu_lists(root, info)
    usable = cpu_topology.usable(root, lists.online)
    online = lists.online or usable or ()
    topology = cpu_topology.topology(root, info, lists)
    kinds, reason = _identify(root, info, isa, lists, online, topology)
    clusters, unnamed = cpu_clusters.build(kinds, online, topology, reason)
    features, why = _features(info, isa, usable or online)
    quota = cgroup.cpu_quota(root)
    model = info.anywhere("model name", "Model Name", "cpu model") if isa not in cpu_arm.ISAS else None
    cpu = Cpu(
        online=lists.online,
        offline=lists.offline,
        usable=usable,
        clusters=clusters,
        features=features,
        quota_cpus=quota.cpus,
        caches=topology.caches,
        quota_source=quota.source,
        present=lists.present,
        cores=topology.cores,
        model=printable(model) or None if model else None,
        vendor_id=printable(info.anywhere("vendor_id") or "") or None,
        governor=",".join(topology.governors) or None,
    )
    nothing = "neither /sys/devices/system/cpu nor /proc/cpuinfo lists the CPUs"
    for name, value, explanation in (
        ("online", cpu.online, nothing),
        ("offline", cpu.offline, root.reason(f"{cpu_topology.BASE}/offline")),
        ("usable", cpu.usable, nothing),
        ("present", cpu.present, root.reason(f"{cpu_topology.BASE}/present")),
        ("clusters", clusters or None, nothing),
        ("cores", cpu.cores, "nothing says which CPUs are threads of one core"),
        ("caches", cpu.caches or None, "the kernel describes no caches here"),
        ("governor", cpu.governor, "the kernel governs no clock here (no cpufreq driver)"),
        ("features", features or None, why),
    ):
        if value is None:
            unknown[f"cpu.{name}"] = explanation
    if quota.why is not None:
        unknown["cpu.quota_cpus"] = quota.why
    unknown.update(unnamed)
    unknown.update({f"cpu.features.{name}": why for name, value in features.items() if value is None})
    unknown.update(
        {
            f"cpu.caches.{i}.{name}": "the kernel does not say"
            for i, cache in enumerate(topology.caches)
            for name in ("size_kib", "cpus")
            if getattr(cache, name) is None
        }
    )
    return cpu, unknown


def _identify(  # noqa: PLR0913, PLR0917 - the evidence, all of it
    root: Root, info: CpuInfo, isa: str | None, lists: CpuLists, online: Cpus, topology: Topology
) -> tuple[dict[int, Kind], str]:
    if isa in cpu_arm.ISAS or (isa is None and info.has("CPU implementer", "CPU part")):
        return cpu_arm.identify(root, info, online, topology)
    if isa in cpu_x86.ISAS:
        return cpu_x86.identify(root, info, lists, online, topology)
    if isa is not None and isa.startswith("riscv"):
        return cpu_riscv.identify(root, info, online)
    return cpu_other.identify(info, online)


def _features(info: CpuInfo, isa: str | None, cpus: Cpus) -> tuple[dict[str, bool | None], str]:
    """Return what all of `cpus` have, None where that cannot be told, and the reason for those."""
    if isa is None:
        return {}, "the instruction set is not known, nor are its features"
    missing = "/proc/cpuinfo does not say it of every usable CPU"
    if isa.startswith("riscv"):
        return {"rvv": _all([cpu_riscv.has_vectors(info, cpu) for cpu in cpus])}, missing
    table: Mapping[str, str]
    words: Words
    if isa in cpu_arm.ISAS:
        table = cpu_arm.FEATURES_32 if isa == "aarch32" else cpu_arm.FEATURES_64
        words = cpu_arm.words
    elif isa in cpu_x86.ISAS:
        table, words = cpu_x86.FEATURES, cpu_x86.words
    else:
        table, words = cpu_other.FEATURES.get(isa, {}), cpu_other.words
        missing = missing if table else f"the features of {isa} are not looked for"
    # Most CPUs have the very same words; looking through them once is enough.
    each = {words(info, cpu) for cpu in cpus} or {None}
    return {name: _all([None if one is None else word in one for one in each]) for name, word in table.items()}, missing


def _all(values: list[bool | None]) -> bool | None:
    if False in values:
        return False
    return None if None in values or not values else True
