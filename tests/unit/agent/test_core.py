"""The agent's rules as scripts of events: jobs, the worker, answers, presence, stop."""

from __future__ import annotations

import hashlib
import logging

import pytest
from fakes import (
    TOPICS,
    AgentScript,
    FakeCoordinator,
    actions,
    answer_to,
    chosen_variant,
    codes,
    job_id,
    key,
    of_type,
    scan,
)

from edge_agent.agent.core import Rules
from edge_agent.agent.events import (
    Command,
    CountAccepted,
    Exit,
    LinkDown,
    LinkUp,
    MessageReceived,
    PlanRequested,
    Publish,
    RunModel,
    StartWorker,
    StopRequested,
    StopWorker,
)
from edge_agent.agent.own_copy import Entry
from edge_agent.agent.pipeline import LEAST_RUNS
from edge_agent.agent.repeating import PRESENT_AGAIN_SECONDS, WHOLE_EVERY
from edge_agent.agent.unsettled import REDELIVER_FIRST_SECONDS, REDELIVER_MAX_SECONDS
from edge_agent.inference.events import LoadFailed, ModelLoaded, RunDone, RunFailed, WorkerDied
from edge_agent.notes import Note
from edge_agent.wire.envelope import attach, signed_part
from edge_agent.wire.messages import Birth, Failure, Offers, Progress, Result, TensorDigest


@pytest.fixture
def agent() -> AgentScript:
    """Return an agent that is connected and serves the first variant."""
    script = AgentScript()
    script.ready()
    return script


def _runs(commands: list[Command]) -> list[RunModel]:
    return of_type(commands, RunModel)


def _failures(agent: AgentScript, commands: list[Command]) -> list[tuple[bytes, int, str]]:
    said = [opened.statement for opened in agent.said(commands, Failure)]
    return [(failure.job, failure.epoch, failure.code) for failure in said]


def _died(agent: AgentScript, code: str = "worker-died") -> list[Command]:
    return agent.tell(WorkerDied(4000, code, "It was killed (signal 9).", ()))  # type: ignore[arg-type] # a literal


# -- one attempt --------------------------------------------------------------------------------------------------


def test_a_job_runs_and_is_answered_with_a_signed_result(agent: AgentScript) -> None:
    """The result commits to the inputs that ran, with the job's salt, and to the outputs that travel beside it."""
    (run,) = _runs(agent.tell(agent.coordinator.job(3)))
    assert (run.variant, run.inputs, run.outputs) == (chosen_variant(), (scan(3),), ())
    salt = hashlib.sha256(b"salt 3").digest()
    agent.clock.advance(0.25)
    (opened,) = agent.said(agent.run_done(run), Result)
    result = opened.statement
    assert (result.job, result.epoch, result.agent_id) == (job_id(3), 1, agent.id)
    assert (result.variant, result.klass.variant) == (chosen_variant(), chosen_variant())
    assert result.finished_ms - result.received_ms == 250
    assert result.inputs == tuple(TensorDigest.of(tensor, salt) for tensor in run.inputs)
    assert attach(result.outputs, opened.attachments) == list(answer_to(scan(3)))


def test_an_accepted_result_is_counted_by_what_was_signed_of_it(agent: AgentScript) -> None:
    """The entry of the owner's own account is that of the signed part, which is found without reading it again."""
    (run,) = _runs(agent.tell(agent.coordinator.job(3)))
    (said,) = [c for c in agent.run_done(run) if isinstance(c, Publish)]
    counted = [c for c in agent.tell(agent.coordinator.settled(3)) if isinstance(c, CountAccepted)]
    entry = Entry.of(job_id(3), 1, signed_part(said.payload, Result.max_statement_bytes))
    assert [one.entry for one in counted] == [entry]
    assert len(signed_part(said.payload, Result.max_statement_bytes)) < len(said.payload)


def test_the_worker_is_given_two_runs_at_once_and_no_more(agent: AgentScript) -> None:
    """One computes, the next is there already; the others wait here."""
    runs = [run for number in range(5) for run in _runs(agent.tell(agent.coordinator.job(number)))]
    assert len(runs) == LEAST_RUNS
    assert len(_runs(agent.run_done(runs[0]))) == 1


