"""The coordinator's rules as scripts of events: submission, leases, presence, reconciliation, ends."""

from __future__ import annotations

import hashlib
from itertools import product

import pytest
from fakes import (
    COORDINATOR_KEY,
    NETWORK,
    CoordinatorScript,
    FakeAgent,
    ManualClock,
    actions,
    codes,
    controls_for,
    digits,
    jobs_for,
    of_type,
    outcomes,
    published,
    records,
    settled_for,
    two_families,
)

from edge_agent.coordinator.events import (
    AgentsChanged,
    CancelJob,
    Commit,
    EndAttempt,
    EndJob,
    InsertJob,
    JobStored,
    SaveAgent,
    SubmitRefused,
    Tick,
)
from edge_agent.coordinator.jobs import Attempt, Blame, Job, JobState
from edge_agent.coordinator.presence import BIRTH_AGAIN_SECONDS, GONE_GRACE_SECONDS, HELLO_AGAIN_SECONDS
from edge_agent.coordinator.retries import BACKOFF_FIRST_SECONDS
from edge_agent.coordinator.rules import Rules
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.messages import Hello
from edge_agent.wire.receipts import verify_receipt

VARIANTS = [variant.digest_bytes for variant in digits().variants]


class Setting:
    """A connected coordinator and one agent that offers `digits` with room for two."""

    def __init__(self, **script: object) -> None:
        self.clock = ManualClock()
        self.script = CoordinatorScript(self.clock, **script)  # type: ignore[arg-type] # passed through
        self.agent = FakeAgent("agent", self.clock)
        self.script.connect()
        self.script.join(self.agent)

    def another(self, name: str = "other", **offer: int) -> FakeAgent:
        """Let another agent join."""
        agent = FakeAgent(name, self.clock)
        self.script.join(agent, agent.offer(**offer))  # type: ignore[arg-type] # passed through
        return agent

    def job(self, job_id: bytes) -> Job:
        """Return a live job."""
        return self.script.core.leasing.jobs[job_id]

    def attempt(self, job_id: bytes) -> Attempt | None:
        """Return the only live attempt of a live job, if it has one."""
        attempts = self.job(job_id).attempts
        assert len(attempts) <= 1
        return attempts[0] if attempts else None

    def retry(self) -> list[object]:
        """Let the longest wait before a second attempt pass."""
        return list(self.script.tick_until(BACKOFF_FIRST_SECONDS))

    @property
    def live(self) -> int:
        """How many jobs have not ended."""
        return len(self.script.core.leasing.jobs)


@pytest.fixture
def here() -> Setting:
    """Return a fresh setting."""
    return Setting()


# -- the way of one job ---------------------------------------------------------------------------------------------


def test_a_job_is_leased_answered_accepted_and_receipted(here: Setting) -> None:
    """The good way: one attempt, one result, one receipt that can be checked offline."""
    job_id, commands = here.script.submit(7)
    (opened,) = jobs_for(here.agent, commands)
    assert (opened.statement.job, opened.statement.epoch) == (job_id, 1)
    done = here.script.tell(here.agent.result(opened))
    (outcome,) = outcomes(done)
    assert outcome.state is JobState.SUCCEEDED
    assert outcome.outputs == here.agent.outputs(opened)
    assert [(s.job, s.outcome) for s in settled_for(here.agent, done)] == [(job_id, "accepted")]
    receipt = verify_receipt(outcome.receipt or b"", COORDINATOR_KEY.public, network=NETWORK)
    receipt.check_outputs(outcome.outputs)
    assert receipt.agent.id == here.agent.id
    assert here.live == 0


def test_nobody_is_told_of_an_end_before_it_is_stored(here: Setting) -> None:
    """Outcome and settlement follow the commit of the end, in one transaction."""
    _, commands = here.script.submit()
    (opened,) = jobs_for(here.agent, commands)
    (commit,) = of_type(here.script.tell(here.agent.result(opened)), Commit)
    assert [type(record) for record in commit.records] == [EndJob]
    assert len(commit.then) == 2


def test_a_submission_is_answered_after_it_is_stored(here: Setting) -> None:
    """A durable one in a transaction that survives a power cut."""
    job_id, commands = here.script.submit(durable=True)
    commit = of_type(commands, Commit)[0]
    assert [type(record) for record in commit.records] == [InsertJob]
    assert commit.durable
    assert commit.then == (JobStored(job_id, job_id, repeated=False),)


