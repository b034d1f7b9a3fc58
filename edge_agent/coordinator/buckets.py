"""Token buckets: so much at once, and so much with time. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """Something that is used up and fills again, evenly.

    Attributes:
        rate: tokens a second.
        most: tokens that it holds when it is full.
        left: tokens that were in it at `at`.
        at: monotonic seconds.
    """

    rate: float
    most: float
    left: float
    at: float

    @classmethod
    def full(cls, rate: float, most: float, monotonic: float) -> Bucket:
        """Return a full one."""
        return cls(rate, most, most, monotonic)

    def has_one(self, monotonic: float) -> bool:
        """Fill it up to this moment, and say whether there is a token in it."""
        self.left = self._by(monotonic)
        self.at = monotonic
        return self.left >= 1.0

    def take(self) -> None:
        """Take one, that `has_one` found."""
        self.left -= 1.0

    def put_back(self) -> None:
        """Put back one that was taken."""
        self.left += 1.0

    def seconds_to_one(self) -> float:
        """Return how long after `has_one` there is a token in it."""
        return max(0.0, 1.0 - self.left) / self.rate

    def is_full(self, monotonic: float) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return self._by(monotonic) >= self.most

    def _by(self, monotonic: float) -> float:
        return min(self.most, self.left + max(0.0, monotonic - self.at) * self.rate)
