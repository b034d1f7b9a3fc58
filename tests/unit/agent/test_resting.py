"""The agent's core at rest, as scripts of events: offers go, work is left, memory is freed, and all comes back."""

from __future__ import annotations

import pytest
from fakes import AgentScript, actions, chosen_variant, job_id, of_type

from edge_agent.agent.events import (
    CancelCanary,
    Command,
    ConditionsChanged,
    FetchModels,
    LinkUp,
    LoadModel,
    PaceChanged,
    PlanRequested,
    RestRequested,
    RunCanary,
    RunModel,
    StartWorker,
    StopRequested,
    StopWorker,
    UseThreads,
    WorkRequested,
)
from edge_agent.agent.policy import Policy
from edge_agent.inference.events import ModelLoaded, WorkerDied
from edge_agent.wire.messages import Birth, Failure, Offers, Result

GRACE = 5.0
REST = RestRequested("it is night", GRACE)
DRAIN = RestRequested("you drained it", None)


@pytest.fixture
def agent() -> AgentScript:
    """Return an agent that is connected and serves the first variant."""
    script = AgentScript()
    script.ready()
    return script


def _offered(agent: AgentScript, commands: list[Command]) -> list[int]:
    return [len(opened.statement.offers) for opened in agent.said(commands, Offers)]


def _runs(commands: list[Command]) -> list[RunModel]:
    return of_type(commands, RunModel)


def test_an_idle_agent_withdraws_its_offers_and_frees_the_memory_at_once(agent: AgentScript) -> None:
    """A birth, offers that are empty, and the end of the worker; it stays connected."""
    commands = agent.tell(REST)
    assert [opened.statement.state for opened in agent.said(commands, Birth)] == ["online"]
    assert _offered(agent, commands) == [0]
    assert of_type(commands, StopWorker) == [StopWorker()]
    assert agent.core.resting.left
    assert of_type(agent.tick_until(3600), StartWorker) == []


def test_work_again_starts_the_worker_and_makes_no_canary_run(agent: AgentScript) -> None:
    """What was measured holds; the offer is there at once, the model a moment later."""
    agent.tell(REST)
    agent.clock.advance(3600)
    commands = agent.tell(WorkRequested())
    assert len(of_type(commands, StartWorker)) == 1
    assert _offered(agent, commands) == [1]
    more = agent.worker_up(pid=4001)
    assert [load.variant.digest_bytes for load in of_type(more, LoadModel)] == [chosen_variant()]
    assert of_type([*commands, *more, *agent.tick_until(600)], RunCanary) == []
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    assert len(agent.said(agent.run_done(run), Result)) == 1


def test_running_attempts_finish_and_waiting_ones_are_handed_back(agent: AgentScript) -> None:
    """The worker ends when the last one is answered, and not before."""
    runs = [run for number in range(4) for run in _runs(agent.tell(agent.coordinator.job(number)))]
    commands = agent.tell(REST)
    assert agent.failures(commands) == [(job_id(2), "handed-back", True), (job_id(3), "handed-back", True)]
    assert of_type(commands, StopWorker) == []
    assert len(agent.said(agent.run_done(runs[0]), Result)) == 1
    last = agent.run_done(runs[1])
    assert len(agent.said(last, Result)) == 1
    assert of_type(last, StopWorker) == [StopWorker()]