def test_jobs_wait_for_a_worker_that_is_not_ready() -> None:
    """What is offered is taken on, also while the worker starts anew."""
    agent = AgentScript()
    agent.ready()
    _died(agent)
    assert _runs(agent.tell(agent.coordinator.job(1))) == []
    assert len(_runs(agent.worker_up(pid=4001))) == 1


@pytest.mark.parametrize("session", [1, 3])
def test_a_job_for_another_session_of_ours_is_refused_silently(agent: AgentScript, session: int) -> None:
    """It was sent before we reconnected, and is leased again by now."""
    agent.tell(LinkUp(2))
    commands = agent.tell(agent.coordinator.job(1, session=session))
    assert codes(commands) == ["stale-session"]
    assert of_type(commands, Publish) == []
    assert len(agent.core.attempts) == 0


def test_a_job_that_comes_while_we_are_cut_off_is_refused(agent: AgentScript) -> None:
    """There is no session to run it in."""
    agent.tell(LinkDown("the cable"))
    assert codes(agent.tell(agent.coordinator.job(1))) == ["stale-session"]


def test_a_job_for_another_agent_is_not_ours(agent: AgentScript) -> None:
    """On its own topic it is passed over, on ours it is refused."""
    other = FakeCoordinator(key("other").public, agent.clock)
    assert actions(agent.tell(other.job(1))) == ["not-for-us"]
    on_our_topic = MessageReceived(TOPICS.jobs(agent.id), other.job(1).payload)
    assert codes(agent.tell(on_our_topic)) == ["wrong-agent"]
    assert len(agent.core.attempts) == 0


def test_a_job_whose_inputs_were_changed_on_the_way_is_handed_back(agent: AgentScript) -> None:
    """What runs is what the coordinator signed, or nothing."""
    commands = agent.tell(agent.coordinator.job(1, data=scan(2).data))
    assert codes(commands) == ["digest-mismatch"]
    assert _failures(agent, commands) == [(job_id(1), 1, "digest-mismatch")]
    assert _runs(commands) == []
    assert len(agent.core.attempts) == 0


def test_a_job_for_a_variant_that_is_not_offered_is_handed_back(agent: AgentScript) -> None:
    """Nobody makes us load another model."""
    commands = agent.tell(agent.coordinator.job(1, variant=bytes(32)))
    assert _failures(agent, commands) == [(job_id(1), 1, "wrong-model")]
    assert _runs(commands) == []


def test_a_job_that_comes_twice_runs_once(agent: AgentScript) -> None:
    """QoS 1 delivers at least once; while it runs nothing is said, afterwards the answer is given again."""
    job = agent.coordinator.job(1)
    (run,) = _runs(agent.tell(job))
    assert agent.tell(job) == []
    done = of_type(agent.run_done(run), Publish)
    again = agent.tell(job)
    assert _runs(again) == []
    assert of_type(again, Publish) == done


def test_a_newer_epoch_replaces_the_older_one(agent: AgentScript) -> None:
    """The answer to the older one would be refused, so it is not given."""
    (first,) = _runs(agent.tell(agent.coordinator.job(1)))
    (second,) = _runs(agent.tell(agent.coordinator.job(1, epoch=2)))
    assert agent.core.attempts.keys() == [(job_id(1), 2)]
    assert of_type(agent.run_done(first), Publish) == []
    (opened,) = agent.said(agent.run_done(second), Result)
    assert opened.statement.epoch == 2


def test_an_older_epoch_that_comes_late_is_fenced(agent: AgentScript) -> None:
    """It neither runs nor takes the newer one's place."""
    agent.tell(agent.coordinator.job(1, epoch=2))
    commands = agent.tell(agent.coordinator.job(1, epoch=1))
    assert codes(commands) == ["stale-epoch"]
    assert of_type(commands, Publish) == []
    assert agent.core.attempts.keys() == [(job_id(1), 2)]


def test_more_than_was_offered_is_handed_back() -> None:
    """The queue has an end, and whoever sends too much is told."""
    agent = AgentScript(rules=Rules(max_in_flight=3))
    agent.ready()
    commands = [command for number in range(4) for command in agent.tell(agent.coordinator.job(number))]
    assert _failures(agent, commands) == [(job_id(3), 1, "queue-full")]


