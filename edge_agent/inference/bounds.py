"""What bounds a worker from outside: a control group of its own, else a watcher on its proportional memory (PSS).

`RLIMIT_DATA` comes first and fails cleanly where memory is asked for; these two are behind it, for what it does not
count: shared memory, page tables, buffers of sockets, files that are mapped. Either ends the worker, and says why.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent.inference.control_group import Delegated, Group

ALLOWANCE_BYTES: Final = 256 * 1024 * 1024
"""What a worker may hold beyond what models may: the idle worker, stacks, page tables, and files in the cache."""
LOOK_SECONDS: Final = 2.0
_KIB: Final = 1024
GROUP: Final = "control-group"
WATCHER: Final = "watcher"

log = logging.getLogger("edge_agent.worker")


class Bounds:
    """The bounds of one worker process.

    Args:
        delegated: where groups can be made, if anywhere.
        limit_bytes: what models may take, above the idle worker; None for no limit.
        threads: inside an operator.
        end: ends the worker; called with the reason, on the watcher's thread.
        cpus: that it may keep busy; None for no limit. Only a group can hold it to that.
    """

    def __init__(
        self,
        delegated: Delegated | None,
        limit_bytes: int | None,
        threads: int,
        end: Callable[[str], None],
        cpus: float | None = None,
    ) -> None:
        self._limit_bytes = None if limit_bytes is None else limit_bytes + ALLOWANCE_BYTES
        self._end = end
        self._over = threading.Event()
        self._group: Group | None = None
        if delegated is not None:
            try:
                self._group = delegated.make(self._limit_bytes, threads, cpus)
            except OSError as error:
                log.warning("No control group for the worker: %s", error, extra={"action": "no-control-group"})

    @property
    def in_group(self) -> bool:
        """Whether the worker has a control group of its own."""
        return self._group is not None

    def hold(self, pid: int) -> None:
        """Bound the process that was just started."""
        if self._group is not None:
            try:
                self._group.take(pid)
            except OSError as error:
                log.warning("The worker stays in our control group: %s", error, extra={"action": "no-control-group"})
                self._group.remove()
                self._group = None
        if self._group is None and self._limit_bytes is not None:
            watcher = threading.Thread(
                target=self._watch, args=(pid, self._limit_bytes), name="worker-memory", daemon=True
            )
            watcher.start()

    def oom_killed(self) -> bool:
        """Whether the kernel killed the worker because its group's memory was used up."""
        return self._group is not None and self._group.oom_kills() > 0

    def let_go(self) -> None:
        """The process has ended: watch no longer, and remove the group."""
        self._over.set()
        if self._group is not None:
            self._group.remove()

    def _watch(self, pid: int, most: int) -> None:
        while not self._over.wait(LOOK_SECONDS):
            # The resident size costs nothing to read and is never less than the proportional one.
            if resident_bytes(pid) > most and (size := proportional_bytes(pid)) > most:
                self._end(f"it held {size >> 20} MiB of memory; its limit is {most >> 20} MiB")
                return


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, shared pages in full; 0 if it cannot be read."""
    return _field(Path(f"/proc/{pid}/status"), "VmRSS:")


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, shared pages divided by those who share them; 0 if it cannot be read."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _field(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * _KIB
    return 0
