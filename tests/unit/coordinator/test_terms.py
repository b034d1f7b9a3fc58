"""Whose jobs agents take, at the coordinator: who is leased what, what is refused at once, and whose goes first."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import FakeAgent, jobs_for, of_type, outcomes
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import VARIANT, Pool
from scenes import Setting

from edge_agent.coordinator.events import Command, SubmitRefused
from edge_agent.wire.job_options import Placement
from edge_agent.wire.messages import Job
from edge_agent.wire.terms import Terms

MINE = Terms(clients=("ada",), first=(), labels=None, denied=())
FIRST = Terms(clients=None, first=("ada",), labels=None, denied=())
NO_VIDEO = Terms(clients=None, first=(), labels=None, denied=("video",))
BATCH = Terms(clients=None, first=(), labels=("batch",), denied=())


def said(agent: FakeAgent, commands: list[Command]) -> list[Job]:
    """Return the jobs that an agent is given, as it reads them."""
    return [opened.statement for opened in jobs_for(agent, commands)]


def join(scene: Setting, name: str, terms: Terms | None, **offer: object) -> FakeAgent:
    """Let an agent come with terms."""
    agent = scene.agents[name] = FakeAgent(name, scene.clock)
    scene.script.tell(agent.birth(answers=scene.script.session))
    scene.script.tell(agent.offers(agent.offer(**offer), terms=terms))  # type: ignore[arg-type] # passed through
    return agent


def labelled(*labels: str) -> Placement:
    """Return the placement of a job that is called so."""
    return Placement(job_labels=labels)


@pytest.mark.parametrize(
    ("terms", "client", "labels", "told"),
    [
        (None, "ada", ("batch",), (1, None, ())),
        (MINE, "ada", ("batch",), (2, "ada", ())),
        (FIRST, "ada", (), (2, "ada", ())),
        (FIRST, "bob", ("video",), (2, None, ())),
        (NO_VIDEO, "ada", ("batch",), (2, None, ())),
        (BATCH, "ada", ("batch", "secret"), (2, None, ("batch",))),
    ],
)
def test_an_agent_hears_only_what_its_owner_named(
    terms: Terms | None, client: str, labels: tuple[str, ...], told: tuple[int, str | None, tuple[str, ...]]
) -> None:
    """Strangers' names and labels stay at the coordinator; without terms nothing is told at all."""
    scene = Setting()
    agent = join(scene, "one", terms)
    _, commands = scene.script.submit(client=client, placement=labelled(*labels))
    (job,) = said(agent, commands)
    assert (job.v, job.client, job.labels) == told


@pytest.mark.parametrize(
    ("terms", "client", "labels", "says"),
    [
        (MINE, "bob", (), "jobs of bob"),
        (MINE, "", (), "jobs of unnamed clients"),
        (NO_VIDEO, "bob", ("batch", "video"), "jobs labelled batch, video"),
        (BATCH, "bob", ("video",), "jobs labelled video"),
        (BATCH, "bob", (), "jobs without a label"),
        (MINE, "bob", ("batch",), "jobs of bob"),
    ],
)
def test_what_nobody_takes_is_refused_at_once_and_says_why(
    terms: Terms, client: str, labels: tuple[str, ...], says: str
) -> None:
    """As a quorum of too many owners is; nothing is queued, leased or stored, and no owner's rule is told."""
    scene = Setting()
    agent = join(scene, "one", terms)
    _, commands = scene.script.submit(client=client, placement=labelled(*labels))
    (refused,) = of_type(commands, SubmitRefused)
    assert (refused.code, refused.retry_after_seconds) == ("no-taker", None)
    assert says in refused.message
    assert "ada" not in refused.message
    assert (scene.live, said(agent, commands), len(commands)) == (0, [], 1)


def test_a_job_that_one_owner_does_not_take_goes_to_another_though_that_is_slower() -> None:
    """And the quick machine stays for whom it is."""
    scene = Setting()
    quick, slow = join(scene, "quick", MINE, latency_us=100), join(scene, "slow", None, latency_us=10_000)
    _, commands = scene.script.submit(client="bob")
    assert (said(quick, commands), len(said(slow, commands))) == ([], 1)
    _, commands = scene.script.submit(client="ada")
    assert (len(said(quick, commands)), said(slow, commands)) == (1, [])


def test_a_machine_that_is_coming_may_be_for_anybody() -> None:
    """Until it has said what it offers and for whom, a job that nobody else takes is told to try again."""
    scene = Setting()
    join(scene, "one", MINE)
    other = FakeAgent("other", scene.clock)
    scene.script.tell(other.birth(answers=scene.script.session))
    _, commands = scene.script.submit(client="bob")
    assert [refused.code for refused in of_type(commands, SubmitRefused)] == ["loading"]


