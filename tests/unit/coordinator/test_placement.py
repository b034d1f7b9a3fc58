"""Who gets which job: placement, fairness, what was seen of agents, and what is full."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from fakes import FakeAgent, actions, codes, controls_for, jobs_for, klass, of_type, outcomes, records
from scenes import Setting

from edge_agent.coordinator.events import AgentsChanged, BrokerConnected, InsertJob, SubmitRefused
from edge_agent.coordinator.registry import Presence
from edge_agent.coordinator.rules import Rules
from edge_agent.wire.job_options import Placement
from edge_agent.wire.messages import Offers


def _refused(commands: Iterable[object]) -> list[str]:
    return [refused.code for refused in of_type(commands, SubmitRefused)]


def test_a_job_that_waits_for_one_busy_machine_is_leased_when_that_answers_though_another_has_room() -> None:
    """What was passed over in the round that leased the job before it is looked at again, and not forgotten."""
    here = Setting("other")
    one = here.join("one", room=1)
    only = Placement(agents=(one.id,))
    _, commands = here.script.submit(placement=only)
    ids = [here.script.submit(placement=only)[0] for _ in range(2)]
    for job_id in ids:
        (opened,) = jobs_for(one, commands)
        commands = here.script.tell(one.result(opened))
        (next_one,) = jobs_for(one, commands)
        assert next_one.statement.job == job_id


# -- placement ----------------------------------------------------------------------------------------------------


def test_a_job_goes_only_where_its_labels_are() -> None:
    """All of them; the quickest agent does not count."""
    here = Setting("quick")
    kitchen = here.join("slow", labels=("kitchen", "region=eu"), latency_us=900_000)
    _, commands = here.script.submit(placement=Placement(("kitchen", "region=eu")))
    assert len(jobs_for(kitchen, commands)) == 1
    assert _refused(here.script.submit(placement=Placement(("kitchen", "region=us")))[1]) == ["no-agent"]


def test_a_job_goes_only_to_the_owner_that_it_names() -> None:
    """As the operator said, not as the agent says; and a change is noticed."""
    here = Setting("a", admit_anyone=False)
    agents = [FakeAgent(name, here.clock) for name in ("a", "b")]
    admitted = frozenset(agent.id for agent in agents)
    here.script.tell(AgentsChanged(admitted, {agents[1].id: "ada"}))
    here.join("a", labels=("ada", "owner=ada"))
    ada = here.join("b", latency_us=900_000)
    _, commands = here.script.submit(placement=Placement(owner="ada"))
    assert len(jobs_for(ada, commands)) == 1
    here.script.tell(AgentsChanged(admitted, {}))
    assert _refused(here.script.submit(placement=Placement(owner="ada"))[1]) == ["no-agent"]


def test_a_job_goes_only_to_the_class_that_it_names() -> None:
    """So that a result can be computed again bit for bit; the answer says in which class it was."""
    here = Setting("quick")
    other = FakeAgent("other", here.clock)
    offer = other.offer(latency_us=900_000)
    elsewhere = klass(offer.variant).model_copy(update={"isa": "aarch64+asimddp"})
    here.script.join(other, offer.model_copy(update={"klass": elsewhere}))
    _, commands = here.script.submit(placement=Placement(klass=elsewhere.id))
    (opened,) = jobs_for(other, commands)
    (outcome,) = outcomes(here.script.tell(other.result(opened, klass=elsewhere)))
    assert outcome.klass == elsewhere.id != klass(offer.variant).id


def test_a_job_that_no_agent_may_have_waits_for_one_alone() -> None:
    """Those behind it go on; when its agent comes it goes out at once."""
    here = Setting("a", admit_anyone=True)
    labelled = here.join("b", labels=("gpu",), room=1)
    wanted = Placement(("gpu",))
    here.script.submit(placement=wanted)
    waiting, _ = here.script.submit(placement=wanted)
    _, commands = here.script.submit()
    assert len(jobs_for(here.agents["a"], commands)) == 1
    assert here.job(waiting).attempts == []
    another = here.join("c", labels=("gpu",))
    assert [attempt.agent_id for attempt in here.job(waiting).attempts] == [another.id] != [labelled.id]


# -- fairness -----------------------------------------------------------------------------------------------------


def test_a_client_with_one_job_is_served_beside_one_with_hundreds() -> None:
    """It is the next to get room."""
    here = Setting("a")
    first = [here.script.submit(client="many") for _ in range(300)]
    one, _ = here.script.submit(client="one")
    (opened, _) = [job for _, commands in first for job in jobs_for(here.agents["a"], commands)]
    commands = here.script.tell(here.agents["a"].result(opened))
    assert [job.statement.job for job in jobs_for(here.agents["a"], commands)] == [one]


def _answer_all(here: Setting, agent: FakeAgent, commands: Iterable[object]) -> list[bytes]:
    """Answer each job as it comes; return their ids in the order in which they came."""
    order = []
    waiting = jobs_for(agent, commands)
    while waiting:
        opened = waiting.pop(0)
        order.append(opened.statement.job)
        waiting += jobs_for(agent, here.script.tell(agent.result(opened)))
    return order


def test_priority_is_among_a_clients_own_jobs() -> None:
    """Nobody overtakes another client by calling everything urgent."""
    here = Setting()
    agent = here.join("a", room=1)
    _, running = here.script.submit(client="x")
    later, _ = here.script.submit(client="loud", priority=99)
    urgent = [here.script.submit(client="loud", priority=100)[0] for _ in range(3)]
    mine, _ = here.script.submit(client="me")
    order = _answer_all(here, agent, running)[1:]
    assert order.index(mine) <= 1
    assert [job_id for job_id in order if job_id != mine] == [*urgent, later]


def test_a_nearer_deadline_goes_first_among_a_clients_jobs_of_one_priority() -> None:
    """Also when it came later."""
    here = Setting()
    agent = here.join("a", room=1)
    _, running = here.script.submit()
    patient, _ = here.script.submit(deadline=100.0)
    pressed, _ = here.script.submit(deadline=10.0)
    assert _answer_all(here, agent, running)[1:] == [pressed, patient]


# -- speed --------------------------------------------------------------------------------------------------------


def test_an_agent_that_is_slower_than_it_offered_gets_less_work() -> None:
    """What was seen counts more than what was said."""
    here = Setting()
    boaster, modest = here.join("boaster", latency_us=100), here.join("modest", latency_us=200)
    for _ in range(30):
        _, commands = here.script.submit()
        for agent, seconds in ((boaster, 1.0), (modest, 0.001)):
            for opened in jobs_for(agent, commands):
                here.clock.advance(seconds)
                here.script.tell(agent.result(opened))
    _, commands = here.script.submit()
    assert len(jobs_for(modest, commands)) == 1


def test_jobs_do_not_fill_a_slow_agent_while_a_quick_one_has_a_moment_to_go() -> None:
    """They wait for it; when it turns out to be stuck, they go to the slow one after all."""
    here = Setting()
    quick, slow = here.join("quick", latency_us=1000, room=1), here.join("slow", latency_us=3_000_000)
    here.script.submit(durable=True)
    _, commands = here.script.submit(durable=True)
    assert jobs_for(slow, commands) == []
    assert jobs_for(quick, commands) == []
    commands = here.script.tick_until(10.0)
    assert len(jobs_for(slow, commands)) == 1


def test_a_model_that_is_in_memory_is_preferred_to_one_that_has_to_be_loaded() -> None:
    """Loading costs more than a slower processor."""
    here = Setting()
    here.join("cold", latency_us=100, loaded=False)
    warm = here.join("warm", latency_us=10_000)
    _, commands = here.script.submit()
    assert len(jobs_for(warm, commands)) == 1


# -- what is full ---------------------------------------------------------------------------------------------------


def test_inputs_are_bounded_in_bytes() -> None:
    """Nothing is kept of what is refused; room is given back by ends of every kind; one job always may."""
    size = 64 * 4
    here = Setting("a", rules=Rules(max_queued_bytes=2 * size))
    here.script.submit(deadline=5.0)
    here.script.submit(deadline=5.0)
    job_id, commands = here.script.submit()
    (refused,) = of_type(commands, SubmitRefused)
    assert (refused.code, refused.retry_after_seconds) == ("queue-full", 1.0)
    assert records(commands, InsertJob) == []
    assert job_id not in here.script.core.leasing.jobs
    assert here.script.core.leasing.input_bytes == 2 * size
    here.script.tick_until(5.0)
    assert here.script.core.leasing.input_bytes == 0
    assert _refused(here.script.submit()[1]) == []
    small = Setting("a", rules=Rules(max_queued_bytes=1))
    assert _refused(small.script.submit()[1]) == []


def test_a_job_that_the_broker_cannot_take_is_refused_when_it_is_submitted() -> None:
    """With both numbers; what may just fit is taken on."""
    here = Setting("a")
    here.script.tell(BrokerConnected(101, max_packet_bytes=256))
    here.script.tell(here.agents["a"].birth(answers=101), here.agents["a"].offers())
    (refused,) = of_type(here.script.submit()[1], SubmitRefused)
    assert refused.code == "too-large"
    assert "256 bytes" in refused.message
    here.script.tell(BrokerConnected(102, max_packet_bytes=512))
    assert _refused(here.script.submit()[1]) == []


def test_placements_cannot_be_made_up_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each different one costs a look at every event: a further one is refused, a known one is not."""
    monkeypatch.setattr("edge_agent.coordinator.leasing.MAX_LANES", 3)
    here = Setting()
    labels = tuple(f"label{number}" for number in range(8))
    here.join("a", room=1, labels=labels)
    here.script.submit()
    refused = [_refused(here.script.submit(placement=Placement((label,)))[1]) for label in labels]
    assert refused == [[]] * 3 + [["queue-full"]] * 5
    assert _refused(here.script.submit(placement=Placement((labels[0],)))[1]) == []


