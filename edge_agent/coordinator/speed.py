"""How fast an agent is: what it offered, refined by what was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass

SMOOTHING = 1 / 8
DEVIATION_SMOOTHING = 1 / 4
"""Weights of a new observation, as TCP has them for its round trips (RFC 6298)."""

LATE_DEVIATIONS = 4
LATE_AT_LEAST_US = 50_000
"""No answer is called late for less, microseconds: a scheduler's hiccup is no reason to compute anything twice."""

UNKNOWN_DEVIATION_US = 250_000
"""How far off the first estimate may be, microseconds: offers say nothing of the network between."""


@dataclass(slots=True)
class Speed:
    """Estimates for one variant on one agent; all in microseconds.

    Attributes:
        offered_us: the latency that the agent offers; another one starts the estimates afresh.
        run_us: one run, as the agent says.
        overhead_us: what else passes between lease and answer, as we see it.
        deviation_us: how far turn-arounds are from what was expected, on average.
    """

    offered_us: int
    run_us: float
    overhead_us: float = 0.0
    deviation_us: float = UNKNOWN_DEVIATION_US

    @classmethod
    def of_offer(cls, latency_us: int) -> Speed:
        """Start with what was offered."""
        return cls(latency_us, float(latency_us))

    def expected_us(self, ahead: int) -> float:
        """Return the expected turn-around of an attempt with so many ahead of it at the agent."""
        return self.run_us * (ahead + 1) + self.overhead_us

    def late_after_us(self, ahead: int) -> float:
        """Return the turn-around after which an attempt is late."""
        return self.expected_us(ahead) + max(LATE_AT_LEAST_US, LATE_DEVIATIONS * self.deviation_us)

    def observe(self, *, run_us: float, turnaround_us: float, ahead: int) -> None:
        """Learn from an accepted result.

        Args:
            run_us: of the model alone, as the agent says; no more than the whole is believed.
            turnaround_us: from lease to answer, by our clock.
            ahead: attempts that the agent held when it got this one.
        """
        run_us = min(run_us, turnaround_us)
        self.deviation_us += DEVIATION_SMOOTHING * (abs(turnaround_us - self.expected_us(ahead)) - self.deviation_us)
        self.run_us += SMOOTHING * (run_us - self.run_us)
        overhead_us = max(0.0, turnaround_us - run_us * (ahead + 1))
        self.overhead_us += SMOOTHING * (overhead_us - self.overhead_us)
