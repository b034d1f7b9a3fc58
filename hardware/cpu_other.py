"""Other CPUs: LoongArch, POWER, IBM Z and whatever writes a model into /proc/cpuinfo."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hardware.cpu_clusters import Kind
from hardware.sysfs import printable

if TYPE_CHECKING:
    from hardware.cpu_topology import Cpus
    from hardware.cpuinfo import CpuInfo

_NAME_KEYS = ("Model Name", "model name", "cpu model", "cpu", "CPU", "cpu type")
_S390_MACHINE = re.compile(r"machine = ([0-9A-F]{4})")
FEATURES = {
    "loongarch64": {"lsx": "lsx", "lasx": "lasx"},
    "loongarch32": {"lsx": "lsx", "lasx": "lasx"},
    "s390x": {"vx": "vx", "vxe": "vxe", "vxe2": "vxe2", "nnpa": "nnpa"},
}


def identify(info: CpuInfo, online: Cpus) -> tuple[dict[int, Kind], str]:
    """Return the kind of each CPU that can be told, and why the others cannot."""
    kinds = {}
    for cpu in online:
        name = next((value for key in _NAME_KEYS if (value := info.of(cpu, key))), None) or _s390(info, cpu)
        if name is not None:
            # POWER: "POWER9, altivec supported".
            name = printable(name.partition(",")[0])
            kinds[cpu] = Kind(name=name or None, vendor=_vendor(info, name))
    return kinds, "/proc/cpuinfo does not describe this CPU"


def _s390(info: CpuInfo, cpu: int) -> str | None:
    match = _S390_MACHINE.search(info.of(cpu, f"processor {cpu}") or "")
    return f"machine type {match[1]}" if match else None


def _vendor(info: CpuInfo, name: str) -> str | None:
    if name.startswith("Loongson"):
        return "Loongson"
    if name.startswith("POWER") or (info.anywhere("vendor_id") or "").startswith("IBM"):
        return "IBM"
    return None


def words(info: CpuInfo, cpu: int) -> frozenset[str] | None:
    """Return the kernel's words for what one CPU can do, or None."""
    line = info.of(cpu, "Features") or info.of(cpu, "features")
    return None if line is None else frozenset(line.split())