def test_what_does_not_finish_in_time_is_handed_back_and_its_worker_ended_at_once(agent: AgentScript) -> None:
    """The owner waits no longer than was said; the job goes to another agent."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    agent.tell(REST)
    assert of_type(agent.tick_until(GRACE - 0.1), StopWorker) == []
    commands = agent.tick_until(0.2)
    assert agent.failures(commands) == [(job_id(1), "handed-back", True)]
    assert of_type(commands, StopWorker) == [StopWorker(at_once=True)]
    assert agent.said(agent.run_done(run), Result) == []  # what it still says is too late
    assert agent.core.attempts.active() == 0


def test_a_job_that_comes_while_it_rests_is_handed_back(agent: AgentScript) -> None:
    """It was on its way; nothing starts for it, and the owner's reasons are told to nobody."""
    agent.tell(REST)
    commands = agent.tell(agent.coordinator.job(7))
    (failure,) = [opened.statement for opened in agent.said(commands, Failure)]
    assert (failure.job, failure.code, failure.retry) == (job_id(7), "handed-back", True)
    assert "night" not in failure.message
    assert of_type(commands, StartWorker) == []
    assert len(agent.core.attempts) == 0


def test_a_drain_finishes_everything_that_is_held(agent: AgentScript) -> None:
    """Waiting ones, too, however long that takes; a pause after it hurries."""
    runs = [run for number in range(3) for run in _runs(agent.tell(agent.coordinator.job(number)))]
    assert agent.failures(agent.tell(DRAIN)) == []
    agent.clock.advance(10)
    runs += _runs(agent.run_done(runs[0]))
    assert len(runs) == 3
    commands = agent.tell(REST)
    assert agent.failures(commands) == []
    late = agent.tick_until(GRACE + 0.1)
    assert sorted(agent.failures(late)) == [(job_id(1), "handed-back", True), (job_id(2), "handed-back", True)]
    assert of_type(late, StopWorker) == [StopWorker(at_once=True)]


def test_work_again_within_the_grace_time_keeps_what_runs(agent: AgentScript) -> None:
    """The worker never ended."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    agent.tell(REST)
    commands = agent.tell(WorkRequested())
    assert _offered(agent, commands) == [1]
    assert of_type(commands, StartWorker) == []
    done = agent.run_done(run)
    assert len(agent.said(done, Result)) == 1
    assert of_type([*done, *agent.tick_until(GRACE + 1)], StopWorker) == []


def test_results_that_nobody_settled_are_delivered_while_it_rests(agent: AgentScript) -> None:
    """They are computed already."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    agent.run_done(run)
    agent.tell(REST)
    assert agent.said(agent.tick_until(60), Result) != []
    (birth, *_) = agent.said(agent.tell(LinkUp(2)), Birth)
    assert [held.job for held in birth.statement.held] == [job_id(1)]


def test_an_agent_that_rests_from_the_start_offers_nothing_and_measures_nothing() -> None:
    """It is online; measuring waits until it may work."""
    agent = AgentScript()
    commands = agent.tell(REST, LinkUp(1), agent.coordinator.hello(), PlanRequested())
    commands += agent.tick_until(3600)
    assert of_type(commands, RunCanary) == []
    assert of_type(commands, StartWorker) == []
    assert {opened.statement.state for opened in agent.said(commands, Birth)} == {"online"}
    assert set(_offered(agent, commands)) <= {0}
    assert len(of_type(agent.tell(WorkRequested()), RunCanary)) == 1


def test_a_canary_run_that_goes_on_is_called_off_and_made_again_later() -> None:
    """It counts for nothing."""
    agent = AgentScript()
    agent.tell(LinkUp(1), agent.coordinator.hello())
    (canary,) = of_type(agent.tell(PlanRequested()), RunCanary)
    commands = agent.tell(REST)
    assert of_type(commands, CancelCanary) == [CancelCanary()]
    (again,) = of_type(agent.tell(WorkRequested()), RunCanary)
    assert again.variant == canary.variant


def test_downloads_are_ended_and_gone_on_with_later() -> None:
    """What is wanted is told anew when it may work again."""
    agent = AgentScript(policy=Policy(download=True))
    agent.ready()
    assert of_type(agent.tell(REST), FetchModels) == [FetchModels(())]
    assert of_type(agent.tick_until(3600), FetchModels) == []
    assert len(of_type(agent.tell(WorkRequested()), FetchModels)) == 1


