"""The jobs that have not ended: their queues, leases and timers. No I/O; time is an argument."""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from edge_agent.clock import Now
from edge_agent.coordinator.events import Command, Commit, EndAttempt, EndJob, InsertAttempt, Outcome, Publish
from edge_agent.coordinator.jobs import Attempt, Blame, Job, JobError, JobEvent, JobState
from edge_agent.coordinator.registry import Agent, Registry
from edge_agent.coordinator.scheduling import Candidate, pick
from edge_agent.coordinator.statements import Statements
from edge_agent.notes import Note

DEADLINE = 0
"""Stands in a timer where an attempt's epoch would: this is the deadline of the job itself."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that the core goes by; units are in the names."""

    lease_seconds: float = 30.0
    max_attempts: int = 5
    max_queued_jobs: int = 10_000
    offer_grace_seconds: float = 30.0
    max_message_bytes: int = 17 * 1024 * 1024
    max_output_bytes: int = 16 * 1024 * 1024


class Leasing:
    """The table of live jobs.

    Args:
        registry: the agents that may be given work.
        statements: signs what is sent to them.
        rules: limits and times.
    """

    def __init__(self, registry: Registry, statements: Statements, rules: Rules) -> None:
        self.jobs: dict[bytes, Job] = {}
        self._registry = registry
        self._statements = statements
        self._rules = rules
        self._queues: dict[str, deque[bytes]] = {}
        self._timers: list[tuple[float, bytes, int]] = []  # (monotonic seconds, job, epoch or DEADLINE)

    def add(self, job: Job) -> None:
        """Take a job in, new or from before a restart."""
        self.jobs[job.id] = job
        heapq.heappush(self._timers, (job.deadline, job.id, DEADLINE))
        if job.attempt is not None:
            self._watch(job.id, job.attempt)
            agent = self._registry.agents.get(job.attempt.agent_id)
            if agent is not None:
                agent.in_flight.add(job.id)
        if job.state is JobState.QUEUED:
            self._queues.setdefault(job.family, deque()).append(job.id)

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which `expired` has something to say, if any."""
        return self._timers[0][0] if self._timers else None

    def expired(self, now: Now) -> Iterable[tuple[Job, int]]:
        """Give each job whose deadline passed (with `DEADLINE`) or whose lease ran out (with its epoch), once."""
        while self._timers and self._timers[0][0] <= now.monotonic:
            rung, job_id, epoch = heapq.heappop(self._timers)
            job = self.jobs.get(job_id)
            if job is None:
                continue
            if epoch == DEADLINE:
                yield job, DEADLINE
            elif job.attempt is not None and job.attempt.epoch == epoch and job.attempt.timer_at == rung:
                if job.attempt.lease_until > now.monotonic:  # it was renewed meanwhile
                    self._watch(job_id, job.attempt)
                else:
                    job.attempt.timer_at = 0.0
                    yield job, epoch

    # -- leases ---------------------------------------------------------------------------------------------------

    def dispatch_all(self, now: Now, coordinator_session: int) -> list[Command]:
        """Lease queued jobs of every family: what one family gives back, another one may take."""
        waiting = [family for family, queue in self._queues.items() if queue]
        return [command for family in waiting for command in self.dispatch(family, now, coordinator_session)]

    def dispatch(self, family: str, now: Now, coordinator_session: int) -> list[Command]:
        """Lease queued jobs of a family, oldest first, as long as an agent has room."""
        queue = self._queues.get(family)
        if not queue:
            return []
        agents = self._registry.offering(family)
        room = sum(max(0, a.offers[family].max_in_flight - len(a.in_flight)) for a in agents)
        commands: list[Command] = []
        waiting: list[bytes] = []
        hopeless: set[bytes | None] = set()  # variants that nobody has room for: a long queue is passed over quickly
        while queue and room > 0:
            job = self.jobs.get(queue.popleft())
            if job is None or job.state is not JobState.QUEUED:
                continue
            agent_id = None if job.variant in hopeless and not job.failed_on else pick(_candidates(agents, job))
            if agent_id is None:
                waiting.append(job.id)
                if not job.failed_on:
                    hopeless.add(job.variant)
                continue
            room -= 1
            commands += self._lease(job, self._registry.agents[agent_id], now, coordinator_session)
        queue.extendleft(reversed(waiting))
        return commands

    def _lease(self, job: Job, agent: Agent, now: Now, coordinator_session: int) -> list[Command]:
        job.apply(JobEvent.LEASE)
        job.epoch += 1
        variant = agent.offers[job.family].variant
        until = now.monotonic + self._rules.lease_seconds
        attempt = Attempt(job.epoch, agent.id, variant, agent.session, coordinator_session, until)
        job.attempt = attempt
        agent.in_flight.add(job.id)
        self._watch(job.id, attempt)
        message = self._statements.job(
            job,
            attempt,
            now,
            lease_seconds=self._rules.lease_seconds,
            max_output_bytes=self._rules.max_output_bytes,
        )
        record = InsertAttempt(job.id, job.epoch, agent.id, variant, agent.session, coordinator_session, now.wall_ms)
        # The record may be lost with the process: the job then goes out again under the same epoch, and at most one
        # of the two answers matches the agent that holds it.
        return [message, Commit((record,), urgent=False)]

    def renew(self, attempt: Attempt, now: Now) -> None:
        """Let an attempt run for another lease from now."""
        attempt.lease_until = now.monotonic + self._rules.lease_seconds

    def extend(self, job: Job, now: Now) -> None:
        """Give an attempt whose lease has run out another one: it was us who were away."""
        if job.attempt is not None:
            self.renew(job.attempt, now)
            self._watch(job.id, job.attempt)

    def shorten(self, job: Job, until: float) -> None:
        """End a lease earlier than agreed, at this monotonic second, unless something renews it."""
        if job.attempt is not None and job.attempt.lease_until > until:
            job.attempt.lease_until = until
            self._watch(job.id, job.attempt)

    def _watch(self, job_id: bytes, attempt: Attempt) -> None:
        attempt.timer_at = attempt.lease_until
        heapq.heappush(self._timers, (attempt.timer_at, job_id, attempt.epoch))

    # -- ends -----------------------------------------------------------------------------------------------------

    def requeue(self, job: Job, why: str, now: Now, then: Publish | None = None) -> list[Command]:
        """Take a job away from its agent, to the head of its queue, or end it when its attempts are used up."""
        attempt = job.attempt
        if attempt is None:
            raise AssertionError("only a leased job can be queued again")
        after = (then,) if then else ()
        if job.epoch >= job.max_attempts:
            text = f"gave up after {job.epoch} attempts; the last one ended with {why}"
            return [*self.end(job, JobEvent.FAIL, JobError("attempts-exhausted", text, Blame.AGENT), now), *after]
        self._release(job)
        job.apply(JobEvent.REQUEUE)
        job.attempt = None
        self._queues.setdefault(job.family, deque()).appendleft(job.id)  # it has waited already
        record = EndAttempt(job.id, attempt.epoch, why, now.wall_ms)
        return [
            note(logging.INFO, f"An attempt ended without a result ({why}); the job is queued again", "requeued", job),
            Commit((record,), then=after),
        ]

    def end(self, job: Job, event: JobEvent, error: JobError, now: Now) -> list[Command]:
        """End a job without a result."""
        job.apply(event)
        self._remove(job)
        outcome = Outcome(job.id, job.state, error=error)
        return [
            Commit((EndJob(outcome, job.epoch, now.wall_ms),), then=(outcome,)),
            note(logging.WARNING, f"The job {job.state}: {error.message}", f"job-{job.state}", job),
        ]

    def succeed(self, job: Job) -> None:
        """End a job whose result is accepted; the caller commits the result."""
        job.apply(JobEvent.ACCEPT)
        self._remove(job)

    def _release(self, job: Job) -> None:
        if job.attempt is not None and (agent := self._registry.agents.get(job.attempt.agent_id)) is not None:
            agent.in_flight.discard(job.id)

    def _remove(self, job: Job) -> None:
        self._release(job)
        del self.jobs[job.id]


def _candidates(agents: Iterable[Agent], job: Job) -> list[Candidate]:
    return [
        Candidate(
            agent.id,
            agent.offers[job.family].latency_us,
            len(agent.in_flight),
            agent.offers[job.family].max_in_flight,
            failed_before=agent.id in job.failed_on,
        )
        for agent in agents
        if job.variant is None or agent.offers[job.family].variant == job.variant
    ]


def note(level: int, sentence: str, action: str, job: Job) -> Note:
    """Make a log line about a job."""
    fields: list[tuple[str, str | int]] = [("job_id", job.id.hex()), ("epoch", job.epoch)]
    if job.attempt is not None:
        fields.append(("agent_id", job.attempt.agent_id))
    return Note(level, sentence, action, tuple(fields))
