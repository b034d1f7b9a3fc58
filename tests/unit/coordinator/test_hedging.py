"""Late synchronous jobs: a second attempt elsewhere, one accepted result, and nothing left of the other."""

from __future__ import annotations

import pytest
from fakes import (
    FakeAgent,
    codes,
    controls_for,
    jobs_for,
    of_type,
    outcomes,
    records,
    settled_for,
)
from scenes import Setting

from edge_agent.coordinator.events import (
    AgentsChanged,
    CancelJob,
    Command,
    Commit,
    EndAttempt,
    EndJob,
    InsertAttempt,
)
from edge_agent.coordinator.jobs import Blame, JobState
from edge_agent.coordinator.rules import Rules
from edge_agent.wire.envelope import Opened
from edge_agent.wire.messages import Job as JobStatement

LATE_SECONDS = 2.0
"""Later than any offer of these tests lets expect."""


class Race(Setting):
    """Two agents, of which the quick one was given a job and says nothing."""

    def __init__(self, *, share: float = 1.0, durable: bool = False, lease_seconds: float = 30.0) -> None:
        super().__init__("quick", rules=Rules(hedge_share=share, lease_seconds=lease_seconds))
        self.quick = self.agents["quick"]
        self.other = self.join("other", latency_us=50_000)
        self.job_id, commands = self.script.submit(3, durable=durable)
        (self.first,) = jobs_for(self.quick, commands)

    def hedge(self) -> Opened[JobStatement]:
        """Wait until it is late; return the second attempt."""
        self.commands = self.script.tick_until(LATE_SECONDS)
        (second,) = jobs_for(self.other, self.commands)
        return second

    @property
    def free(self) -> bool:
        """Whether no agent's room is taken up."""
        return not any(agent.in_flight for agent in self.script.registry.agents.values())


def test_a_late_job_gets_a_second_attempt_on_another_agent() -> None:
    """The first goes on: nobody is told to stop yet."""
    race = Race()
    second = race.hedge()
    assert (second.statement.job, second.statement.epoch) == (race.job_id, 2)
    (record,) = records(race.commands, InsertAttempt)
    assert (record.epoch, record.agent_id, record.state) == (2, race.other.id, JobState.HEDGED)
    assert controls_for(race.quick, race.commands) == []
    assert (race.job(race.job_id).state, len(race.job(race.job_id).attempts)) == (JobState.HEDGED, 2)


@pytest.mark.parametrize("winner", ["first", "second"])
def test_the_first_result_counts_and_the_other_agent_is_called_off(winner: str) -> None:
    """One acceptance; the other attempt is ended in the same transaction, and its late answer is settled as unknown."""
    race = Race()
    second = race.hedge()
    pairs: list[tuple[FakeAgent, Opened[JobStatement]]] = [(race.quick, race.first), (race.other, second)]
    (agent, opened), (loser, late) = pairs if winner == "first" else pairs[::-1]
    done = race.script.tell(agent.result(opened))
    assert [(o.state, o.agent_id) for o in outcomes(done)] == [(JobState.SUCCEEDED, agent.id)]
    (commit,) = of_type(done, Commit)
    ended = [(r.epoch, r.outcome, r.state) for r in commit.records if isinstance(r, EndAttempt)]
    assert ended == [(late.statement.epoch, "overtaken", None)]
    assert [r.epoch for r in commit.records if isinstance(r, EndJob)] == [opened.statement.epoch]
    assert controls_for(loser, done) == ["cancel"]
    assert controls_for(agent, done) == []
    assert (race.live, race.free) == (0, True)
    after = race.script.tell(loser.result(late))
    assert outcomes(after) == []
    assert [s.outcome for s in settled_for(loser, after)] == ["unknown"]


@pytest.mark.parametrize("loses", ["first", "second"])
def test_one_of_two_attempts_may_fail_and_the_other_goes_on(loses: str) -> None:
    """The job is not queued, and the survivor's result is accepted under its own epoch."""
    race = Race()
    second = race.hedge()
    pairs: list[tuple[FakeAgent, Opened[JobStatement]]] = [(race.quick, race.first), (race.other, second)]
    (loser, lost), (survivor, goes_on) = pairs if loses == "first" else pairs[::-1]
    failed = race.script.tell(loser.failure(lost.statement))
    assert [(r.epoch, r.state) for r in records(failed, EndAttempt)] == [(lost.statement.epoch, JobState.LEASED)]
    assert race.job(race.job_id).state is JobState.LEASED
    assert codes(race.script.tell(loser.result(lost))) == ["stale-epoch"]
    race.script.tick_until(5.0)
    assert race.job(race.job_id).epoch == 2
    done = race.script.tell(survivor.result(goes_on))
    assert [o.state for o in outcomes(done)] == [JobState.SUCCEEDED]
    assert race.free


def test_when_both_attempts_fail_the_job_is_queued_again() -> None:
    """With an epoch that neither had."""
    race = Race()
    second = race.hedge()
    race.script.tell(race.quick.failure(race.first.statement, code="model-run"))
    commands = race.script.tell(race.other.failure(second.statement, code="model-run"))
    assert race.job(race.job_id).state is JobState.QUEUED
    commands += race.script.tick_until(1.0)
    again = [*jobs_for(race.quick, commands), *jobs_for(race.other, commands)]
    assert [job.statement.epoch for job in again] == [3]


