"""Read /proc/cpuinfo, which every architecture, kernel and vendor writes in its own way.

What varies: one paragraph for each CPU, or a list of CPUs and one set of facts after it; `Processor` beside
`processor`; tabs or blanks before the colon; no blank line between paragraphs; facts repeated; no
`processor` line at all on kernels built for one CPU. Offline CPUs are not there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hardware.sysfs import MAX_CPU_NUMBER, parse_int

CPUINFO = "proc/cpuinfo"
MAX_LINES = 100_000
"""A CPU takes some 28: more than three thousand of them, far beyond any machine; what follows is left out."""
_S390_PROCESSOR = re.compile(r"processor ([0-9]{1,5})")
_SPARC_PROCESSOR = re.compile(r"CPU([0-9]{1,5})")


@dataclass(frozen=True)
class CpuInfo:
    """The facts about each CPU, and those stated once for the whole file. Keys are as written."""

    cpus: dict[int, dict[str, str]] = field(default_factory=dict)
    common: dict[str, str] = field(default_factory=dict)

    def of(self, cpu: int, key: str) -> str | None:
        """Return what the file says of one CPU, in its own paragraph or for all, or None."""
        own = self.cpus.get(cpu, {}).get(key)
        return self.common.get(key) if own is None else own

    def anywhere(self, *keys: str) -> str | None:
        """Return the first value that any of `keys` has anywhere, or None."""
        for key in keys:
            for fields in (self.common, *self.cpus.values()):
                if fields.get(key):
                    return fields[key]
        return None

    def has(self, *keys: str) -> bool:
        """Whether any of `keys` is there at all, be it empty."""
        return any(key in fields for key in keys for fields in (self.common, *self.cpus.values()))


def parse_cpuinfo(text: str) -> CpuInfo:
    """Return the facts in the text of /proc/cpuinfo. Lines that are not `key : value` are passed over."""
    cpus: dict[int, dict[str, str]] = {}
    common: dict[str, str] = {}
    current = common
    for line in text.split("\n", MAX_LINES)[:MAX_LINES]:
        key, colon, value = line.partition(":")
        key, value = key.strip(), value.strip(" \t\0")
        if not colon or not key:
            if not line.strip():
                current = common  # what follows a paragraph and names no CPU is about all of them
            continue
        number = parse_int(value) if key == "processor" else _number_in_key(key)
        if number is not None and 0 <= number <= MAX_CPU_NUMBER:
            # A file pasted twice: the first word on a CPU counts, the second goes nowhere.
            current = {} if number in cpus else cpus.setdefault(number, {})
        current.setdefault(key, value)
    _move_common_facts(cpus, common)
    return CpuInfo(cpus, common)


def _number_in_key(key: str) -> int | None:
    # s390x: "processor 0: version = FF, …"; SPARC: "CPU0 : online".
    match = _S390_PROCESSOR.fullmatch(key) or _SPARC_PROCESSOR.fullmatch(key)
    return int(match[1]) if match else None


def _move_common_facts(cpus: dict[int, dict[str, str]], common: dict[str, str]) -> None:
    """Make facts of the file what the last CPU alone has: old kernels leave out the blank line."""
    if len(cpus) < 2:
        return
    *others, last = cpus.values()
    known = set().union(*others)
    for key in [key for key in last if key not in known]:
        common.setdefault(key, last.pop(key))
