"""Arm CPUs: which design each is, and what instructions all have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hardware.cpu_clusters import Kind
from hardware.cpu_topology import BASE
from hardware.midr import Midr, from_compatible
from hardware.sysfs import parse_hex

if TYPE_CHECKING:
    from hardware.cpu_topology import Cpus, Topology
    from hardware.cpuinfo import CpuInfo
    from hardware.sysfs import Root

ISAS = frozenset(("aarch64", "aarch64_be", "aarch32"))
# Our name: the kernel's word (arch/arm64/kernel/cpuinfo.c, arch/arm/kernel/setup.c).
FEATURES_64 = {
    "neon": "asimd",
    "dotprod": "asimddp",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "fp16": "asimdhp",
    "sve": "sve",
    "sve2": "sve2",
    "svei8mm": "svei8mm",
    "sme": "sme",
    "sme2": "sme2",
    "aes": "aes",
    "crc32": "crc32",
    "lse_atomics": "atomics",
}
FEATURES_32 = {
    "neon": "neon",
    "vfpv3": "vfpv3",
    "vfpv4": "vfpv4",
    "idiva": "idiva",
    "dotprod": "asimddp",
    "i8mm": "i8mm",
    "bf16": "asimdbf16",
    "fp16": "asimdhp",
    "aes": "aes",
    "crc32": "crc32",
    # AArch32 has no scalable vectors.
    "sve": "",
    "sve2": "",
    "sme": "",
}
_REVISION = re.compile(r"[0-9]{1,2}")


def identify(root: Root, info: CpuInfo, online: Cpus, topology: Topology) -> tuple[dict[int, Kind], str]:
    """Return the kind of each CPU that can be told, and why the others cannot."""
    found: dict[int, Midr] = {}
    for cpu in online:
        midr = _from_register(root, cpu) or _from_fields(info.cpus.get(cpu, {}))
        if midr is not None:
            found[cpu] = midr
    reason = "neither /proc/cpuinfo nor midr_el1 says what this CPU is"
    common = _from_fields(info.common)
    if common is not None and len(found) < len(online):
        if _all_like(common, online, topology):
            found = dict.fromkeys(online, common) | found
        else:
            label = common.name or f"part {common.part:#05x}"
            reason = f"/proc/cpuinfo states one part ({label}), perhaps only that of the CPU that read it"
    for cpu, midr in _from_device_tree(root, online).items():
        found.setdefault(cpu, midr)
    return {cpu: Kind(midr.name, midr.vendor, midr.efficiency, midr) for cpu, midr in found.items()}, reason


def _from_register(root: Root, cpu: int) -> Midr | None:
    value = parse_hex(root.read_text(f"{BASE}/cpu{cpu}/regs/identification/midr_el1", 64))
    return Midr.from_register(value) if value else None


def _from_fields(fields: dict[str, str]) -> Midr | None:
    implementer, part = parse_hex(fields.get("CPU implementer")), parse_hex(fields.get("CPU part"))
    if implementer is None or part is None or implementer > 0xFF or part > 0xFFF:
        return None
    variant = parse_hex(fields.get("CPU variant"))
    revision = fields.get("CPU revision", "")
    return Midr(
        implementer,
        part,
        variant if variant is not None and variant <= 0xF else None,
        int(revision) if _REVISION.fullmatch(revision) else None,
    )


def _all_like(common: Midr, online: Cpus, topology: Topology) -> bool:
    """Whether a part stated once is surely that of all online CPUs."""
    if len(online) == 1 or common.never_mixed:
        return True
    if not common.one_kind_a_cluster:
        return False  # since DynamIQ two kinds may share a clock and have equal capacities
    first = online[0]
    one_clock = set(topology.clock_domain.get(first, ())) >= set(online)
    capacities = {topology.capacity.get(cpu) for cpu in online}
    # Kernels that state the part once take the cluster's number for the package's.
    packages = {topology.package.get(cpu, -1) for cpu in online}
    return one_clock or (len(capacities) == 1 and None not in capacities) or (len(packages) == 1 and min(packages) >= 0)


def _from_device_tree(root: Root, online: Cpus) -> dict[int, Midr]:
    """Return the designs the device tree names: of each CPU by its own node, of all if it names just one."""
    found = {}
    for cpu in online:
        midr = _compatible(root, f"{BASE}/cpu{cpu}/of_node/compatible")
        if midr is not None:
            found[cpu] = midr
    if found:
        return found
    for base in ("sys/firmware/devicetree/base/cpus", "proc/device-tree/cpus"):
        nodes = [name for name in root.listdir(base) if name.startswith("cpu@")]
        designs = {_compatible(root, f"{base}/{name}/compatible") for name in nodes}
        design = designs.pop() if len(designs) == 1 else None
        if design is not None and len(nodes) >= len(online):
            return dict.fromkeys(online, design)
    return {}


def _compatible(root: Root, path: str) -> Midr | None:
    for word in root.read_strings(path) or ():
        midr = from_compatible(word)
        if midr is not None:
            return midr
    return None


def words(info: CpuInfo, cpu: int) -> frozenset[str] | None:
    """Return the kernel's words for what one CPU can do, or None.

    The kernel prints the same set, what all its CPUs have, in each paragraph: one will do for a CPU without.
    64-bit kernels show 32-bit programs their 64-bit words, and 64-bit programs 32-bit words if those ask
    for it.
    """
    line = info.of(cpu, "Features") or info.anywhere("Features")
    if line is None:
        return None
    found = frozenset(line.split())
    if "asimd" in found:
        # What ARMv8 prescribes for the 32-bit state of a core with Advanced SIMD.
        found |= {"neon", "vfpv3", "vfpv4", "idiva"}
        found |= {"asimdbf16"} if "bf16" in found else frozenset()
    elif "neon" in found:
        found |= {"asimd"}
        found |= {"bf16"} if "asimdbf16" in found else frozenset()
    return found