def test_the_end_of_an_acknowledged_job_survives_a_power_cut_before_it_is_told(here: Setting) -> None:
    """Otherwise the job would run again, and its client would be told two different things."""
    _, commands = here.script.submit(durable=True)
    (opened,) = jobs_for(here.agent, commands)
    (ended,) = (c for c in of_type(here.script.tell(here.agent.result(opened)), Commit) if records([c], EndJob))
    assert ended.durable
    cancelled, _ = here.script.submit(durable=True)
    (called_off,) = (c for c in of_type(here.script.tell(CancelJob(cancelled)), Commit) if records([c], EndJob))
    assert called_off.durable


def test_the_end_of_a_job_that_only_its_caller_waits_for_is_not_synchronised(here: Setting) -> None:
    """Its caller was told nothing before; but an acknowledgement under the same key makes it a promise."""
    _, commands = here.script.submit(1, idempotency_key="k")
    (opened,) = jobs_for(here.agent, commands)
    _, unpromised = here.script.submit(2)
    (other,) = jobs_for(here.agent, unpromised)
    (ended,) = (c for c in of_type(here.script.tell(here.agent.result(other)), Commit) if records([c], EndJob))
    assert not ended.durable
    here.script.submit(1, idempotency_key="k", durable=True)
    (promised,) = (c for c in of_type(here.script.tell(here.agent.result(opened)), Commit) if records([c], EndJob))
    assert promised.durable


def test_a_request_that_is_repeated_gets_the_first_job(here: Setting) -> None:
    """The same key with the same request makes no second job."""
    first, _ = here.script.submit(7, idempotency_key="k")
    _, again = here.script.submit(7, idempotency_key="k")
    (commit,) = of_type(again, Commit)
    (stored,) = of_type(commit.then, JobStored)
    assert (stored.job_id, stored.repeated) == (first, True)
    assert commit.records == ()
    assert here.live == 1


def test_an_idempotency_key_of_another_request_is_refused(here: Setting) -> None:
    """A key stands for one request."""
    here.script.submit(7, idempotency_key="k")
    _, again = here.script.submit(8, idempotency_key="k")
    assert [refused.code for refused in of_type(again, SubmitRefused)] == ["idempotency-conflict"]
    assert here.live == 1


def test_a_key_is_known_after_a_restart_until_it_is_forgotten(here: Setting) -> None:
    """What the database gives back works like what was said in this life."""
    job_id = bytes(16)
    _, commands = here.script.submit(7)
    digest = records(commands, InsertJob)[0].submit.request_digest
    here.script.core.requests.remember("k", job_id, digest)
    _, again = here.script.submit(7, idempotency_key="k")
    assert of_type(of_type(again, Commit)[0].then, JobStored)[0].job_id == job_id
    here.script.core.requests.forget(["k", "unknown"])
    _, anew = here.script.submit(7, idempotency_key="k")
    assert len(records(anew, InsertJob)) == 1


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    """Nothing is stored of what is refused."""
    here = Setting(rules=Rules(max_queued_jobs=1))
    here.script.submit()
    _, commands = here.script.submit()
    (refused,) = commands
    assert isinstance(refused, SubmitRefused)
    assert (refused.code, refused.retry_after_seconds) == ("queue-full", 1.0)
    assert here.live == 1


def test_a_family_that_nobody_offers_is_refused_but_a_short_absence_is_not(here: Setting) -> None:
    """Within the grace, a job waits for an agent to come back."""
    here.script.tell(here.agent.offers_nothing())
    _, waits = here.script.submit()
    assert of_type(waits, SubmitRefused) == []
    here.clock.advance(here.script.rules.offer_grace_seconds + 0.1)
    _, refused = here.script.submit()
    assert [r.code for r in of_type(refused, SubmitRefused)] == ["no-agent"]


# -- room -------------------------------------------------------------------------------------------------------------


def test_a_result_makes_room_for_the_next_job(here: Setting) -> None:
    """The third job goes out when the first is answered."""
    opened = [job for _ in range(3) for job in jobs_for(here.agent, here.script.submit()[1])]
    assert len(opened) == 2
    assert len(jobs_for(here.agent, here.script.tell(here.agent.result(opened[0])))) == 1


def test_room_that_one_family_gives_back_is_taken_by_another() -> None:
    """A job of another family is not left waiting for the next event of its own."""
    here = Setting(catalogue=two_families())
    letters = here.script.catalogue.family("letters")
    here.script.tell(here.agent.offers(here.agent.offer(room=1), here.agent.offer(letters, room=1)))
    _, first = here.script.submit()
    _, second = here.script.submit(family="letters")
    assert jobs_for(here.agent, second) == []
    (next_job,) = jobs_for(here.agent, here.script.tell(here.agent.result(jobs_for(here.agent, first)[0])))
    assert next_job.statement.family == "letters"


