"""The one thread that writes jobs: in order, in groups, and nobody is told of what is not stored.

`Writer` takes the core's `Commit` commands. Everything that waits is written in one transaction, which is
synchronised to the disk when any part of it must survive a power cut; then each part's `then` is handed back.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from queue import Empty, SimpleQueue

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from edge_agent.coordinator.bulk import Bulk, Statements
from edge_agent.coordinator.events import (
    PENDING,
    AddEntry,
    Commit,
    EndAttempt,
    EndJob,
    InsertAttempt,
    InsertJob,
    Record,
    SaveAgent,
    SaveStanding,
    Verified,
)
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.ledger_table import Chain
from edge_agent.coordinator.log_table import Appender
from edge_agent.coordinator.rows import NO_INPUTS, pack_tensors, placement_to_text, verification_to_text
from edge_agent.coordinator.schema import agents, attempts, jobs, results, standings
from edge_agent.coordinator.store import FINAL, Store
from edge_agent.coordinator.young import YoungJobs, commit_bytes, keys_of, may_wait, needs_inputs
from edge_agent.errors import StateError
from edge_agent.wire.receipts import receipt_leaf

MAX_STRANGERS = 1000
"""Agents that nobody admitted are remembered up to this number, the latest ones: anybody can make up more."""
GROUP_COMMITS = 256
"""At most this many commits share a transaction."""

MAX_WAITING_COMMITS = 10_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""What may wait to be written before nothing more is taken on, unless the caller says otherwise."""

LINGER_SECONDS = 0.02
"""So long a commit that is not urgent waits for others to share its transaction."""


def apply(  # noqa: C901 one branch a record
    connection: Connection | Bulk, record: Record, log: Appender, chain: Chain | None = None
) -> None:
    """Write one record inside the caller's transaction.

    Args:
        connection: in a transaction.
        record: what happened.
        log: takes one leaf for each result; the caller has it written at the end of the transaction.
        chain: takes entries of the ledger; the caller has them written like the leaves.

    Raises:
        StateError: when a job would end twice; the transaction must be given up, and `log` is of no use any more.
        PeerError: a receipt that is none; as above.
    """
    match record:
        case InsertJob(submit=submit):
            connection.execute(
                _INSERT_JOB,
                {
                    "id": submit.job_id,
                    "family": submit.family,
                    "variant": submit.variant,
                    "inputs": pack_tensors(submit.inputs),
                    "outputs": json.dumps(submit.outputs),
                    "salt": submit.salt,
                    "state": JobState.QUEUED.value,
                    "epoch": 0,
                    "max_attempts": record.max_attempts,
                    "submitted_ms": record.submitted_ms,
                    "deadline_ms": record.deadline_ms,
                    "idempotency_key": submit.idempotency_key,
                    "request_digest": submit.request_digest,
                    "client": submit.client,
                    "priority": submit.priority,
                    "placement": placement_to_text(submit.placement),
                    "deadline_at_ms": int(record.deadline * 1000),
                    "checks": submit.checks,
                    "mode": None if submit.mode == "signed" else submit.mode,
                },
            )
        case InsertAttempt():
            row = {column.name: getattr(record, column.name, None) for column in attempts.columns}
            connection.execute(_INSERT_ATTEMPT, row)
            leased = {"b_id": record.job_id, "state": record.state.value, "epoch": record.epoch}
            connection.execute(_LEASE_JOB, leased)
        case EndAttempt():
            how = record.outcome, record.refused_by
            _end_attempt(connection, record.job_id, record.epoch, how, record.ended_ms)
            if record.state is not None:
                connection.execute(_MOVE_JOB, {"b_id": record.job_id, "state": record.state.value})
        case EndJob():
            _end_job(connection, record, log, chain)
        case AddEntry():
            if chain is None:
                raise StateError("there is no ledger to write to")
            chain.append(connection, record)
        case Verified():
            found = {"b_id": record.job_id, "verification": verification_to_text(record.verification)}
            connection.execute(_VERIFY_RESULT, found)
            if record.verification.state != PENDING:
                connection.execute(_FORGET_INPUTS, {"b_id": record.job_id})
        case SaveStanding():
            row = {column.name: getattr(record, column.name) for column in standings.columns}
            connection.execute(_REPLACE_STANDING, row)
        case SaveAgent():
            values = {
                "public_key": record.public_key,
                "session": record.session,
                "software": record.software,
                "seen_ms": record.seen_ms,
                "sealing_key": record.sealing_key,
            }
            changed = connection.execute(sa.update(agents).where(agents.c.id == record.agent_id).values(values))
            if not changed.rowcount:
                connection.execute(sa.insert(agents).values(id=record.agent_id, approved=False, **values))
                connection.execute(_FORGET_STRANGERS)


