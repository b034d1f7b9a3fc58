"""What the owner lets the machine serve, and with how much of its memory; holds for one process. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from edge_agent.models.selection import room_bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """What the owner allows.

    Attributes:
        families: shell-style patterns of the families that may be served.
        max_in_flight: attempts held at once, waiting ones included.
        memory_share: of the memory that is free for models, 0 to 1.
        denied: patterns of families that are never served.
        download: whether model files may be fetched without being asked for.
        values: patterns of families and what they are worth to the owner, 0 for nothing; the first that fits counts.
    """

    families: tuple[str, ...] = ("*",)
    max_in_flight: int = 8
    memory_share: float = 0.5
    values: tuple[tuple[str, float], ...] = ()
    download: bool = False
    denied: tuple[str, ...] = ()

    def refuses_family(self, family: str) -> str | None:
        """Return why a family may not be served, or None."""
        if any(fnmatchcase(family, pattern) for pattern in self.denied):
            return f"the owner denies {', '.join(self.denied)} (policy.deny_families)"
        if any(fnmatchcase(family, pattern) for pattern in self.families):
            return None
        return f"the owner allows only {', '.join(self.families) or 'nothing'} (agent.families)"

    def room_bytes(self, budget_bytes: int) -> int:
        """Return how much of the free memory models may take above an idle worker, reserve taken off, bytes."""
        return room_bytes(budget_bytes, self.memory_share)

    def value_of(self, family: str) -> float:
        """Return what a family is worth to the owner; 1 where nothing is said."""
        return next((value for pattern, value in self.values if fnmatchcase(family, pattern)), 1.0)
