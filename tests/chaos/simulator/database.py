"""The coordinator's database in memory: the same records, the same answers, and what each kind of end leaves of it.

`tests/chaos/test_simulator.py` compares it with the real store, record by record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_agent.coordinator.ages import remaining_seconds
from edge_agent.coordinator.events import (
    Commit,
    EndAttempt,
    EndJob,
    InsertAttempt,
    InsertJob,
    Outcome,
    Record,
    SaveAgent,
)
from edge_agent.coordinator.jobs import FINAL_STATES, Attempt, Job, JobState
from edge_agent.coordinator.retries import DEADLY, counts


class BrokenRuleError(Exception):
    """The database would refuse this: the coordinator would have to give up."""


@dataclass(slots=True)
class JobRow:
    """A row of the table of jobs."""

    inserted: InsertJob
    state: JobState = JobState.QUEUED
    epoch: int = 0
    outcome: Outcome | None = None
    result_epoch: int | None = None
    deadline_at: float | None = None


@dataclass(slots=True)
class AttemptRow:
    """A row of the table of attempts."""

    inserted: InsertAttempt
    outcome: str | None = None


@dataclass(slots=True)
class Tables:
    """All rows."""

    jobs: dict[bytes, JobRow] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    attempts: dict[tuple[bytes, int], AttemptRow] = field(default_factory=dict)
    agents: dict[str, int] = field(default_factory=dict)
    session: int = 0
    boot: int = 0

    def apply(self, record: Record) -> None:
        """Write one record.

        Raises:
            BrokenRuleError: a key would be there twice, or a job would end twice.
        """
        match record:
            case InsertJob(submit=submit):
                if submit.job_id in self.jobs or submit.idempotency_key in self.keys:
                    raise BrokenRuleError("a job would be inserted twice")
                self.jobs[submit.job_id] = JobRow(record, deadline_at=record.deadline)
                if submit.idempotency_key is not None:
                    self.keys[submit.idempotency_key] = submit.job_id
            case InsertAttempt():
                if (record.job_id, record.epoch) in self.attempts:
                    raise BrokenRuleError("an attempt would be inserted twice")
                self.attempts[record.job_id, record.epoch] = AttemptRow(record)
                self._move(record.job_id, record.state, record.epoch)
            case EndAttempt():
                self._end_attempt(record.job_id, record.epoch, record.outcome)
                self._move(record.job_id, record.state)
            case EndJob(outcome=outcome):
                row = self.jobs.get(outcome.job_id)
                if row is None or row.state in FINAL_STATES:
                    raise BrokenRuleError("a job would end twice")
                row.state, row.outcome, row.result_epoch = outcome.state, outcome, record.epoch
                self._end_attempt(outcome.job_id, record.epoch, outcome.state.value)
            case SaveAgent():
                self.agents[record.agent_id] = record.session

    def _move(self, job_id: bytes, state: JobState | None, epoch: int | None = None) -> None:
        row = self.jobs.get(job_id)
        if row is not None and row.state not in FINAL_STATES:
            row.state, row.epoch = state or row.state, epoch or row.epoch

    def _end_attempt(self, job_id: bytes, epoch: int, outcome: str) -> None:
        row = self.attempts.get((job_id, epoch))
        if row is not None and row.outcome is None:
            row.outcome = outcome


@dataclass(frozen=True, slots=True)
class _Meta:
    """A named number, which is not written by the writer."""

    name: str
    value: int


class Database:
    """The tables, and the log that a power cut cuts short.

    Attributes:
        tables: as they are now.
    """

    def __init__(self) -> None:
        self.tables = Tables()
        self._log: list[tuple[Record | _Meta, ...]] = []
        self._synced = 0

    def write(self, group: Sequence[Commit]) -> None:
        """Write a group of commits in one transaction.

        Raises:
            BrokenRuleError: nothing may be trusted any more.
        """
        records = tuple(record for commit in group for record in commit.records)
        for record in records:
            self.tables.apply(record)
        if records:
            self._log.append(records)
        if any(commit.durable for commit in group):
            self._synced = len(self._log)

    def next_session(self, wall_ms: int) -> int:
        """Return a larger session than any before; written with a transaction that survives everything."""
        self._put_meta("session", max(self.tables.session + 1, wall_ms))
        return self.tables.session

    def _put_meta(self, name: str, value: int) -> None:
        """Write with a transaction of its own, which survives everything."""
        setattr(self.tables, name, value)
        self._log.append((_Meta(name, value),))
        self._synced = len(self._log)

    def lose_power(self, kept: float) -> None:
        """Go back to what was on the disk: all that was synchronised, and this share of what came after."""
        self._log = self._log[: self._synced + int((len(self._log) - self._synced + 1) * kept)]
        self.tables = Tables()
        for transaction in self._log:
            for record in transaction:
                if isinstance(record, _Meta):
                    setattr(self.tables, record.name, record.value)
                else:
                    self.tables.apply(record)

    # -- what a coordinator reads -------------------------------------------------------------------------------------

    def open_jobs(self, *, monotonic: float, wall_ms: int, lease_seconds: float, boot: int = 0) -> list[Job]:
        """Return the jobs that had not ended, as `Store.open_jobs` does."""
        found = []
        same_boot = boot != 0 and boot == self.tables.boot
        self._put_meta("boot", boot)
        for row in self.tables.jobs.values():
            if row.state in FINAL_STATES:
                continue
            if not same_boot:
                row.deadline_at = None
            inserted, submit = row.inserted, row.inserted.submit
            left = remaining_seconds(
                submitted_ms=inserted.submitted_ms,
                deadline_ms=inserted.deadline_ms,
                deadline_at_ms=int(row.deadline_at * 1000) if row.deadline_at is not None else None,
                monotonic=monotonic,
                wall_ms=wall_ms,
                grace_seconds=lease_seconds,
            )
            if not same_boot:
                row.deadline_at = monotonic + left
            tried = [a for (job_id, _), a in sorted(self.tables.attempts.items()) if job_id == submit.job_id]
            failed = [a for a in tried if a.outcome is not None and counts(a.outcome)]
            found.append(
                Job(
                    id=submit.job_id,
                    family=submit.family,
                    inputs=submit.inputs,
                    outputs=submit.outputs,
                    salt=submit.salt,
                    submitted_ms=inserted.submitted_ms,
                    deadline=monotonic + left,
                    max_attempts=inserted.max_attempts,
                    variant=submit.variant,
                    client=submit.client,
                    priority=submit.priority,
                    placement=submit.placement,
                    state=row.state,
                    epoch=row.epoch,
                    attempts=[
                        Attempt(
                            attempt.inserted.epoch,
                            attempt.inserted.agent_id,
                            attempt.inserted.variant,
                            attempt.inserted.agent_session,
                            attempt.inserted.coordinator_session,
                            lease_until=monotonic + lease_seconds,
                            leased_at=monotonic,
                        )
                        for attempt in tried
                        if attempt.outcome is None
                    ],
                    failures=len(failed),
                    failed_on={a.inserted.agent_id for a in failed},
                    killed={a.inserted.agent_id for a in failed if a.outcome in DEADLY},
                )
            )
        found.sort(key=lambda job: job.submitted_ms)
        return found

    def requests(self) -> list[tuple[str, bytes, bytes]]:
        """Return (idempotency key, job, request digest) of every job that has a key, oldest first."""
        rows = sorted(self.tables.jobs.values(), key=lambda row: row.inserted.submitted_ms)
        submits = [row.inserted.submit for row in rows]
        return [(s.idempotency_key, s.job_id, s.request_digest) for s in submits if s.idempotency_key is not None]

    def served(self) -> dict[str, set[str]]:
        """Return which families each agent has served so far."""
        served: dict[str, set[str]] = {}
        for (job_id, _), row in self.tables.attempts.items():
            if job_id in self.tables.jobs:
                family = self.tables.jobs[job_id].inserted.submit.family
                served.setdefault(row.inserted.agent_id, set()).add(family)
        return served
