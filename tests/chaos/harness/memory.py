"""Control groups with a memory limit that is drawn tight while the processes inside run. Needs root; v1 and v2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
MARK = "ea-chaos"
SLACK_BYTES = 4 << 20

# Takes memory in steps until it is killed, or has 48 MiB; then keeps it.
_EATER = """
import time
held = []
for _ in range(24):
    held.append(bytearray(2 << 20))
    time.sleep(0.05)
time.sleep(600)
"""


def hierarchy() -> Path | None:
    """Return where groups with a memory limit are made, or None if there is no such place."""
    if (V1 / "memory.limit_in_bytes").exists():
        return V1
    if (V2 / "cgroup.controllers").exists() and "memory" in (V2 / "cgroup.controllers").read_text().split():
        return V2
    return None


class MemoryGroup:
    """A control group whose memory can be drawn tight.

    Args:
        name: of the group; it carries the process id of the harness.
    """

    def __init__(self, name: str) -> None:
        root = hierarchy()
        assert root is not None
        self._v1 = root == V1
        self.folder = root / f"{MARK}-{os.getpid()}-{name}"
        self._eater: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if not self._v1:
            with suppress(OSError):
                (V2 / "cgroup.subtree_control").write_text("+memory")
        self.folder.mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.relax()
        remove_group(self.folder)

    @property
    def procs(self) -> Path:
        """The file that takes a process in."""
        return self.folder / "cgroup.procs"

    def kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        path = self.folder / ("memory.oom_control" if self._v1 else "memory.events")
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        return 0

    def squeeze(self) -> None:
        """Set the limit to what is used now and a little more, and let another process want that little."""
        usage = int((self.folder / ("memory.usage_in_bytes" if self._v1 else "memory.current")).read_text())
        limit = self.folder / ("memory.limit_in_bytes" if self._v1 else "memory.max")
        for extra in (SLACK_BYTES, 4 * SLACK_BYTES, 16 * SLACK_BYTES):
            with suppress(OSError):  # v1: EBUSY when usage has grown meanwhile
                limit.write_text(str(usage + extra))
                break
        launch = str(Path(__file__).with_name("launch.py"))
        command = [sys.executable, "-I", "-S", launch, "--cgroup", str(self.procs), "--"]
        self._eater = subprocess.Popen([*command, sys.executable, "-I", "-S", "-c", _EATER], stderr=subprocess.DEVNULL)

    def relax(self) -> None:
        """Take the limit and the other process away."""
        unlimited = "-1" if self._v1 else "max"
        with suppress(OSError):
            (self.folder / ("memory.limit_in_bytes" if self._v1 else "memory.max")).write_text(unlimited)
        if self._eater is not None:
            self._eater.kill()
            self._eater.wait()
            self._eater = None


def remove_group(folder: Path) -> None:
    """Kill what is in a group and remove it."""
    for _ in range(100):
        with suppress(OSError):
            for word in (folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(word), signal.SIGKILL)
            folder.rmdir()
        if not folder.exists():
            return
        time.sleep(0.02)  # the kernel takes a moment to forget the dead
