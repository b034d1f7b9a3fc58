"""Agents that answer what they did not compute: nothing of it is given out, and nobody honest pays for it."""

from __future__ import annotations

import itertools

import pytest
from fakes import FakeAgent, answer_to, of_type, scan
from pools import Member, Pool, lie

from edge_agent.coordinator.events import AddEntry, AgentsChanged, CancelJob, EndJob, Outcome, SendFailed, SubmitRefused
from edge_agent.coordinator.trust import TrustRules

HONEST = {"a1": "ada", "b1": "bob", "c1": "cy", "d1": "dee"}


def _warm(pool: Pool, jobs: int = 60) -> None:
    for number in range(jobs):
        assert pool.true(pool.ask(number), number)


def _honest_unharmed(pool: Pool, *cheats: str) -> None:
    assert all(pool.failures(name) == 0 for name in pool.members if name not in cheats)


@pytest.mark.parametrize("kind", ["random", "cache", "smaller"])
def test_a_newcomer_that_cheats_all_the_time_is_caught_at_its_first_job_and_nothing_of_it_is_given_out(
    kind: str,
) -> None:
    """Random outputs, an old answer, a smaller model: held, contradicted by three owners, and given nothing more."""
    pool = Pool({"mallory": "mal", **HONEST}, quick=["mallory"])
    cheat = pool.members["mallory"]
    cheat.behave = {
        "random": lambda image: lie(image, b"random"),
        "cache": lambda image: answer_to(scan(12345)) if image else (),
        "smaller": lambda image: lie(image, b"smaller"),
    }[kind]
    for number in range(40):
        assert pool.true(pool.ask(number), number)
    assert pool.failures("mallory") == 1
    assert ("refused", "wrong-result") in cheat.told
    given = len(cheat.seen)
    for number in range(40, 80):
        assert pool.true(pool.ask(number), number)
    assert len(cheat.seen) == given  # it rests
    _honest_unharmed(pool, "mallory")


def test_a_cheat_that_was_honest_until_trusted_is_caught_by_a_later_check() -> None:
    """What it cheated with before the check is given out; then it is back at the start and rests."""
    pool = Pool({"mallory": "mal", **HONEST}, quick=["mallory"], check_rules=TrustRules(first=3, floor=0.5))
    _warm(pool)
    cheat = pool.members["mallory"]
    cheat.behave = lambda image: lie(image, b"later")
    wrong = sum(not pool.true(pool.ask(number), number) for number in range(100, 200))
    assert pool.failures("mallory") == 1
    assert wrong < 10
    disputed = [found for found in pool.verified() if found.verification.state == "disputed"]
    assert len(disputed) == 1  # the result that the check proved wrong is marked, so that its client can learn it
    assert pool.true(pool.ask(500), 500)
    _honest_unharmed(pool, "mallory")


def test_two_accomplices_of_different_owners_cannot_bring_a_third_down() -> None:
    """Two that tell the same lie outvote one honest machine, but nobody is punished on the word of two."""
    pool = Pool({"m1": "mal", "m2": "mol", "a1": "ada"}, quick=["m1"])
    for name in ("m1", "m2"):
        pool.members[name].behave = lambda image: lie(image, b"plot")
    for number in range(20):
        pool.ask(number)
    _honest_unharmed(pool, "m1", "m2")


def test_accomplices_are_found_where_three_honest_owners_or_a_trusted_machine_are_asked() -> None:
    """A dispute goes to the operator's own machine first."""
    pool = Pool({"m1": "mal", "m2": "mol", "own": None, **HONEST}, quick=["m1", "m2"])
    for name in ("m1", "m2"):
        pool.members[name].behave = lambda image: lie(image, b"plot")
    for number in range(60):
        outcome = pool.ask(number, mode="rechecked")
        assert outcome is None or pool.true(outcome, number)
    assert pool.failures("m1") == pool.failures("m2") == 1
    _honest_unharmed(pool, "m1", "m2")


def test_an_owner_cannot_validate_itself_with_its_other_machines() -> None:
    """Machines of one owner never check each other, also where there is nobody else."""
    pool = Pool({"m1": "mal", "m2": "mal", "m3": "mal", "a1": "ada"})
    for name in ("m1", "m2", "m3"):
        pool.members[name].behave = lambda image: lie(image, b"plot")
    for number in range(30):
        pool.ask(number)
    for name in ("m1", "m2", "m3"):
        for image, _ in pool.members[name].seen:
            others = [m for m in ("m1", "m2", "m3") if m != name]
            assert all(image not in {seen for seen, _ in pool.members[other].seen} for other in others) or (
                image in {seen for seen, _ in pool.members["a1"].seen}
            )
    standings = pool.script.core.checking.trust.standings
    mals = {pool.members[name].agent.id for name in ("m1", "m2", "m3")}
    assert all(s.count == 0 for subject, s in standings.items() if subject.name in mals)
    _honest_unharmed(pool, "m1", "m2", "m3")