def test_nothing_that_happens_while_it_rests_starts_a_worker(agent: AgentScript) -> None:
    """Other conditions, a late word or the death of the old worker, a coordinator that starts anew."""
    agent.tell(REST)
    commands = agent.tell(
        ConditionsChanged(10**9, "hot"),
        ModelLoaded(chosen_variant(), 5.0, (), (), 1),
        WorkerDied(4000, "worker-died", "It was killed.", ()),
        WorkerDied(4999, "worker-died", "It was killed.", ()),
        agent.coordinator.hello(50),
        LinkUp(9),
    )
    commands += agent.tick_until(7200)
    assert of_type(commands, StartWorker) == []
    assert of_type(commands, RunCanary) == []
    assert of_type(commands, LoadModel) == []
    assert set(_offered(agent, commands)) == {0}
    assert len(of_type(agent.tell(WorkRequested()), StartWorker)) == 1


def test_a_second_request_says_nothing_twice(agent: AgentScript) -> None:
    """And does not end what has ended."""
    agent.tell(REST)
    commands = agent.tell(REST)
    assert actions(commands) == []
    assert of_type(commands, StopWorker) == []


def test_a_stop_while_it_rests_is_an_ordinary_stop(agent: AgentScript) -> None:
    """It leaves at once."""
    agent.tell(REST)
    commands = agent.tell(StopRequested(10))
    assert agent.said(commands, Birth)[-1].statement.state == "stopped"
    assert [command.status for command in commands if hasattr(command, "status")] == [0]


def test_a_worker_that_dies_in_the_grace_time_is_started_for_what_it_owes_only_then(agent: AgentScript) -> None:
    """A drain is a promise to finish; when all is finished, it ends."""
    runs = [run for number in range(2) for run in _runs(agent.tell(agent.coordinator.job(number)))]
    agent.tell(DRAIN)
    died = agent.tell(WorkerDied(4000, "worker-died", "It was killed.", (runs[0].token, runs[1].token)))
    died += agent.tick_until(1)
    assert len(of_type(died, StartWorker)) == 1
    more = agent.worker_up(pid=4001)
    (run,) = _runs(more)
    assert of_type(agent.run_done(run), StopWorker) == [StopWorker()]


# -- another pace -----------------------------------------------------------------------------------------------------


def test_an_idle_worker_begins_anew_with_other_threads(agent: AgentScript) -> None:
    """At once, without a canary run, and the offer stays."""
    commands = agent.tell(PaceChanged(1, 0.5))
    assert of_type(commands, UseThreads) == [UseThreads(1, 0.5)]
    kinds = [type(command) for command in commands if isinstance(command, UseThreads | StopWorker | StartWorker)]
    assert kinds == [UseThreads, StopWorker, StartWorker]
    assert 0 not in _offered(agent, commands)
    assert of_type([*commands, *agent.worker_up(pid=4001)], RunCanary) == []


def test_what_runs_is_finished_before_another_pace_and_nothing_is_handed_back(agent: AgentScript) -> None:
    """What waits runs in the worker that begins anew."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    commands = agent.tell(PaceChanged(1))
    assert of_type(commands, StopWorker) == []
    assert _runs(agent.tell(agent.coordinator.job(2))) == []  # it waits for the other pace
    done = agent.run_done(run)
    assert len(agent.said(done, Result)) == 1
    assert of_type(done, StopWorker) == [StopWorker()]
    more = agent.worker_up(pid=4001)
    assert len(_runs(more)) == 1
    assert agent.failures([*commands, *done, *more]) == []


def test_a_resting_agent_takes_another_pace_when_it_works_again(agent: AgentScript) -> None:
    """No worker is started for it meanwhile."""
    agent.tell(REST)
    commands = agent.tell(PaceChanged(1))
    assert of_type(commands, UseThreads) == [UseThreads(1)]
    assert of_type(commands, StartWorker) == []
    assert len(of_type(agent.tell(WorkRequested()), StartWorker)) == 1