def test_what_the_coordinator_has_taken_back_does_not_count_as_held() -> None:
    """A lease that ran out over there is leased again, maybe to us: there is room, for it replaces the old one."""
    agent = AgentScript(rules=Rules(max_in_flight=2))
    agent.ready()
    agent.tell(agent.coordinator.job(1), agent.coordinator.job(2))
    assert _failures(agent, agent.tell(agent.coordinator.job(2, epoch=2))) == []
    agent.tell(agent.coordinator.control("cancel", 1, 1))
    assert _failures(agent, agent.tell(agent.coordinator.job(3))) == []
    assert agent.core.attempts.keys() == [(job_id(2), 2), (job_id(3), 1)]


def test_a_cancelled_attempt_is_dropped_and_its_run_ignored(agent: AgentScript) -> None:
    """Waiting ones never run; running ones are not answered."""
    runs = [run for number in range(3) for run in _runs(agent.tell(agent.coordinator.job(number)))]
    for number in (0, 2):
        agent.tell(agent.coordinator.control("cancel", number, 1))
    assert of_type(agent.run_done(runs[0]), Publish) == []
    assert len(agent.said(agent.run_done(runs[1]), Result)) == 1
    assert agent.core.attempts.active() == 0
    assert agent.tell(agent.coordinator.control("cancel", 9, 1)) == []


# -- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blame", "retry"), [("requester", False), ("model", False), ("agent", True)])
def test_a_run_that_fails_is_reported_with_its_cause(agent: AgentScript, blame: str, *, retry: bool) -> None:
    """Only what may go better elsewhere is worth another attempt; the text is fit for a log."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    text = "Non-zero status:\n\x1b[31mMatMul\u202e" + 600 * "x"
    commands = agent.tell(RunFailed(run.token, "model-run", text, blame))  # type: ignore[arg-type] # a literal
    (opened,) = agent.said(commands, Failure)
    failure = opened.statement
    assert (failure.code, failure.blame, failure.retry) == ("model-run", blame, retry)
    assert failure.message.isprintable()
    assert len(failure.message) == 500


def test_when_the_worker_dies_the_run_it_computed_is_reported_and_the_next_one_runs_again(agent: AgentScript) -> None:
    """Only the first can be to blame; those behind it never began, and keep their order."""
    for number in range(4):
        agent.tell(agent.coordinator.job(number))
    commands = _died(agent)
    (opened,) = agent.said(commands, Failure)
    failure = opened.statement
    assert (failure.job, failure.code, failure.blame, failure.retry) == (job_id(0), "worker-died", "agent", True)
    assert "signal 9" in failure.message
    assert len(of_type(commands, StartWorker)) == 1
    again = _runs(agent.worker_up(pid=4001))
    assert [run.inputs for run in again] == [(scan(1),), (scan(2),)]
    assert len(agent.said(agent.run_done(again[0]), Result)) == 1


def test_when_the_worker_dies_over_a_cancelled_run_nobody_is_blamed(agent: AgentScript) -> None:
    """The run behind it has not begun, and runs in the next worker."""
    for number in range(2):
        agent.tell(agent.coordinator.job(number))
    agent.tell(agent.coordinator.control("cancel", 0, 1))
    assert agent.said(_died(agent), Failure) == []
    assert [run.inputs for run in _runs(agent.worker_up(pid=4001))] == [(scan(1),)]


def test_a_family_that_is_withdrawn_is_no_longer_offered(agent: AgentScript) -> None:
    """The coordinator hears of it at once, and what was in flight is handed back."""
    agent.tell(agent.coordinator.job(1))
    _died(agent)
    commands = agent.tell(LoadFailed(chosen_variant(), "digest-mismatch", "It was changed."))
    (offers,) = agent.said(commands, Offers)
    assert [offer.variant for offer in offers.statement.offers] != [chosen_variant()]
    while plan_variants := [offer.variant for offer in agent.planner.offers()]:
        commands = agent.tell(LoadFailed(plan_variants[0], "digest-mismatch", "It was changed."))
        commands += agent.play_worker(commands)
    assert agent.said(commands, Offers)[-1].statement.offers == ()


def test_what_waits_for_a_variant_that_is_withdrawn_is_handed_back(agent: AgentScript) -> None:
    """At once, also when nothing is left to offer: otherwise it would wait, renewed, until its own deadline."""
    agent.tell(*(agent.coordinator.job(number) for number in range(1, 7)))
    commands = []
    while plan_variants := [offer.variant for offer in agent.planner.offers()]:
        commands += agent.tell(LoadFailed(plan_variants[0], "digest-mismatch", "It was changed."))
        commands += agent.play_worker(commands)
    handed = [failure for failure in _failures(agent, commands) if failure[2] == "handed-back"]
    assert handed[-1][0] == job_id(6)
    assert agent.core.attempts.waiting() == []
    assert of_type(commands, RunModel) == []


def test_a_result_of_a_variant_that_was_withdrawn_meanwhile_is_a_failure(agent: AgentScript) -> None:
    """We do not sign for a model that we do not serve."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    agent.tell(LoadFailed(chosen_variant(), "model-load", "No."))
    assert _failures(agent, agent.run_done(run)) == [(job_id(1), 1, "wrong-model")]


