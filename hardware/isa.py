"""Which instruction set programs here are made of: that of the user land, not the widest of the CPU.

A 32-bit system on 64-bit cores is `aarch32` or `x86`: what runs there is 32-bit code. Evidence, best first:
the running interpreter (on the live machine), a program in the tree, /proc/cpuinfo, `kernel.arch`, the
kernel's version.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hardware.cpuinfo import CpuInfo
    from hardware.sysfs import Root

# Names as `uname -m` gives them.
_MACHINES = {
    "aarch64": "aarch64",
    "aarch64_be": "aarch64_be",
    "arm64": "aarch64",
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "i386": "x86",
    "i486": "x86",
    "i586": "x86",
    "i686": "x86",
    "riscv64": "riscv64",
    "riscv32": "riscv32",
    "loongarch64": "loongarch64",
    "ppc64le": "ppc64le",
    "ppc64": "ppc64",
    "ppc": "ppc",
    "s390x": "s390x",
    "mips": "mips",
    "mips64": "mips64",
    "sparc64": "sparc64",
}
_NARROW = {"aarch64": "aarch32", "x86_64": "x86", "riscv64": "riscv32", "ppc64": "ppc"}
_PROGRAMS = ("bin/sh", "usr/bin/env", "bin/busybox", "sbin/init", "usr/lib/systemd/systemd", "system/bin/sh")
_ELF_MACHINES = {
    3: "x86",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "aarch32",
    43: "sparc64",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}
_AARCH64_WORDS = frozenset(("fp", "asimd"))
_AARCH32_WORDS = frozenset(("half", "thumb", "fastmult", "vfp", "edsp", "swp", "neon", "tls", "26bit", "java"))
_RV = re.compile(r"rv(32|64|128)", re.IGNORECASE)
_VERSION_WORD = re.compile(
    r"(?<![0-9a-z])(aarch64|arm64|armv7l|armhf|armmp|x86_64|amd64|i[3-6]86|riscv64|loongarch64|ppc64le|ppc64el|s390x)"
    r"(?![0-9a-z])"
)


def from_machine(machine: str, pointer_bits: int = 64) -> str | None:
    """Return our name for a `uname -m`, for programs with pointers of so many bits; None if we have none."""
    machine = machine.strip().lower()
    isa = "aarch32" if machine.startswith("arm") and machine != "arm64" else _MACHINES.get(machine)
    return _NARROW.get(isa, isa) if isa and pointer_bits == 32 else isa


def from_elf(header: bytes) -> str | None:
    """Return the instruction set of a program by its first 20 bytes (System V ABI, ELF header), or None."""
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[4] not in (1, 2) or header[5] not in (1, 2):
        return None
    little = header[5] == 1
    name = _ELF_MACHINES.get(int.from_bytes(header[18:20], "little" if little else "big"))
    bits = "64" if header[4] == 2 else "32"
    if name in {"riscv", "loongarch"}:
        return name + bits
    if name == "ppc64":
        return "ppc64le" if little else "ppc64"
    if name == "aarch64":
        return name if little else "aarch64_be"
    return name


def from_cpuinfo(info: CpuInfo) -> str | None:
    """Return what the text of /proc/cpuinfo shows, or None."""
    return _from_arm(info) or _from_x86(info) or _from_others(info)


def _from_arm(info: CpuInfo) -> str | None:  # noqa: PLR0911 - a ladder of evidence
    if not info.has("CPU implementer", "CPU part", "CPU architecture", "Processor", "Features"):
        return None
    words = set((info.anywhere("Features") or "").split())
    if words & _AARCH64_WORDS:
        return "aarch64"
    if words & _AARCH32_WORDS:
        return "aarch32"
    architecture = info.anywhere("CPU architecture") or ""
    if architecture.lower() == "aarch64":
        return "aarch64"
    if re.match(r"[3-7]", architecture):
        return "aarch32"
    match = re.search(r"\((aarch64|v[3-7][a-z]*|v8l)\)", info.anywhere("Processor", "model name") or "")
    if match:
        return "aarch64" if match[1] == "aarch64" else "aarch32"
    return None


def _from_x86(info: CpuInfo) -> str | None:
    if not info.has("flags") or not info.has("vendor_id", "cpu family", "model name", "fpu"):
        return None
    # Only 32-bit kernels still look for these bugs of 32-bit processors.
    if info.has("fdiv_bug", "f00f_bug", "coma_bug", "hlt_bug"):
        return "x86"
    if info.has("fpu_exception", "wp", "address sizes", "clflush size"):
        return "x86_64"
    return "x86_64" if "lm" in (info.anywhere("flags") or "").split() else None


def _from_others(info: CpuInfo) -> str | None:
    match = _RV.match(info.anywhere("isa", "hart isa") or "")
    if match:
        return f"riscv{match[1]}"
    words = (info.anywhere("ISA") or "").lower().split()
    if "loongarch64" in words:
        return "loongarch64"
    if "loongarch32" in words:
        return "loongarch32"
    if (info.anywhere("vendor_id") or "").startswith("IBM/S390"):
        return "s390x"  # the last 31-bit kernel was Linux 4.0
    if (info.anywhere("type") or "") in {"sun4u", "sun4v"}:
        return "sparc64"
    return None


def _from_version(text: str, info: CpuInfo) -> str | None:
    # Kernels are built on other machines: where POWER is known, only its own words count.
    power = (info.anywhere("cpu") or "").startswith(("POWER", "PPC"))
    for word in _VERSION_WORD.findall(text.lower()):
        isa = from_machine({"armhf": "arm", "armmp": "arm", "ppc64el": "ppc64le"}.get(word, word))
        if isa and (not power or isa.startswith("ppc")):
            return isa
    return None


def probe(root: Root, info: CpuInfo) -> tuple[str | None, str | None]:
    """Return the instruction set, and the reason if it is None."""
    if root.live:
        isa = from_machine(os.uname().machine, 64 if sys.maxsize > 2**32 else 32)
        if isa:
            return isa, None
    for program in _PROGRAMS:
        header = root.read_bytes(program, 20)
        isa = from_elf(header) if header else None
        if isa:
            return isa, None
    isa = from_cpuinfo(info) or from_machine(root.read_value("proc/sys/kernel/arch") or "")
    if isa:
        return isa, None
    isa = _from_version(root.read_text("proc/version", 4096) or "", info)
    if isa is None and root.glob("sys/devices/system/cpu/cpu*/regs/identification/midr_el1"):
        isa = "aarch64"  # 32-bit kernels have no such file
    if isa:
        return isa, None
    return None, "neither /proc/cpuinfo nor a program in the tree shows the instruction set"


def path(isa: str | None, features: Mapping[str, bool | None]) -> str:
    """Return what decides which of onnxruntime's kernels run, as in `aarch64+dotprod+i8mm`.

    Matrix kernels are chosen by the best step of a ladder on x86, by each extension on its own on Arm
    (onnxruntime/core/mlas/lib/platform.cpp). What is not known counts as absent; an unknown base is
    `unknown`.
    """
    if isa is None:
        return "unknown"
    has = {name for name, value in features.items() if value}
    if isa in {"x86_64", "x86"}:
        step = next((name for name, needs in _X86_LADDER if needs <= has), None)
        return f"{isa}+{step}" if step else isa
    return "+".join((isa, *(name for name in _ADDITIVE.get(isa, ()) if name in has)))


_AVX2 = frozenset(("avx2", "fma"))
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
_X86_LADDER = (
    ("amx_int8", _AVX512 | {"avx512_vnni", "amx_tile", "amx_int8"}),
    ("avx512_vnni", _AVX512 | {"avx512_vnni"}),
    ("avx512", _AVX512),
    ("avx_vnni", _AVX2 | {"avx_vnni"}),
    ("avx2", _AVX2),
    ("avx", frozenset(("avx",))),
)
_ADDITIVE = {
    "aarch64": ("dotprod", "i8mm", "sve", "sme"),
    "riscv64": ("rvv",),
    "loongarch64": ("lsx", "lasx"),
    "s390x": ("vx",),
}
