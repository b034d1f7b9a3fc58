"""How long machines take from their arrival to their first offer: they load models and measure them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

FIRST_GUESS_SECONDS: Final = 5.0
"""A Raspberry Pi takes longer, a second start with what was measured before a fraction; the first machines tell."""
LONGEST_SECONDS: Final = 600.0
"""Whoever has offered nothing for so long is not waited for: it may have nothing to offer."""
WEIGHT: Final = 0.3


class Warming:
    """The time that it usually takes, from what was seen."""

    def __init__(self) -> None:
        self.usual_seconds = FIRST_GUESS_SECONDS

    def observe(self, seconds: float) -> None:
        """A machine made its first offer so long after it came."""
        if 0 <= seconds <= LONGEST_SECONDS:
            self.usual_seconds += WEIGHT * (seconds - self.usual_seconds)

    def left(self, ages: Iterable[float]) -> float | None:
        """Return in how many seconds the first of the machines that came so long ago may offer something, at least 1.

        One that takes longer than usual may take as long again as it took so far: half of that is the guess.
        """
        waits = [
            max(1.0, self.usual_seconds - age, (age - self.usual_seconds) / 2)
            for age in ages
            if 0 <= age <= LONGEST_SECONDS
        ]
        return min(waits, default=None)