def test_a_run_that_takes_longer_than_its_lease_ends_the_worker(agent: AgentScript) -> None:
    """It is reported as hung, and those behind it run in the next worker."""
    agent.tell(agent.coordinator.job(1, lease_ms=9000), agent.coordinator.job(2, lease_ms=9000))
    commands = agent.tick_until(8.9)
    assert of_type(commands, StopWorker) == []
    commands = agent.tick_until(0.2)
    assert [stop.hung for stop in of_type(commands, StopWorker)] == [True]
    assert "run-timeout" in actions(commands)
    assert _failures(agent, _died(agent, "worker-hung")) == [(job_id(1), 1, "worker-hung")]
    assert [run.inputs for run in _runs(agent.worker_up(pid=4001))] == [(scan(2),)]


def test_a_run_is_not_called_hung_for_the_time_that_it_waited(agent: AgentScript) -> None:
    """Its time begins when the one before it is over."""
    (first,) = _runs(agent.tell(agent.coordinator.job(1, lease_ms=9000)))
    agent.tell(agent.coordinator.job(2, lease_ms=9000))
    agent.tick_until(8.0)
    agent.run_done(first)
    assert of_type(agent.tick_until(8.9), StopWorker) == []
    assert len(of_type(agent.tick_until(0.2), StopWorker)) == 1


# -- leases and delivery ------------------------------------------------------------------------------------------


def test_leases_are_renewed_for_what_waits_and_for_what_runs(agent: AgentScript) -> None:
    """A long queue or a long run is no reason to lose an attempt; finished ones need no renewal."""
    runs = [run for number in range(4) for run in _runs(agent.tell(agent.coordinator.job(number)))]
    agent.run_done(runs[0])
    said = agent.said(agent.tick_until(10.1), Progress)
    assert [[held.job for held in opened.statement.held] for opened in said] == [[job_id(1), job_id(2), job_id(3)]]
    assert len(agent.said(agent.tick_until(10.1), Progress)) == 1


def test_an_answer_is_sent_again_later_and_later_until_it_is_settled(agent: AgentScript) -> None:
    """Lost messages cost time, not work; and nobody is flooded."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    (first,) = of_type(agent.run_done(run), Publish)
    start = agent.clock.monotonic
    moments = [agent.clock.monotonic - start for _ in range(3000) if first in agent.tick_until(0.1)]
    pauses = [later - earlier for earlier, later in zip([0.0, *moments], moments, strict=False)]
    assert pauses[:5] == pytest.approx(
        [REDELIVER_FIRST_SECONDS * 2**n for n in range(4)] + [REDELIVER_MAX_SECONDS], abs=0.2
    )
    assert max(pauses) == pytest.approx(REDELIVER_MAX_SECONDS, abs=0.2)
    agent.tell(agent.coordinator.settled(1))
    assert first not in agent.tick_until(300.0)
    assert len(agent.core.attempts) == 0


def test_every_attempt_can_be_followed_in_the_log(agent: AgentScript) -> None:
    """Taken, finished, settled: a line each, for the most talkative log alone, with job and epoch."""
    commands = agent.tell(agent.coordinator.job(1, epoch=3))
    (run,) = _runs(commands)
    commands += agent.run_done(run)
    commands += agent.tell(agent.coordinator.settled(1, epoch=3))
    notes = [c for c in commands if isinstance(c, Note) and c.action.startswith("attempt-")]
    assert [note.action for note in notes] == ["attempt-taken", "attempt-finished", "attempt-accepted"]
    assert {note.level for note in notes} == {logging.DEBUG}
    assert {note.fields for note in notes} == {(("job_id", job_id(1).hex()), ("epoch", 3))}


@pytest.mark.parametrize("outcome", ["accepted", "refused", "unknown"])
def test_whatever_the_coordinator_says_of_an_answer_settles_it(agent: AgentScript, outcome: str) -> None:
    """A refusal is told to the owner, once."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    agent.run_done(run)
    settled = agent.coordinator.settled(1, outcome=outcome, code=None if outcome == "accepted" else "wrong-output")
    told = ["answer-refused"] if outcome == "refused" else []
    assert actions(agent.tell(settled)) == [*told, f"attempt-{outcome}"]
    assert len(agent.core.attempts) == 0
    assert agent.tell(settled) == []


