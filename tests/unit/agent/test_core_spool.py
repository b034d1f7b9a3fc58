"""The agent's rules on expensive results, bounds and limits, as scripts of events."""

from __future__ import annotations

import pytest
from fakes import AgentScript, FakeCoordinator, actions, answer_to, chosen_variant, codes, job_id, key, of_type, scan

from edge_agent.agent.core import Rules
from edge_agent.agent.events import (
    Command,
    CountAccepted,
    Exit,
    ForgetSpooled,
    JobTurnedAway,
    LinkDown,
    LinkUp,
    PlanRequested,
    Publish,
    RunModel,
    Spooled,
    SpoolFailed,
    SpoolLoaded,
    SpoolResult,
    StopRequested,
)
from edge_agent.inference.events import RunDone
from edge_agent.models.catalogue import builtin
from edge_agent.models.worth import amount_of
from edge_agent.wire.envelope import signed_part
from edge_agent.wire.messages import Birth, Failure, Job, Result

LONG_US = 2_000_000
INPUT_BYTES = len(scan(1).data)


def ready(**rules: float) -> AgentScript:
    """Return an agent that serves, under these rules."""
    script = AgentScript(rules=Rules(**rules))  # type: ignore[arg-type] # numbers of either kind
    script.ready()
    return script


def compute(agent: AgentScript, number: int, run_us: int = LONG_US, epoch: int = 1) -> list[Command]:
    """Let a job come and be computed."""
    (run,) = of_type(agent.tell(agent.coordinator.job(number, epoch=epoch)), RunModel)
    return agent.tell(RunDone(run.token, answer_to(run.inputs[0]), run_us))


def kept(commands: list[Command]) -> tuple[Spooled, ...]:
    """Return what the disk would give back."""
    return tuple(Spooled(c.job, c.epoch, c.payload, 0.0) for c in of_type(commands, SpoolResult))


def failures(agent: AgentScript, commands: list[Command]) -> list[tuple[bytes, str, int]]:
    """Return job, code and wait of every failure that is said."""
    said = [opened.statement for opened in agent.said(commands, Failure)]
    return [(failure.job, failure.code, failure.retry_after_ms) for failure in said]


# -- the spool ------------------------------------------------------------------------------------------------------


def test_only_expensive_results_are_spooled_and_leave_the_disk_when_settled() -> None:
    """A cheap one is computed again sooner than written."""
    agent = ready(spool_seconds=1.0)
    assert of_type(compute(agent, 1, run_us=999_999), SpoolResult) == []
    commands = compute(agent, 2, run_us=1_000_000)
    (published,) = of_type(commands, Publish)
    assert of_type(commands, SpoolResult) == [SpoolResult(job_id(2), 1, published.payload)]
    assert of_type(agent.tell(agent.coordinator.settled(1)), ForgetSpooled) == []
    assert of_type(agent.tell(agent.coordinator.settled(2)), ForgetSpooled) == [ForgetSpooled(((job_id(2), 1),))]


@pytest.mark.parametrize("end", ["cancel", "newer epoch"])
def test_what_is_fenced_leaves_the_disk(end: str) -> None:
    """Its answer would be refused."""
    agent = ready()
    compute(agent, 1)
    event = agent.coordinator.control("cancel", 1, 1) if end == "cancel" else agent.coordinator.job(1, epoch=2)
    assert of_type(agent.tell(event), ForgetSpooled) == [ForgetSpooled(((job_id(1), 1),))]


def test_a_restarted_agent_says_in_its_first_birth_what_the_disk_gave_back_and_delivers_it() -> None:
    """The coordinator need not lease it again; the answer is byte for byte the same."""
    answers = kept(compute(ready(), 1))
    agent = AgentScript()
    assert actions(agent.tell(SpoolLoaded(answers))) == ["spool-loaded"]
    commands = agent.tell(LinkUp(2))
    (birth,) = agent.said(commands, Birth)
    assert [(held.job, held.epoch) for held in birth.statement.held] == [(job_id(1), 1)]
    assert of_type(commands, Publish)[-1].payload == answers[0].payload
    assert of_type(agent.tell(agent.coordinator.settled(1)), ForgetSpooled) == [ForgetSpooled(((job_id(1), 1),))]
    assert len(agent.core.attempts) == 0