def test_terms_that_change_hold_for_the_jobs_that_wait() -> None:
    """One waits for room when its owner's mind changes: it is not leased; when it changes back, it is."""
    scene = Setting()
    agent = join(scene, "one", None, room=1)
    first, _ = scene.script.submit(client="bob")
    second, commands = scene.script.submit(client="bob")
    assert said(agent, commands) == []
    scene.script.tell(agent.offers(agent.offer(room=2), terms=MINE))
    assert [attempt.agent_id for attempt in scene.job(first).attempts] == [agent.id]
    assert scene.job(second).attempts == []
    commands = scene.script.tell(agent.offers(agent.offer(room=2), terms=FIRST))
    assert [job.job for job in said(agent, commands)] == [second]


def test_a_stranger_at_the_head_of_the_queue_holds_up_nobody_whose_job_is_taken() -> None:
    """Two jobs of one shape but for whose they are: the older one waits, the younger one is leased."""
    scene = Setting()
    agent = join(scene, "one", None, room=1)
    scene.script.submit(client="bob")
    bobs, _ = scene.script.submit(client="bob")
    adas, _ = scene.script.submit(client="ada")
    commands = scene.script.tell(agent.offers(agent.offer(room=3), terms=MINE))
    assert [job.job for job in said(agent, commands)] == [adas]
    assert scene.job(bobs).attempts == []


@pytest.mark.parametrize(("which", "terms", "whose"), [(0, FIRST, "ada"), (0, None, "bob"), (1, None, "bob")])
def test_the_owners_jobs_go_first_on_his_machine_and_on_no_other(which: int, terms: Terms | None, whose: str) -> None:
    """Ada has had two, so that it is Bob's turn; on her machine, and with her rule, hers is next, and then Bob's."""
    scene = Setting()
    agents = [join(scene, "hers", terms, room=1), join(scene, "others", None, room=1)]
    for _ in range(2):
        scene.script.submit(client="ada")
    waiting = {client: scene.script.submit(client=client)[0] for client in ("bob", "ada")}
    agent, own = agents[which], terms if which == 0 else None
    commands = scene.script.tell(agent.offers(agent.offer(room=2), terms=own))
    assert [job.job for job in said(agent, commands)] == [waiting.pop(whose)]
    commands = scene.script.tell(agent.offers(agent.offer(room=3), terms=own))
    assert [job.job for job in said(agent, commands)] == [*waiting.values()]


def test_an_owners_job_that_his_machine_cannot_do_keeps_nobody_waiting() -> None:
    """It is for another class: the machine works for others meanwhile."""
    scene = Setting()
    hers = join(scene, "hers", FIRST, room=1)
    join(scene, "other", None, room=1)
    elsewhere = Placement(agents=(scene.agents["other"].id,))
    for _ in range(2):
        scene.script.submit(client="bob")
    waiting, _ = scene.script.submit(client="ada", placement=elsewhere)
    bobs, _ = scene.script.submit(client="bob")
    commands = scene.script.tell(hers.offers(hers.offer(room=2), terms=FIRST))
    assert [job.job for job in said(hers, commands)] == [bobs]
    assert scene.job(waiting).attempts == []


def test_a_quorum_counts_only_owners_who_take_the_clients_jobs() -> None:
    """Three owners, one of whom works for Ada alone: for Bob there are two, and it is said at once."""
    pool = Pool({"a": "ann", "b": "ben", "c": "cat"})
    member = pool.members["c"]
    pool.carry_out(pool.script.tell(member.agent.offers(pool.offer_of(member), terms=MINE)))
    _, commands = pool.script.submit(client="bob", mode="quorum(3)")
    (refused,) = of_type(commands, SubmitRefused)
    assert refused.code == "no-agent"
    assert "machines of 2 offer" in refused.message
    outcome = pool.ask(client="ada", mode="quorum(3)")
    assert outcome is not None
    assert outcome.error is None


def test_a_strangers_result_is_checked_by_nobody_who_does_not_work_for_him() -> None:
    """Bob's results of a newcomer are each checked, by the one machine beside it that takes his jobs."""
    pool = Pool({"a": "ann", "b": "ben", "c": "cat"}, quick=("a",))
    member = pool.members["c"]
    pool.carry_out(pool.script.tell(member.agent.offers(pool.offer_of(member), terms=MINE)))
    for number in range(6):
        pool.ask(number, client="bob")
    assert pool.members["c"].seen == []
    assert len(pool.members["b"].seen) >= 6  # as many checks as results of a newcomer
    for number in range(6, 12):
        pool.ask(number, client="ada", variant=VARIANT)
    assert {job.statement.client for job in pool.members["c"].given} <= {"ada"}


