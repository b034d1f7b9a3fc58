from __future__ import annotations

import pytest
from fakes import digits, scan

from edge_agent.agent.demand import HALF_LIFE_SECONDS, PRIOR_JOBS, Demand
from edge_agent.agent.estimates import (
    DRIFT_SECONDS,
    MIN_JOBS,
    PAUSE_FIRST_SECONDS,
    Estimates,
    is_usual,
)
from edge_agent.models.selection import Measured

VARIANT = digits().variants[0]
ENTRY = Measured(VARIANT, 10_000, 20_000_000, golden_ok=True)
DIGEST = VARIANT.digest_bytes
TARGET_MS = 20.0


def _saw(estimates: Estimates, run_us: int, jobs: int, start: float, seconds: float) -> list[bool]:
    return [estimates.saw(DIGEST, run_us, start + seconds * number / jobs) for number in range(jobs + 1)]


def test_jobs_refine_the_estimate_after_some_of_them() -> None:
    """One job says little; many say more than the canary run."""
    estimates = Estimates()
    estimates.begin(ENTRY, TARGET_MS)
    assert estimates.latency_us(ENTRY) == 10_000
    _saw(estimates, 11_000, MIN_JOBS - 2, 0.0, 1.0)
    assert estimates.latency_us(ENTRY) == 10_000
    _saw(estimates, 11_000, MIN_JOBS, 1.0, 1.0)
    assert estimates.latency_us(ENTRY) == 11_000


@pytest.mark.parametrize(("run_us", "drifts"), [(10_500, False), (12_900, False), (14_000, True), (6_000, True)])
def test_a_drift_beyond_30_percent_for_long_asks_for_a_canary_run(run_us: int, *, drifts: bool) -> None:
    """Slower or faster; less is how machines are."""
    estimates = Estimates()
    estimates.begin(ENTRY, TARGET_MS)
    assert any(_saw(estimates, run_us, 100, 0.0, 2 * DRIFT_SECONDS)) is drifts


def test_a_short_drift_is_none() -> None:
    """A minute of something else on the machine."""
    estimates = Estimates()
    estimates.begin(ENTRY, TARGET_MS)
    assert not any(_saw(estimates, 20_000, 100, 0.0, DRIFT_SECONDS / 2))
    _saw(estimates, 10_000, 100, DRIFT_SECONDS / 2, 5.0)
    assert not any(_saw(estimates, 20_000, 100, DRIFT_SECONDS, DRIFT_SECONDS / 2))


def test_what_nobody_notices_is_no_drift() -> None:
    """A tiny model takes longer in a job than alone, by what a job adds."""
    tiny = Measured(VARIANT, 30, 20_000_000, golden_ok=True)
    estimates = Estimates()
    estimates.begin(tiny, TARGET_MS)
    assert not any(_saw(estimates, 250, 200, 0.0, 10 * DRIFT_SECONDS))


def test_canary_runs_for_drift_become_rarer() -> None:
    """A machine with a busy owner is not measured all day."""
    estimates = Estimates()
    estimates.begin(ENTRY, TARGET_MS)
    hours, asked = 12, 0
    for second in range(0, hours * 3600, 3):
        if estimates.saw(DIGEST, 30_000, float(second)):
            asked += 1
            estimates.begin(ENTRY, TARGET_MS)
    assert 2 <= asked <= 8
    assert hours * 3600 / PAUSE_FIRST_SECONDS > 2 * asked


def test_what_is_not_served_has_no_estimate() -> None:
    """A late job of a variant that was withdrawn changes nothing."""
    estimates = Estimates()
    estimates.begin(ENTRY, TARGET_MS)
    estimates.forget(DIGEST)
    assert not estimates.saw(DIGEST, 1, 0.0)
    assert estimates.latency_us(ENTRY) == 10_000


def test_only_jobs_of_the_usual_size_count() -> None:
    """A batch of four takes longer for a reason of its own."""
    assert is_usual(digits(), (scan(),))
    assert not is_usual(digits(), (scan(batch=4),))


def test_demand_decays_and_never_ends() -> None:
    """Half after an hour; a family that nobody asked for is not worthless."""
    demand = Demand()
    assert demand.of("digits", 0.0) == PRIOR_JOBS
    demand.saw("digits", 0.0, 8)
    assert demand.of("digits", HALF_LIFE_SECONDS) == pytest.approx(PRIOR_JOBS + 4)
    demand.saw("digits", HALF_LIFE_SECONDS)
    assert demand.of("digits", 2 * HALF_LIFE_SECONDS) == pytest.approx(PRIOR_JOBS + 2.5)
    assert demand.all(0.0).keys() == {"digits"}