def test_a_settlement_of_another_epoch_settles_nothing(agent: AgentScript) -> None:
    """Job and epoch name the answer."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1, epoch=2)))
    agent.run_done(run)
    agent.tell(agent.coordinator.settled(1, epoch=1))
    assert agent.core.attempts.keys() == [(job_id(1), 2)]


# -- presence -----------------------------------------------------------------------------------------------------


def test_a_connection_is_announced_with_what_is_held_and_what_is_offered(agent: AgentScript) -> None:
    """Then every unsettled answer is sent again, whatever became of it before."""
    runs = [run for number in range(3) for run in _runs(agent.tell(agent.coordinator.job(number)))]
    (answer,) = of_type(agent.run_done(runs[0]), Publish)
    agent.tell(LinkDown("the cable"))
    commands = agent.tell(LinkUp(2))
    (birth,) = agent.said(commands, Birth)
    assert (birth.statement.session, birth.statement.coordinator_session) == (2, 100)
    assert [held.job for held in birth.statement.held] == [job_id(number) for number in range(3)]
    assert [len(opened.statement.offers) for opened in agent.said(commands, Offers)] == [1]
    assert of_type(commands, Publish)[-1] == answer


def test_each_newer_hello_is_answered_once(agent: AgentScript) -> None:
    """A repeated or older one is the broker's memory."""
    assert agent.tell(agent.coordinator.hello(100)) == []
    assert agent.tell(agent.coordinator.hello(99)) == []
    (birth,) = agent.said(agent.tell(agent.coordinator.hello(101)), Birth)
    assert birth.statement.coordinator_session == 101


def test_a_rebirth_is_a_whole_announcement(agent: AgentScript) -> None:
    """Birth and offers, under a newer sequence than before."""
    first = agent.tell(agent.coordinator.control("rebirth"))
    second = agent.tell(agent.coordinator.control("rebirth"))
    sequences = [agent.said(commands, Offers)[0].statement.sequence for commands in (first, second)]
    assert sequences == sorted(set(sequences))
    assert len(agent.said(second, Birth)) == 1


def test_presence_is_said_again_from_time_to_time(agent: AgentScript) -> None:
    """A birth or offers that got lost keep nobody idle for ever; answers have timers of their own."""
    commands = agent.tick_until(PRESENT_AGAIN_SECONDS + 1)
    assert len(agent.said(commands, Birth)) == len(agent.said(commands, Offers)) == 1
    more = agent.tick_until(PRESENT_AGAIN_SECONDS * 2 * WHOLE_EVERY)
    assert len(agent.said(more, Offers)) == 2 * WHOLE_EVERY
    assert len(agent.said(more, Birth)) == 2
    agent.tell(LinkDown("the cable"))
    assert agent.core.next_deadline() is None


@pytest.mark.parametrize("command", ["not-enrolled", "no-room"])
def test_who_is_not_let_in_says_its_birth_every_time(agent: AgentScript, command: str) -> None:
    """Only a birth makes a coordinator let an agent in; once it did, offers are enough again."""
    agent.tell(agent.coordinator.control(command))
    commands = agent.tick_until(PRESENT_AGAIN_SECONDS * 4 + 1)
    assert len(agent.said(commands, Birth)) == 4
    agent.tell(agent.coordinator.control("rebirth"))
    more = agent.tick_until(PRESENT_AGAIN_SECONDS * 8 + 1)
    assert len(agent.said(more, Birth)) < len(agent.said(more, Offers))


