"""What the choice of models depends on and may change by itself: memory, governor, throttling. Looked at at times."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edge_agent.agent.events import ConditionsChanged
from hardware import Profile, profile

FALLBACK_BUDGET_BYTES = 256 * 1024 * 1024
"""Where the free memory cannot be known, no more than this is used."""
LOOK_SECONDS = 300.0
LOOK_SOON_SECONDS = 5.0
"""After which it is looked again while nothing is offered: what was short at the start may be there in a moment.
Doubles each time, up to `LOOK_SECONDS`."""


class Lookout:
    """When to look at the machine again. Pure.

    Args:
        monotonic: the second at which it was looked at first.
    """

    def __init__(self, monotonic: float) -> None:
        self._looked_at = monotonic
        self._soon = LOOK_SOON_SECONDS

    def due(self, *, idle: bool) -> float:
        """Return the monotonic second of the next look; `idle` when there is nothing that this machine offers."""
        return self._looked_at + (self._soon if idle else LOOK_SECONDS)

    def looked(self, monotonic: float, *, idle: bool) -> None:
        """Take note of a look."""
        self._looked_at = monotonic
        self._soon = min(2 * self._soon, LOOK_SECONDS) if idle else LOOK_SOON_SECONDS


def conditions(machine: Profile) -> str:
    """Return what a speed depends on beside onnxruntime and the kernel, as one line."""
    facts = (
        machine.cpu.model,
        machine.isa_path,
        machine.cpu.governor,
        f"{machine.usable_threads} threads",
        None if machine.cpu.quota_cpus is None else f"quota {machine.cpu.quota_cpus:g}",
        "throttled" if machine.thermal.throttled else None,
    )
    return ", ".join(str(fact) for fact in facts if fact)[:300]


def budget_bytes(machine: Profile) -> int:
    """Return the memory that is free for models."""
    found = machine.memory.budget_bytes
    return FALLBACK_BUDGET_BYTES if found is None else found


def look(worker_pid: int | None) -> ConditionsChanged:
    """Look at the machine; what our own worker holds is free for models, too."""
    machine = profile()
    return ConditionsChanged(budget_bytes(machine) + _held_bytes(worker_pid), conditions(machine))


def _held_bytes(pid: int | None) -> int:
    with suppress(OSError, ValueError, StopIteration):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0
