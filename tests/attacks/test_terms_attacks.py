"""Attacks on whose jobs are taken: names that are claimed, terms without end, jobs under a false flag."""

from __future__ import annotations

import pytest
from fakes import AgentScript, FakeAgent, jobs_for, of_type
from scenes import Setting

from edge_agent.agent.events import RunModel, TermsChanged
from edge_agent.coordinator.access import Caller, Scope
from edge_agent.coordinator.events import SubmitRefused
from edge_agent.coordinator.gateway.submission import in_name_of
from edge_agent.coordinator.queues import MAX_LANES
from edge_agent.errors import DeniedError
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.messages import Failure
from edge_agent.wire.terms import MAX_CLIENTS, Terms

MINE = Terms(clients=("ada",), first=(), labels=None, denied=())


def test_a_client_cannot_take_the_name_of_somebody_whom_a_machine_works_for() -> None:
    """Its key says who it is; the option `client` is the operator's alone."""
    mallory = Caller("mallory", frozenset({Scope.INFER}), "key")
    with pytest.raises(DeniedError, match="no jobs in the name of ada"):
        in_name_of(mallory, JobOptions(client="ada"), None)
    assert in_name_of(mallory, JobOptions(), None).client == "mallory"


def test_a_coordinator_that_leases_a_strangers_job_all_the_same_gets_it_back_each_time() -> None:
    """Nothing of it reaches the worker, however often it comes; the owner's own job is done as ever."""
    agent = AgentScript()
    agent.ready()
    agent.tell(TermsChanged(MINE, "only for ada"))
    for epoch in range(1, 6):
        commands = agent.tell(agent.coordinator.job(1, epoch=epoch, v=2, client=None, labels=()))
        assert of_type(commands, RunModel) == []
        assert [opened.statement.code for opened in agent.said(commands, Failure)] == ["not-taken"]
    assert len(agent.core.attempts) == 0
    commands = agent.tell(agent.coordinator.job(2, v=2, client="ada", labels=()))
    assert len(of_type(commands, RunModel)) == 1


def test_an_agent_that_refuses_what_it_said_it_takes_is_avoided_and_the_job_is_done_elsewhere() -> None:
    """One that hands everything back counts against the job's attempts, so that nothing goes round for ever."""
    scene = Setting()
    liar, honest = scene.join("liar", latency_us=100), scene.join("honest", latency_us=10_000)
    scene.script.tell(liar.offers(liar.offer(latency_us=100), terms=MINE))
    job_id, commands = scene.script.submit(client="ada")
    (opened,) = jobs_for(liar, commands)
    commands = scene.script.tell(liar.failure(opened.statement, code="not-taken", retry=True, blame="agent"))
    commands += scene.script.tick_until(1.0)
    assert jobs_for(liar, commands) == []
    assert [again.statement.job for again in jobs_for(honest, commands)] == [job_id]
    assert scene.job(job_id).failures == 1


def test_terms_that_change_all_the_time_leave_every_job_in_the_queue_where_it_was() -> None:
    """Naming clients over and over moves their jobs between lanes, and loses, doubles or reorders none."""
    scene = Setting()
    agent = scene.join("one", room=1)
    scene.script.submit(client="someone")
    waiting = [scene.script.submit(client=f"client {number % 3}")[0] for number in range(30)]
    for turn in range(50):
        names = (f"client {turn % 3}", f"nobody {turn}") if turn % 2 else ()
        terms = Terms(clients=None, first=names, labels=None, denied=())
        scene.script.tell(agent.offers(agent.offer(room=1), terms=terms))
    assert all(scene.job(job_id).attempts == [] for job_id in waiting)
    commands = scene.script.tell(agent.offers(agent.offer(room=31)))
    given = [opened.statement.job for opened in jobs_for(agent, commands)]
    assert sorted(given) == sorted(waiting)
    for client in range(3):
        own = [job_id for number, job_id in enumerate(waiting) if number % 3 == client]
        assert [job_id for job_id in given if job_id in own] == own


def test_many_names_make_no_more_lanes_than_there_may_be() -> None:
    """An agent that names everybody lets everybody's jobs wait by themselves: what is too much is refused."""
    scene = Setting()
    agent = FakeAgent("one", scene.clock)
    scene.agents["one"] = agent
    scene.script.tell(agent.birth(answers=scene.script.session))
    names = tuple(f"client {number}" for number in range(MAX_CLIENTS))
    scene.script.tell(agent.offers(agent.offer(room=1), terms=Terms(clients=names, first=(), labels=None, denied=())))
    refused = [
        found
        for number in range(MAX_CLIENTS + 10)
        for found in of_type(scene.script.submit(client=f"client {number}")[1], SubmitRefused)
    ]
    assert [found.code for found in refused] == ["no-taker"] * 10
    assert len(scene.script.core.leasing.jobs) == MAX_CLIENTS <= MAX_LANES
