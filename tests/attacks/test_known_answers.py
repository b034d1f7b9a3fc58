"""An agent that nobody else can check at the moment is asked what others have agreed on before, and cannot tell."""

from __future__ import annotations

import pytest
from fakes import answer_to, scan
from pools import VARIANT, Member, Pool, lie

from edge_agent.coordinator import known_answers
from edge_agent.coordinator.events import AddEntry, Verified
from edge_agent.coordinator.known_answers import MAX_DELAY_SECONDS, MAX_QUESTIONS
from edge_agent.coordinator.trust import Subject

HONEST = {"a1": "ada", "b1": "bob", "c1": "cy", "d1": "dee"}


def lonely(questions: int = 12, **script: object) -> tuple[Pool, Member]:
    """Return a pool in which four owners agreed on some answers and left, and a newcomer that is alone now."""
    pool = Pool({"mallory": "mal", **HONEST}, **script)  # type: ignore[arg-type] # passed through
    pool.only(*HONEST)
    for number in range(questions):
        assert pool.true(pool.ask(number), number)
    pool.only("mallory")
    return pool, pool.members["mallory"]


def pass_a_minute(pool: Pool) -> None:
    """Let the moment come at which somebody is asked; answers take less than a second."""
    for _ in range(int(MAX_DELAY_SECONDS) + 1):
        pool.carry_out(pool.script.tick_until(1.0))


def standing(pool: Pool, name: str) -> int:
    """Return how many results of an agent count."""
    found = pool.script.core.checking.trust.standings.get(Subject(pool.members[name].agent.id, VARIANT))
    return found.count if found else 0


def test_an_honest_machine_that_is_alone_becomes_known_by_what_it_answers_to_known_questions() -> None:
    """One answer each settles it: nobody else is asked, nobody else's standing changes, its work is paid."""
    pool, alone = lonely()
    before = {name: (standing(pool, name), len(pool.members[name].seen)) for name in HONEST}
    earlier = {image for name in HONEST for image, _ in pool.members[name].seen}
    own = [pool.ask(100)]
    assert [outcome.verification.state for outcome in own if outcome and outcome.verification] == ["signed"]
    assert standing(pool, "mallory") == 0
    pass_a_minute(pool)
    (_, asked) = alone.seen
    assert asked[0] in earlier
    assert standing(pool, "mallory") == 1
    assert {name: (standing(pool, name), len(pool.members[name].seen)) for name in HONEST} == before
    paid = [record for record in pool.records if isinstance(record, AddEntry) and record.job_id == asked[1]]
    assert [entry.credit.split("/")[0] for entry in paid] == ["escrow:mal"]


@pytest.mark.parametrize("kind", ["random", "cached"])
def test_a_cheat_that_is_alone_is_caught_by_a_known_question(kind: str) -> None:
    """Its one answer proves it wrong, without a second machine; nothing more is given to it."""
    pool, cheat = lonely()
    old = answer_to(scan(12345))
    cheat.behave = {"random": lie, "cached": lambda image: old if image else ()}[kind]
    pool.ask(100)
    pass_a_minute(pool)
    assert pool.failures("mallory") == 1
    assert all(pool.failures(name) == 0 for name in HONEST)
    given = len(cheat.seen)
    pool.ask(101)
    pass_a_minute(pool)
    assert len(cheat.seen) == given == 2


def test_a_known_question_cannot_be_told_from_a_job() -> None:
    """An id and a salt that were never used, the fields of every job, and no fixed time after its own result."""
    pool, alone = lonely()
    pool.ask(100)
    pass_a_minute(pool)
    mine, asked = (opened.statement for opened in alone.given)
    used = {job for member in pool.members.values() if member is not alone for _, job in member.seen}
    assert asked.job not in used
    assert asked.salt != mine.salt
    differing = {name for name in type(asked).model_fields if getattr(asked, name) != getattr(mine, name)}
    assert differing == {"job", "salt", "inputs", "issued_ms"}


def test_the_same_is_asked_of_an_owner_once_and_one_thing_at_a_time() -> None:
    """A hundred results that nobody can check do not make a hundred questions; its inputs never come again."""
    pool, alone = lonely()
    for number in range(100, 120):
        pool.ask(number)
    pass_a_minute(pool)
    assert len(alone.seen) == 21
    for number in range(200, 205):
        pool.ask(number)
        pass_a_minute(pool)
    asked = [image for image, _ in alone.seen]
    assert len(asked) == len(set(asked))


def test_a_machine_that_does_not_answer_is_not_blamed() -> None:
    """It left, or was silent: its standing is what it was, and it is asked again after its next result."""
    pool, alone = lonely()
    pool.ask(100)
    alone.silent = True
    pass_a_minute(pool)
    pass_a_minute(pool)
    assert pool.failures("mallory") == standing(pool, "mallory") == 0
    alone.silent = False
    pool.ask(101)
    pass_a_minute(pool)
    assert standing(pool, "mallory") == 1


def test_a_known_answer_tells_of_what_class_a_machine_is() -> None:
    """The same bits on a known question: it is held to them from then on."""
    pool, alone = lonely()
    classes = pool.script.core.checking.classes
    klass = next(iter(pool.script.registry.offering("digits"))).offers["digits"].klass.id
    names = [pool.members[name].agent.id for name in HONEST]
    assert not any(classes.same(klass, alone.agent.id, name) for name in names)
    pool.ask(100)
    pass_a_minute(pool)
    assert any(classes.same(klass, alone.agent.id, name) for name in names)


def test_what_is_kept_is_bounded_and_the_word_of_a_cheat_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; a question of which too few owners are left is no question any more."""
    monkeypatch.setattr(known_answers, "MAX_QUESTIONS", 5)
    pool, _ = lonely(30)
    known = pool.script.core.checking.known
    assert len(known) == 5 < MAX_QUESTIONS
    for name in HONEST:
        known.distrust(pool.script.core.checking._parties.party(pool.members[name].agent.id))
    assert len(known) == 0


def test_nothing_changes_for_the_results_that_questions_were_made_of() -> None:
    """A client's result stays as it was given out, whatever others answer to the same inputs later."""
    pool, alone = lonely()
    alone.behave = lie
    pool.ask(100)
    before = [record for record in pool.records if isinstance(record, Verified)]
    pass_a_minute(pool)
    assert [record for record in pool.records if isinstance(record, Verified)] == before
