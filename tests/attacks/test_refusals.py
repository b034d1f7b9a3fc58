"""Machines that say of a job that it can never succeed, in good faith or not: whose word ends it, and who is blamed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pools import Member, Pool

from edge_agent.coordinator.events import EndAttempt, Outcome
from edge_agent.coordinator.jobs import Blame, Job, JobError
from edge_agent.coordinator.refusals import BACK_SECONDS

LONG_SECONDS = BACK_SECONDS + 1.0
"""A machine that went away is not expected back by then."""


def _silent(*names: str, **owners: str | None) -> Pool:
    """Make a pool of machines of these owners, the first ones quicker, that answer nothing by themselves."""
    pool = Pool(owners, quick=names)
    for member in pool.members.values():
        member.silent = True
    return pool


def _refuse(pool: Pool, member: Member) -> list[Outcome]:
    """Let a member say that its job can never succeed, and time pass until another is asked."""
    return _fail(pool, member, code="bad-input", blame="requester", retry=False)


def _fail(pool: Pool, member: Member, *, code: str, blame: str, retry: bool) -> list[Outcome]:
    """Let a member fail its job, and time pass until another is asked."""
    job = member.waiting.pop().statement
    commands = pool.script.tell(member.agent.failure(job, code=code, blame=blame, retry=retry))
    return [*pool.carry_out(commands), *pool.carry_out(pool.script.tick_until(1.0))]


def _lose(pool: Pool, member: Member) -> list[Outcome]:
    """Let the machine of a member come back without what it held."""
    member.waiting.clear()
    reborn = member.agent.birth(answers=pool.script.session, session=member.agent.session + 1)
    member.agent.session += 1
    ended = pool.carry_out(pool.script.tell(reborn))
    pool.come(member)
    return [*ended, *pool.carry_out(pool.script.tick_until(1.0))]


def _earn(pool: Pool) -> None:
    """Let there have been jobs enough for one that is late to have a second attempt."""
    while not pool.script.core.leasing.hedges.left:
        pool.script.core.leasing.hedges.earn()


def _job(pool: Pool) -> Job:
    (job,) = pool.script.core.leasing.jobs.values()
    return job


def _error(ended: list[Outcome]) -> JobError:
    (outcome,) = ended
    assert outcome.error is not None
    return outcome.error


def test_an_owner_that_refuses_a_job_is_not_asked_again_on_its_other_machines() -> None:
    """Nor once more on the same one: another owner's is waited for, though it is slow, busy, or lost the job before."""
    pool = _silent("m1", "m2", "m3", m1="mal", m2="mal", m3="mal", a1="ada")
    honest = pool.members["a1"]
    pool.only("a1")
    assert pool.ask(1) is None
    assert _lose(pool, honest) == []
    job = _job(pool)
    assert job.failed_on == {honest.agent.id}
    pool.carry_out(pool.script.tell(*(m.agent.offers(pool.offer_of(m)) for m in pool.members.values())))
    honest.waiting.clear()
    mals = [pool.members[name] for name in ("m1", "m2", "m3")]
    while not any(member.waiting for member in mals):
        assert _lose(pool, honest) == []
    (refuser,) = (member for member in mals if member.waiting)
    assert _refuse(pool, refuser) == []
    assert not any(member.waiting for member in mals)
    assert [opened.statement.job for opened in honest.waiting] == [job.id]
    assert [m.told for m in mals if m is not refuser] == [[], []]


def test_a_refusal_takes_none_of_a_jobs_attempts() -> None:
    """Also where it has only one: who refuses everything ends nothing alone."""
    pool = _silent("mallory", mallory="mal", a1="ada")
    assert pool.ask(1, max_attempts=1) is None
    assert _refuse(pool, pool.members["mallory"]) == []
    job, honest = _job(pool), pool.members["a1"]
    assert (job.failures, list(job.refusals.values())) == (0, ["bad-input"])
    (opened,) = honest.waiting
    pool.members["mallory"].silent = False  # it checks the result, and finds it right
    assert pool.true(pool.carry_out(pool.answer(honest, opened))[0], 1)