def test_without_a_coordinator_the_birth_is_said_every_time() -> None:
    """Nobody would ask for one that got lost."""
    agent = AgentScript()
    agent.tell(LinkUp(1), PlanRequested())
    commands = agent.tick_until(PRESENT_AGAIN_SECONDS * 4 + 1)
    assert len(agent.said(commands, Birth)) == 4


def test_nothing_is_offered_before_the_choice_and_everything_right_after_it() -> None:
    """A connection that is up early does not have to wait for the next one."""
    agent = AgentScript()
    early = agent.tell(LinkUp(1), agent.coordinator.hello(), PlanRequested())
    assert agent.said(early, Offers) == []
    assert agent.said(agent.play_worker(early), Offers)[-1].statement.offers == ()
    said = [offers.statement.offers for offers in agent.said(agent.worker_up(), Offers)]
    assert [[(offer.variant, offer.loaded) for offer in offers] for offers in said] == [
        [(chosen_variant(), False)],
        [(chosen_variant(), True)],
    ]


def test_an_agent_for_which_there_is_no_room_tells_its_owner(agent: AgentScript) -> None:
    """It is nothing that the owner can change, and it may pass."""
    (note,) = agent.tell(agent.coordinator.control("no-room"))
    assert (note.action, note.level) == ("no-room", logging.WARNING)  # type: ignore[union-attr] # a note


def test_an_agent_that_is_not_enrolled_tells_its_owner_what_to_do(agent: AgentScript) -> None:
    """With the very command."""
    (note,) = agent.tell(agent.coordinator.control("not-enrolled"))
    assert f"approve {agent.id}" in note.sentence  # type: ignore[union-attr] # a note


# -- sleep --------------------------------------------------------------------------------------------------------


def test_a_worker_without_work_is_put_to_sleep_and_woken_by_the_next_job() -> None:
    """The memory is the owner's; the offer stands."""
    agent = AgentScript(rules=Rules(worker_idle_seconds=20.0))
    agent.ready()
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    assert of_type(agent.tick_until(25.0), StopWorker) == []
    agent.run_done(run)
    agent.tell(agent.coordinator.settled(1))
    assert of_type(agent.tick_until(19.0), StopWorker) == []
    assert [stop.hung for stop in of_type(agent.tick_until(2.0), StopWorker)] == [False]
    woken = agent.tell(agent.coordinator.job(2, session=1))
    assert len(of_type(woken, StartWorker)) == 1
    assert [run.inputs for run in _runs(agent.worker_up(pid=4001))] == [(scan(2),)]


def test_a_worker_never_sleeps_unless_the_owner_wants_it(agent: AgentScript) -> None:
    """Zero seconds means never."""
    assert of_type(agent.tick_until(100_000.0), StopWorker) == []


def test_a_worker_does_not_sleep_over_a_run_that_was_cancelled() -> None:
    """It is still computing, and its end would be taken for a death."""
    agent = AgentScript(rules=Rules(worker_idle_seconds=5.0))
    agent.ready()
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    agent.tell(agent.coordinator.control("cancel", 1, 1))
    assert of_type(agent.tick_until(10.0), StopWorker) == []
    agent.run_done(run)
    assert len(of_type(agent.tick_until(5.1), StopWorker)) == 1


# -- stop ---------------------------------------------------------------------------------------------------------


def test_a_clean_stop_finishes_what_runs_hands_back_what_waits_and_says_goodbye(agent: AgentScript) -> None:
    """Nothing is taken on meanwhile; the end comes with the last settlement."""
    runs = [run for number in range(4) for run in _runs(agent.tell(agent.coordinator.job(number)))]
    commands = agent.tell(StopRequested(10.0))
    assert agent.said(commands, Offers)[0].statement.offers == ()
    assert _failures(agent, commands) == [(job_id(2), 1, "handed-back"), (job_id(3), 1, "handed-back")]
    refused = agent.tell(agent.coordinator.job(9))
    assert _failures(agent, refused) == [(job_id(9), 1, "handed-back")]
    commands = [command for run in runs for command in agent.run_done(run)]
    assert len(agent.said(commands, Result)) == 2
    for number in range(3):
        assert of_type(agent.tell(agent.coordinator.settled(number)), Exit) == []
    last = agent.tell(agent.coordinator.settled(3))
    (birth,) = agent.said(last, Birth)
    assert (birth.statement.state, birth.statement.held) == ("stopped", ())
    assert [exit_.status for exit_ in of_type(last, Exit)] == [0]
    assert len(of_type(last, StopWorker)) == 1


