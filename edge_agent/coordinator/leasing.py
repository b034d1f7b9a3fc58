"""The jobs that have not ended: who holds them, until when, and what becomes of them. No I/O; time is an argument."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from edge_agent.clock import Now
from edge_agent.coordinator.events import Command, Commit, EndAttempt, EndJob, InsertAttempt, Outcome, Publish, Record
from edge_agent.coordinator.hedging import HedgeBudget
from edge_agent.coordinator.job_note import note
from edge_agent.coordinator.jobs import Attempt, Blame, Job, JobError, JobEvent, JobState
from edge_agent.coordinator.matching import Matching
from edge_agent.coordinator.queues import MAX_LANES, FairQueue, Shape
from edge_agent.coordinator.refusals import Refusals
from edge_agent.coordinator.registry import Agent, Registry
from edge_agent.coordinator.retries import OVERTAKEN, Draw, backoff_seconds, waits
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.statements import Lease, Statements
from edge_agent.coordinator.timers import Kind, Timer, Timers
from edge_agent.coordinator.verdicts import Verdicts

LOOK_AGAIN_SECONDS = 0.001
"""Nobody is looked at again sooner than this."""


class Leasing:
    """The table of live jobs.

    Args:
        registry: the agents that may be given work.
        statements: signs what is sent to them.
        rules: limits and times.
        draw: gives random numbers from 0 to 1, for the jitter of retries.
    """

    def __init__(self, registry: Registry, statements: Statements, rules: Rules, draw: Draw = lambda: 1.0) -> None:
        self.jobs: dict[bytes, Job] = {}
        self.input_bytes = 0
        self.verdicts = Verdicts(registry)
        self.hedges = HedgeBudget(rules.hedge_share)
        self.ended: list[Job] = []  # without a result, since somebody last looked: for who waits for checks
        self._registry = registry
        self._statements = statements
        self._rules = rules
        self._draw = draw
        self._queue = FairQueue()
        self.refusals = Refusals(registry)
        self._matching = Matching(registry, self._queue, self.jobs, self.refusals)
        self._timers = Timers(self._counts)
        self._number = 0
        self._look_again_at: float | None = None
        self._passed_over: set[Shape] = set()  # nobody had room for them when agents were last `_seen`
        self._seen: tuple[object, ...] = ()

    def add(self, job: Job) -> None:
        """Take a job in, new or from before a restart."""
        self._number += 1
        job.number = self._number
        self.jobs[job.id] = job
        self.input_bytes += job.input_bytes
        self._timers.set(job.deadline, Kind.DEADLINE, job.id)
        for attempt in job.attempts:
            self._watch(job.id, attempt)
            agent = self._registry.agents.get(attempt.agent_id)
            if agent is not None:
                agent.in_flight[job.id] = attempt.lease_until
        if job.state is JobState.QUEUED:
            self._queue.put(job)
        if job.synchronous and job.checks is None:
            self.hedges.earn()

    # -- time -----------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Nothing can be leased for the time being: look again, at everybody, when something happens."""
        self._look_again_at = None
        self._passed_over.clear()

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which something here is due, if any."""
        due = [at for at in (self._timers.next_at(), self._look_again_at) if at is not None]
        return min(due, default=None)

    def due(self, now: Now) -> Iterator[tuple[Job, Timer]]:
        """Give each job whose deadline passed or an attempt of which ran out or is late, once.

        Jobs whose wait after a failure is over are queued on the way.
        """
        for timer in self._timers.due(now.monotonic):
            job = self.jobs[timer.job_id]
            match timer.kind:
                case Kind.RETRY:
                    self._queue.put(job)
                case Kind.LEASE:
                    attempt = job.attempt_of(timer.epoch)
                    if attempt is None:
                        raise AssertionError("a timer that counts has its attempt")
                    if attempt.lease_until > now.monotonic:  # it was renewed meanwhile
                        self._watch(job.id, attempt)
                    else:
                        attempt.timer_at = 0.0
                        yield job, timer
                case _:
                    yield job, timer

    def _counts(self, timer: Timer) -> bool:
        job = self.jobs.get(timer.job_id)
        if job is None:
            return False
        match timer.kind:
            case Kind.DEADLINE:
                return True
            case Kind.LEASE:
                attempt = job.attempt_of(timer.epoch)
                return attempt is not None and attempt.timer_at == timer.at
            case Kind.HEDGE:
                return job.state is JobState.LEASED and job.epoch == timer.epoch
            case Kind.RETRY:
                return job.state is JobState.QUEUED and job.epoch == timer.epoch and job.id not in self._queue

    # -- leases ---------------------------------------------------------------------------------------------------

    def dispatch(self, now: Now, coordinator_session: int) -> list[Command]:
        """Lease jobs that wait, each to the agent that suits it best, as long as one has room."""
        if not len(self._queue):
            self.rest()
            return []
        room = self._look_around(now)
        if room <= 0:
            return []
        leased: list[tuple[Lease, Commit]] = []
        turns = self._queue.round(self._passed_over)
        while room > 0 and (found := turns.first()) is not None:
            shape, job_id = found
            job = self.jobs[job_id]
            choice, cost_us = self._matching.choose(job, now, behind=self._queue.waiting(shape) - 1)
            if choice.agent_id is None:
                turns.pass_over()
                self._passed_over.add(shape)
                if leased:  # the agents are not as they were seen any more
                    self._seen = ()
                if choice.look_again_us is not None:
                    self._look_again(now.monotonic + max(choice.look_again_us / 1e6, LOOK_AGAIN_SECONDS))
                continue
            room -= 1
            self._queue.take(job_id, cost_us)
            job.apply(JobEvent.LEASE)
            leased.append(self._lease(job, self._registry.agents[choice.agent_id], now, coordinator_session))
        return self._send(leased)

    def _send(self, leased: Sequence[tuple[Lease, Commit]]) -> list[Command]:
        """Sign what was leased in one go."""
        if not leased:
            return []
        messages = self._statements.jobs([lease for lease, _ in leased])
        return [command for message, (_, commit) in zip(messages, leased, strict=True) for command in (message, commit)]

    def _look_around(self, now: Now) -> int:
        """Count what agents have room for; forget who was passed over if anything of them has changed."""
        view = self._matching.look_around(now)
        if view.seen != self._seen or (self._look_again_at is not None and self._look_again_at <= now.monotonic):
            self.rest()
        self._seen = view.seen
        if view.free_at is not None:
            self._look_again(view.free_at)
        return view.room

    def takes(self, job: Job) -> bool:
        """Whether there is a lane for another job of its shape."""
        return self._queue.lanes() < MAX_LANES or self._queue.waiting(self._queue.shape_of(job)) > 0

    def hedge(self, job: Job, now: Now, coordinator_session: int) -> list[Command]:
        """Give a late job a second attempt on another agent, if there is budget and room; else look again later."""
        (first,) = job.attempts
        if self.hedges.left and (agent_id := self._matching.choose_second(job, now)) is not None:
            self.hedges.spend()
            job.apply(JobEvent.HEDGE)
            second = self._send([self._lease(job, self._registry.agents[agent_id], now, coordinator_session)])
            return [note(logging.INFO, "A job is late and gets a second attempt", "hedged", job, first), *second]
        waited = max(now.monotonic - first.leased_at, LOOK_AGAIN_SECONDS)
        self._timers.set(now.monotonic + waited, Kind.HEDGE, job.id, job.epoch)
        return []

    def _look_again(self, at: float) -> None:
        self._look_again_at = at if self._look_again_at is None else min(at, self._look_again_at)

    def _lease(self, job: Job, agent: Agent, now: Now, coordinator_session: int) -> tuple[Lease, Commit]:
        job.epoch += 1
        offer = agent.offers[job.family]
        ahead = len(agent.in_flight)
        attempt = Attempt(
            job.epoch,
            agent.id,
            offer.variant,
            agent.session,
            coordinator_session,
            lease_until=now.monotonic + self._rules.lease_seconds,
            leased_at=now.monotonic,
            ahead=ahead,
        )
        job.attempts.append(attempt)
        late_at = now.monotonic + agent.speed(offer).late_after_us(ahead) / 1e6
        agent.in_flight[job.id] = late_at
        self._watch(job.id, attempt)
        if job.synchronous and job.checks is None and job.state is JobState.LEASED and late_at < job.deadline:
            self._timers.set(late_at, Kind.HEDGE, job.id, job.epoch)
        lease = self._statements.lease(job, attempt, now, self._rules, agent.terms)
        record = InsertAttempt(
            job.id,
            job.epoch,
            agent.id,
            attempt.variant,
            agent.session,
            coordinator_session,
            now.wall_ms,
            state=job.state,
        )
        # The record may be lost with the process: the job then goes out again under the same epoch, and at most one
        # of the two answers matches the agent that holds it.
        return lease, Commit((record,), urgent=False)

    def renew(self, attempt: Attempt, now: Now) -> None:
        """Let an attempt run for another lease from now."""
        attempt.lease_until = now.monotonic + self._rules.lease_seconds

    def extend(self, job: Job, attempt: Attempt, now: Now) -> None:
        """Give an attempt whose lease has run out another one: it was us who were away."""
        self.renew(attempt, now)
        self._watch(job.id, attempt)

    def shorten(self, job: Job, attempt: Attempt, until: float) -> None:
        """End a lease earlier than agreed, at this monotonic second, unless something renews it."""
        if attempt.lease_until > until:
            attempt.lease_until = until
            self._watch(job.id, attempt)

    def _watch(self, job_id: bytes, attempt: Attempt) -> None:
        attempt.timer_at = attempt.lease_until
        self._timers.set(attempt.timer_at, Kind.LEASE, job_id, attempt.epoch)

    # -- ends -----------------------------------------------------------------------------------------------------

    def lose(  # noqa: PLR0913 what there is to say about an attempt that ended
        self,
        job: Job,
        attempt: Attempt,
        why: str,
        now: Now,
        *,
        message: str = "",
        blame: Blame = Blame.AGENT,
        refused_by: str | None = None,
        then: Publish | None = None,
    ) -> list[Command]:
        """Take note that an attempt ended without a result: its job goes on, is queued again, or ends.

        Args:
            job: whose attempt it was.
            attempt: a live one.
            why: the code with which it ended.
            now: the moment.
            message: the same in words, if there are any.
            blame: whose fault it was, should the job end with it.
            refused_by: see `Verdicts.on_loss`.
            then: what is sent once this is stored.
        """
        after = (then,) if then else ()
        error = self.verdicts.on_loss(job, attempt, why, message, blame, refused_by)
        if error is not None and error.code == "attempts-exhausted" and job.state is JobState.HEDGED:
            error = None  # its other attempt may still answer; should it fail, too, the job ends then
        self._release(job, attempt)
        if error is not None:
            return self.end(job, JobEvent.FAIL, error, now, lost=(attempt, why), then=after)
        hedged = job.state is JobState.HEDGED
        job.apply(JobEvent.LOSE if hedged else JobEvent.REQUEUE)
        if not hedged:
            self._queue_again(job, why, now)
        record = EndAttempt(job.id, attempt.epoch, why, now.wall_ms, state=job.state, refused_by=refused_by)
        text = f"An attempt ended without a result ({why}); the job {'has another' if hedged else 'is queued again'}"
        return [
            note(logging.INFO, text, "attempt-lost" if hedged else "requeued", job, attempt),
            Commit((record,), then=after),
        ]

    def _queue_again(self, job: Job, why: str, now: Now) -> None:
        if not waits(why):
            self._queue.put(job)
            return
        again_at = now.monotonic + backoff_seconds(max(1, job.failures), self._draw)
        self._timers.set(again_at, Kind.RETRY, job.id, job.epoch)

    def fail(self, job: Job, attempt: Attempt, error: JobError, now: Now, then: Publish | None = None) -> list[Command]:
        """End a job with the failure of one attempt of it."""
        self._release(job, attempt)
        after = (then,) if then else ()
        return self.end(job, JobEvent.FAIL, error, now, lost=(attempt, error.code), then=after)

    def end(  # noqa: PLR0913 what there is to say about an end
        self,
        job: Job,
        event: JobEvent,
        error: JobError,
        now: Now,
        *,
        lost: tuple[Attempt, str] | None = None,
        then: tuple[Publish, ...] = (),
    ) -> list[Command]:
        """End a job without a result; agents that still work on it are told to drop it.

        Args:
            job: a live one.
            event: `FAIL` or `CANCEL`.
            error: why, and whose fault it is.
            now: the moment.
            lost: the attempt with which it ends and which is live no longer, and the code with which that ended.
            then: what is sent once this is stored.
        """
        job.apply(event)
        cancels = self._call_off(job, job.attempts, now)
        records: list[Record] = [self._ended(job, attempt, job.state.value, now) for attempt in job.attempts]
        last = job.attempts[-1] if job.attempts else None
        if lost is not None:
            last = lost[0]
            records.insert(0, self._ended(job, *lost, now))
        self._remove(job)
        self.ended.append(job)
        outcome = Outcome(job.id, job.state, error=error)
        return [
            *cancels,
            Commit(
                (*records, EndJob(outcome, job.epoch, now.wall_ms)), durable=not job.synchronous, then=(outcome, *then)
            ),
            note(logging.WARNING, f"The job {job.state}: {error.message}", f"job-{job.state}", job, last),
        ]

    def hold(self, job: Job, attempt: Attempt, now: Now) -> list[Command]:
        """Keep a result until it is checked. Nothing is stored: its agent sends it again until it is settled."""
        job.apply(JobEvent.HOLD)
        others = [other for other in job.attempts if other is not attempt]
        commands = self._call_off(job, others, now)
        for other in others:
            self._release(job, other)
        if (agent := self._registry.agents.get(attempt.agent_id)) is not None:
            agent.in_flight.pop(job.id, None)
        attempt.timer_at = 0.0  # whatever timer there is counts no more
        records = tuple(self._ended(job, other, OVERTAKEN, now) for other in others)
        return [*commands, Commit(records, urgent=False)] if records else commands

    def succeed(self, job: Job, attempt: Attempt, now: Now) -> tuple[list[Command], list[Record]]:
        """End a job whose result is accepted; the caller commits the result, with the records that are given back.

        The commands tell the agent that holds the other attempt, if there is one, to drop it.
        """
        job.apply(JobEvent.ACCEPT)
        self.verdicts.accepted[attempt.variant] += 1
        others = [other for other in job.attempts if other is not attempt]
        cancels = self._call_off(job, others, now)
        self._remove(job)
        return cancels, [self._ended(job, other, OVERTAKEN, now) for other in others]

    def _call_off(self, job: Job, attempts: Iterable[Attempt], now: Now) -> list[Command]:
        """Tell the agents that hold these attempts to drop them: what they still work on would take up their room."""
        return [self._statements.cancel(job, attempt, now) for attempt in attempts]

    @staticmethod
    def _ended(job: Job, attempt: Attempt, how: str, now: Now) -> EndAttempt:
        return EndAttempt(job.id, attempt.epoch, how, now.wall_ms, state=None)

    def _release(self, job: Job, attempt: Attempt) -> None:
        job.attempts.remove(attempt)
        if (agent := self._registry.agents.get(attempt.agent_id)) is not None:
            agent.in_flight.pop(job.id, None)

    def _remove(self, job: Job) -> None:
        for attempt in tuple(job.attempts):
            self._release(job, attempt)
        self._queue.discard(job.id)
        self.input_bytes -= job.input_bytes
        del self.jobs[job.id]
