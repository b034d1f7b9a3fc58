"""CPU time: of the machine, and of single processes, to tell what others take from what is ours.

See proc_stat(5) and proc_pid_stat(5). Both count in clock ticks since boot; a share comes from two samples.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hardware.sysfs import Root

MAX_PROCESSES = 64
_CPU_LINE = re.compile(r"cpu +([0-9]{1,17}(?: [0-9]{1,17}){3,9})")


class Sample(NamedTuple):
    """CPU time up to one moment, in clock ticks.

    Attributes:
        total: of all CPUs, idle time included.
        busy: of all CPUs, without idle and waiting for disks.
        own: of the processes that were asked for, and of their children that have ended.
    """

    total: int
    busy: int
    own: int


def parse_stat(text: str) -> tuple[int, int] | None:
    """Return all and busy ticks of all CPUs from `/proc/stat`, or None if it does not say."""
    match = _CPU_LINE.fullmatch(text.partition("\n")[0].strip())
    if match is None:
        return None
    ticks = [int(part) for part in match[1].split()][:8]  # guest time is counted in user and nice already
    idle = ticks[3] + (ticks[4] if len(ticks) > 4 else 0)
    return sum(ticks), sum(ticks) - idle


def parse_pid_stat(text: str) -> int | None:
    """Return the ticks of a process and its reaped children from `/proc/PID/stat`, or None if it does not say."""
    fields = text.rpartition(")")[2].split()  # the name before it may have blanks and brackets in it
    numbers = fields[11:15]
    if len(numbers) < 4 or not all(re.fullmatch(r"-?[0-9]{1,17}", number) for number in numbers):
        return None
    return sum(max(0, int(number)) for number in numbers)


def descendants(root: Root, pid: int) -> list[int]:
    """Return a process and all that descend from it (proc_pid_task(5)).

    A kernel without `CONFIG_PROC_CHILDREN` does not list children; there every process is asked for its parent.
    """
    if not root.exists(f"proc/{pid}/task/{pid}/children"):
        return _by_parents(root, pid)
    found: list[int] = []
    todo = [pid]
    while todo and len(found) < MAX_PROCESSES:
        parent = todo.pop()
        found.append(parent)
        for thread in root.listdir(f"proc/{parent}/task"):
            children = root.read_text(f"proc/{parent}/task/{thread}/children", 16 * 1024) or ""
            todo += [int(child) for child in children.split() if child.isdigit()]
    return found


def _by_parents(root: Root, pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for name in root.listdir("proc"):
        if name.isdigit():
            fields = (root.read_text(f"proc/{name}/stat", 4096) or "").rpartition(")")[2].split()
            if len(fields) > 1 and fields[1].isdigit():
                parents.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    todo = [pid]
    while todo and len(found) < MAX_PROCESSES:
        found.append(todo.pop())
        todo += [child for child in parents.get(found[-1], []) if child not in found]
    return found


def sample(root: Root, pids: Iterable[int]) -> Sample | str:
    """Return CPU times now, with those of these processes, or why they are unknown; one that ended counts nothing."""
    text = root.read_text("proc/stat", 16 * 1024)
    if text is None:
        return root.reason("proc/stat")
    ticks = parse_stat(text)
    if ticks is None:
        return "/proc/stat is not as the kernel writes it"
    own = [parse_pid_stat(root.read_text(f"proc/{pid}/stat", 4096) or "") for pid in pids]
    return Sample(*ticks, sum(number for number in own if number is not None))


def other_share(before: Sample, after: Sample) -> float | None:
    """Return the share of all CPUs (0 to 1) that others took between two samples; None if no time has passed.

    When one of our processes ended between them, its time is in its parent's, or is taken for others' until the next.
    """
    total = after.total - before.total
    if total <= 0:
        return None
    others = (after.busy - before.busy) - max(0, after.own - before.own)
    return min(1.0, max(0.0, others / total))