def test_a_clean_stop_does_not_wait_longer_than_it_may(agent: AgentScript) -> None:
    """What is not over by then is handed back by not being listed."""
    agent.tell(agent.coordinator.job(1))
    agent.tell(StopRequested(10.0))
    assert of_type(agent.tick_until(9.9), Exit) == []
    commands = agent.tick_until(0.2)
    assert len(of_type(commands, Exit)) == 1
    assert agent.said(commands, Birth)[0].statement.state == "stopped"


def test_without_work_a_stop_is_immediate(agent: AgentScript) -> None:
    """There is nothing to wait for, with a broker and without, while models are measured and before the first word."""
    early, offline = AgentScript(), AgentScript()
    offline.ready()
    offline.tell(LinkDown("the cable"))
    measuring = AgentScript()
    measuring.tell(LinkUp(1), PlanRequested())
    for script in (agent, early, offline, measuring):
        commands = script.tell(StopRequested(10.0))
        assert [exit_.status for exit_ in of_type(commands, Exit)] == [0]


def test_a_stop_without_a_broker_waits_for_it_as_long_as_work_is_held(agent: AgentScript) -> None:
    """The broker may be back in time to take the answers; if not, the stop is as clean as it can be."""
    for number in (1, 2):
        agent.tell(agent.coordinator.job(number))
    (run,) = _runs(agent.tell(agent.coordinator.job(3)))[:1] or [None]
    assert run is None
    agent.tell(LinkDown("the cable"))
    assert of_type(agent.tell(StopRequested(10.0)), Exit) == []
    agent.tick_until(5.0)
    back = agent.tell(LinkUp(2))
    assert _failures(agent, back) == [(job_id(3), 1, "handed-back")]
    last = agent.tick_until(5.1)
    (birth,) = agent.said(last, Birth)
    assert (birth.statement.state, birth.statement.session) == ("stopped", 2)
    assert [exit_.status for exit_ in of_type(last, Exit)] == [0]


def test_a_broker_that_stays_away_ends_the_wait(agent: AgentScript) -> None:
    """The time is over all the same."""
    agent.tell(agent.coordinator.job(1), LinkDown("the cable"))
    agent.tell(StopRequested(10.0))
    assert of_type(agent.tick_until(9.9), Exit) == []
    assert [exit_.status for exit_ in of_type(agent.tick_until(0.2), Exit)] == [0]


def test_a_second_signal_neither_hurries_nor_delays_the_stop(agent: AgentScript) -> None:
    """Ctrl-C reaches the agent from the terminal and from its supervisor."""
    (run,) = _runs(agent.tell(agent.coordinator.job(1)))
    agent.tell(StopRequested(10.0))
    agent.tick_until(6.0)
    assert agent.tell(StopRequested(10.0)) == []
    commands = agent.run_done(run)
    assert len(agent.said(commands, Result)) == 1
    assert of_type(commands, Exit) == []
    assert of_type(agent.tick_until(3.9), Exit) == []
    assert len(of_type(agent.tick_until(0.2), Exit)) == 1


# -- nonsense -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\xd2\x84", b"{}" * 100])
@pytest.mark.parametrize("channel", ["jobs", "settled", "control", "coordinator"])
def test_bytes_that_mean_nothing_are_noted_and_nothing_else(agent: AgentScript, channel: str, payload: bytes) -> None:
    """On every topic that we read."""
    topic = TOPICS.coordinator if channel == "coordinator" else f"ea1/home/{agent.id}/{channel}"
    assert codes(agent.tell(MessageReceived(topic, payload))) == ["malformed"]


def test_what_the_worker_says_of_runs_that_nobody_knows_is_ignored(agent: AgentScript) -> None:
    """Also after a restart of ours."""
    assert agent.tell(RunDone(99, (), 1)) == []
    assert agent.tell(RunFailed(99, "model-run", "No.", "model")) == []
    assert agent.tell(ModelLoaded(bytes(32), 1.0, (), (), 1)) == []
