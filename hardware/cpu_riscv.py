"""RISC-V CPUs: design and vector extension, from the isa string of each hart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hardware.cpu_clusters import Kind
from hardware.cpu_topology import BASE
from hardware.sysfs import clean, parse_hex, printable

if TYPE_CHECKING:
    from hardware.cpu_topology import Cpus
    from hardware.cpuinfo import CpuInfo
    from hardware.sysfs import Root

_VENDORS = {
    "sifive": "SiFive",
    "thead": "T-Head",
    "spacemit": "SpacemiT",
    "eswin": "ESWIN",
    "starfive": "StarFive",
    "andestech": "Andes",
    "ultrarisc": "UltraRISC",
    "canaan": "Canaan",
    "microchip": "Microchip",
    "sophgo": "Sophgo",
}
_T_HEAD = 0x5B7
_VENDOR_IDS = {0x489: "SiFive", _T_HEAD: "T-Head", 0x710: "SpacemiT", 0x31E: "Andes"}
_DRAFT_DESIGNS = ("thead,c906", "thead,c910", "thead,c920")
_VERSION = re.compile(r"(?<=[a-z])[0-9]{1,2}p[0-9]{1,2}")
_ISA = re.compile(r"rv(?:32|64|128)([a-z]*)((?:_[a-z0-9_]*)?)")


def identify(root: Root, info: CpuInfo, online: Cpus) -> tuple[dict[int, Kind], str]:
    """Return the kind of each hart that can be told, and why the others cannot."""
    kinds = {}
    for cpu in online:
        design = printable(info.of(cpu, "uarch") or "") or _from_device_tree(root, cpu)
        ids = tuple(info.of(cpu, key) for key in ("mvendorid", "marchid"))
        isa = info.of(cpu, "hart isa") or info.of(cpu, "isa")
        if design is None and isa is None and ids == (None, None):
            continue
        prefix = design.partition(",")[0] if design else ""
        vendor = _VENDORS.get(prefix) or _VENDOR_IDS.get(parse_hex(ids[0]) or 0)
        kinds[cpu] = Kind(name=design, vendor=vendor, key=(*ids, isa))
    return kinds, "/proc/cpuinfo does not describe this CPU"


def _from_device_tree(root: Root, cpu: int) -> str | None:
    words = root.read_strings(f"{BASE}/cpu{cpu}/of_node/compatible") or ()
    return next((clean(word, 64) for word in words if "," in word), None)


def has_vectors(info: CpuInfo, cpu: int) -> bool | None:
    """Whether a hart has the vector extension as ratified (1.0); None if its isa string is not there.

    `v` alone does not say which version: T-Head's C906, C910 and C920 have the incompatible draft 0.7.1,
    and the kernels of that time end the single letters with `su`. What the ratified extension brings along
    (`zve64d`, `zvl128b`, …) settles it.
    """
    isa = (info.of(cpu, "hart isa") or info.of(cpu, "isa") or "").lower()
    drafted = re.search(r"v0p[0-9]", isa) is not None
    match = _ISA.match(_VERSION.sub("", isa))
    if match is None:
        return None
    letters, extensions = match[1], match[2].split("_")
    # Multi-letter names start with z, s or x; older kernels put the first of them right behind the single
    # letters.
    single = re.split(r"z[a-y]|x|s(?!u?$)", letters, maxsplit=1)[0]
    if "v" not in single or drafted:
        return False
    if any(word.startswith(("zve", "zvl", "zvf")) for word in extensions):
        return True
    version = info.of(cpu, "cpu-vector")
    if version:
        return version.startswith("1")
    if single.endswith(("s", "u")) or (info.of(cpu, "uarch") or "").startswith(_DRAFT_DESIGNS):
        return False
    # Mainline takes the `v` of these away: no T-Head core without an architecture number has version 1.0.
    return not (parse_hex(info.of(cpu, "mvendorid")) == _T_HEAD and parse_hex(info.of(cpu, "marchid")) in {0, None})