def test_a_copy_of_another_agents_result_is_no_answer_to_its_own_job() -> None:
    """What one agent signed for its job is refused when another one sends it, and changes nothing."""
    pool = Pool({"mallory": "mal", **HONEST})
    honest, cheat = pool.members["a1"], pool.members["mallory"]
    pool.only("a1", "b1")
    honest.silent = True
    pool.members["b1"].silent = True
    assert pool.ask(1) is None
    holder = honest if honest.waiting else pool.members["b1"]
    (opened,) = holder.waiting
    stolen = holder.agent.result(opened)
    topic = f"ea1/home/{cheat.agent.id}/results"
    before = dict(pool.script.core.leasing.jobs)
    pool.carry_out(pool.script.tell(type(stolen)(topic, stolen.payload)))
    assert pool.script.core.leasing.jobs == before
    assert pool.script.core.checking.trust.standings == {}


def test_a_check_cannot_be_told_from_a_job() -> None:
    """It has an id and a salt of its own, and the machine that checks sees no other difference."""
    pool = Pool(HONEST)
    _warm(pool, 5)
    jobs = [job for member in pool.members.values() for _, job in member.seen]
    assert len(jobs) == len(set(jobs)) > 5
    inputs = [image for member in pool.members.values() for image, _ in member.seen]
    assert len(set(inputs)) == 5
    for member in pool.members.values():
        mine = [image for image, _ in member.seen]
        assert len(mine) == len(set(mine))  # nobody is asked the same twice


def test_a_machine_that_leaves_while_it_is_checked_loses_nothing() -> None:
    """Its result is here: the check ends without it, and network loss is nobody's fault."""
    pool = Pool(HONEST)
    for member in pool.members.values():
        member.silent = True
    pool.ask(1)
    first = next(member for member in pool.members.values() if member.waiting)
    assert pool.carry_out(pool.answer(first, first.waiting.pop())) == []  # held
    checker = next(member for member in pool.members.values() if member.waiting)
    pool.carry_out(pool.script.tell(first.agent.gone()))
    for member in pool.members.values():
        member.silent = False
    outcomes = pool.carry_out(pool.answer(checker, checker.waiting.pop()))
    assert [outcome.state.value for outcome in outcomes if outcome.agent_id == first.agent.id] == ["succeeded"]
    _honest_unharmed(pool)


def test_a_checker_that_never_answers_holds_nothing_up_for_long_and_is_not_blamed() -> None:
    """After its time the check goes to another machine."""
    pool = Pool(HONEST)
    for member in pool.members.values():
        member.silent = True
    pool.ask(1, deadline=600.0)
    first = next(member for member in pool.members.values() if member.waiting)
    pool.carry_out(pool.answer(first, first.waiting.pop()))
    for member in pool.members.values():
        member.silent = False
    outcomes = pool.carry_out(pool.script.tick_until(120.0))
    assert first.agent.id in {outcome.agent_id for outcome in outcomes if outcome.state.value == "succeeded"}
    _honest_unharmed(pool)


def test_quorum_takes_that_many_owners_and_names_them() -> None:
    """The result says whose machines agree with it; no two are of one owner."""
    pool = Pool({"a1": "ada", "a2": "ada", "b1": "bob", "c1": "cy"})
    outcome = pool.ask(1, mode="quorum(3)")
    assert outcome is not None
    assert outcome.verification is not None
    assert outcome.verification.state == "quorum"
    names = {member.agent.id: name for name, member in pool.members.items()}
    assert sorted(names[agent_id][0] for agent_id in outcome.verification.by) == ["a", "b", "c"]


def test_two_new_owners_are_enough_for_who_asks_for_two() -> None:
    """Where there is nobody else, newcomers that agree count: the client asked for two owners, and has them."""
    pool = Pool({"a1": "ada", "b1": "bob"})
    outcome = pool.ask(1, mode="rechecked")
    assert pool.true(outcome, 1)
    assert outcome is not None
    assert outcome.verification is not None
    assert outcome.verification.state == "rechecked"
    assert len(outcome.verification.by) == 2


def test_a_quorum_that_cannot_be_reached_is_refused_at_once() -> None:
    """Two owners' machines are here; three are asked for."""
    pool = Pool({"a1": "ada", "b1": "bob"})
    _, commands = pool.script.submit(1, mode="quorum(3)")
    assert [(c.code, c.retry_after_seconds) for c in of_type(commands, SubmitRefused)] == [("too-few-owners", None)]
    assert pool.script.core.leasing.jobs == {}