def test_cancelling_a_leased_job_makes_room_and_tells_the_agent(here: Setting) -> None:
    """The next job does not wait for an answer that will never come."""
    ids = [here.script.submit()[0] for _ in range(3)]
    commands = here.script.tell(CancelJob(ids[0]))
    assert controls_for(here.agent, commands) == ["cancel"]
    assert [job.statement.job for job in jobs_for(here.agent, commands)] == [ids[2]]
    (outcome,) = outcomes(commands)
    assert (outcome.state, outcome.error and outcome.error.blame) == (JobState.CANCELLED, Blame.CANCELLED)


def test_cancelling_a_queued_job_or_one_that_ended_is_quiet(here: Setting) -> None:
    """There is no agent to be told."""
    ids = [here.script.submit()[0] for _ in range(3)]
    commands = here.script.tell(CancelJob(ids[2]))
    assert published(commands) == []
    assert len(outcomes(commands)) == 1
    assert here.script.tell(CancelJob(ids[2])) == []
    assert here.script.tell(CancelJob(bytes(16))) == []


def test_the_deadline_of_a_leased_job_makes_room_and_tells_the_agent(here: Setting) -> None:
    """An agent that still works on it would refuse what it is sent instead."""
    ids = [here.script.submit(deadline=5.0)[0] for _ in range(2)]
    last, _ = here.script.submit()
    here.clock.advance(5.0)
    commands = here.script.tell(Tick())
    assert controls_for(here.agent, commands) == ["cancel", "cancel"]
    assert [(o.job_id, o.error and o.error.code) for o in outcomes(commands)] == [(i, "deadline") for i in ids]
    assert [job.statement.job for job in jobs_for(here.agent, commands)] == [last]


def test_a_job_that_waits_for_an_untried_agent_goes_back_when_that_one_leaves(here: Setting) -> None:
    """Who failed a job before is taken again as soon as there is nobody else, not at the next chance event."""
    other = here.another(room=1, latency_us=700)
    _, filling = here.script.submit(), here.script.submit()
    _, on_other = here.script.submit()
    assert len(jobs_for(other, on_other)) == 1
    (opened, *_) = jobs_for(here.agent, filling[1])
    failed = here.script.tell(here.agent.failure(opened.statement))
    assert jobs_for(here.agent, [*failed, *here.retry()]) == []
    gone = here.script.tell(other.gone())
    (again,) = jobs_for(here.agent, gone)
    assert (again.statement.job, again.statement.epoch) == (opened.statement.job, 2)


def test_an_offer_of_a_variant_that_is_not_in_the_catalogue_is_never_leased_to(here: Setting) -> None:
    """An agent cannot bring a model of its own under the name of a family."""
    invented = here.agent.offer(variant=hashlib.sha256(b"invented").digest())
    commands = here.script.tell(here.agent.offers(invented))
    assert "unknown-offers" in actions(commands)
    assert jobs_for(here.agent, here.script.submit()[1]) == []
    unknown_family = here.agent.offer().model_copy(update={"family": "horoscopes"})
    here.script.tell(here.agent.offers(unknown_family, here.agent.offer()))
    assert set(here.script.registry.get(here.agent.id).offers) == {"digits"}


# -- leases -----------------------------------------------------------------------------------------------------------


def test_a_lease_that_runs_out_is_given_to_another_agent(here: Setting) -> None:
    """The silent one gets no more work until it speaks, and is asked to."""
    other = here.another(latency_us=10_000)
    job_id, _ = here.script.submit()
    commands = here.script.tick_until(here.script.rules.lease_seconds)
    assert jobs_for(other, commands) == []
    (again,) = jobs_for(other, here.retry())
    assert (again.statement.job, again.statement.epoch) == (job_id, 2)
    assert controls_for(here.agent, commands) == ["rebirth"]
    assert [(r.epoch, r.outcome) for r in records(commands, EndAttempt)] == [(1, "lease-expired")]
    here.script.tell(here.agent.birth(answers=100), here.agent.offers())
    assert here.job(job_id).failed_on == {here.agent.id}


def test_progress_renews_leases(here: Setting) -> None:
    """An agent that says that it still works keeps its attempts."""
    job_id, _ = here.script.submit(deadline=1000.0)
    for _ in range(5):
        here.script.tick_until(20.0)
        here.script.tell(here.agent.progress((job_id, 1)))
    assert here.job(job_id).epoch == 1
    here.script.tick_until(30.0)
    assert here.attempt(job_id) is None