def test_a_job_that_one_refused_and_others_lost_blames_neither_its_client_nor_them() -> None:
    """Nobody knows who is right: the client may ask again, and is told what was said."""
    pool = _silent("mallory", mallory="mal", a1="ada")
    honest = pool.members["a1"]
    assert pool.ask(1, max_attempts=2) is None
    assert _refuse(pool, pool.members["mallory"]) == []
    assert _lose(pool, honest) == []
    error = _error(_lose(pool, honest))
    assert (error.code, error.blame) == ("attempts-exhausted", Blame.COORDINATOR)
    assert error.message.startswith("gave up after 2 attempts; the last one ended with not-held; ")
    assert "one owner's machine refused it (bad-input)" in error.message


def test_a_refused_job_that_nobody_else_had_room_for_says_so_at_its_deadline() -> None:
    """The other owner's machine is there, and takes nothing: it is waited for, and who refused is not asked again."""
    pool = _silent("mallory", mallory="mal", a1="ada")
    cheat, honest = pool.members["mallory"], pool.members["a1"]
    assert pool.ask(1, deadline=5.0) is None
    pool.script.registry.agents[honest.agent.id].credit.pause(pool.clock.monotonic, 10.0)
    assert _refuse(pool, cheat) == []
    error = _error(pool.carry_out(pool.script.tick_until(5.0)))
    assert (error.code, error.blame) == ("deadline", Blame.DEADLINE)
    assert error.message.endswith("one owner's machine refused it (bad-input), and no other could say")
    assert cheat.waiting == []


def test_who_refuses_a_job_and_then_loses_it_is_blamed_for_that() -> None:
    """A word about the job does not excuse what became of it afterwards."""
    pool = _silent("mallory", mallory="mal", a1="ada")
    cheat = pool.members["mallory"]
    assert pool.ask(1, max_attempts=2) is None
    job = cheat.waiting.pop().statement
    pool.carry_out(pool.script.tell(cheat.agent.failure(job, code="bad-input", blame="requester", retry=False)))
    pool.only("mallory")
    ended = pool.carry_out(pool.script.tick_until(LONG_SECONDS))
    for _ in range(2):
        assert ended == []
        assert len(cheat.waiting) == 1
        ended = _lose(pool, cheat)
    assert (_error(ended).code, _error(ended).blame) == ("attempts-exhausted", Blame.AGENT)


@pytest.mark.parametrize(("owner", "blame"), [("mal", Blame.AGENT), (None, Blame.REQUESTER)])
def test_a_stranger_that_lets_others_try_cannot_lay_its_failure_on_the_client(owner: str | None, blame: Blame) -> None:
    """It says that they may succeed. The operator's own machine is believed."""
    pool = _silent("mallory", mallory=owner, a1="ada")
    assert pool.ask(1, max_attempts=1) is None
    error = _error(_fail(pool, pool.members["mallory"], code="bad-input", blame="requester", retry=True))
    assert (error.code, error.blame) == ("attempts-exhausted", blame)


def test_an_owner_cannot_make_a_job_poison_with_two_machines() -> None:
    """Where another owner's machine is there, that one is the second witness, though it is slower and busy."""
    pool = _silent("m1", "m2", m1="mal", m2="mal", a1="ada")
    mals, honest = [pool.members["m1"], pool.members["m2"]], pool.members["a1"]
    assert pool.ask(1) is None
    (first,) = (member for member in mals if member.waiting)
    assert _fail(pool, first, code="worker-died", blame="agent", retry=True) == []
    assert [len(member.waiting) for member in (*mals, honest)] == [0, 0, 1]
    assert _job(pool).killed == {first.agent.id}
    error = _error(_fail(pool, honest, code="worker-died", blame="agent", retry=True))
    assert (error.code, error.blame) == ("poison", Blame.MODEL)


def test_an_owner_cannot_make_a_job_poison_with_both_attempts_of_it() -> None:
    """The second one is another owner's machine's, though that is slower."""
    pool = _silent("m1", "m2", m1="mal", m2="mal", a1="ada")
    mals, honest = [pool.members["m1"], pool.members["m2"]], pool.members["a1"]
    _earn(pool)
    assert pool.ask(1, deadline=600.0) is None
    pool.carry_out(pool.script.tick_until(20.0))
    assert sorted(len(member.waiting) for member in mals) == [0, 1]
    assert len(honest.waiting) == 1


