"""Machines that keep a job by ending their attempts in ways that count against nothing; and whom a job waits for."""

from __future__ import annotations

import pytest
from pools import Member, Pool

from edge_agent.coordinator.events import EndAttempt, Outcome
from edge_agent.coordinator.jobs import Blame, Job, JobState
from edge_agent.coordinator.retries import EXCUSED
from edge_agent.wire.messages import Terms

ADA_FIRST = Terms(clients=None, first=("ada",), labels=None, denied=())


def _silent(*quick: str, **owners: str | None) -> Pool:
    """Make a pool of machines of these owners, some of them quicker, that answer nothing by themselves."""
    pool = Pool(owners, quick=quick)
    for member in pool.members.values():
        member.silent = True
    return pool


def _fail(pool: Pool, member: Member, code: str, *, retry: bool = True) -> list[Outcome]:
    """Let a member fail the job that it was given last, and time pass until another is asked."""
    job = member.waiting.pop().statement
    ended = pool.carry_out(pool.script.tell(member.agent.failure(job, code=code, retry=retry)))
    return [*ended, *pool.carry_out(pool.script.tick_until(11.0))]


def _stop(pool: Pool, member: Member) -> list[Outcome]:
    """Let a member stop cleanly with what it held, and come back."""
    member.waiting.clear()
    ended = pool.carry_out(pool.script.tell(member.agent.birth(state="stopped", answers=pool.script.session)))
    member.agent.session += 1
    pool.come(member)
    return ended


def _job(pool: Pool) -> Job:
    (job,) = pool.script.core.leasing.jobs.values()
    return job


def _terms(pool: Pool, *members: Member) -> None:
    for member in members:
        pool.carry_out(pool.script.tell(member.agent.offers(pool.offer_of(member), terms=ADA_FIRST)))


def _full(pool: Pool, member: Member) -> None:
    pool.script.registry.agents[member.agent.id].credit.paused_until = pool.clock.monotonic + 1000.0


OURS = ["not-arrived", "not-enrolled", "not-sent", "overtaken", "succeeded", "cancelled"]


@pytest.mark.parametrize("code", OURS)
def test_an_agent_that_says_what_only_the_coordinator_knows_has_failed(code: str) -> None:
    """It costs the attempt, as any failure does, and is stored as what it was."""
    pool = _silent("mallory", mallory="mal", a1="ada")
    assert pool.ask(1, deadline=3600.0, max_attempts=2) is None
    assert _fail(pool, pool.members["mallory"], code) == []
    assert _job(pool).failures == 1
    assert [record.outcome for record in pool.records if isinstance(record, EndAttempt)] == ["wrong-code"]
    assert len(pool.members["a1"].waiting) == 1
    (ended,) = _fail(pool, pool.members["a1"], code)
    assert ended.error is not None
    assert (ended.error.code, ended.error.blame) == ("attempts-exhausted", Blame.AGENT)


@pytest.mark.parametrize("code", OURS)
def test_a_refusal_in_the_coordinators_words_is_not_told_as_such(code: str) -> None:
    """Its client would take it for the coordinator's."""
    pool = _silent("only", only="mal")
    assert pool.ask(1, deadline=3600.0) is None
    (ended,) = _fail(pool, pool.members["only"], code, retry=False)
    assert ended.error is not None
    assert (ended.state, ended.error.code) == (JobState.FAILED, "wrong-code")


@pytest.mark.parametrize(("code", "attempts"), [("handed-back", 1), ("queue-full", EXCUSED + 1)])
def test_a_machine_that_does_not_take_a_job_on_does_not_keep_it(code: str, attempts: int) -> None:
    """Though it is the quicker one, and none of this takes the job's single attempt: another's machine has it."""
    pool = _silent("mallory", mallory="mal", a1="ada")
    cheat, honest = pool.members["mallory"], pool.members["a1"]
    assert pool.ask(1, deadline=3600.0, max_attempts=1) is None
    for _ in range(attempts):
        assert honest.waiting == []
        assert _fail(pool, cheat, code) == []
    assert [len(cheat.waiting), len(honest.waiting)] == [0, 1]
    assert _job(pool).failures == 0