def _end_attempt(
    connection: Connection | Bulk, job_id: bytes, epoch: int, how: tuple[str, str | None], ended_ms: int
) -> None:
    outcome, refused_by = how
    ended = {"b_job": job_id, "b_epoch": epoch, "outcome": outcome, "refused_by": refused_by, "ended_ms": ended_ms}
    connection.execute(_END_ATTEMPT, ended)


def _end_job(connection: Connection | Bulk, record: EndJob, log: Appender, chain: Chain | None) -> None:
    outcome = record.outcome
    error = outcome.error
    ended = connection.execute(
        _END_JOB,
        {
            "b_id": outcome.job_id,
            "state": outcome.state.value,
            "inputs": None if needs_inputs(record) else NO_INPUTS,
            "ended_ms": record.ended_ms,
            "error_code": error.code if error else None,
            "error_message": error.message if error else None,
            "error_blame": error.blame.value if error else None,
        },
    )
    if ended.rowcount != 1:
        raise StateError(f"the job {outcome.job_id.hex()} would end twice")
    _end_attempt(connection, outcome.job_id, record.epoch, (outcome.state.value, None), record.ended_ms)
    if outcome.receipt is not None:
        connection.execute(
            _INSERT_RESULT,
            {
                "job_id": outcome.job_id,
                "epoch": record.epoch,
                "agent_id": outcome.agent_id,
                "variant": outcome.variant,
                "run_us": outcome.run_us,
                "outputs": pack_tensors(outcome.outputs),
                "receipt": outcome.receipt,
                "klass": outcome.klass,
                "verification": verification_to_text(outcome.verification),
            },
        )
        leaf = receipt_leaf(outcome.receipt)
        log.append(leaf)
        if chain is not None:
            chain.note(outcome.job_id, leaf)


def forget_strangers(most: int) -> sa.Delete:
    """Make the statement that removes all but the latest `most` agents that nobody admitted."""
    strangers = sa.select(agents.c.id).where(agents.c.approved.is_(False))
    # SQLite wants a limit before an offset
    return sa.delete(agents).where(agents.c.id.in_(strangers.order_by(agents.c.seen_ms.desc()).limit(-1).offset(most)))


_FORGET_STRANGERS = forget_strangers(MAX_STRANGERS)
_INSERT_JOB = sa.insert(jobs)
_INSERT_ATTEMPT = sa.insert(attempts)
_INSERT_RESULT = sa.insert(results)
_VERIFY_RESULT = (
    sa.update(results).where(results.c.job_id == sa.bindparam("b_id")).values(verification=sa.bindparam("verification"))
)
_REPLACE_STANDING = sqlite_insert(standings).on_conflict_do_update(
    index_elements=["name", "variant"],
    set_={
        n: getattr(sqlite_insert(standings).excluded, n) for n in ("count", "failures", "unclear", "resting_until_ms")
    },
)
_LIVE = sa.and_(*(jobs.c.state != sa.literal_column(f"'{state}'") for state in FINAL))
_MOVE_JOB = sa.update(jobs).where(jobs.c.id == sa.bindparam("b_id"), _LIVE).values(state=sa.bindparam("state"))
_LEASE_JOB = (
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("b_id"), _LIVE)
    .values(state=sa.bindparam("state"), epoch=sa.bindparam("epoch"))
)
_END_JOB = (
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("b_id"), _LIVE)
    .values({name: sa.bindparam(name) for name in ("state", "ended_ms", "error_code", "error_message", "error_blame")})
    .values(inputs=sa.func.coalesce(sa.bindparam("inputs"), jobs.c.inputs))
)
_FORGET_INPUTS = sa.update(jobs).where(jobs.c.id == sa.bindparam("b_id")).values(inputs=NO_INPUTS)
_END_ATTEMPT = (
    sa.update(attempts)
    .where(attempts.c.job_id == sa.bindparam("b_job"), attempts.c.epoch == sa.bindparam("b_epoch"))
    .where(attempts.c.outcome.is_(None))  # a job that ends while it is queued has no running attempt
    .values({name: sa.bindparam(name) for name in ("outcome", "refused_by", "ended_ms")})
)


def apply_all(connection: Connection, records: Iterable[Record], log: Appender, chain: Chain | None = None) -> None:
    """Write records as `apply` does one after the other, in fewer statements."""
    bulk = Bulk(connection, FINAL, _BULK)
    for record in records:
        apply(bulk, record, log, chain)
    bulk.flush()


_BULK = Statements(
    insert_job=_INSERT_JOB,
    lease_job=_LEASE_JOB,
    end_job=_END_JOB,
    insert_attempt=_INSERT_ATTEMPT,
    end_attempt=_END_ATTEMPT,
    insert_result=_INSERT_RESULT,
)


