"""The coordinator's database in memory: the same records, the same answers, and what each kind of end leaves of it.

`tests/chaos/test_simulator.py` compares it with the real store, record by record.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edge_agent.coordinator import ledger_table
from edge_agent.coordinator.ages import remaining_seconds
from edge_agent.coordinator.cases import Pending
from edge_agent.coordinator.events import (
    PENDING,
    AddEntry,
    AgentsChanged,
    EndAttempt,
    EndJob,
    InsertAttempt,
    InsertJob,
    Outcome,
    Record,
    SaveAgent,
    SaveStanding,
    Verified,
)
from edge_agent.coordinator.jobs import FINAL_STATES, Job, JobState
from edge_agent.coordinator.orders import Orders, read_orders
from edge_agent.coordinator.pending import read_pending
from edge_agent.coordinator.rows import StoredAgent, pack_tensors, placement_to_text, restored_job, standing_rows
from edge_agent.coordinator.trust import Standing, Subject
from edge_agent.coordinator.young import needs_inputs
from edge_agent.wire import receipts


class BrokenRuleError(Exception):
    """The database would refuse this: the coordinator would have to give up."""


@dataclass(slots=True)
class JobRow:
    """A row of the table of jobs."""

    inserted: InsertJob
    state: JobState = JobState.QUEUED
    epoch: int = 0
    deadline_at_ms: int | None = None
    outcome: Outcome | None = None
    result_epoch: int | None = None

    def forget_inputs(self) -> None:
        """Nothing needs them any more."""
        self.inserted = replace(self.inserted, submit=replace(self.inserted.submit, inputs=()))


@dataclass(slots=True)
class AttemptRow:
    """A row of the table of attempts."""

    inserted: InsertAttempt
    outcome: str | None = None
    refused_by: str | None = None


@dataclass(slots=True)
class Tables:
    """All rows."""

    jobs: dict[bytes, JobRow] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    attempts: dict[tuple[bytes, int], AttemptRow] = field(default_factory=dict)
    agents: dict[str, SaveAgent] = field(default_factory=dict)
    standings: dict[Subject, Standing] = field(default_factory=dict)
    balances: Counter[str] = field(default_factory=Counter)
    paid: set[bytes] = field(default_factory=set)
    session: int = 0
    boot: int = 0

    def apply(self, record: Record) -> None:  # noqa: C901, PLR0912 one branch a record
        """Write one record.

        Raises:
            BrokenRuleError: a key would be there twice, or a job would end or be paid for twice, or without a result.
        """
        match record:
            case InsertJob(submit=submit):
                if submit.job_id in self.jobs or submit.idempotency_key in self.keys:
                    raise BrokenRuleError("a job would be inserted twice")
                self.jobs[submit.job_id] = JobRow(record, deadline_at_ms=int(record.deadline * 1000))
                if submit.idempotency_key is not None:
                    self.keys[submit.idempotency_key] = submit.job_id
            case InsertAttempt():
                if (record.job_id, record.epoch) in self.attempts:
                    raise BrokenRuleError("an attempt would be inserted twice")
                self.attempts[record.job_id, record.epoch] = AttemptRow(record)
                if (row := self._open(record.job_id)) is not None:
                    row.state, row.epoch = record.state, record.epoch
            case EndAttempt():
                self._end_attempt(record.job_id, record.epoch, record.outcome, record.refused_by)
                if record.state is not None and (row := self._open(record.job_id)) is not None:
                    row.state = record.state
            case EndJob(outcome=outcome):
                row = self._open(outcome.job_id)
                if row is None:
                    raise BrokenRuleError("a job would end twice")
                row.state, row.outcome, row.result_epoch = outcome.state, outcome, record.epoch
                if not needs_inputs(record):
                    row.forget_inputs()
                self._end_attempt(outcome.job_id, record.epoch, outcome.state.value)
            case Verified():
                if (row := self.jobs.get(record.job_id)) is not None and row.outcome is not None:
                    row.outcome = replace(row.outcome, verification=record.verification)
                    if record.verification.state != PENDING:
                        row.forget_inputs()
            case SaveAgent():
                self.agents[record.agent_id] = record
            case SaveStanding():
                standing = Standing(record.count, record.failures, record.unclear, record.resting_until_ms)
                self.standings[Subject(record.name, record.variant)] = standing
            case AddEntry():
                if record.job_id is not None:
                    paid = self.jobs.get(record.job_id)
                    if paid is None or paid.state is not JobState.SUCCEEDED or record.job_id in self.paid:
                        raise BrokenRuleError("the ledger would pay for a job that has no result, or twice")
                    self.paid.add(record.job_id)
                self.balances[record.debit] -= record.amount
                self.balances[record.credit] += record.amount

    def _open(self, job_id: bytes) -> JobRow | None:
        row = self.jobs.get(job_id)
        return row if row is not None and row.state not in FINAL_STATES else None

    def _end_attempt(self, job_id: bytes, epoch: int, outcome: str, refused_by: str | None = None) -> None:
        row = self.attempts.get((job_id, epoch))
        if row is not None and row.outcome is None:
            row.outcome, row.refused_by = outcome, refused_by


@dataclass(frozen=True, slots=True)
class _Meta:
    """A named number, or the deadline of a job on the clock of this boot: what the writer does not write."""

    name: str | bytes
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

    def write(self, records: Sequence[Record], *, durable: bool) -> None:
        """Write records in one transaction.

        Raises:
            BrokenRuleError: nothing may be trusted any more.
        """
        for record in records:
            self.tables.apply(record)
        if records:
            self._log.append(tuple(records))
        if durable:
            self._synced = len(self._log)

    def read(self, question: Callable[[Any], Any]) -> Any:  # noqa: ANN401 as the store's
        """Answer the questions that a coordinator asks at its start; nobody has given an order here."""
        answers = {
            read_orders: Orders(),
            standing_rows: dict(self.tables.standings),
            ledger_table.balances: dict(self.tables.balances),
            read_pending: self._pending(),
        }
        return answers[question]

    def _pending(self) -> list[Pending]:
        found = []
        for row in self.tables.jobs.values():
            outcome = row.outcome
            if outcome is None or outcome.verification is None or outcome.verification.state != PENDING:
                continue
            job = restored_job(_job_columns(row), [], 0.0, 0.0, 0.0)  # type: ignore[arg-type] # a mapping
            by, variant, klass = outcome.agent_id or "", outcome.variant or b"", outcome.klass or ""
            signed = receipts.result_in(outcome.receipt or b"")
            epoch = row.result_epoch or 0
            found.append(Pending(job, epoch, by, variant, klass, outcome.outputs, signed, outcome.verification))
        return sorted(found, key=lambda one: (one.job.submitted_ms, one.job.id))

    def next_session(self, wall_ms: int) -> int:
        """Return a larger session than any before."""
        self._note(_Meta("session", max(self.tables.session + 1, wall_ms)))
        return self.tables.session

    def _note(self, *notes: _Meta) -> None:
        """Write with a transaction of its own, which survives everything."""
        for note in notes:
            self._apply(note)
        self._log.append(notes)
        self._synced = len(self._log)

    def _apply(self, record: Record | _Meta) -> None:
        match record:
            case _Meta(name=str()):
                setattr(self.tables, str(record.name), record.value)
            case _Meta(name=bytes() as job_id):
                self.tables.jobs[job_id].deadline_at_ms = record.value
            case _:
                self.tables.apply(record)

    def lose_power(self, kept: float) -> None:
        """Go back to what was on the disk: all that was synchronised, and this share of what came after."""
        self._log = self._log[: self._synced + int((len(self._log) - self._synced + 1) * kept)]
        self.tables = Tables()
        for transaction in self._log:
            for record in transaction:
                self._apply(record)

    # -- what a coordinator reads, as from the store ----------------------------------------------------------------

    def open_jobs(self, *, monotonic: float, wall_ms: int, lease_seconds: float, boot: int) -> list[Job]:
        """Return the jobs that had not ended, as `Store.open_jobs` does."""
        same_boot = boot != 0 and self.tables.boot == boot
        notes = [_Meta("boot", boot)]
        found = []
        for job_id, row in self.tables.jobs.items():
            if row.state in FINAL_STATES:
                continue
            left = remaining_seconds(
                submitted_ms=row.inserted.submitted_ms,
                deadline_ms=row.inserted.deadline_ms,
                deadline_at_ms=row.deadline_at_ms if same_boot else None,
                monotonic=monotonic,
                wall_ms=wall_ms,
                grace_seconds=lease_seconds,
            )
            tried = [
                _attempt_columns(tried) for (tried_id, _), tried in self.tables.attempts.items() if tried_id == job_id
            ]
            job = restored_job(_job_columns(row), tried, monotonic + left, monotonic, lease_seconds)  # type: ignore[arg-type] # mappings
            if not same_boot:
                notes.append(_Meta(job_id, int(job.deadline * 1000)))
            found.append(job)
        self._note(*notes)
        found.sort(key=lambda job: job.submitted_ms)
        return found

    def requests(self, limit: int) -> list[tuple[str, bytes, bytes]]:
        """Return (idempotency key, job, request digest) of the newest jobs that have a key, oldest first."""
        rows = sorted(self.tables.jobs.values(), key=lambda row: row.inserted.submitted_ms)
        submits = [row.inserted.submit for row in rows if row.inserted.submit.idempotency_key is not None]
        return [(s.idempotency_key or "", s.job_id, s.request_digest) for s in submits[-limit:]]

    def served_families(self) -> dict[str, set[str]]:
        """Return which families each agent has served so far."""
        served: dict[str, set[str]] = {}
        for (job_id, _), row in self.tables.attempts.items():
            if job_id in self.tables.jobs:
                family = self.tables.jobs[job_id].inserted.submit.family
                served.setdefault(row.inserted.agent_id, set()).add(family)
        return served

    def agents(self) -> list[StoredAgent]:
        """Return every agent that was ever here; whether it is approved, the operator says elsewhere."""
        saved = self.tables.agents.values()
        return [StoredAgent(a.agent_id, a.public_key, True, a.session, a.software, a.seen_ms) for a in saved]

    def standing(self, _registrar: object, _now_ms: int) -> AgentsChanged:
        """Say who may work here, as the database has it: everybody; the operator says more elsewhere."""
        return AgentsChanged(frozenset(self.tables.agents))

    def accepted(self) -> dict[bytes, int]:
        """Return how many results of each variant were accepted."""
        rows = self.tables.attempts.values()
        return dict(Counter(row.inserted.variant for row in rows if row.outcome == JobState.SUCCEEDED.value))


def _job_columns(row: JobRow) -> dict[str, Any]:
    submit = row.inserted.submit
    return {
        "id": submit.job_id,
        "family": submit.family,
        "inputs": pack_tensors(submit.inputs),
        "outputs": json.dumps(submit.outputs),
        "salt": submit.salt,
        "submitted_ms": row.inserted.submitted_ms,
        "max_attempts": row.inserted.max_attempts,
        "variant": submit.variant,
        "client": submit.client,
        "priority": submit.priority,
        "placement": placement_to_text(submit.placement),
        "mode": submit.mode,
        "checks": submit.checks,
        "state": row.state.value,
        "epoch": row.epoch,
    }


def _attempt_columns(row: AttemptRow) -> dict[str, Any]:
    inserted = row.inserted
    return {
        "epoch": inserted.epoch,
        "agent_id": inserted.agent_id,
        "variant": inserted.variant,
        "agent_session": inserted.agent_session,
        "coordinator_session": inserted.coordinator_session,
        "outcome": row.outcome,
        "refused_by": row.refused_by,
    }