def test_who_was_passed_over_is_looked_at_again_when_anything_changes() -> None:
    """Room, offers, labels, admission, a pause that is over: none of them leaves a job waiting."""
    here = Setting("plain", admit_anyone=True)
    agent = here.join("gpu", labels=("gpu",), room=1)
    _, commands = here.script.submit(placement=Placement(("gpu",)))
    waiting, _ = here.script.submit(placement=Placement(("gpu",)))
    (opened,) = jobs_for(agent, commands)
    for _ in range(3):
        assert jobs_for(agent, here.script.tell(here.agents["plain"].offers())) == []
    after = here.script.tell(agent.result(opened))
    assert [job.statement.job for job in jobs_for(agent, after)] == [waiting]
    (second,) = jobs_for(agent, after)
    third, _ = here.script.submit(placement=Placement(("gpu",)))
    plain = here.agents["plain"]
    after = here.script.tell(plain.birth(answers=100, labels=("gpu",)))
    assert [job.statement.job for job in jobs_for(plain, after)] == [third]
    here.script.tell(agent.result(second))


def test_made_up_agents_cannot_fill_the_memory() -> None:
    """The one too many is told, and nothing of it is kept; one that is away makes room."""
    here = Setting("a", "b", max_agents=2)
    stranger = FakeAgent("stranger", here.clock)
    commands = here.script.tell(stranger.birth(answers=100))
    assert controls_for(stranger, commands) == ["no-room"]
    assert actions(commands) == ["no-room"]
    assert stranger.id not in here.script.registry.agents
    assert codes(here.script.tell(stranger.offers())) == ["not-enrolled"]
    here.script.tell(here.agents["a"].gone())
    here.script.tell(stranger.birth(answers=100))
    assert set(here.script.registry.agents) == {here.agents["b"].id, stranger.id}