def test_an_owner_whose_worker_died_over_a_job_has_no_second_attempt_of_it() -> None:
    """Another owner's machine has it, and is the witness."""
    pool = _silent("m1", m1="mal", m2="mal", a1="ada")
    m1, m2, honest = pool.members.values()
    pool.only("m1")
    _earn(pool)
    assert pool.ask(1, deadline=600.0) is None
    pool.only("a1")
    assert _fail(pool, m1, code="worker-died", blame="agent", retry=True) == []
    pool.come(m2)
    pool.carry_out(pool.script.tick_until(20.0))
    assert (m2.waiting, len(honest.waiting)) == ([], 1)


def test_a_late_job_of_the_only_owner_has_its_second_attempt_on_another_machine_of_it() -> None:
    """There is nobody else, and two of its machines are better than one."""
    pool = _silent("m1", m1="mal", m2="mal")
    _earn(pool)
    assert pool.ask(1, deadline=600.0) is None
    pool.carry_out(pool.script.tick_until(20.0))
    assert [len(member.waiting) for member in pool.members.values()] == [1, 1]


def test_a_refusal_does_not_end_a_job_that_another_owners_machine_is_at() -> None:
    """Though that one is to be given nothing new: it may finish what it has."""
    pool = _silent("a1", m1="mal", a1="ada")
    cheat, honest = pool.members["m1"], pool.members["a1"]
    _earn(pool)
    assert pool.ask(1, deadline=600.0) is None
    orders = pool.script.registry.orders
    pool.script.registry.orders = replace(orders, drained=frozenset({honest.agent.id}))
    pool.carry_out(pool.script.tick_until(20.0))
    assert [len(cheat.waiting), len(honest.waiting)] == [1, 1]
    assert _refuse(pool, cheat) == []
    cheat.silent = False  # it checks the result, and finds it right
    assert pool.true(pool.carry_out(pool.answer(honest, honest.waiting.pop()))[0], 1)


def test_an_owner_is_not_asked_again_because_another_one_is_away_for_a_moment() -> None:
    """Its word ends the job only where nobody else could say for as long as a machine is expected back."""
    pool = _silent("mallory", mallory="mal", a1="ada")
    cheat, honest = pool.members["mallory"], pool.members["a1"]
    assert pool.ask(1, deadline=600.0) is None
    pool.only("mallory")
    assert _refuse(pool, cheat) == []  # the other is expected back
    assert cheat.waiting == []
    pool.come(honest)
    assert len(honest.waiting) == 1
    assert _lose(pool, honest) == []
    pool.only("mallory")
    honest.waiting.clear()
    pool.carry_out(pool.script.tell(honest.agent.gone()))
    assert pool.carry_out(pool.script.tick_until(LONG_SECONDS - 2.0)) == []
    assert cheat.waiting == []
    pool.carry_out(pool.script.tick_until(2.0))
    error = _error(_refuse(pool, cheat))
    assert (error.code, error.blame) == ("bad-input", Blame.REQUESTER)


def test_a_refusal_is_stored_with_its_owner() -> None:
    """So that a restart asks nobody twice; what ends a job is stored as its end."""
    pool = _silent("mallory", mallory="mal", a1="ada")
    assert pool.ask(1) is None
    assert _refuse(pool, pool.members["mallory"]) == []
    error = _error(_refuse(pool, pool.members["a1"]))
    assert (error.code, error.blame) == ("bad-input", Blame.REQUESTER)
    ended = [(r.outcome, r.refused_by) for r in pool.records if isinstance(r, EndAttempt)]
    assert ended == [("bad-input", "=mal"), ("bad-input", None)]


@pytest.mark.parametrize(("owner", "second"), [("mal", 0), ("eve", 1)])
def test_a_late_job_has_no_second_attempt_on_a_machine_of_who_refused_it(owner: str, second: int) -> None:
    """Its owner has had its say; a third one's machine has the second attempt."""
    pool = _silent("m1", m1="mal", a1="ada", m2=owner)
    _earn(pool)
    pool.only("m1", "a1")
    assert pool.ask(1, deadline=600.0) is None
    assert _refuse(pool, pool.members["m1"]) == []
    assert len(pool.members["a1"].waiting) == 1
    pool.come(pool.members["m2"])
    pool.carry_out(pool.script.tick_until(20.0))
    assert len(pool.members["m2"].waiting) == second
    assert pool.members["m1"].waiting == []
