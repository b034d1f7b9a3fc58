"""How much each family is asked for here: jobs, the older the lighter. Pure."""

from __future__ import annotations

from collections.abc import Mapping

HALF_LIFE_SECONDS = 3600.0
"""A job counts half as much an hour later."""
PRIOR_JOBS = 1.0
"""What every family counts from the start: what is not offered is not asked for, and is not worthless for it."""
MAX_FAMILIES = 10_000


class Demand:
    """Jobs seen for each family, decayed."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}  # (jobs, monotonic second at which that was true)

    def saw(self, family: str, monotonic: float, jobs: float = 1.0) -> None:
        """Take note of jobs, or of a hint that so many are waiting elsewhere."""
        if family in self._seen or len(self._seen) < MAX_FAMILIES:
            self._seen[family] = (self._now(family, monotonic) + jobs, monotonic)

    def of(self, family: str, monotonic: float) -> float:
        """Return the demand for a family, at least `PRIOR_JOBS`."""
        return PRIOR_JOBS + self._now(family, monotonic)

    def all(self, monotonic: float) -> Mapping[str, float]:
        """Return the demand for each family that was ever asked for."""
        return {family: self.of(family, monotonic) for family in self._seen}

    def _now(self, family: str, monotonic: float) -> float:
        jobs, at = self._seen.get(family, (0.0, monotonic))
        return float(jobs * 0.5 ** (max(0.0, monotonic - at) / HALF_LIFE_SECONDS))