@pytest.mark.parametrize("claim", ["other epoch", "other agent", "unknown job"])
def test_progress_renews_only_what_the_agent_really_holds(here: Setting, claim: str) -> None:
    """Nobody keeps another's lease alive."""
    other = here.another(latency_us=10_000)
    job_id, _ = here.script.submit(deadline=1000.0)
    here.script.tick_until(20.0)
    match claim:
        case "other epoch":
            here.script.tell(here.agent.progress((job_id, 2)))
        case "other agent":
            here.script.tell(other.progress((job_id, 1)))
        case _:
            assert here.script.tell(here.agent.progress((bytes(16), 1))) == []
    here.script.tick_until(10.0)
    here.retry()
    assert here.job(job_id).epoch == 2


def test_progress_of_an_older_session_renews_nothing(here: Setting) -> None:
    """Only the present session can speak for itself."""
    job_id, _ = here.script.submit()
    before = here.attempt(job_id)
    assert before is not None
    until = before.lease_until
    here.clock.advance(5.0)
    assert codes(here.script.tell(here.agent.progress((job_id, 1), session=9))) == ["stale-session"]
    assert before.lease_until == until


def test_leases_do_not_run_out_while_we_are_cut_off(here: Setting) -> None:
    """Our own absence is not the agents' fault; after it they have a whole lease."""
    job_id, _ = here.script.submit(deadline=10_000.0)
    here.script.disconnect()
    assert "lease-expired" not in actions(here.script.tick_until(1000.0))
    here.script.connect(101)
    assert "lease-expired" not in actions(here.script.tick_until(29.9))
    assert here.job(job_id).epoch == 1
    assert "lease-expired" in actions(here.script.tick_until(0.2))


def test_leases_do_not_run_out_while_this_process_stands_still(here: Setting) -> None:
    """A stopped or swapped-out coordinator finds renewals waiting: its timer, which rings first, takes nothing away."""
    job_id, _ = here.script.submit(deadline=10_000.0)
    here.clock.advance(200.0)
    woken = here.script.tell(Tick())
    assert "stood-still" in actions(woken)
    assert "lease-expired" not in actions(woken)
    here.script.tell(here.agent.progress((job_id, 1)))
    assert "lease-expired" not in actions(here.script.tick_until(29.9))
    assert "lease-expired" in actions(here.script.tick_until(0.2))


def test_a_process_that_runs_is_not_taken_for_one_that_stands_still(here: Setting) -> None:
    """While something is leased the core asks to be called often; an agent that is silent loses its lease in time."""
    here.script.submit(deadline=10_000.0)
    commands = here.script.tick_until(30.1)
    assert "stood-still" not in actions(commands)
    assert "lease-expired" in actions(commands)


def test_an_idle_process_is_not_taken_for_one_that_stands_still(here: Setting) -> None:
    """Where nothing is leased, nobody calls the core for hours, and that is as it should be."""
    here.clock.advance(10_000.0)
    here.script.tell(here.agent.offers())
    _, commands = here.script.submit()
    assert "stood-still" not in actions(commands)
    here.clock.advance(1.0)
    assert "stood-still" not in actions(here.script.tell(here.agent.progress()))


def test_a_deadline_passes_also_while_we_are_cut_off(here: Setting) -> None:
    """The client is waiting, whatever the reason."""
    here.script.submit(deadline=5.0)
    here.script.disconnect()
    (outcome,) = outcomes(here.script.tick_until(5.0))
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.blame) == ("deadline", Blame.DEADLINE)
    assert here.live == 0


def test_what_is_submitted_while_we_are_cut_off_goes_out_when_agents_have_answered(here: Setting) -> None:
    """Nothing is sent to a session that may have ended meanwhile."""
    here.script.disconnect()
    _, submitted = here.script.submit()
    assert published(submitted) == []
    assert jobs_for(here.agent, here.script.connect(101)) == []
    assert jobs_for(here.agent, here.script.tell(here.agent.birth(answers=101))) == []
    assert len(jobs_for(here.agent, here.script.tell(here.agent.offers()))) == 1


# -- failures -----------------------------------------------------------------------------------------------------


