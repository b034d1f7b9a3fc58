"""What real jobs say about the speed of what is served: they refine the estimate, or show that it is wrong. Pure.

Only jobs of the usual size count: one sample, or what the family's usual extents are. Others take longer or shorter
for reasons of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent.models.selection import EQUAL_SPEED_OF_TARGET, UNNOTICED_US, Measured
from edge_agent.wire.tensors import Tensor

if TYPE_CHECKING:
    from edge_agent.models.catalogue import Family

WEIGHT = 0.1
"""Of the newest job in the estimate."""
MIN_JOBS = 20
"""Before so many, the canary run knows better."""
DRIFT = 0.30
DRIFT_SECONDS = 60.0
"""An estimate that is off by more than `DRIFT` for so long, over `MIN_JOBS`, asks for a new canary run."""
PAUSE_FIRST_SECONDS = 600.0
PAUSE_MAX_SECONDS = 24 * 3600.0
"""Between two canary runs for drift; doubled each time, so that a machine with a busy owner is not measured all day."""


@dataclass(slots=True)
class _Estimate:
    measured_us: int
    slack_us: float
    lanes: int = 1
    together: int = 1
    mean_us: float = 0.0
    jobs: int = 0
    off_since: float | None = None
    off_jobs: int = 0
    pause_seconds: float = PAUSE_FIRST_SECONDS
    not_before: float = 0.0


class Estimates:
    """The estimate of each variant that is served, by its digest."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Estimate] = {}

    def begin(self, entry: Measured, target_ms: float) -> None:
        """Start anew from a measurement; `target_ms` is the latency target of its family."""
        digest = entry.variant.digest_bytes
        before = self._known.get(digest)
        slack_us = max(UNNOTICED_US, EQUAL_SPEED_OF_TARGET * target_ms * 1000)
        estimate = _Estimate(max(1, entry.p50_us), slack_us, entry.lanes, entry.together)
        if before is not None:
            estimate.pause_seconds, estimate.not_before = before.pause_seconds, before.not_before
        self._known[digest] = estimate

    def forget(self, digest: bytes) -> None:
        """Forget a variant that is not served any more."""
        self._known.pop(digest, None)

    def latency_us(self, entry: Measured) -> int:
        """Return how long one sample takes, as far as is known by now."""
        estimate = self._known.get(entry.variant.digest_bytes)
        return entry.p50_us if estimate is None or estimate.jobs < MIN_JOBS else max(1, round(estimate.mean_us))

    def saw(self, digest: bytes, run_us: int, monotonic: float) -> bool:
        """Take a job of the usual size in; return whether the variant should be measured anew."""
        estimate = self._known.get(digest)
        if estimate is None:
            return False
        estimate.jobs += 1
        weight = max(WEIGHT, 1 / estimate.jobs)
        estimate.mean_us += weight * (max(1, run_us) - estimate.mean_us)
        apart = abs(math.log(max(1.0, estimate.mean_us) / estimate.measured_us))
        # Beside others a run takes longer than alone, as it was measured, and as one with others less: up to as many
        # times as there are of them.
        shortest_us, longest_us = estimate.measured_us / estimate.together, estimate.measured_us * estimate.lanes
        if shortest_us <= estimate.mean_us <= longest_us and shortest_us != longest_us:
            apart = 0.0
        if apart <= math.log(1 + DRIFT) or abs(estimate.mean_us - estimate.measured_us) <= estimate.slack_us:
            estimate.off_since, estimate.off_jobs = None, 0
            return False
        estimate.off_jobs += 1
        if estimate.off_since is None:
            estimate.off_since = monotonic
        lasting = monotonic - estimate.off_since >= DRIFT_SECONDS and estimate.off_jobs >= MIN_JOBS
        if not lasting or monotonic < estimate.not_before:
            return False
        estimate.not_before = monotonic + estimate.pause_seconds
        estimate.pause_seconds = min(2 * estimate.pause_seconds, PAUSE_MAX_SECONDS)
        estimate.off_since, estimate.off_jobs = None, 0
        return True


def is_usual(family: Family, inputs: Sequence[Tensor]) -> bool:
    """Return whether inputs have the shapes that costs and canary runs are about."""
    extents = family.extents
    usual = {
        port.name: tuple([size if isinstance(size, int) else extents.get(size, 1) for size in port.shape])
        for port in family.inputs
    }
    return all(usual.get(tensor.name) == tensor.spec.shape for tensor in inputs)