def test_an_agent_that_holds_work_is_never_forgotten_for_a_stranger() -> None:
    """Though it is away: it may come back with a result."""
    here = Setting("a", max_agents=1)
    _, commands = here.script.submit()
    (opened,) = jobs_for(here.agents["a"], commands)
    here.script.tell(here.agents["a"].gone())
    stranger = FakeAgent("stranger", here.clock)
    assert controls_for(stranger, here.script.tell(stranger.birth(answers=100))) == ["no-room"]
    assert len(outcomes(here.script.tell(here.agents["a"].result(opened)))) == 1


# -- clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [3_600_000, -3_600_000])
def test_an_agent_whose_clock_is_far_off_is_known_and_gets_nothing_until_it_is_right(ahead_ms: int) -> None:
    """Its results would be refused for their times; it is online all the same."""
    here = Setting(rules=Rules(max_clock_skew_seconds=60.0))
    agent = FakeAgent("a", here.clock)
    here.script.tell(agent.birth(answers=100))

    def offers(skew_ms: int) -> object:
        agent.sequence += 1
        now_ms = here.clock.now.wall_ms + skew_ms
        statement = Offers(
            network="home",
            issued_ms=now_ms,
            agent_id=agent.id,
            session=agent.session,
            sequence=agent.sequence,
            offers=(agent.offer(),),
        )
        return agent._said("offers", statement)

    assert "clock-skew" in actions(here.script.tell(offers(ahead_ms)))  # type: ignore[arg-type] # an event
    known = here.script.registry.get(agent.id)
    assert (known.clock_skew_ms, known.presence) == (ahead_ms, Presence.ONLINE)
    assert _refused(here.script.submit()[1]) == []  # it waits: the clock may be set
    assert known.in_flight == {}
    assert actions(here.script.tell(offers(ahead_ms))) == []  # type: ignore[arg-type] # as above
    assert "clock-right" in actions(here.script.tell(offers(59_000)))  # type: ignore[arg-type] # as above
    assert len(known.in_flight) == 1


@pytest.mark.parametrize("jump_ms", [-50 * 365 * 86_400_000, 50 * 365 * 86_400_000])
def test_a_wall_clock_of_ours_that_jumps_moves_no_deadline_and_no_lease(jump_ms: int) -> None:
    """They are measured on the other one."""
    here = Setting("a")
    job_id, _ = here.script.submit(deadline=100.0, durable=True)
    here.script.tick_until(20.0)
    here.clock.wall_jump_ms = jump_ms
    assert outcomes(here.script.tick_until(9.0)) == []
    assert here.job(job_id).epoch == 1
    assert "lease-expired" in actions(here.script.tick_until(2.0))
    assert [o.error and o.error.code for o in outcomes(here.script.tick_until(69.0))] == ["deadline"]
