"""Runs that are computed side by side, and results of one moment."""

from __future__ import annotations

import dataclasses

import pytest
from fakes import RUNTIME, AgentScript, answer_to, chosen_variant, job_id, of_type

from edge_agent.agent.estimates import MIN_JOBS, Estimates
from edge_agent.agent.events import LoadModel, PaceChanged, Publish, RunModel
from edge_agent.agent.pipeline import LEAST_RUNS
from edge_agent.inference.events import RunDone, WorkerDied, WorkerStarted
from edge_agent.wire import cose
from edge_agent.wire.messages import Failure, Result


@pytest.fixture
def agent() -> AgentScript:
    """Return an agent that serves a variant of which two runs are computed at once."""
    script = AgentScript()
    script.ready()
    script.measured(lanes=2)
    return script


def given(agent: AgentScript, *numbers: int) -> list[RunModel]:
    """Lease jobs; return what the worker was given."""
    return [run for number in numbers for run in of_type(agent.tell(agent.coordinator.job(number)), RunModel)]


def test_the_worker_is_given_as_many_runs_as_it_computes_and_one_more(agent: AgentScript) -> None:
    """And another whenever one ends, whichever it is."""
    runs = given(agent, 1, 2, 3, 4, 5)
    assert len(runs) == 3
    assert len(of_type(agent.run_done(runs[1]), RunModel)) == 1
    assert len(of_type(agent.run_done(runs[0]), RunModel)) == 1


def test_a_dead_worker_costs_what_it_computed_and_nothing_behind(agent: AgentScript) -> None:
    """Two attempts had begun, one had not: that one runs in the next worker."""
    given(agent, 1, 2, 3)
    commands = agent.tell(WorkerDied(4000, "worker-died", "It was killed (signal 9).", ()))
    failed = [opened.statement.job for opened in agent.said(commands, Failure)]
    assert failed == [job_id(1), job_id(2)]
    (run,) = of_type(agent.worker_up(pid=4001), RunModel)
    (result,) = agent.said(agent.run_done(run), Result)
    assert result.statement.job == job_id(3)


def test_each_run_that_is_computed_has_its_own_time(agent: AgentScript) -> None:
    """The one that waits has none yet; one that moves up has a whole lease from then."""
    runs = given(agent, 1, 2, 3)
    lease = 30.0
    agent.clock.advance(lease - 1)
    agent.run_done(runs[0])
    table = agent.core.attempts
    assert table.overdue_run(agent.clock.now) is None
    assert table.overdue_run(agent.clock.advance(2)) is not None, "the second has had its time"
    assert table.overdue_run(agent.clock.now) is None, "the third has most of its own"


def test_results_of_one_moment_share_a_signature_and_each_verifies_alone(agent: AgentScript) -> None:
    """One Publish each, so that each is delivered again alone, too."""
    runs = given(agent, 1, 2, 3)
    done = [RunDone(run.token, answer_to(run.inputs[0]), 250) for run in runs]
    commands = agent.core.handle_together(done, agent.clock.now)
    payloads = [command.payload for command in of_type(commands, Publish)]
    signed = [cose.parse_sign1(payload[: cose.sign1_end(payload)], 10_000) for payload in payloads]
    assert len({message.signature for message in signed}) == 1
    cose._verify_once.cache_clear()
    assert [opened.statement.job for opened in reversed(agent.said(reversed(commands), Result))] == [
        job_id(1),
        job_id(2),
        job_id(3),
    ]
    assert len(agent.core.attempts.unsettled) == 3


def test_a_result_whose_attempt_was_dropped_in_the_same_moment_is_not_said(agent: AgentScript) -> None:
    """Settled or called off before it was signed: nobody waits for it."""
    first, second = given(agent, 1, 2)
    done = [RunDone(run.token, answer_to(run.inputs[0]), 250) for run in (first, second)]
    cancel = agent.coordinator.control("cancel", 1, 1)
    commands = agent.core.handle_together([*done, cancel], agent.clock.now)
    assert [opened.statement.job for opened in agent.said(commands, Result)] == [job_id(2)]
    assert agent.core.attempts.keys() == [(job_id(2), 1)]


def test_runs_beside_others_are_no_reason_to_measure_again(agent: AgentScript) -> None:
    """They take up to as many times as long as alone; longer than that is a drift."""
    (plan,) = agent.planner.plans
    assert plan.chosen is not None
    measured = dataclasses.replace(plan.chosen, p50_us=10_000)
    for run_us, drifts in ((19_000, False), (40_000, True)):
        estimates = Estimates()
        estimates.begin(measured, 1.0)
        told = [estimates.saw(chosen_variant(), run_us, 10.0 * number) for number in range(MIN_JOBS + 10)]
        assert any(told) is drifts


def test_runs_that_are_made_one_are_given_together_and_as_many_behind_them(agent: AgentScript) -> None:
    """Else those that come while they are computed would be fewer than pay."""
    agent.measured(lanes=1, together=4)
    runs = given(agent, *range(1, 12))
    assert len(runs) == 8
    assert agent.core.attempts.computing_tokens() == [run.token for run in runs[:4]]


def test_after_a_death_no_runs_of_the_variant_are_made_one(agent: AgentScript) -> None:
    """It cost all that were one; whichever of them it was, it costs one the next time."""
    agent.measured(lanes=1, together=4)
    given(agent, *range(1, 7))
    commands = agent.tell(WorkerDied(4000, "worker-died", "It was killed (signal 9).", ()))
    failed = [opened.statement.job for opened in agent.said(commands, Failure)]
    assert failed == [job_id(number) for number in range(1, 5)]
    started = agent.tell(WorkerStarted(4001, RUNTIME, ("CPUExecutionProvider",), 400.0))
    (load,) = of_type(started, LoadModel)
    assert (load.lanes, load.together) == (1, 1)
    runs = of_type(agent.play_worker(started), RunModel)
    assert len(runs) == LEAST_RUNS
    assert agent.core.attempts.computing_tokens() == [runs[0].token]


def test_runs_that_were_made_one_are_no_reason_to_measure_again(agent: AgentScript) -> None:
    """Each takes down to as many times less as there were of them; less than that is a drift."""
    (plan,) = agent.planner.plans
    assert plan.chosen is not None
    measured = dataclasses.replace(plan.chosen, p50_us=40_000, lanes=1, together=4)
    for run_us, drifts in ((11_000, False), (5_000, True)):
        estimates = Estimates()
        estimates.begin(measured, 1.0)
        told = [estimates.saw(chosen_variant(), run_us, 10.0 * number) for number in range(MIN_JOBS + 10)]
        assert any(told) is drifts


def test_no_more_runs_are_given_than_a_slower_pace_computes(agent: AgentScript) -> None:
    """Measured with two threads; a worker of one computes one run, and the one behind it has not begun."""
    agent.tell(PaceChanged(1))
    agent.worker_up(pid=4001)
    runs = given(agent, 1, 2, 3)
    assert len(runs) == LEAST_RUNS
    assert agent.core.attempts.computing_tokens() == [runs[0].token]
    agent.run_done(runs[0])
    agent.run_done(runs[1])
    agent.tell(PaceChanged(2))
    (last,) = agent.core.attempts.running_tokens()
    agent.tell(RunDone(last, (), 250))
    agent.worker_up(pid=4002)
    assert len(given(agent, 4, 5, 6, 7)) == LEAST_RUNS + 1
