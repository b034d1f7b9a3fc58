"""A control group of its own for each worker, where systemd has delegated one to the agent (`Delegate=`).

The kernel then bounds what counts for a worker whatever it does: memory with page tables, stacks and cached files,
threads and processes, and its share of the CPU against the daemon. When memory runs out there, the worker goes as a
whole, and nobody else. See Documentation/admin-guide/cgroup-v2.rst of the kernel and https://systemd.io/CGROUP_DELEGATION.

A group that has processes cannot hand controllers on to groups below it, so that the daemon first moves into one of its
own, as `DelegateSubgroup=` of newer systemd would have it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HIERARCHY: Final = Path("/sys/fs/cgroup")
OWN_GROUP: Final = Path("/proc/self/cgroup")
DAEMON: Final = "agent"
"""The daemon's group, below the delegated one."""
NEEDED: Final = ("memory", "pids")
WANTED: Final = ("cpu",)
CPU_WEIGHT: Final = 20
"""Of a worker; the daemon has 100, so that it answers and renews leases while the worker computes."""
MIN_QUOTA_US: Final = 1_000
"""The kernel takes no less."""
PERIOD_US: Final = 100_000
"""Of a share of the CPUs, as the kernel has it by default."""
SPARE_TASKS: Final = 64
TASKS_A_THREAD: Final = 16
"""Each loaded model has a pool of threads of its own."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Delegated:
    """A group below which we may make others.

    Attributes:
        folder: of the group.
        caps_cpu: whether the kernel can hold groups below to a share of the CPUs.
    """

    folder: Path
    caps_cpu: bool = True

    def make(self, memory_bytes: int | None, threads: int, cpus: float | None = None) -> Group:
        """Make a group for one worker.

        Args:
            memory_bytes: all that it may hold; None for no limit.
            threads: inside an operator.
            cpus: that it may keep busy, on the average of a tenth of a second; None for no limit.

        Raises:
            OSError: the kernel does not let us.
        """
        folder = self.folder / f"worker-{os.getpid()}-{next(_numbers)}"
        folder.mkdir()
        group = Group(folder)
        try:
            if memory_bytes is not None:
                group.set("memory.max", str(memory_bytes))
            group.set("memory.oom.group", "1")
            group.set("pids.max", str(SPARE_TASKS + TASKS_A_THREAD * threads))
            # Kernels without swap or the CPU controller lack these. What swaps wears a card out and answers too late.
            for name, value in (("memory.swap.max", "0"), ("cpu.weight", str(CPU_WEIGHT))):
                with contextlib.suppress(OSError):
                    group.set(name, value)
            if cpus is not None and self.caps_cpu:
                group.set("cpu.max", f"{max(MIN_QUOTA_US, round(cpus * PERIOD_US))} {PERIOD_US}")
        except OSError:
            group.remove()
            raise
        return group


@dataclass(frozen=True, slots=True)
class Group:
    """The group of one worker."""

    folder: Path

    def set(self, name: str, value: str) -> None:
        """Write one of its files."""
        _write(self.folder / name, value)

    def take(self, pid: int) -> None:
        """Move a process into it."""
        _write(self.folder / "cgroup.procs", str(pid))

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel killed because memory ran out in it."""
        with contextlib.suppress(OSError, ValueError):
            for line in (self.folder / "memory.events").read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        return 0

    def remove(self) -> None:
        """Remove it; a process in it that will not end keeps it there until the service ends."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def enter(hierarchy: Path = HIERARCHY, own: Path = OWN_GROUP) -> tuple[Delegated | None, str]:
    """Make ready to have groups for workers: move this process aside, and hand the controllers on.

    Done once, before there are workers; harmless when done again.

    Returns:
        The group to make others in, or None and why there is none.
    """
    mine = _own_folder(hierarchy, own)
    if mine is None:
        return None, "there is no unified hierarchy of control groups (cgroup v2) here"
    root = mine.parent if mine.name == DAEMON else mine
    try:
        available = set((root / "cgroup.controllers").read_text().split())
        if lacking := [name for name in NEEDED if name not in available]:
            return (
                None,
                f"the kernel or systemd gives no controllers for {' and '.join(lacking)} to {_shown(root, hierarchy)}",
            )
        if not _ours(root):
            return None, f"the control group {_shown(root, hierarchy)} is not delegated to us (Delegate= in the unit)"
        if mine == root:
            _step_aside(root)
        wanted = [name for name in (*NEEDED, *WANTED) if name in available]
        _write(root / "cgroup.subtree_control", " ".join(f"+{name}" for name in wanted))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return None, f"other programs run in the control group {_shown(root, hierarchy)}, too"
        return None, f"control groups cannot be made in {_shown(root, hierarchy)}: {error.strerror}"
    return Delegated(root, caps_cpu="cpu" in available), ""


def _own_folder(hierarchy: Path, own: Path) -> Path | None:
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            number, _, path = line.split(":", 2)
            folder = hierarchy / path.lstrip("/")
            if number == "0" and (folder / "cgroup.controllers").exists():
                return folder
    return None


def _ours(folder: Path) -> bool:
    """Whether we may move processes and set limits below; the root of all groups, which has no limits, is nobody's."""
    names = ("cgroup.procs", "cgroup.subtree_control")
    writable = os.access(folder, os.W_OK) and all(os.access(folder / name, os.W_OK) for name in names)
    return writable and (folder / "memory.max").exists()


def _step_aside(root: Path) -> None:
    """Move this process, if it is alone, into a group below."""
    if (root / "cgroup.procs").read_text().split() != [str(os.getpid())]:
        raise OSError(errno.EBUSY, "not alone")
    aside = root / DAEMON
    aside.mkdir(exist_ok=True)
    _write(aside / "cgroup.procs", str(os.getpid()))


def _shown(folder: Path, hierarchy: Path) -> str:
    return f"/{folder.relative_to(hierarchy)}"


def _write(path: Path, value: str) -> None:
    # Not created: these are the kernel's files.
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, value.encode())
    finally:
        os.close(file)