def test_a_failure_that_may_be_retried_is_tried_elsewhere(here: Setting) -> None:
    """The one who failed is settled, and the other gets the next epoch."""
    other = here.another(latency_us=10_000)
    job_id, commands = here.script.submit()
    (opened,) = jobs_for(here.agent, commands)
    failed = here.script.tell(here.agent.failure(opened.statement))
    assert [job.statement.epoch for job in jobs_for(other, here.retry())] == [2]
    assert [(s.epoch, s.outcome) for s in settled_for(here.agent, failed)] == [(1, "accepted")]
    assert here.job(job_id).failed_on == {here.agent.id}


def test_a_failure_that_may_not_be_retried_ends_the_job(here: Setting) -> None:
    """A wrong input is wrong everywhere."""
    _, commands = here.script.submit()
    (opened,) = jobs_for(here.agent, commands)
    ended = here.script.tell(here.agent.failure(opened.statement, code="bad-input", blame="requester", retry=False))
    (outcome,) = outcomes(ended)
    assert outcome.error is not None
    assert (outcome.state, outcome.error.code, outcome.error.blame) == (
        JobState.FAILED,
        "bad-input",
        Blame.REQUESTER,
    )
    assert len(settled_for(here.agent, ended)) == 1
    assert here.live == 0


def test_a_job_that_keeps_failing_ends_when_its_attempts_are_used_up() -> None:
    """It does not go round for ever."""
    here = Setting(rules=Rules(max_attempts=3))
    _, commands = here.script.submit()
    ends = []
    for _ in range(3):
        (opened,) = jobs_for(here.agent, commands)
        failed = here.script.tell(here.agent.failure(opened.statement))
        ends += outcomes(failed)
        commands = here.script.tick_until(1.0)
    assert jobs_for(here.agent, commands) == []
    (outcome,) = ends
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.blame) == ("attempts-exhausted", Blame.AGENT)
    assert len(settled_for(here.agent, failed)) == 1
    assert here.live == 0


def test_a_failure_of_an_older_epoch_ends_nothing(here: Setting) -> None:
    """A late failure is settled as refused; the present attempt goes on."""
    job_id, commands = here.script.submit()
    (opened,) = jobs_for(here.agent, commands)
    here.script.tell(here.agent.failure(opened.statement))
    here.retry()
    late = here.script.tell(here.agent.failure(opened.statement, retry=False))
    assert codes(late) == ["stale-epoch"]
    assert [(s.outcome, s.code) for s in settled_for(here.agent, late)] == [("refused", "stale-epoch")]
    assert (here.job(job_id).state, here.job(job_id).epoch) == (JobState.LEASED, 2)


# -- presence -----------------------------------------------------------------------------------------------------


def test_an_agent_that_is_gone_keeps_its_attempts_for_the_grace_only(here: Setting) -> None:
    """After a will it has a few seconds to come back."""
    job_id, _ = here.script.submit()
    here.script.tell(here.agent.gone())
    here.script.tick_until(GONE_GRACE_SECONDS - 0.1)
    assert here.job(job_id).state is JobState.LEASED
    here.script.tick_until(0.2)
    assert here.job(job_id).state is JobState.QUEUED


def test_an_agent_that_comes_back_within_the_grace_keeps_what_it_holds(here: Setting) -> None:
    """Its lease is a whole one again, and what it computed is accepted."""
    job_id, commands = here.script.submit()
    (opened,) = jobs_for(here.agent, commands)
    here.script.tell(here.agent.gone())
    here.clock.advance(1.0)
    here.agent.session = 2
    here.script.tell(here.agent.birth(held=[(job_id, 1)], answers=100))
    here.script.tick_until(20.0)
    assert here.job(job_id).epoch == 1
    assert [o.state for o in outcomes(here.script.tell(here.agent.result(opened)))] == [JobState.SUCCEEDED]


def test_a_late_will_never_marks_an_agent_as_gone_that_has_come_back(here: Setting) -> None:
    """The will names the session that it was made for."""
    job_id, _ = here.script.submit()
    here.agent.session = 2
    here.script.tell(here.agent.birth(held=[(job_id, 1)], answers=100), here.agent.offers())
    late = here.script.tell(here.agent.gone(session=1))
    assert codes(late) == ["stale-session"]
    assert "agent-gone" not in actions(late)
    here.script.tick_until(GONE_GRACE_SECONDS + 1)
    assert here.job(job_id).state is JobState.LEASED
    assert len(jobs_for(here.agent, here.script.submit()[1])) == 1