def test_what_is_accepted_counts_what_the_coordinators_ledger_pays_for_it_also_after_a_restart() -> None:
    """Both go by the catalogue; a failure, or a result that is refused, counts nothing."""
    variant = next(each for each in builtin().families[0].variants if each.digest_bytes == chosen_variant())
    first = ready()
    answers = kept(compute(first, 1))
    restarted = AgentScript()
    restarted.tell(SpoolLoaded(answers), LinkUp(2))
    for agent in (first, restarted):
        (counted,) = of_type(agent.tell(agent.coordinator.settled(1)), CountAccepted)
        assert (counted.family, counted.amount) == ("digits", amount_of(variant))
        assert of_type(agent.tell(agent.coordinator.settled(1)), CountAccepted) == []
    compute(first, 2)
    assert (
        of_type(first.tell(first.coordinator.settled(2, outcome="refused", code="wrong-output")), CountAccepted) == []
    )


def test_a_spool_that_is_read_late_is_announced_at_once() -> None:
    """Also when the connection was faster."""
    answers = kept(compute(ready(), 1))
    agent = AgentScript()
    agent.tell(LinkUp(2))
    commands = agent.tell(SpoolLoaded(answers))
    assert [len(opened.statement.held) for opened in agent.said(commands, Birth)] == [1]
    assert len(agent.said(commands, Result)) == 1


@pytest.mark.parametrize("fault", ["a flipped bit", "a cut", "another job", "another key", "a changed output"])
def test_what_the_disk_gives_back_is_checked_like_a_strangers_message(fault: str) -> None:
    """A result that is not as we made it is neither listed nor sent, and leaves the disk."""
    (good,) = kept(compute(ready(), 1))
    other = AgentScript(name="other")
    other.ready()
    (foreign,) = kept(compute(other, 1))
    flipped = bytearray(good.payload)
    flipped[100] ^= 1
    changed = bytearray(good.payload)
    changed[-1] ^= 1
    bad = {
        "a flipped bit": Spooled(good.job, 1, bytes(flipped), 0.0),
        "a cut": Spooled(good.job, 1, good.payload[:-5], 0.0),
        "another job": Spooled(job_id(2), 1, good.payload, 0.0),
        "another key": foreign,
        "a changed output": Spooled(good.job, 1, bytes(changed), 0.0),
    }[fault]
    agent = AgentScript()
    commands = agent.tell(SpoolLoaded((bad,)))
    assert actions(commands) == ["spool-refused"]
    assert of_type(commands, ForgetSpooled) == [ForgetSpooled(((bad.job, bad.epoch),))]
    assert agent.core.attempts.keys() == []
    assert len(agent.tell(LinkUp(2))) == len(agent.said(agent.tell(LinkUp(3)), Birth)) == 1


def test_of_two_epochs_on_disk_the_newer_one_counts() -> None:
    """The older answer would be refused."""
    first = ready()
    answers = [*kept(compute(first, 1)), *kept(compute(first, 1, epoch=2))]
    for order in (answers, answers[::-1]):
        agent = AgentScript()
        agent.tell(SpoolLoaded(tuple(order)))
        assert agent.core.attempts.keys() == [(job_id(1), 2)]


def test_smaller_bounds_than_before_keep_the_newest_on_disk() -> None:
    """The owner changed the settings between two starts."""
    first = ready()
    answers = tuple(entry for number in range(4) for entry in kept(compute(first, number)))
    agent = AgentScript(rules=Rules(spool_results=2))
    commands = agent.tell(SpoolLoaded(answers))
    assert agent.core.attempts.keys() == [(job_id(2), 1), (job_id(3), 1)]
    assert of_type(commands, ForgetSpooled) == [ForgetSpooled(((job_id(0), 1), (job_id(1), 1)))]


def test_an_answer_that_nobody_settles_is_given_up_in_the_end_with_its_age_from_before() -> None:
    """Also one that is too old when it is read."""
    (entry,) = kept(compute(ready(), 1))
    agent = AgentScript(rules=Rules(unsettled_seconds=100.0))
    old = Spooled(entry.job, entry.epoch, entry.payload, 100.0)
    assert actions(agent.tell(SpoolLoaded((old,)))) == ["spool-refused"]
    agent.tell(SpoolLoaded((Spooled(entry.job, entry.epoch, entry.payload, 60.0),)))
    assert actions(agent.tick_until(39.9)) == []
    commands = agent.tick_until(0.2)
    assert actions(commands) == ["answer-given-up"]
    assert of_type(commands, ForgetSpooled) == [ForgetSpooled(((job_id(1), 1),))]
    assert len(agent.core.attempts) == 0


