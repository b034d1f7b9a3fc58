"""The database: opened with a schema check, read from anywhere; `writer` writes what happens to jobs."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, RowMapping

from edge_agent.coordinator import identities, migrations
from edge_agent.coordinator.ages import gap_ms, remaining_seconds
from edge_agent.coordinator.events import AgentsChanged
from edge_agent.coordinator.jobs import FINAL_STATES, Job, JobState
from edge_agent.coordinator.registrar import Registrar
from edge_agent.coordinator.rows import StoredAgent, StoredJob, restored_job, stored_job
from edge_agent.coordinator.schema import SCHEMA_VERSION, agents, attempts, jobs, meta, metadata, results, standings
from edge_agent.errors import StateError
from edge_agent.folders import make_private
from edge_agent.wire.identity import MAX_REVOKED

T = TypeVar("T")

FINAL = [state.value for state in FINAL_STATES]
READERS = 2
"""So many threads read at once. Each keeps a connection: more of them come with every burst and never go again."""
CACHE_KIB = 512
"""Of pages, for each connection; what is older the kernel still has. SQLite's own default is four times as much."""


def reading_threads() -> ThreadPoolExecutor:
    """Make the threads for whoever must not wait for the disk itself."""
    return ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")


def _bound_cache(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")


class Store:
    """One SQLite database in WAL mode.

    Args:
        path: the file; made with mode 0600 when it is not there.
        upgrade: bring the tables of an older version up to date; only where no other process uses the file.

    Attributes:
        older_copy: the copy that was made of the file before that, if it was done.

    Raises:
        StateError: `newer-schema` when a newer version wrote it, `older-schema` when an older one did and `upgrade`
            was not asked for: nothing is changed then.
    """

    def __init__(self, path: Path, *, upgrade: bool = False) -> None:
        make_private(path.parent)
        self.path = path
        self.older_copy: Path | None = None
        url = sa.URL.create("sqlite", database=str(path))  # a path may hold ? and #
        self.engine: Engine = sa.create_engine(url, connect_args={"timeout": 30})
        self._closed = False
        sa.event.listen(self.engine, "connect", _bound_cache)
        sa.event.listen(self.engine, "checkin", self._given_back)
        try:
            self._open_schema(upgrade=upgrade)
        except OSError as error:
            self.close()
            raise self._unusable(error.strerror) from error
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from error
        except sa.exc.DatabaseError as error:
            self.close()
            raise self._unusable(error.orig) from error
        except StateError:
            self.close()
            raise

    def _open_schema(self, *, upgrade: bool) -> None:
        found = migrations.found_version(self.path)
        if found is not None and found < SCHEMA_VERSION:
            if not upgrade:
                raise StateError(
                    f"{self.path} has schema {found}; this version works with {SCHEMA_VERSION}",
                    code="older-schema",
                    hint="Start the coordinator of this version once: it brings the file up to date and keeps a copy.",
                )
            self.older_copy = migrations.migrate(self.path, found)
        if found is not None:
            return
        # Without the number, a first start was cut short: what is missing is made now.
        self.path.touch(mode=0o600, exist_ok=True)
        with self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        with self.engine.begin() as connection:
            metadata.create_all(connection)
            connection.execute(sa.insert(meta).values(name="schema", value=SCHEMA_VERSION))

    def close(self) -> None:
        """Close every connection; one that a thread still reads with, when it gives it back."""
        self._closed = True
        self.engine.dispose()

    def _given_back(self, connection: sqlite3.Connection | None, _record: object) -> None:
        if self._closed and connection is not None:
            connection.close()

    def _unusable(self, why: object) -> StateError:
        return StateError(
            f"{self.path} cannot be used as the coordinator's database: {why}",
            hint="Look at the disk (full? read-only?), restore the file from a backup, or move it away to start anew.",
        )

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Give a connection to read with; what goes wrong with the database comes out as a StateError."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            raise self._unusable(error.orig) from error

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Give a connection inside a transaction; errors as with `_connection`."""
        with self._connection() as connection, connection.begin():
            yield connection

    def read(self, question: Callable[[Connection], T]) -> T:
        """Return what `question` finds; for tables that a module of their own knows."""
        with self._connection() as connection:
            return question(connection)

    def write(self, change: Callable[[Connection], T]) -> T:
        """Make a change in one transaction, as `read`; for what the writer's thread does not write."""
        with self._transaction() as connection:
            return change(connection)

    # -- sessions and agents --------------------------------------------------------------------------------------

    @staticmethod
    def _number(connection: Connection, name: str) -> int | None:
        found: int | None = connection.scalar(sa.select(meta.c.value).where(meta.c.name == name))
        return found

    def _set_number(self, connection: Connection, name: str, value: int) -> None:
        if self._number(connection, name) is None:
            connection.execute(sa.insert(meta).values(name=name, value=value))
        else:
            connection.execute(sa.update(meta).where(meta.c.name == name).values(value=value))

    def age_ms(self, *, boot: int, monotonic: float, wall_ms: int) -> int:
        """Return the database's age, milliseconds, which only grows, and take note of this moment.

        It is measured on the monotonic clock; between two boots of the machine it grows by what the wall clock says,
        but by a day at most, so that no jump of that clock makes anything old at once.
        """
        at_ms = int(monotonic * 1000)
        names = ("age", "age_boot", "age_at", "age_wall")
        with self._transaction() as connection:
            age, seen_boot, seen_at, seen_wall = (self._number(connection, name) for name in names)
            if age is None or seen_at is None or seen_wall is None:
                age = 0
            elif boot and boot == seen_boot:
                age += max(0, at_ms - seen_at)
            else:
                age += gap_ms(seen_wall, wall_ms)
            for name, value in zip(names, (age, boot, at_ms, wall_ms), strict=True):
                self._set_number(connection, name, value)
        return age

    def next_session(self, wall_ms: int) -> int:
        """Return a coordinator session that is larger than any before, also when the clock went back."""
        with self._transaction() as connection:
            session = max((self._number(connection, "session") or 0) + 1, wall_ms)
            self._set_number(connection, "session", session)
        return session

    def approve(self, agent_id: str, *, approved: bool = True, owner: str | None = None) -> None:
        """Let an agent work here, or no longer; an owner that is not given stays as it was.

        Raises:
            UsageError: its key was revoked.
        """
        with self._transaction() as connection:
            if approved:
                keys = identities.requested_keys(connection, agent_id)
                identities.admit(connection, agent_id, owner=owner, **keys)
            else:
                connection.execute(sa.update(agents).where(agents.c.id == agent_id).values(approved=False))

    def revoke(self, agent_id: str, reason: str, now_ms: int) -> None:
        """Let an agent's key count no more, for ever.

        Raises:
            StateError: the agent is out and its key refused here, but the signed list has no room for it.
        """
        if not self.write(lambda connection: identities.revoke(connection, agent_id, reason, now_ms)):
            raise StateError(
                f"The agent {agent_id} is no longer admitted and its key is refused here for ever, but the signed list "
                f"of revoked keys is full ({MAX_REVOKED}): who checks receipts by it is not told of this one.",
                hint="Nothing is left to do against this agent; for a list with room, begin a network of another name.",
            )

    def standing(self, registrar: Registrar | None, now_ms: int) -> AgentsChanged:
        """Say who may work here now, and what the operator ordered; certify who needs it. See `identities.standing`.

        It is asked every second, and hardly ever finds somebody to certify: only then is anything written.
        """
        found, due = self.read(lambda connection: identities.look(connection, registrar, now_ms))
        return self.write(lambda c: identities.standing(c, registrar, now_ms)) if due else found

    def agents(self) -> list[StoredAgent]:
        """Return every agent that was ever here or is approved."""
        with self._connection() as connection:
            first = identities.lasting_ids(connection)
            ever = sa.select(standings).where(standings.c.variant == b"", standings.c.failures > 0)
            wrong = {row["name"]: row for row in connection.execute(ever).mappings()}
            rows = connection.execute(sa.select(agents).order_by(agents.c.id)).mappings().all()
        found = []
        for row in rows:
            standing = wrong.get(first.get(row["id"], row["id"]))
            trust = (standing["failures"], standing["resting_until_ms"]) if standing else (0, 0)
            found.append(StoredAgent(**row, wrong_results=trust[0], resting_until_ms=trust[1]))
        return found

    def served_families(self) -> dict[str, set[str]]:
        """Return which families each agent has served so far."""
        query = sa.select(attempts.c.agent_id, jobs.c.family).join(jobs, jobs.c.id == attempts.c.job_id).distinct()
        served: dict[str, set[str]] = {}
        with self._connection() as connection:
            for agent_id, family in connection.execute(query):
                served.setdefault(agent_id, set()).add(family)
        return served

    # -- jobs -----------------------------------------------------------------------------------------------------

    def accepted(self) -> dict[bytes, int]:
        """Return how many results of each variant were accepted."""
        query = (
            sa.select(attempts.c.variant, sa.func.count())
            .where(attempts.c.outcome == JobState.SUCCEEDED.value)
            .group_by(attempts.c.variant)
        )
        with self._connection() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def open_jobs(self, *, monotonic: float, wall_ms: int, lease_seconds: float, boot: int = 0) -> list[Job]:
        """Return the jobs that had not ended, with their live attempts, leases and deadlines counted from now on.

        Args:
            monotonic: seconds.
            wall_ms: Unix milliseconds.
            lease_seconds: for every live attempt; and what is left to a job whose deadline cannot be known exactly.
            boot: `clock.boot_number`. In the same boot deadlines are exact; after another one they go by the wall
                clock, which may have jumped: they are neither over at once nor further away than they ever were.
        """
        with self._transaction() as connection:
            same_boot = boot != 0 and self._number(connection, "boot") == boot
            self._set_number(connection, "boot", boot)
            rows = connection.execute(_OPEN_JOBS).mappings().all()
            tried: dict[bytes, list[RowMapping]] = defaultdict(list)
            for attempt in connection.execute(_OPEN_ATTEMPTS).mappings():
                tried[attempt["job_id"]].append(attempt)
            found = []
            for row in rows:
                left = remaining_seconds(
                    submitted_ms=row["submitted_ms"],
                    deadline_ms=row["deadline_ms"],
                    deadline_at_ms=row["deadline_at_ms"] if same_boot else None,
                    monotonic=monotonic,
                    wall_ms=wall_ms,
                    grace_seconds=lease_seconds,
                )
                job = restored_job(row, tried[row["id"]], monotonic + left, monotonic, lease_seconds)
                if not same_boot:
                    at_ms = int(job.deadline * 1000)
                    connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(deadline_at_ms=at_ms))
                found.append(job)
        return found

    def requests(self, limit: int) -> list[tuple[str, bytes, bytes]]:
        """Return (idempotency key, job id, request digest) of the newest jobs that have a key, oldest first."""
        newest = (
            sa.select(jobs.c.idempotency_key, jobs.c.id, jobs.c.request_digest, jobs.c.submitted_ms)
            .where(jobs.c.idempotency_key.is_not(None))
            .order_by(jobs.c.submitted_ms.desc())
            .limit(limit)
            .subquery()
        )
        query = sa.select(newest.c.idempotency_key, newest.c.id, newest.c.request_digest).order_by(
            newest.c.submitted_ms
        )
        with self._connection() as connection:
            return [(key, job_id, digest) for key, job_id, digest in connection.execute(query)]

    def request(self, idempotency_key: str) -> tuple[bytes, bytes] | None:
        """Return (job id, request digest) of the job that was submitted under this key, if there is one."""
        query = sa.select(jobs.c.id, jobs.c.request_digest).where(jobs.c.idempotency_key == idempotency_key)
        with self._connection() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else (row[0], row[1])

    def job(self, job_id: bytes) -> StoredJob | None:
        """Return one job with its outcome, if it is known."""
        query = (
            sa.select(jobs, results.c.agent_id, results.c.variant.label("result_variant"), results.c.klass)
            .add_columns(results.c.run_us, results.c.outputs.label("result_outputs"), results.c.receipt)
            .add_columns(results.c.verification)
            .join(results, results.c.job_id == jobs.c.id, isouter=True)
            .where(jobs.c.id == job_id)
        )
        with self._connection() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return stored_job(row) if row is not None else None

    def newest_jobs(self, limit: int, client: str | None = None) -> list[StoredJob]:
        """Return the jobs that were submitted last, without inputs and outputs, newest first."""
        empty = sa.null()
        query = (
            sa.select(*(column for column in jobs.columns if column.name not in {"inputs", "salt"}))
            .add_columns(results.c.agent_id, results.c.variant.label("result_variant"), results.c.klass)
            .add_columns(results.c.run_us, empty.label("result_outputs"), results.c.receipt, results.c.verification)
            .where(jobs.c.checks.is_(None))
            .join(results, results.c.job_id == jobs.c.id, isouter=True)
            .order_by(jobs.c.submitted_ms.desc())
            .limit(limit)
        )
        if client is not None:
            query = query.where(jobs.c.client == client)
        with self._connection() as connection:
            return [stored_job(row) for row in connection.execute(query).mappings()]

    def forget_older(self, age_ms: int, retention_ms: int, limit: int = 1000) -> list[str]:
        """Remove the jobs that ended so long ago; return their idempotency keys.

        Args:
            age_ms: the database's, now: jobs whose end is noticed only now are as old as this.
            retention_ms: jobs that are younger stay.
            limit: so many are removed in one transaction, so that the writer never waits for long.
        """
        with self._transaction() as connection:
            noticed = sa.update(jobs).where(jobs.c.ended_age_ms.is_(None), jobs.c.state.in_(FINAL))
            connection.execute(noticed.values(ended_age_ms=age_ms))
        keys: list[str] = []
        while True:
            removed, some = self._forget(age_ms - retention_ms, limit)
            keys += some
            if removed < limit:
                return keys

    def _forget(self, age_ms: int, limit: int) -> tuple[int, list[str]]:
        old = sa.select(jobs.c.id, jobs.c.idempotency_key).where(jobs.c.ended_age_ms < age_ms).limit(limit)
        with self._transaction() as connection:
            rows = connection.execute(old).all()
            ids = [row.id for row in rows]
            connection.execute(sa.delete(results).where(results.c.job_id.in_(ids)))
            connection.execute(sa.delete(attempts).where(attempts.c.job_id.in_(ids)))
            connection.execute(sa.delete(jobs).where(jobs.c.id.in_(ids)))
        return len(rows), [row.idempotency_key for row in rows if row.idempotency_key is not None]


_OPEN_JOBS = sa.select(jobs).where(jobs.c.state.not_in(FINAL)).order_by(jobs.c.submitted_ms)
_OPEN_ATTEMPTS = (
    sa.select(attempts)
    .join(jobs, jobs.c.id == attempts.c.job_id)
    .where(jobs.c.state.not_in(FINAL))
    .order_by(attempts.c.epoch)
)