def test_what_is_named_no_more_and_who_is_forgotten_leaves_nothing_behind() -> None:
    """The clients that are told apart are those that present terms name."""
    scene = Setting()
    agent = join(scene, "one", MINE)
    registry = scene.script.registry
    assert registry.named == {"ada"}
    scene.script.tell(agent.offers(terms=FIRST.model_copy(update={"first": ("cy",)})))
    assert registry.named == {"cy"}
    scene.script.tell(agent.offers())
    assert registry.named == frozenset()
    full = Setting(max_agents=1)
    gone = join(full, "gone", MINE)
    full.script.tell(gone.gone())
    join(full, "new", None)
    assert full.script.registry.named == frozenset()


def test_a_job_that_waited_until_nobody_took_it_any_more_says_so_at_its_end() -> None:
    """Not that there was no room: there was."""
    scene = Setting()
    agent = join(scene, "one", None, room=1)
    scene.script.submit(client="bob")
    waiting, _ = scene.script.submit(client="bob", deadline=5.0)
    scene.script.tell(agent.offers(agent.offer(room=2), terms=MINE))
    found = [outcome for outcome in outcomes(scene.script.tick_until(6.0)) if outcome.job_id == waiting]
    assert [(outcome.error.code, "lets it take" in outcome.error.message) for outcome in found if outcome.error] == [
        ("deadline", True)
    ]


CLIENTS = ("ada", "bob", "cy")
WORDS = ("batch", "video")
ANY_TERMS = st.one_of(
    st.none(),
    st.builds(
        Terms,
        clients=st.lists(st.sampled_from(CLIENTS), min_size=1, max_size=2, unique=True).map(tuple) | st.none(),
        first=st.lists(st.sampled_from(CLIENTS), max_size=2, unique=True).map(tuple),
        labels=st.lists(st.sampled_from(WORDS), min_size=1, max_size=1).map(tuple) | st.none(),
        denied=st.lists(st.sampled_from(WORDS), max_size=1).map(tuple),
    ),
)
SUBMIT = st.tuples(st.just("submit"), st.sampled_from(CLIENTS), st.lists(st.sampled_from(WORDS), max_size=2))
CHANGE = st.tuples(st.just("change"), st.integers(0, 2), ANY_TERMS)
DONE = st.tuples(st.just("done"), st.integers(0, 2), st.none())


@settings(max_examples=80)
@given(st.lists(st.one_of(SUBMIT, SUBMIT, CHANGE, DONE), max_size=40))
def test_whatever_owners_change_no_machine_is_given_what_they_do_not_take_and_none_stands_still(
    steps: list[tuple[str, Any, Any]],
) -> None:
    """After each step: every lease is within the terms of its moment, and who has room waits only for his owner."""
    scene = Setting("0", "1", "2")
    agents = [scene.agents[name] for name in ("0", "1", "2")]
    terms: list[Terms | None] = [None, None, None]
    jobs: dict[bytes, tuple[str, tuple[str, ...]]] = {}
    held: list[list[Any]] = [[], [], []]
    for kind, which, more in steps:
        if kind == "submit":
            labels = tuple(sorted(set(more)))
            job_id, commands = scene.script.submit(client=which, placement=labelled(*labels))
            if not of_type(commands, SubmitRefused):
                jobs[job_id] = (which, labels)
            else:
                assert all(own is not None and own.why_not(which, labels) for own in terms)
        elif kind == "change":
            terms[which] = more
            commands = scene.script.tell(agents[which].offers(terms=more))
        elif held[which]:
            commands = scene.script.tell(agents[which].result(held[which].pop(0)))
        else:
            continue
        for number, agent in enumerate(agents):
            for opened in jobs_for(agent, commands):
                own, job = terms[number], opened.statement
                client, labels = jobs[job.job]
                assert own is None or own.why_not(client, labels) is None
                assert own is None or own.why_not(job.client, job.labels) is None
                held[number].append(opened)
        waiting = [found for job_id, found in jobs.items() if _waits(scene, job_id)]
        for number, own in enumerate(terms):
            if len(held[number]) < 2:  # it has room: nothing that it takes waits
                assert not [one for one in waiting if own is None or own.why_not(*one) is None]


def _waits(scene: Setting, job_id: bytes) -> bool:
    job = scene.script.core.leasing.jobs.get(job_id)
    return job is not None and not job.attempts
