"""How many runs the worker is given at once."""

from __future__ import annotations

import pytest
from fakes import AgentScript, of_type, scan

from edge_agent.agent.events import RunModel
from edge_agent.agent.pipeline import AHEAD_US, LEAST_RUNS, MOST_RUNS, runs_at_once
from edge_agent.inference.events import WorkerDied
from edge_agent.wire.messages import Failure


@pytest.mark.parametrize("lanes", [1, 2, 8])
@pytest.mark.parametrize("run_us", [0, 1, 40, 100, 900, 1100, 10**6])
def test_what_is_given_ahead_is_bounded_in_number_and_in_time(lanes: int, run_us: int) -> None:
    """Beside those that are computed one is there already, and more while they take no longer than a millisecond."""
    ahead = runs_at_once(lanes, run_us) - lanes
    assert LEAST_RUNS - 1 <= ahead <= MOST_RUNS - 1
    assert ahead == 1 or ahead * run_us <= AHEAD_US


@pytest.fixture
def agent() -> AgentScript:
    """Return an agent whose variant takes 100 µs."""
    script = AgentScript()
    script.ready()
    script.measured(p50_us=100)
    return script


def test_short_runs_are_given_together(agent: AgentScript) -> None:
    """All that came at one moment and fit, in their order."""
    jobs = [agent.coordinator.job(number) for number in range(1, 9)]
    runs = of_type(agent.core.handle_together(jobs, agent.clock.now), RunModel)
    assert [run.inputs for run in runs] == [(scan(number),) for number in range(1, 9)]


def test_a_dead_worker_costs_the_first_of_short_runs_alone(agent: AgentScript) -> None:
    """Those behind it had not begun: they run in the next worker."""
    jobs = [agent.coordinator.job(number) for number in range(1, 6)]
    runs = of_type(agent.core.handle_together(jobs, agent.clock.now), RunModel)
    assert len(runs) == 5
    died = WorkerDied(4000, "worker-died", "It was killed (signal 9).", tuple(run.token for run in runs))
    assert len(agent.said(agent.tell(died), Failure)) == 1
    assert len(of_type(agent.worker_up(pid=4001), RunModel)) == 4