class Writer:
    """The only thread that writes jobs; see `young` for what it does not write at once.

    Args:
        store: the open database.
        committed: called on the writer's thread with each commit that is stored, in order.
        failed: called once, on the writer's thread, when a transaction failed: nothing after it is written, and
            the process must end, because what it has in memory is no longer what is stored.
        max_commits: more that wait make it `full`: nothing that was accepted is ever left out, but no more should be.
        max_bytes: the same for the tensors in them.

    Attributes:
        owes_since: the monotonic second at which the group that is being written was begun; None if there is none.
    """

    def __init__(
        self,
        store: Store,
        committed: Callable[[Sequence[Commit]], None],
        failed: Callable[[Exception], None],
        *,
        max_commits: int = MAX_WAITING_COMMITS,
        max_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._store = store
        self._committed = committed
        self._failed = failed
        # To wake a thread costs more than to write down a row: it is woken for what is urgent, or when it is idle.
        self._queue: deque[tuple[float, Commit] | None] = deque()  # with the monotonic second at which each came
        self._bell: SimpleQueue[None] = SimpleQueue()  # an event would cost ten calls each time
        self._rung = False
        self._idle = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._max_commits = max_commits
        self._max_bytes = max_bytes
        # Each of these is written by one thread alone, and only grows.
        self._put_commits = self._put_bytes = 0
        self._done_commits = self._done_bytes = 0
        self._put_urgent = self._taken_urgent = 0
        self._young = YoungJobs(max_bytes // 2)
        self._keys: dict[str, tuple[bytes, bytes]] = {}
        self.owes_since: float | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def write(self, commit: Commit) -> None:
        """Put a commit in the queue; its turn comes in order."""
        self._put_commits += 1
        self._put_bytes += commit_bytes(commit)
        self._keys.update(keys_of(commit.records))
        self._queue.append((time.monotonic(), commit))
        if commit.urgent:
            self._put_urgent += 1
        presses = self._put_commits - self._done_commits >= GROUP_COMMITS
        presses = presses or self._put_bytes - self._done_bytes >= self._max_bytes // 4
        if self._idle or presses or not may_wait(commit):
            self._ring()

    def request(self, idempotency_key: str) -> tuple[bytes, bytes] | None:
        """Return (job id, request digest) of a job with this key that is not written yet."""
        return self._keys.get(idempotency_key)

    @property
    def full(self) -> bool:
        """Whether so much waits that nothing more should be taken on."""
        commits = self._put_commits - self._done_commits
        waiting_bytes = self._put_bytes - self._done_bytes + self._young.input_bytes
        return commits >= self._max_commits or waiting_bytes >= self._max_bytes

    def stop(self, timeout_seconds: float) -> None:
        """Write what is queued, then end."""
        self._queue.append(None)
        self._put_urgent += 1
        self._ring()
        self._thread.join(timeout_seconds)

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            self._bell.put(None)

    def _wait(self, seconds: float | None) -> None:
        with suppress(Empty):
            self._bell.get(timeout=seconds)
            self._rung = False  # before the queue is looked at: who is behind the next look rings again

    def _run(self) -> None:
        with closing(self._store.engine.connect()) as connection:
            durable = log = chain = None
            going_on = True
            while going_on:
                group = self._next_group()
                now = self.owes_since = time.monotonic()
                wanted = any(commit.durable for _, commit in group or ())
                try:
                    records = [record for at, commit in group or () for record in self._young.take(commit, at)]
                    records += self._young.due(now) if group is not None else self._young.all()
                    if wanted is not durable:
                        # FULL survives a power cut, NORMAL a crash of the process; outside a transaction only.
                        mode = "FULL" if wanted else "NORMAL"
                        connection.exec_driver_sql(f"PRAGMA synchronous={mode}")
                        connection.rollback()
                        durable = wanted
                    if log is None:
                        log, chain = Appender.load(connection), Chain.load(connection)
                        connection.rollback()
                    if records or wanted:
                        with connection.begin():
                            apply_all(connection, records, log, chain)
                            log.write(connection)
                            if chain is not None:
                                chain.write(connection)
                except Exception as error:  # noqa: BLE001 whatever it is, memory and database have parted
                    self._failed(error)
                    return
                self.owes_since = None
                for key in keys_of(records):
                    self._keys.pop(key, None)
                if group:
                    self._done_commits += len(group)
                    self._done_bytes += sum(commit_bytes(commit) for _, commit in group)
                    self._committed([commit for _, commit in group])
                going_on = group is not None

    def _next_group(self) -> list[tuple[float, Commit]] | None:
        """Wait for something to do; return the commits that came, maybe none, or None when the end is wanted."""
        while True:
            due = self._young.next_due()
            self._idle = due is None
            if self._queue:
                break
            seconds = None if due is None else due - time.monotonic()
            if seconds is not None and seconds <= 0.0:
                return []
            self._wait(seconds)
        self._idle = False
        if self._put_urgent == self._taken_urgent:
            self._wait(LINGER_SECONDS)  # nobody is woken up for what nobody waits for
        group: list[tuple[float, Commit]] = []
        while self._queue and len(group) < GROUP_COMMITS:
            first = self._queue[0]
            if first is None:
                return group or None
            group.append(first)
            self._taken_urgent += first[1].urgent
            self._queue.popleft()
        return group
