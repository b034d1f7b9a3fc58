"""Put the probes together: `profile(root)` is the whole answer to "what is this machine?".

A probe that fails in a way its author did not foresee costs its own part of the profile and says so in
`unknown`; it never costs the profile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hardware import isa
from hardware.cpuinfo import CPUINFO, CpuInfo, parse_cpuinfo
from hardware.schema import Accelerator, Board, Cpu, Disk, Memory, Power, Profile, Thermal, Virtual
from hardware.sysfs import Root, clean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hardware.boards import BoardFacts

_T = TypeVar("_T")
_NONE: tuple[Accelerator, ...] = ()


def profile(
    root: Path | str = "/",
    *,
    providers: Sequence[str] | None = None,
    models_path: str = "/",
    read_firmware: bool = False,
) -> Profile:
    """Return what is known of the machine whose root file system is at `root`, whatever lies there.

    `providers` are those of the installed onnxruntime, if somebody has asked it: without them no
    accelerator counts as usable. `models_path` is where models are to lie: `disk` is about that place.
    `read_firmware` also asks a Raspberry Pi's firmware whether it throttles, which puts a warning into the
    kernel log.
    """
    # Here, not above: `import hardware` is for everybody, and the probes are half of its time.
    from hardware import accelerator, board, cpu, disk, memory, power, thermal, virtual  # noqa: PLC0415

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
    processors = guarded("cpu", lambda: cpu.probe(tree, info, isa_name), Cpu())
    cpus = len(processors.present or processors.online or ()) or None
    nothing: tuple[Board, BoardFacts | None] = (Board(), None)
    found, facts = guarded("board", lambda: board.probe(tree, info, cpus), nothing)
    where = guarded("container", lambda: virtual.probe(tree), Virtual())
    return Profile(
        isa=isa_name,
        board=found,
        cpu=processors,
        memory=guarded("memory", lambda: memory.probe(tree), Memory()),
        accelerators=guarded("accelerators", lambda: accelerator.probe(tree, facts, providers), _NONE),
        thermal=guarded("thermal", lambda: thermal.probe(tree, read_firmware=read_firmware), Thermal()),
        power=guarded("power", lambda: power.probe(tree, facts), Power()),
        disk=guarded("disk", lambda: disk.probe(tree, models_path), Disk()),
        container=where.container,
        virtual_machine=where.virtual_machine,
        kernel_release=guarded("kernel_release", lambda: _kernel_release(tree), None),
        unknown=unknown,
    )


def _cpuinfo(root: Root) -> tuple[CpuInfo, dict[str, str]]:
    text = root.read_text(CPUINFO)
    if text is None:
        return CpuInfo(), {"cpu.model": root.reason(CPUINFO)}
    return parse_cpuinfo(text), {}


def _isa(root: Root, info: CpuInfo) -> tuple[str | None, dict[str, str]]:
    name, reason = isa.probe(root, info)
    return name, {} if reason is None else {"isa": reason}


def _kernel_release(root: Root) -> tuple[str | None, dict[str, str]]:
    release = root.read_value("proc/sys/kernel/osrelease")
    if release is None:
        words = (root.read_value("proc/version") or "").split()
        release = words[2] if words[:2] == ["Linux", "version"] and len(words) > 2 else None
    if release is None:
        return None, {"kernel_release": root.reason("proc/sys/kernel/osrelease")}
    return clean(release, 128), {}
