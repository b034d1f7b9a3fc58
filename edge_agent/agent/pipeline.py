"""How many runs the worker is given at once: enough that it need not wait for us, and few enough to take back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from edge_agent.agent.deaths import Deaths
from edge_agent.agent.estimates import Estimates
from edge_agent.agent.plans import Plan

LEAST_RUNS: Final = 2
"""One computes, the next is there already."""
MOST_RUNS: Final = 16
AHEAD_US: Final = 1000
"""Runs that take no longer than this together are given ahead: the way there and back takes so long, and none of them
waits for longer than that if it is called off or somebody else's job is more urgent."""


class Pipeline(NamedTuple):
    """How the worker is kept busy with one variant.

    Attributes:
        lanes: so many runs are computed side by side, or as one.
        runs: so many it is given at once, those that it computes included.
    """

    lanes: int
    runs: int


def runs_at_once(lanes: int, run_us: int) -> int:
    """Return how many runs the worker is given, of which so many are computed side by side and each takes so long."""
    return lanes - 1 + max(LEAST_RUNS, min(MOST_RUNS, 1 + AHEAD_US // max(1, run_us)))


def pipeline_of(plans: Sequence[Plan], estimates: Estimates, threads: int, deaths: Deaths) -> Pipeline:
    """Return it for a variant as it is served: lanes as its canary run found best, if the worker has the threads.

    Args:
        plans: those of which it was chosen.
        estimates: of how long a run takes.
        threads: of the worker.
        deaths: what ended the worker is not computed as one with others; else as many runs as are made one wait
            behind them.
    """
    chosen = [plan.chosen for plan in plans if plan.chosen is not None]
    several = max(map(deaths.together, chosen), default=1)
    if several > 1:
        return Pipeline(several, 2 * several)
    lanes = min(max((entry.lanes for entry in chosen), default=1), threads)
    return Pipeline(lanes, runs_at_once(lanes, max(map(estimates.latency_us, chosen), default=AHEAD_US)))
