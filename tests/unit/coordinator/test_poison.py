"""Retries: elsewhere, later each time, and not at all for a job that costs one worker after another."""

from __future__ import annotations

import random

import pytest
from fakes import jobs_for, of_type, outcomes, records, settled_for
from scenes import Setting

from edge_agent.coordinator.events import AgentsChanged, CancelJob, Commit, EndAttempt, EndJob, SendFailed
from edge_agent.coordinator.jobs import Blame, JobState
from edge_agent.coordinator.retries import BACKOFF_FIRST_SECONDS
from edge_agent.coordinator.rules import Rules


def _dies_on(here: Setting, *names: str, code: str = "worker-died", wait: float = 1.0) -> list[object]:
    """Let a job end the worker of each of these agents in turn; return the commands of the last failure."""
    _, commands = here.script.submit()
    failed: list[object] = []
    for name in names:
        agent = here.agents[name]
        (opened,) = jobs_for(agent, commands)
        failed = list(here.script.tell(agent.failure(opened.statement, code=code)))
        commands = here.script.tick_until(wait)
    return failed


def test_a_job_that_ends_the_workers_of_two_agents_is_not_tried_on_a_third() -> None:
    """It ends at once, though it has attempts left; with nothing to show for it, the model is to blame."""
    here = Setting("a", rules=Rules(max_attempts=50))
    here.join("b", latency_us=400)
    here.join("c", latency_us=500)
    failed = _dies_on(here, "a", "b")
    (outcome,) = outcomes(failed)
    assert outcome.error is not None
    assert (outcome.state, outcome.error.code, outcome.error.blame) == (JobState.FAILED, "poison", Blame.MODEL)
    assert [s.outcome for s in settled_for(here.agents["b"], failed)] == ["accepted"]
    (commit,) = of_type(failed, Commit)
    ended = [(r.epoch, r.outcome) for r in commit.records if isinstance(r, EndAttempt)]
    assert ended == [(2, "worker-died")]
    assert isinstance(commit.records[-1], EndJob)
    assert here.live == 0


def test_poison_is_the_requesters_where_the_model_serves_others() -> None:
    """The same variant gave accepted results: what is special is this input. The agents go on as before."""
    here = Setting("a", rules=Rules(max_attempts=50))
    here.join("b", latency_us=400)
    _, commands = here.script.submit()
    (opened,) = jobs_for(here.agents["a"], commands)
    here.script.tell(here.agents["a"].result(opened))
    failed = _dies_on(here, "a", "b", code="worker-hung")
    (outcome,) = outcomes(failed)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.blame) == ("poison", Blame.REQUESTER)
    assert "2 agents" in outcome.error.message
    for agent in here.agents.values():
        known = here.script.registry.get(agent.id)
        assert (known.in_flight, known.credit.allowed(2, here.clock.monotonic)) == ({}, 2)
        assert known.offers
    assert any(jobs_for(agent, here.script.submit()[1]) for agent in here.agents.values())


def test_a_job_that_ends_the_same_agents_worker_twice_is_no_poison() -> None:
    """It may be that machine: it is tried until its attempts are used up."""
    here = Setting("a", rules=Rules(max_attempts=3))
    failed = _dies_on(here, "a", "a", "a")
    (outcome,) = outcomes(failed)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.blame) == ("attempts-exhausted", Blame.AGENT)


def test_a_job_may_have_its_own_number_of_attempts() -> None:
    """One is one."""
    here = Setting("a")
    here.join("b", latency_us=400)
    _, commands = here.script.submit(max_attempts=1)
    (opened,) = jobs_for(here.agents["a"], commands)
    failed = here.script.tell(here.agents["a"].failure(opened.statement))
    assert [o.error and o.error.code for o in outcomes(failed)] == ["attempts-exhausted"]


def test_the_one_who_is_blamed_at_the_end_is_the_one_the_last_failure_blames() -> None:
    """A machine of the operator's that says that the model failed is believed as far as that."""
    here = Setting("a", rules=Rules(max_attempts=1))
    here.script.tell(AgentsChanged(frozenset({here.agents["a"].id})))
    _, commands = here.script.submit()
    (opened,) = jobs_for(here.agents["a"], commands)
    failed = here.script.tell(here.agents["a"].failure(opened.statement, code="model-run", blame="model"))
    (outcome,) = outcomes(failed)
    assert outcome.error is not None
    assert outcome.error.blame is Blame.MODEL
    assert "The worker was killed." in outcome.error.message


