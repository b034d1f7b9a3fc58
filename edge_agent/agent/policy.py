"""The owner's rules on what the machine takes on: a local veto that nothing remote can loosen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Policy:
    """What the owner allows.

    Attributes:
        families: shell-style patterns of the families that may be served.
        max_in_flight: attempts held at once, waiting ones included.
        memory_share: of the memory that is free for models, 0 to 1.
    """

    families: tuple[str, ...] = ("*",)
    max_in_flight: int = 8
    memory_share: float = 0.5

    def refuses_family(self, family: str) -> str | None:
        """Return why a family may not be served, or None."""
        if any(fnmatchcase(family, pattern) for pattern in self.families):
            return None
        return f"the owner allows only {', '.join(self.families) or 'nothing'} (agent.families)"

    def memory_bytes(self, budget_bytes: int) -> int:
        """Return how much of the free memory models may take, bytes."""
        return int(budget_bytes * self.memory_share)
