"""How long to wait before the next attempt. Pure; the random numbers are an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


class Backoff:
    """Exponential back-off with full jitter: a uniform draw from zero to a bound that doubles.

    Without jitter all agents of a network come back in the same instant after a broker's restart; with full
    jitter they spread evenly. (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)

    Args:
        initial_seconds: the first bound.
        max_seconds: no bound is larger.
        rng: where the draws come from.
    """

    def __init__(self, initial_seconds: float, max_seconds: float, rng: random.Random) -> None:
        self._initial = initial_seconds
        self._max = max_seconds
        self._rng = rng
        self._bound = initial_seconds

    def next_seconds(self) -> float:
        """Draw the next wait."""
        bound = self._bound
        self._bound = min(self._max, bound * 2)
        return self._rng.uniform(0.0, bound)

    def reset(self) -> None:
        """Start afresh, after something worked."""
        self._bound = self._initial