def test_a_full_spool_lets_the_oldest_go_and_keeps_them_in_memory() -> None:
    """What is bounded is the disk, not the promise to deliver."""
    agent = ready(spool_results=2)
    compute(agent, 1)
    compute(agent, 2)
    commands = compute(agent, 3)
    assert of_type(commands, ForgetSpooled) == [ForgetSpooled(((job_id(1), 1),))]
    assert "spool-full" in actions(commands)
    assert len(agent.core.attempts) == 3
    assert of_type(agent.tell(agent.coordinator.settled(1)), ForgetSpooled) == []


def test_what_is_larger_than_the_spool_is_kept_in_memory_only() -> None:
    """And nothing that is there makes room in vain."""
    agent = ready(spool_bytes=10)
    commands = compute(agent, 1)
    assert (of_type(commands, SpoolResult), of_type(commands, ForgetSpooled)) == ([], [])
    assert len(agent.said(commands, Result)) == 1


def test_a_disk_that_does_not_take_a_result_is_told_and_nothing_else() -> None:
    """The result is delivered again from memory, and the next one is tried anew."""
    agent = ready()
    compute(agent, 1)
    commands = agent.tell(SpoolFailed(((job_id(1), 1),), "it is full"))
    assert actions(commands) == ["spool-failed"]
    assert len(agent.said(agent.tick_until(6.0), Result)) == 1
    assert of_type(agent.tell(agent.coordinator.settled(1)), ForgetSpooled) == []
    assert len(of_type(compute(agent, 2), SpoolResult)) == 1


def test_a_clean_stop_hands_back_all_but_what_survives_on_disk() -> None:
    """An expensive result that nobody settled yet is worth a lease of waiting."""
    agent = ready()
    compute(agent, 1)
    compute(agent, 2, run_us=10)
    agent.tell(agent.coordinator.job(3))
    assert of_type(agent.tell(StopRequested(10.0)), Exit) == []
    commands = agent.tick_until(10.1)
    (birth,) = agent.said(commands, Birth)
    assert birth.statement.state == "stopped"
    assert [held.job for held in birth.statement.held] == [job_id(1)]
    assert len(of_type(commands, Exit)) == 1
    assert of_type(commands, ForgetSpooled) == []


def test_without_a_broker_a_stop_does_not_wait_for_what_is_on_disk() -> None:
    """The next process delivers it."""
    agent = ready()
    compute(agent, 1)
    agent.tell(LinkDown("the cable"))
    assert len(of_type(agent.tell(StopRequested(10.0)), Exit)) == 1


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_a_job_above_the_limit_is_answered_and_its_tensors_are_not_even_looked_at() -> None:
    """The coordinator gives it to a larger machine, at once."""
    agent = ready(max_message_bytes=500)
    assert len(agent.coordinator.job(1).payload) > 500
    commands = agent.tell(agent.coordinator.job(1))
    assert actions(commands) == ["turned-away"]
    assert failures(agent, commands) == [(job_id(1), "too-large", 0)]
    assert len(agent.core.attempts) == 0


def test_a_job_for_which_the_inbox_has_no_room_is_answered_from_its_signed_part() -> None:
    """With the time after which it may be tried again."""
    agent = ready()
    job = agent.coordinator.job(1)
    stub = JobTurnedAway(job.topic, signed_part(job.payload, Job.max_statement_bytes))
    commands = agent.tell(stub)
    assert failures(agent, commands) == [(job_id(1), "queue-full", 1000)]
    assert len(agent.core.attempts) == 0
    agent.tell(job)
    assert agent.tell(stub) == []  # it came a second time, and the first one runs
    impostor = FakeCoordinator(agent.key.public, agent.clock, key("impostor")).job(2)
    forged = JobTurnedAway(impostor.topic, signed_part(impostor.payload, Job.max_statement_bytes))
    refused = agent.tell(forged, JobTurnedAway(job.topic, b"\xd2\x84"))
    assert codes(refused) == ["unknown-key", "malformed"]
    assert of_type(refused, Publish) == []


