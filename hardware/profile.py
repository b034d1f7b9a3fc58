"""Put the probes together: `profile(root)` is the whole answer to "what is this machine?".

A probe that fails in a way its author did not foresee costs its own part of the profile and says so in
`unknown`; it never costs the profile.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hardware import board, cpu, disk, isa, memory, power, thermal, virtual
from hardware.cpuinfo import CpuInfo, parse_cpuinfo
from hardware.schema import Accelerator, Board, Cpu, Disk, Memory, Power, Profile, Thermal, Virtual
from hardware.sysfs import Root, clean

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


def profile(root: Path | str = Path("/")) -> Profile:
    """Return what is known of the machine whose root file system is at `root`, whatever lies there."""
    tree = Root(root)
    unknown: dict[str, str] = {}

    def guarded(part: str, probe: Callable[[], tuple[_T, dict[str, str]]], instead: _T) -> _T:
        try:
            value, missing = probe()
        except Exception as error:  # noqa: BLE001 - one probe's fault must not cost the other probes' facts
            unknown[part] = f"the probe failed: {type(error).__name__}: {clean(str(error), 200)}"
            return instead
        unknown.update(missing)
        return value

    info = guarded("cpu", lambda: _cpuinfo(tree), CpuInfo())
    isa_name = guarded("isa", lambda: _isa(tree, info), None)
    accelerators: tuple[Accelerator, ...] = guarded("accelerators", lambda: _accelerators(tree), ())
    where = guarded("container", lambda: virtual.probe(tree), Virtual())
    release = _kernel_release(tree)
    if release is None:
        unknown["kernel_release"] = tree.reason("proc/sys/kernel/osrelease")
    return Profile(
        isa=isa_name,
        board=guarded("board", lambda: board.probe(tree, info), Board()),
        cpu=guarded("cpu", lambda: cpu.probe(tree, info, isa_name), Cpu()),
        memory=guarded("memory", lambda: memory.probe(tree), Memory()),
        accelerators=accelerators,
        thermal=guarded("thermal", lambda: thermal.probe(tree), Thermal()),
        power=guarded("power", lambda: power.probe(tree), Power()),
        disk=guarded("disk", lambda: disk.probe(tree), Disk()),
        container=where.container,
        virtual_machine=where.virtual_machine,
        kernel_release=release,
        unknown=unknown,
    )


def _accelerators(root: Root) -> tuple[tuple[Accelerator, ...], dict[str, str]]:
    from hardware import accelerator  # noqa: PLC0415

    return accelerator.probe(root)


def _cpuinfo(root: Root) -> tuple[CpuInfo, dict[str, str]]:
    text = root.read_text(cpu.CPUINFO)
    if text is None:
        return CpuInfo(), {"cpu.model": root.reason(cpu.CPUINFO)}
    return parse_cpuinfo(text), {}


def _isa(root: Root, info: CpuInfo) -> tuple[str | None, dict[str, str]]:
    name, reason = isa.probe(root, info)
    return name, {} if reason is None else {"isa": reason}


def _kernel_release(root: Root) -> str | None:
    release = root.read_value("proc/sys/kernel/osrelease")
    if release is None:
        words = (root.read_value("proc/version") or "").split()
        release = words[2] if words[:2] == ["Linux", "version"] and len(words) > 2 else None
    return clean(release, 128) if release else None
