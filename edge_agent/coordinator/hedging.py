"""How many second attempts there may be, and when the next one is worth a thought. Pure."""

from __future__ import annotations

from dataclasses import dataclass

WHOLE = 1_000_000
BURST = 10
"""So many second attempts can be saved up."""


@dataclass(slots=True)
class HedgeBudget:
    """A share of the synchronous jobs that may have a second attempt.

    Never more second attempts are given than this share of the jobs so far; what is saved up is bounded.

    Args:
        share: of the jobs, 0 to 1.
    """

    share: float
    _saved: int = 0  # in millionths of a second attempt

    def earn(self) -> None:
        """Count one more synchronous job."""
        self._saved = min(BURST * WHOLE, self._saved + int(self.share * WHOLE))

    @property
    def left(self) -> bool:
        """Whether there is one to be spent."""
        return self._saved >= WHOLE

    def spend(self) -> None:
        """Give one second attempt."""
        self._saved -= WHOLE