def test_offers_that_got_lost_cost_a_job_no_attempts_at_once() -> None:
    """The only machine rests, and hands the job back whenever it is sent again, until it says again what it offers."""
    pool = _silent(only="ada")
    member = pool.members["only"]
    assert pool.ask(1, deadline=3600.0) is None
    began = pool.clock.monotonic
    while pool.clock.monotonic < began + 50.0:
        while member.waiting:
            job = member.waiting.pop().statement
            pool.carry_out(pool.script.tell(member.agent.failure(job, code="handed-back")))
        assert pool.carry_out(pool.script.tick_until(1.0)) == []
    assert _job(pool).failures < _job(pool).max_attempts
    assert len(member.given) <= 7


def test_a_machine_whose_births_deny_a_job_does_not_keep_it() -> None:
    """It says each time that it holds a newer attempt than it was given, as is so after a power cut of ours."""
    pool = _silent("mallory", mallory="mal", a1="ada")
    cheat, honest = pool.members["mallory"], pool.members["a1"]
    assert pool.ask(1, deadline=3600.0, max_attempts=1) is None
    for _ in range(EXCUSED + 1):
        job = cheat.waiting.pop().statement
        newer = [(job.job, job.epoch + 1)]
        pool.carry_out(pool.script.tell(cheat.agent.birth(answers=pool.script.session, held=newer)))
    assert [len(cheat.waiting), len(honest.waiting)] == [0, 1]
    assert _job(pool).failures == 0


def test_the_only_machine_of_a_pool_may_stop_over_a_job() -> None:
    """Each clean stop within reason is free; without end, the job fails before its deadline."""
    pool = _silent(only="ada")
    member = pool.members["only"]
    assert pool.ask(1, deadline=3600.0, max_attempts=1) is None
    for _ in range(EXCUSED):
        assert len(member.waiting) == 1
        assert _stop(pool, member) == []
        assert _job(pool).failures == 0
    (ended,) = _stop(pool, member)
    assert ended.error is not None
    assert (ended.error.code, ended.error.blame) == ("attempts-exhausted", Blame.AGENT)


def test_a_machine_does_not_idle_for_a_job_that_waits_for_another_owners() -> None:
    """Its owner's jobs go first, but not where the worker of another machine of that owner died over one."""
    pool = _silent(m1="ada", m2="ada", b1="bob")
    m1, m2, busy = pool.members.values()
    _terms(pool, m1, m2)
    _full(pool, busy)
    assert pool.ask(1, deadline=900.0, client="ada") is None
    first, other = (m1, m2) if m1.waiting else (m2, m1)
    assert _fail(pool, first, "worker-died") == []
    assert [member.waiting for member in pool.members.values()] == [[], [], []]
    pool.carry_out(pool.script.tell(first.agent.offers_nothing()))
    assert pool.ask(2, deadline=900.0, client="stranger") is None
    assert [len(other.waiting), len(busy.waiting)] == [1, 0]


def test_a_machine_does_its_owners_job_first_where_no_other_owners_may_have_it() -> None:
    """Though the worker of another machine of that owner died over it: there is nobody to wait for."""
    pool = _silent(m1="ada", m2="ada")
    m1, m2 = pool.members.values()
    _terms(pool, m1)
    pool.carry_out(pool.script.tell(m2.agent.offers_nothing()))
    assert pool.ask(1, deadline=900.0, client="ada") is None
    (opened,) = m1.waiting
    pool.carry_out(pool.script.tell(m1.agent.offers_nothing(), m1.agent.failure(opened.statement)))
    assert pool.ask(2, deadline=60.0, client="stranger", priority=50) is None
    pool.carry_out(pool.script.tick_until(11.0))
    one = m2.agent.offer(variant=pool.offer_of(m2).variant, room=1)
    pool.carry_out(pool.script.tell(m2.agent.offers(one, terms=ADA_FIRST)))
    assert [other.statement.job for other in m2.waiting] == [opened.statement.job]


def test_a_machine_goes_on_with_its_owners_job_first_after_it_handed_it_back() -> None:
    """There is nobody else who could have it, so a stranger's waits, though that is more urgent."""
    pool = _silent(only="ada")
    member = pool.members["only"]
    _terms(pool, member)
    assert pool.ask(1, deadline=900.0, client="ada") is None
    job = member.waiting.pop().statement
    pool.carry_out(pool.script.tell(member.agent.offers_nothing(), member.agent.failure(job, code="handed-back")))
    assert pool.ask(2, deadline=60.0, client="stranger", priority=50) is None
    one = member.agent.offer(variant=pool.offer_of(member).variant, room=1)
    pool.carry_out(pool.script.tell(member.agent.offers(one, terms=ADA_FIRST)))
    assert [opened.statement.job for opened in member.waiting] == [job.job]
