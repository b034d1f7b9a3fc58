"""The agent's core with terms, as scripts of events: what it says, refuses, does first, and keeps to itself."""

from __future__ import annotations

import pytest
from fakes import AgentScript, actions, job_id, of_type

from edge_agent.agent.events import Command, LinkUp, RunModel, TermsChanged
from edge_agent.agent.status import standing
from edge_agent.wire.messages import Offers, Result
from edge_agent.wire.terms import Terms

MINE = Terms(clients=("ada",), first=(), labels=None, denied=())
FIRST = Terms(clients=None, first=("ada",), labels=None, denied=())
NO_VIDEO = Terms(clients=None, first=(), labels=None, denied=("video",))


def changed(terms: Terms | None) -> TermsChanged:
    """Make the event of an owner who changed his mind."""
    return TermsChanged(terms, "as you say")


@pytest.fixture
def agent() -> AgentScript:
    """Return an agent that is connected and serves the first variant."""
    script = AgentScript()
    script.ready()
    return script


def _run_jobs(agent: AgentScript, commands: list[Command]) -> int:
    return len(of_type(commands, RunModel))


def test_terms_are_said_with_the_offers_at_once_and_every_time(agent: AgentScript) -> None:
    """Also when they go again: then the offers are of version 1."""
    (said,) = agent.said(agent.tell(changed(MINE)), Offers)
    assert (said.statement.v, said.statement.terms, len(said.statement.offers)) == (2, MINE, 1)
    again = agent.said(agent.tick_until(61), Offers)
    assert [opened.statement.terms for opened in again] == [MINE]
    (said,) = agent.said(agent.tell(changed(None)), Offers)
    assert (said.statement.v, said.statement.terms, len(said.statement.offers)) == (1, None, 1)


@pytest.mark.parametrize(
    ("terms", "client", "labels", "taken"),
    [
        (MINE, "ada", (), True),
        (MINE, "bob", (), False),
        (MINE, None, (), False),
        (FIRST, "ada", (), True),
        (FIRST, None, (), True),
        (NO_VIDEO, None, (), True),
        (NO_VIDEO, None, ("video",), False),
    ],
)
def test_a_job_is_held_against_the_terms_whatever_the_coordinator_leases(
    agent: AgentScript,
    terms: Terms,
    client: str | None,
    labels: tuple[str, ...],
    taken: bool,  # noqa: FBT001 as above
) -> None:
    """What breaks them is answered at once, and neither run nor counted as a failure of this machine."""
    agent.tell(changed(terms))
    commands = agent.tell(agent.coordinator.job(1, v=2, client=client, labels=labels))
    assert _run_jobs(agent, commands) == taken
    assert agent.failures(commands) == ([] if taken else [(job_id(1), "not-taken", True)])
    assert agent.core.attempts.counts()["running"] == taken
    assert agent.core.tally.since(0) == {}


def test_a_job_of_before_the_terms_were_heard_is_nobodys_fault(agent: AgentScript) -> None:
    """It says nothing of whose it is: handed back, as with any other change of the owner's mind."""
    agent.tell(changed(MINE))
    commands = agent.tell(agent.coordinator.job(1))
    assert (_run_jobs(agent, commands), agent.failures(commands)) == (0, [(job_id(1), "handed-back", True)])


def test_what_waits_is_handed_back_when_the_terms_change_and_what_runs_is_finished(agent: AgentScript) -> None:
    """Three run or wait; of those that wait, only what is for nobody now goes."""
    agent.tell(changed(FIRST))
    taken = [agent.tell(agent.coordinator.job(number, v=2, client=None, labels=())) for number in (1, 2, 3)]
    taken.append(agent.tell(agent.coordinator.job(4, v=2, client="ada", labels=())))
    running = [run for commands in taken for run in of_type(commands, RunModel)]
    assert len(running) == 2  # the worker has one and the next
    commands = agent.tell(changed(MINE))
    assert agent.failures(commands) == [(job_id(3), "handed-back", True)]
    first = agent.run_done(running[0])
    assert [opened.statement.job for opened in agent.said(first, Result)] == [job_id(1)]
    (next_run,) = of_type(first, RunModel)
    agent.run_done(running[1])
    assert [opened.statement.job for opened in agent.said(agent.run_done(next_run), Result)] == [job_id(4)]


def test_the_owners_jobs_are_next_among_those_that_wait_and_in_their_order(agent: AgentScript) -> None:
    """The two that the worker has already are not called off."""
    agent.tell(changed(FIRST))
    runs: list[RunModel] = []
    for number, client in enumerate((None, None, None, "ada", None, "ada"), start=1):
        runs += of_type(agent.tell(agent.coordinator.job(number, v=2, client=client, labels=())), RunModel)
    order = []
    while runs:
        commands = agent.run_done(runs.pop(0))
        order += [opened.statement.job for opened in agent.said(commands, Result)]
        runs += of_type(commands, RunModel)
    assert order == [job_id(number) for number in (1, 2, 4, 6, 3, 5)]


@pytest.mark.parametrize(("terms", "offered"), [(MINE, 0), (NO_VIDEO, 0), (FIRST, 1), (None, 1)])
def test_an_older_coordinator_is_offered_nothing_while_the_terms_would_refuse_anybody(
    terms: Terms | None, offered: int
) -> None:
    """It could not say whose a job is; what it is told is of version 1, and the owner is told why."""
    agent = AgentScript()
    agent.coordinator.session = 200
    agent.tell(LinkUp(1), agent.coordinator.hello(versions=(1,)), changed(terms))
    agent.ready(session=2)
    commands = agent.tell(LinkUp(3), agent.coordinator.hello(session=201, versions=(1,)))
    said = [opened.statement for opened in agent.said(commands, Offers)]
    assert said
    assert {(offers.v, offers.terms, len(offers.offers)) for offers in said} == {(1, None, offered)}
    found = standing(agent.planner, True, True, None, agent.core.clientele.unheard)["obstacles"]
    assert [obstacle["code"] for obstacle in found] == ([] if offered else ["old-coordinator"])
    newer = agent.tell(agent.coordinator.hello(session=202))
    assert [len(opened.statement.offers) for opened in agent.said(newer, Offers)][-1] == 1
    assert agent.core.clientele.unheard is None


def test_a_change_of_terms_is_logged_for_the_owner(agent: AgentScript) -> None:
    """With for whom it works now."""
    assert "terms" in actions(agent.tell(changed(MINE)))