def test_a_clean_stop_hands_everything_back_at_once(here: Setting) -> None:
    """What a stopped agent does not list goes to others without waiting for its lease."""
    other = here.another(latency_us=10_000)
    job_id, _ = here.script.submit()
    commands = here.script.tell(here.agent.birth(state="stopped", answers=100))
    assert [job.statement.job for job in jobs_for(other, commands)] == [job_id]


@pytest.mark.parametrize(
    ("agent_session", "answers", "held"),
    list(product(["same", "newer"], [None, "older", "same", "newer"], [True, False])),
)
def test_a_birth_requeues_exactly_what_was_lost_on_the_way(
    here: Setting, agent_session: str, answers: str | None, *, held: bool
) -> None:
    """Not held, and leased in an older session of either side: lost. Everything else is covered by its lease."""
    job_id, _ = here.script.submit()  # leased in agent session 1 and coordinator session 100
    lease_before = here.attempt(job_id)
    here.clock.advance(5.0)
    here.agent.session = {"same": 1, "newer": 2}[agent_session]
    answered = {None: None, "older": 99, "same": 100, "newer": 101}[answers]
    commands = here.script.tell(here.agent.birth(held=[(job_id, 1)] if held else [], answers=answered))
    lost = not held and (agent_session == "newer" or answers == "newer")
    ended = [record.outcome for record in records(commands, EndAttempt)]
    assert ended == ([("not-held" if agent_session == "newer" else "not-arrived")] if lost else [])
    if not lost:
        assert here.attempt(job_id) is lease_before
        assert lease_before is not None
        until = here.clock.monotonic + 30.0 if held else here.clock.monotonic + 25.0
        assert lease_before.lease_until == until
    elif agent_session == "same":  # it offers still: leased again at once
        assert here.job(job_id).epoch == 2


def test_a_birth_that_claims_what_it_never_had_gets_nothing(here: Setting) -> None:
    """Holding is what we leased, not what is claimed."""
    other = here.another(latency_us=10_000)
    job_id, _ = here.script.submit()
    here.script.tell(other.birth(held=[(job_id, 1), (bytes(16), 4)], answers=100))
    attempt = here.attempt(job_id)
    assert attempt is not None
    assert attempt.agent_id == here.agent.id


def test_jobs_that_ended_are_not_missed_at_the_next_birth(here: Setting) -> None:
    """However a job ends, its agent is free of it."""
    for end in ("result", "failure", "cancel", "deadline"):
        job_id, commands = here.script.submit(deadline=5.0)
        (opened,) = jobs_for(here.agent, commands)
        match end:
            case "result":
                here.script.tell(here.agent.result(opened))
            case "failure":
                here.script.tell(here.agent.failure(opened.statement, retry=False))
            case "cancel":
                here.script.tell(CancelJob(job_id))
            case _:
                here.script.tick_until(5.0)
        assert here.script.registry.get(here.agent.id).in_flight == {}
        here.agent.session += 1
        assert records(here.script.join(here.agent), EndAttempt) == []


def test_a_new_session_is_saved_and_a_repeated_birth_is_quiet(here: Setting) -> None:
    """The database learns of sessions; the log is not filled with what is known."""
    assert here.script.tell(here.agent.birth(answers=100)) == []
    here.agent.session = 2
    commands = here.script.tell(here.agent.birth(answers=100))
    assert [(r.agent_id, r.session) for r in records(commands, SaveAgent)] == [(here.agent.id, 2)]
    assert actions(commands) == ["agent-online"]


def test_after_a_restart_a_birth_is_asked_for_when_its_agent_only_offers(here: Setting) -> None:
    """The database knows the session, and neither the labels nor the key that inputs are sealed to."""
    here.script.registry.agents[here.agent.id].birth = b""
    assert controls_for(here.agent, here.script.tell(here.agent.offers())) == ["rebirth"]
    here.script.tell(here.agent.birth(answers=100))
    here.clock.advance(BIRTH_AGAIN_SECONDS)
    assert controls_for(here.agent, here.script.tell(here.agent.offers())) == []


def test_a_birth_that_got_lost_is_asked_for_when_its_agent_speaks_but_not_without_end(here: Setting) -> None:
    """Nothing but its next birth would bring it back; what it says before is refused as before."""
    here.agent.session = 2
    asked = here.script.tell(here.agent.offers())
    assert controls_for(here.agent, asked) == ["rebirth"]
    assert codes(asked) == ["stale-session"]
    again = here.script.tell(here.agent.progress(), here.agent.offers())
    assert controls_for(here.agent, again) == []
    assert codes(again) == ["stale-session", "stale-session"]
    here.clock.advance(BIRTH_AGAIN_SECONDS)
    assert controls_for(here.agent, here.script.tell(here.agent.progress())) == ["rebirth"]
    here.script.tell(here.agent.birth(answers=100))
    here.clock.advance(BIRTH_AGAIN_SECONDS)
    taken = here.script.tell(here.agent.offers())
    assert controls_for(here.agent, taken) == []
    assert here.script.registry.agents[here.agent.id].offers


@pytest.mark.parametrize("channel", ["offers", "progress"])
def test_what_an_older_session_said_late_asks_nobody_for_anything(here: Setting, channel: str) -> None:
    """It is history."""
    here.agent.session = 5
    here.script.tell(here.agent.birth(answers=100), here.agent.offers())
    here.agent.session = 1
    late = here.script.tell(getattr(here.agent, channel)())
    assert controls_for(here.agent, late) == []
    assert codes(late) == ["stale-session"]


def test_an_agent_that_has_not_heard_our_hello_is_told_again_but_not_without_end(here: Setting) -> None:
    """Two sides that cannot agree on a session do not keep each other busy."""

    def hellos() -> int:
        commands = here.script.tell(here.agent.birth(answers=None))
        return sum(1 for c in published(commands) if c.topic == f"ea1/{NETWORK}/coordinator")

    assert hellos() == 0  # it was said a moment ago
    here.clock.advance(HELLO_AGAIN_SECONDS)
    assert [hellos() for _ in range(50)] == [1] + [0] * 49


# -- admission ----------------------------------------------------------------------------------------------------


def test_an_agent_that_is_not_admitted_is_told_so_and_gets_nothing() -> None:
    """It is noted for the operator, and that is all."""
    here = Setting(admit_anyone=False)
    commands = here.script.tell(here.agent.birth())
    assert controls_for(here.agent, commands) == ["not-enrolled"]
    assert [record.agent_id for record in records(commands, SaveAgent)] == [here.agent.id]
    assert codes(here.script.tell(here.agent.offers())) == ["not-enrolled"]
    assert [r.code for r in of_type(here.script.submit()[1], SubmitRefused)] == ["no-agent"]
    assert here.script.registry.agents == {}


def test_an_agent_that_is_admitted_is_asked_for_its_birth_again() -> None:
    """Approval works at once, without a restart or a reconnect of the agent."""
    here = Setting(admit_anyone=False)
    commands = here.script.tell(AgentsChanged(frozenset({here.agent.id})))
    assert controls_for(here.agent, commands) == ["rebirth"]
    here.script.join(here.agent)
    assert len(jobs_for(here.agent, here.script.submit()[1])) == 1
    assert here.script.tell(AgentsChanged(frozenset({here.agent.id}))) == []


def test_an_agent_that_is_no_longer_admitted_loses_what_it_holds() -> None:
    """Its attempts go to others at once, and its answers are refused."""
    here = Setting(admit_anyone=False)
    other = FakeAgent("other", here.clock)
    here.script.tell(AgentsChanged(frozenset({here.agent.id, other.id})))
    here.script.join(here.agent)
    here.script.join(other, other.offer(latency_us=10_000))
    job_id, commands = here.script.submit()
    (opened,) = jobs_for(here.agent, commands)
    revoked = here.script.tell(AgentsChanged(frozenset({other.id})))
    assert [job.statement.epoch for job in jobs_for(other, revoked)] == [2]
    assert codes(here.script.tell(here.agent.result(opened))) == ["not-enrolled"]
    assert here.job(job_id).state is JobState.LEASED


# -- restarts -----------------------------------------------------------------------------------------------------


def _restored(here: Setting, commands: list[object]) -> tuple[CoordinatorScript, Job]:
    """Start another coordinator with what the first had stored of its agent and its one leased job."""
    inserted = records(commands, InsertJob)[0]
    after = CoordinatorScript(here.clock, session=101)
    key = here.agent.key.public
    after.registry.restore(here.agent.id, key, here.agent.session, ["digits"], here.clock.monotonic)
    submit = inserted.submit
    job = Job(
        id=submit.job_id,
        family=submit.family,
        inputs=submit.inputs,
        outputs=submit.outputs,
        salt=submit.salt,
        submitted_ms=inserted.submitted_ms,
        deadline=here.clock.monotonic + 60.0,
        max_attempts=5,
        state=JobState.LEASED,
        epoch=1,
        attempts=[Attempt(1, here.agent.id, VARIANTS[0], 1, 100, here.clock.monotonic + 30.0)],
    )
    after.core.leasing.add(job)
    return after, job