def test_a_lease_that_runs_out_ends_its_own_attempt_only() -> None:
    """Each of the two has its own."""
    race = Race(lease_seconds=3.0)
    second = race.hedge()
    race.clock.advance(0.5)
    race.script.tell(race.other.progress((race.job_id, 2)))
    commands = race.script.tick_until(1.0)
    assert [(r.epoch, r.outcome, r.state) for r in records(commands, EndAttempt)] == [
        (1, "lease-expired", JobState.LEASED)
    ]
    assert [o.state for o in outcomes(race.script.tell(race.other.result(second)))] == [JobState.SUCCEEDED]


@pytest.mark.parametrize("end", ["cancel", "deadline", "failure"])
def test_a_hedged_job_that_ends_calls_both_attempts_off(end: str) -> None:
    """Both rooms are free, and each agent is told, unless it was itself that ended it."""
    race = Race(lease_seconds=1000.0)
    race.hedge()
    match end:
        case "cancel":
            commands: list[Command] = race.script.tell(CancelJob(race.job_id))
        case "deadline":
            commands = race.script.tick_until(60.0)
        case _:
            commands = race.script.tell(race.quick.failure(race.first.statement, blame="requester", retry=False))
    (outcome,) = outcomes(commands)
    assert outcome.error is not None
    assert outcome.error.blame is {
        "cancel": Blame.CANCELLED, "deadline": Blame.DEADLINE, "failure": Blame.REQUESTER
    }[end]  # fmt: skip
    ended = {record.epoch for record in records(commands, EndAttempt) if record.state is None}
    assert "cancel" in controls_for(race.other, commands)
    assert ("cancel" in controls_for(race.quick, commands)) == (end != "failure")
    assert race.free
    assert race.live == 0
    assert ended == {1, 2}


def test_an_agent_that_lost_one_of_two_attempts_on_the_way_costs_nothing() -> None:
    """A birth that does not list it ends it; the other goes on."""
    race = Race()
    race.hedge()
    race.quick.session = 2
    commands = race.script.tell(race.quick.birth(answers=100))
    assert [(r.epoch, r.outcome, r.state) for r in records(commands, EndAttempt)] == [(1, "not-held", JobState.LEASED)]
    assert [attempt.agent_id for attempt in race.job(race.job_id).attempts] == [race.other.id]


def test_jobs_that_nobody_waits_for_are_not_hedged() -> None:
    """An asynchronous job has time: its lease is enough."""
    race = Race(durable=True)
    assert jobs_for(race.other, race.script.tick_until(LATE_SECONDS)) == []


def test_nothing_is_hedged_beyond_the_budget() -> None:
    """Half of the jobs may: the first one not, the second one yes."""
    race = Race(share=0.5)
    assert jobs_for(race.other, race.script.tick_until(LATE_SECONDS)) == []
    race.script.submit(4)
    commands = race.script.tick_until(2 * LATE_SECONDS)
    assert len(jobs_for(race.other, commands)) == 1


def test_a_job_is_never_hedged_on_the_agent_that_has_it_or_that_failed_it() -> None:
    """There is nobody else: it waits, and it asks for no more ticks than it needs."""
    here = Setting("only", rules=Rules(hedge_share=1.0, lease_seconds=10_000.0))
    here.script.submit(3, deadline=5_000.0)
    ticks = 0
    end = here.clock.monotonic + 4_000.0
    while (due := here.script.core.next_deadline()) is not None and due <= end:
        ticks += 1
        here.script.tick_until(due - here.clock.monotonic)
    assert ticks < 20
    assert here.script.registry.get(here.agents["only"].id).in_flight


def test_what_is_late_while_we_are_cut_off_is_not_hedged() -> None:
    """Nobody would hear it; afterwards the births tell."""
    race = Race()
    race.script.disconnect()
    assert jobs_for(race.other, race.script.tick_until(LATE_SECONDS)) == []


def test_an_agent_that_is_no_longer_admitted_loses_its_attempt_and_the_job_keeps_the_other() -> None:
    """Revoked in the middle of a race."""
    race = Race.__new__(Race)
    Setting.__init__(race, rules=Rules(hedge_share=1.0), admit_anyone=False)
    agents = [FakeAgent(name, race.clock) for name in ("quick", "other")]
    race.script.tell(AgentsChanged(frozenset(agent.id for agent in agents)))
    race.quick, race.other = race.join("quick"), race.join("other", latency_us=50_000)
    race.job_id, commands = race.script.submit(3)
    (race.first,) = jobs_for(race.quick, commands)
    race.hedge()
    race.script.tell(AgentsChanged(frozenset({race.other.id})))
    assert [attempt.agent_id for attempt in race.job(race.job_id).attempts] == [race.other.id]
    assert race.job(race.job_id).failures == 0


def test_the_last_failure_that_counts_waits_for_the_other_attempt() -> None:
    """With one attempt allowed, the first one's failure leaves the second alive, whose result counts."""
    race = Race()
    race.job(race.job_id).max_attempts = 1
    second = race.hedge()
    lost = race.script.tell(race.quick.failure(race.first.statement))
    assert of_type(lost, EndJob) == []
    assert controls_for(race.other, lost) == []
    assert race.job(race.job_id).state is JobState.LEASED
    (outcome,) = outcomes(race.script.tell(race.other.result(second)))
    assert outcome.state is JobState.SUCCEEDED


def test_a_job_ends_when_both_attempts_failed_and_no_more_are_allowed() -> None:
    """The second failure ends it; nobody is left with a lease."""
    race = Race()
    race.job(race.job_id).max_attempts = 1
    second = race.hedge()
    race.script.tell(race.quick.failure(race.first.statement))
    (outcome,) = outcomes(race.script.tell(race.other.failure(second.statement, code="model-run")))
    assert outcome.state is JobState.FAILED
    assert outcome.error is not None
    assert outcome.error.code == "attempts-exhausted"
    assert race.free