def test_whether_to_wait_for_another_owner_depends_on_whether_there_is_one() -> None:
    """Nobody waits where one owner is all there is; where a second one is but away, it makes sense to try again."""
    pool = Pool({"a1": "ada", "a2": "ada"})
    _, commands = pool.script.submit(1, mode="rechecked")
    (refused,) = of_type(commands, SubmitRefused)
    assert (refused.code, refused.retry_after_seconds) == ("too-few-owners", None)
    assert "only 1" in refused.message
    owners = dict.fromkeys(pool.by_id, "ada") | {FakeAgent("away", pool.clock).id: "bob"}
    pool.carry_out(pool.script.tell(AgentsChanged(frozenset(owners), owners)))
    _, commands = pool.script.submit(2, mode="rechecked")
    assert [(c.code, c.retry_after_seconds) for c in of_type(commands, SubmitRefused)] == [("no-agent", 2.0)]
    assert pool.true(pool.ask(3), 3)


def test_the_operators_own_machines_are_neither_held_nor_checked() -> None:
    """A household pays nothing: each input is computed once, and given out at once."""
    pool = Pool({"own1": None, "own2": None})
    for number in range(20):
        outcome = pool.ask(number)
        assert pool.true(outcome, number)
        assert outcome is not None
        assert outcome.verification is not None
        assert outcome.verification.state == "signed"
    assert sum(len(member.seen) for member in pool.members.values()) == 20


def test_newcomers_are_given_out_unchecked_to_who_accepts_that_and_checked_all_the_same() -> None:
    """The client gets its answer before the check has one."""
    pool = Pool(HONEST)
    for member in pool.members.values():
        member.silent = True
    pool.ask(1, accept_newcomers=True)
    first = next(member for member in pool.members.values() if member.waiting)
    outcomes = pool.carry_out(pool.answer(first, first.waiting.pop()))
    assert [outcome.verification.state for outcome in outcomes if outcome.verification] == ["pending"]
    checks = list(itertools.chain.from_iterable(member.waiting for member in pool.members.values()))
    assert len(checks) == 1


def _paid_jobs_have_results(pool: Pool) -> None:
    """Each result that the ledger pays for is stored before it is: the writer ends the process otherwise."""
    stored = set()
    for record in pool.records:
        if isinstance(record, EndJob) and record.outcome.receipt:
            stored.add(record.outcome.job_id)
        if isinstance(record, AddEntry) and record.job_id is not None:
            assert record.job_id in stored


def _held(pool: Pool, **options: object) -> tuple[Member, Member, bytes]:
    """Have a result held; return its agent, the one checker that has not answered yet, and the job's id."""
    for member in pool.members.values():
        member.silent = True
    job_id, commands = pool.script.submit(1, **options)  # type: ignore[arg-type] # passed through
    pool.carry_out(commands)
    first = next(member for member in pool.members.values() if member.waiting)
    assert pool.carry_out(pool.answer(first, first.waiting.pop())) == []
    checker = next(member for member in pool.members.values() if member.waiting)
    for member in pool.members.values():
        member.silent = False
    return first, checker, job_id


@pytest.mark.parametrize("end", ["cancelled", "deadline"])
@pytest.mark.parametrize("mode", ["signed", "rechecked"])
def test_a_held_job_that_ends_before_its_check_is_not_paid_for_and_brings_nothing_down(end: str, mode: str) -> None:
    """The check still counts for both machines; the ledger pays the check alone, since the other has no result."""
    pool = Pool(HONEST)
    first, checker, job_id = _held(pool, mode=mode, deadline=20.0)
    ended = pool.carry_out(pool.script.tell(CancelJob(job_id)) if end == "cancelled" else pool.script.tick_until(21.0))
    assert [outcome.job_id for outcome in ended if outcome.error] == [job_id]
    pool.carry_out(pool.answer(checker, checker.waiting.pop()))
    _paid_jobs_have_results(pool)
    assert all(record.job_id != job_id for record in pool.records if isinstance(record, AddEntry))
    standings = pool.script.core.checking.trust.standings
    assert {first.agent.id, checker.agent.id} <= {subject.name for subject, s in standings.items() if s.count}
    assert pool.verified() == []
    assert pool.true(pool.ask(2), 2)
    _honest_unharmed(pool)


