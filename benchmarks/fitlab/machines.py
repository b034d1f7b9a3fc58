"""Small machines made of this one: real limits of memory, CPUs and CPU time, and other programs that want the CPU.

Limits of memory and CPU time are control groups, version 1 or 2, and need root. CPUs are narrowed by affinity.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


@dataclass(frozen=True)
class Machine:
    """One machine: memory of all its programs together, CPUs, and what part of their time."""

    name: str
    memory_bytes: int
    cpus: int
    quota_cpus: float | None = None
    busy: int = 0
    """Programs that use a CPU as much as they can, on the same CPUs."""

    @property
    def told(self) -> str:
        """Return it in words."""
        words = [f"{self.memory_bytes // MIB} MiB", f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}"]
        if self.quota_cpus is not None:
            words.append(f"quota {self.quota_cpus:.0%}")
        if self.busy:
            words.append("other load")
        return ", ".join(words)


MACHINES = (
    Machine("roomy", 2048 * MIB, 2),
    Machine("one-cpu", 1024 * MIB, 1),
    Machine("quota", 1024 * MIB, 2, quota_cpus=0.5),
    Machine("busy", 1024 * MIB, 2, busy=1),
    Machine("small", 512 * MIB, 2),
    Machine("smaller", 320 * MIB, 1),
    Machine("tiny", 192 * MIB, 1),
    Machine("least", 128 * MIB, 1),
)
QUICK = ("roomy", "quota", "smaller")


def possible() -> str:
    """Return why such machines cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "control groups need root"
    if (_ROOT / "memory").is_dir() and os.access(_ROOT / "memory", os.W_OK) and (_ROOT / "cpu").is_dir():
        return ""
    controllers = _ROOT / "cgroup.controllers"
    if controllers.exists() and {"memory", "cpu"} <= set(controllers.read_text(encoding="ascii").split()):
        return ""
    return "there is no control group with the controllers memory and cpu"


@contextlib.contextmanager
def limited(machine: Machine) -> Iterator[list[Path]]:
    """Make the control groups of a machine; yield the files that a process id is written to."""
    name = f"edge-agent-fit-{os.getpid()}-{machine.name}"
    v1 = (_ROOT / "memory").is_dir()
    folders = [_ROOT / "memory" / name, _ROOT / "cpu" / name] if v1 else [_ROOT / name]
    if not v1:
        with contextlib.suppress(OSError):
            (_ROOT / "cgroup.subtree_control").write_text("+memory +cpu", encoding="ascii")
    for folder in folders:
        folder.mkdir(exist_ok=True)
    try:
        _limit(folders, machine, v1=v1)
        yield [folder / "cgroup.procs" for folder in folders]
    finally:
        for folder in folders:
            _remove(folder)


def _limit(folders: list[Path], machine: Machine, *, v1: bool) -> None:
    memory, cpu = folders[0], folders[-1]
    quota = None if machine.quota_cpus is None else int(machine.quota_cpus * _PERIOD_US)
    if v1:
        (memory / "memory.limit_in_bytes").write_text(str(machine.memory_bytes), encoding="ascii")
        (cpu / "cpu.cfs_period_us").write_text(str(_PERIOD_US), encoding="ascii")
        (cpu / "cpu.cfs_quota_us").write_text(str(-1 if quota is None else quota), encoding="ascii")
        return
    (memory / "memory.max").write_text(str(machine.memory_bytes), encoding="ascii")
    with contextlib.suppress(OSError):
        (memory / "memory.swap.max").write_text("0", encoding="ascii")
    (cpu / "cpu.max").write_text(f"{'max' if quota is None else quota} {_PERIOD_US}", encoding="ascii")


def _remove(folder: Path) -> None:
    for _ in range(50):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.1)  # the kernel takes a moment after the last process has gone
        else:
            return


@contextlib.contextmanager
def load(machine: Machine, cpus: Sequence[int]) -> Iterator[None]:
    """Keep the CPUs busy meanwhile, as far as the machine is."""
    code = f"import os\nos.sched_setaffinity(0, {set(cpus)!r})\nwhile True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(machine.busy)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_on(machine: Machine, command: Sequence[str], environment: dict[str, str], seconds: float) -> str:
    """Run a command on the machine and return what it prints.

    Raises:
        RuntimeError: it failed or took too long.
    """
    cpus = sorted(os.sched_getaffinity(0))[: machine.cpus]
    with limited(machine) as groups, load(machine, cpus):

        def enter() -> None:
            for group in groups:
                group.write_text("0", encoding="ascii")
            os.sched_setaffinity(0, set(cpus))

        done = subprocess.run(  # the limits are entered before the program starts
            command,
            preexec_fn=enter,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"status {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout
