"""Random timelines: nothing flaps faster than the dwell time, and no work is done outside the hours."""

from __future__ import annotations

import pytest
from timelines import Timeline

SEEDS = 400


@pytest.mark.parametrize("part", range(4))
def test_every_promise_holds_on_random_timelines(part: int) -> None:
    """`benchmarks/policy_timelines.py` takes ten thousand and more."""
    timelines = [Timeline(seed).run() for seed in range(part * SEEDS // 4, (part + 1) * SEEDS // 4)]
    assert [problem for timeline in timelines for problem in timeline.problems] == []
    assert sum(timeline.changes for timeline in timelines) > SEEDS // 4  # and something happened in them