def test_a_cancel_and_the_answer_of_the_check_in_one_batch_bring_nothing_down() -> None:
    """The job ends once, cancelled, although the check would have let its result out."""
    pool = Pool(HONEST)
    _, checker, job_id = _held(pool)
    answer = checker.agent.result(checker.waiting.pop())
    outcomes = pool.carry_out(pool.script.tell(CancelJob(job_id), answer))
    assert [o.state.value for o in outcomes if o.job_id == job_id] == ["cancelled"]
    _paid_jobs_have_results(pool)
    assert not any(job.checks == job_id for job in pool.script.core.leasing.jobs.values())


def test_a_cheat_whose_held_job_is_cancelled_is_caught_all_the_same() -> None:
    """Who has a friend cancel what is about to be checked gains nothing."""
    pool = Pool({"mallory": "mal", **HONEST}, quick=["mallory"])
    pool.members["mallory"].behave = lambda image: lie(image, b"cancel")
    first, checker, job_id = _held(pool)
    assert first is pool.members["mallory"]
    pool.carry_out(pool.script.tell(CancelJob(job_id)))
    pool.carry_out(pool.answer(checker, checker.waiting.pop()))
    assert pool.failures("mallory") == 1
    _paid_jobs_have_results(pool)
    _honest_unharmed(pool, "mallory")


def test_a_failure_for_a_result_that_is_held_changes_nothing() -> None:
    """An agent that wants its answer back before it is checked is not heard; no more is a late report of sending."""
    pool = Pool(HONEST)
    first, checker, job_id = _held(pool)
    opened = first.given[-1]
    job = pool.script.core.leasing.jobs[job_id]
    (attempt,) = job.attempts
    for retry in (True, False):
        failure = first.agent.failure(opened.statement, retry=retry)
        assert pool.carry_out(pool.script.tell(failure)) == []
    assert pool.carry_out(pool.script.tell(SendFailed(job_id, attempt.epoch, "disconnected", "the broker went"))) == []
    assert (job.state.value, job.attempts) == ("held", [attempt])
    outcomes = pool.carry_out(pool.answer(checker, checker.waiting.pop()))
    assert [o.state.value for o in outcomes if o.job_id == job_id] == ["succeeded"]
    _paid_jobs_have_results(pool)


def test_an_agent_that_is_revoked_while_its_result_is_held_gets_nothing_for_it_later_either() -> None:
    """Neither the ledger nor what waits in memory knows of a result that was not given out."""
    pool = Pool(HONEST)
    first, checker, job_id = _held(pool)
    left = frozenset(pool.by_id) - {first.agent.id}
    owners = {pool.members[name].agent.id: owner for name, owner in HONEST.items()}
    pool.carry_out(pool.script.tell(AgentsChanged(left, owners)))
    outcomes = pool.carry_out(pool.answer(checker, checker.waiting.pop()))
    _paid_jobs_have_results(pool)
    by = {o.job_id: o.agent_id for o in outcomes if isinstance(o, Outcome)}
    assert by.get(job_id) != first.agent.id
    assert not any(first.agent.id in account for account in pool.script.core.checking.ledger.escrow)


def test_one_stranger_cannot_end_a_job_by_saying_that_it_can_never_succeed() -> None:
    """Another owner's machine is asked; where that one computes it, the client gets its result."""
    pool = Pool({"mallory": "mal", **HONEST}, quick=["mallory"])
    cheat = pool.members["mallory"]
    cheat.silent = True
    assert pool.ask(1) is None
    failure = cheat.agent.failure(cheat.waiting.pop().statement, code="bad-input", blame="requester", retry=False)
    commands = pool.script.tell(failure)
    assert not [command for command in commands if isinstance(command, Outcome)]
    cheat.silent = False
    outcomes = pool.carry_out([*commands, *pool.script.tick_until(5.0)])
    assert pool.true(next(outcome for outcome in outcomes if not outcome.error), 1)
    _honest_unharmed(pool)


def test_what_machines_of_two_owners_refuse_for_good_ends_with_their_reason() -> None:
    """It is not tried on all; and the operator's own machine is believed at once."""
    for owners, tried in (({"a1": "ada", "b1": "bob", "c1": "cy"}, 2), ({"own": None, "a1": "ada"}, 1)):
        pool = Pool(owners, quick=["own"] if "own" in owners else [])
        for member in pool.members.values():
            member.silent = True
        assert pool.ask(1) is None
        ended: list[Outcome] = []
        for _ in range(tried):
            assert ended == []
            member = next(member for member in pool.members.values() if member.waiting)
            job = member.waiting.pop().statement
            ended = pool.carry_out(
                pool.script.tell(member.agent.failure(job, code="bad-input", blame="requester", retry=False))
            )
            if not ended:
                ended = pool.carry_out(pool.script.tick_until(5.0))
        (outcome,) = ended
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.blame.value) == ("bad-input", "requester")