def test_waits_grow_with_each_failure_and_are_drawn() -> None:
    """Full jitter, from the seed that the core was given; other jobs do not wait."""

    def moments(seed: int | None) -> list[float]:
        rng = None if seed is None else random.Random(seed)
        here = Setting("a", rules=Rules(max_attempts=6), rng=rng)
        _, commands = here.script.submit()
        found = []
        for _ in range(4):
            (opened,) = jobs_for(here.agents["a"], commands)
            here.script.tell(here.agents["a"].failure(opened.statement, code="model-run"))
            began = here.clock.monotonic
            commands = []
            while not jobs_for(here.agents["a"], commands):
                due = here.script.core.next_deadline()
                assert due is not None
                commands = here.script.tick_until(due - here.clock.monotonic)
            found.append(here.clock.monotonic - began)
        return found

    assert moments(None) == pytest.approx([BACKOFF_FIRST_SECONDS * factor for factor in (1, 2, 4, 8)])
    assert moments(1) == moments(1) != moments(2)
    assert all(drawn < whole for drawn, whole in zip(moments(1), moments(None), strict=True))


def test_a_job_that_waits_for_its_next_attempt_can_be_cancelled_and_has_its_deadline() -> None:
    """It is queued, though no agent may have it yet."""
    for end in ("cancel", "deadline"):
        here = Setting("a")
        job_id, commands = here.script.submit(deadline=0.05)
        (opened,) = jobs_for(here.agents["a"], commands)
        here.script.tell(here.agents["a"].failure(opened.statement))
        commands = here.script.tell(CancelJob(job_id)) if end == "cancel" else here.script.tick_until(0.05)
        (outcome,) = outcomes(commands)
        assert outcome.state is (JobState.CANCELLED if end == "cancel" else JobState.FAILED)
        assert here.script.tick_until(10.0) == []
        assert here.script.core.next_deadline() is None


# -- agents without room -------------------------------------------------------------------------------------------


def test_a_refusal_for_want_of_room_costs_the_job_nothing_and_the_agent_gets_less() -> None:
    """The job goes to another at once; it has all its attempts left, and nobody failed it."""
    here = Setting("a", rules=Rules(max_attempts=1))
    here.join("b", latency_us=10_000)
    job_id, commands = here.script.submit()
    (opened,) = jobs_for(here.agents["a"], commands)
    refused = here.script.tell(here.agents["a"].failure(opened.statement, code="queue-full"))
    assert [(r.outcome, r.state) for r in records(refused, EndAttempt)] == [("queue-full", JobState.QUEUED)]
    assert (here.job(job_id).failures, here.job(job_id).failed_on) == (0, set())
    tried = [*refused, *here.script.tick_until(1.0)]
    assert any(jobs_for(agent, tried) for agent in here.agents.values())
    known = here.script.registry.get(here.agents["a"].id)
    assert known.credit.allowed(2, here.clock.monotonic) == 1


def test_an_agent_that_refuses_everything_is_asked_less_and_less_often() -> None:
    """It keeps nobody busy; the job ends with its deadline, and the agent is not blamed."""
    here = Setting("a")
    _, commands = here.script.submit(deadline=30.0)
    asked = 0
    end = here.clock.monotonic + 40.0
    ends = []
    while True:
        for opened in jobs_for(here.agents["a"], commands):
            asked += 1
            commands = here.script.tell(here.agents["a"].failure(opened.statement, code="queue-full"))
        due = here.script.core.next_deadline()
        if due is None or due > end:
            break
        commands = here.script.tick_until(max(0.0, due - here.clock.monotonic))
        ends += outcomes(commands)
    assert 5 <= asked <= 12
    (outcome,) = ends
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.blame) == ("deadline", Blame.DEADLINE)


# -- jobs that do not get to the broker --------------------------------------------------------------------------------


def test_a_job_that_the_broker_cannot_take_fails_at_once() -> None:
    """Not at its deadline; its own place and that at the agent are free."""
    here = Setting("a")
    job_id, _ = here.script.submit()
    failed = here.script.tell(SendFailed(job_id, 1, "too-large", "a packet of 9 MB is above 1 MB"))
    (outcome,) = outcomes(failed)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.blame) == ("too-large", Blame.COORDINATOR)
    assert "9 MB" in outcome.error.message
    assert here.script.registry.get(here.agents["a"].id).in_flight == {}


def test_a_job_that_found_no_place_in_the_outbox_is_sent_again_in_a_moment() -> None:
    """It does not wait for its lease, and nobody failed it; a stale report changes nothing."""
    here = Setting("a", rules=Rules(max_attempts=1))
    job_id, _ = here.script.submit()
    here.script.tell(SendFailed(job_id, 1, "outbox-full", "the outbox is full"))
    assert here.job(job_id).state is JobState.QUEUED
    commands = here.script.tick_until(1.0)
    assert [job.statement.epoch for job in jobs_for(here.agents["a"], commands)] == [2]
    assert here.script.tell(SendFailed(job_id, 1, "outbox-full", "late")) == []
    assert here.script.tell(SendFailed(bytes(16), 1, "outbox-full", "never known")) == []
    assert here.job(job_id).state is JobState.LEASED