def test_a_coordinator_that_was_restarted_accepts_the_answer_to_what_it_leased_before(here: Setting) -> None:
    """The agent's answer finds its job, once."""
    _, commands = here.script.submit()
    (opened,) = jobs_for(here.agent, commands)
    after, job = _restored(here, commands)  # type: ignore[arg-type] # a list of commands is a list of objects
    after.connect()
    after.tell(here.agent.birth(held=[(job.id, 1)], answers=101))
    done = after.tell(here.agent.result(opened))
    assert [outcome.state for outcome in outcomes(done)] == [JobState.SUCCEEDED]
    assert outcomes(after.tell(here.agent.result(opened))) == []


def test_a_coordinator_that_was_restarted_leases_again_what_got_lost_with_it(here: Setting) -> None:
    """A birth that answers the new session and does not list the attempt says that it never arrived."""
    _, commands = here.script.submit()
    after, job = _restored(here, commands)  # type: ignore[arg-type] # as above
    after.connect()
    assert records(after.tell(here.agent.birth(answers=100)), EndAttempt) == []
    lost = after.tell(here.agent.birth(answers=101))
    assert [record.outcome for record in records(lost, EndAttempt)] == ["not-arrived"]
    assert job.failures == 0
    (again,) = jobs_for(here.agent, after.tell(here.agent.offers()))
    assert (again.statement.job, again.statement.epoch) == (job.id, 2)


def test_a_job_that_was_restored_is_not_lost_when_its_agent_never_comes_back(here: Setting) -> None:
    """Its lease runs out like any other, once we are connected."""
    _, commands = here.script.submit()
    after, job = _restored(here, commands)  # type: ignore[arg-type] # as above
    after.connect()
    other = FakeAgent("other", here.clock)
    after.join(other)
    (again,) = jobs_for(other, after.tick_until(30.0 + BACKOFF_FIRST_SECONDS))
    assert (again.statement.job, again.statement.epoch) == (job.id, 2)


def test_a_result_for_a_family_that_left_the_catalogue_is_refused(here: Setting) -> None:
    """A job from before a change of the catalogue breaks nothing, and ends with its deadline."""
    _, commands = here.script.submit()
    (opened,) = jobs_for(here.agent, commands)
    after, job = _restored(here, commands)  # type: ignore[arg-type] # as above
    job.family = "withdrawn"
    after.connect()
    after.tell(here.agent.birth(held=[(job.id, 1)], answers=101))
    assert codes(after.tell(here.agent.result(opened))) == ["wrong-model"]
    assert job.state is JobState.LEASED
    assert [outcome.error and outcome.error.code for outcome in outcomes(after.tick_until(60.0))] == ["deadline"]


def test_each_connection_announces_its_session(here: Setting) -> None:
    """The hello is retained and names the session and the key."""
    here.script.disconnect()
    (sent,) = published(here.script.connect(101))
    opened = open_envelope(sent.payload, COORDINATOR_KEY.public, Hello, network=NETWORK, max_bytes=65536)
    assert sent.retain
    assert (opened.statement.session, opened.statement.coordinator_key) == (101, COORDINATOR_KEY.public.raw)


def test_when_nothing_is_left_no_tick_is_asked_for(here: Setting) -> None:
    """An idle coordinator sleeps."""
    for _ in range(3):
        here.script.submit(deadline=5.0)
    here.script.tick_until(100.0)
    assert here.live == 0
    assert here.script.core.next_deadline() is None


def test_an_admitted_agent_whose_births_were_all_lost_is_asked_for_one_by_what_else_it_says() -> None:
    """Else it would be away until its birth is repeated, twenty minutes later; who was not admitted is not asked."""
    clock = ManualClock()
    script = CoordinatorScript(clock, admit_anyone=False)
    agent, stranger = FakeAgent("a", clock), FakeAgent("b", clock)
    script.connect()
    script.tell(AgentsChanged(frozenset({agent.id})))
    lost = agent.birth(answers=script.session)
    assert controls_for(agent, script.tell(agent.offers(agent.offer()))) == ["rebirth"]
    assert controls_for(agent, script.tell(agent.offers(agent.offer()))) == []  # not more often than needed
    stranger.birth(answers=script.session)
    assert controls_for(stranger, script.tell(stranger.offers(stranger.offer()))) == []
    assert agent.id not in script.registry.agents
    script.tell(lost, agent.offers(agent.offer()))
    job_id, commands = script.submit(1)
    assert [opened.statement.job for opened in jobs_for(agent, commands)] == [job_id]
