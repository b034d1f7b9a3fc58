"""Removes what a harness that was killed left on the machine: namespaces, mounts, loop devices, control groups.

Everything carries the process id of its harness; what belongs to a living one is left alone.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from harness.disks import unmount
from harness.memory import hierarchy, remove_group
from harness.namespaces import NETNS_FOLDER, PREFIX

_OWNER = re.compile(rf"{PREFIX}-(\d+)")


def clean_stale() -> list[str]:
    """Remove what no living harness owns; return what that was. Does nothing without root."""
    if os.geteuid() != 0:
        return []
    removed = []
    for path in sorted(NETNS_FOLDER.glob(f"{PREFIX}-*")):
        if _stale(path.name):
            _end_processes_in(path)
            subprocess.run(["ip", "netns", "del", path.name], check=False, capture_output=True)
            removed.append(path.name)
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        folder = line.split()[1]
        if _stale(folder):
            unmount(Path(folder))
            removed.append(folder)
    root = hierarchy()
    for path in sorted(root.glob(f"{PREFIX}-*")) if root is not None else ():
        if _stale(path.name):
            remove_group(path)
            removed.append(str(path))
    return removed


def _stale(text: str) -> bool:
    owner = _OWNER.search(text)
    return owner is not None and not Path(f"/proc/{owner[1]}").exists()


def _end_processes_in(netns: Path) -> None:
    done = subprocess.run(["ip", "netns", "pids", netns.name], check=False, capture_output=True, text=True)
    for word in done.stdout.split():
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(word), signal.SIGKILL)