def test_what_is_held_is_bounded_by_bytes_with_an_answer() -> None:
    """Inputs and unsettled answers count together; when they are settled there is room again."""
    agent = ready(max_held_bytes=3 * INPUT_BYTES)
    for number in (1, 2, 3):
        assert failures(agent, agent.tell(agent.coordinator.job(number))) == []
    assert failures(agent, agent.tell(agent.coordinator.job(4))) == [(job_id(4), "queue-full", 5000)]
    agent.tell(agent.coordinator.control("cancel", 3, 1))
    assert failures(agent, agent.tell(agent.coordinator.job(5))) == []


def test_a_single_job_is_taken_on_whatever_the_bound_on_bytes() -> None:
    """A bound that is set too low must not stop all work."""
    agent = ready(max_held_bytes=10)
    assert failures(agent, agent.tell(agent.coordinator.job(1))) == []
    assert failures(agent, agent.tell(agent.coordinator.job(2))) == [(job_id(2), "queue-full", 5000)]


def test_unsettled_answers_are_bounded_by_what_a_birth_can_list() -> None:
    """When nothing is settled any more, no more is taken on."""
    agent = ready(max_in_flight=2)
    for number in range(1024):
        compute(agent, number, run_us=10)
    assert failures(agent, agent.tell(agent.coordinator.job(5000))) == [(job_id(5000), "queue-full", 5000)]
    (birth,) = agent.said(agent.tell(LinkUp(2)), Birth)
    assert len(birth.statement.held) == 1024


def test_a_result_above_the_limit_becomes_a_failure() -> None:
    """It could never be delivered, and would be sent again for ever."""
    agent = ready(max_message_bytes=1000)
    (run,) = of_type(agent.tell(agent.coordinator.job(1)), RunModel)
    image = scan(1, batch=20)
    commands = agent.tell(RunDone(run.token, answer_to(image), 10))
    assert failures(agent, commands) == [(job_id(1), "too-large", 0)]


def test_a_broker_with_a_lower_limit_is_respected_also_for_what_was_computed_before() -> None:
    """The attempt is handed back with the reason, on disk too."""
    agent = ready()
    compute(agent, 1)
    agent.tell(LinkDown("the cable"))
    commands = agent.tell(LinkUp(2, max_message_bytes=600))
    assert "answer-too-large" in actions(commands)
    assert failures(agent, commands) == [(job_id(1), "too-large", 0)]
    assert of_type(commands, ForgetSpooled) == [ForgetSpooled(((job_id(1), 1),))]
    assert agent.core.attempts.keys() == [(job_id(1), 1)]
    (run,) = of_type(agent.tell(agent.coordinator.job(2, session=2)), RunModel)
    assert failures(agent, agent.run_done(run)) == [(job_id(2), "too-large", 0)]


def test_no_rule_goes_by_the_wall_clock() -> None:
    """The same script of events with a clock that jumps by years gives the same commands at the same moments."""

    def play(jumps: list[int]) -> list[list[str]]:
        agent = AgentScript(rules=Rules(worker_idle_seconds=30.0, unsettled_seconds=300.0))
        now = agent.clock.now
        said: list[list[str]] = []
        left = iter(jumps)

        def tell(*events: object) -> list[Command]:
            commands: list[Command] = []
            for event in events:
                jump = next(left)
                moment = type(now)(agent.clock.monotonic, max(0, now.wall_ms + jump))
                commands += agent.core.handle(event, moment)  # type: ignore[arg-type] # events of the core
            said.append([f"{type(c).__name__} {getattr(c, 'topic', '')}" for c in commands])
            return commands

        agent.tell = tell  # type: ignore[method-assign] # every event passes the broken clock
        agent.play_worker(tell(SpoolLoaded(()), LinkUp(1), agent.coordinator.hello(), PlanRequested()))
        agent.worker_up()
        for number in range(3):
            (run,) = of_type(tell(agent.coordinator.job(number)), RunModel)
            tell(RunDone(run.token, answer_to(run.inputs[0]), LONG_US))
        for _ in range(40):
            agent.tick_until(10.0)
        return said

    years = 10 * 365 * 24 * 3600 * 1000
    steady, jumping = [0] * 2000, [(-1) ** n * years for n in range(2000)]
    assert play(steady) == play(jumping)
