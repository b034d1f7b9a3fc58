"""The database: opened with a schema check, read from anywhere; `writer` writes what happens to jobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from edge_agent.coordinator.jobs import FINAL_STATES, Attempt, Blame, Job, JobError, JobState
from edge_agent.coordinator.schema import SCHEMA_VERSION, agents, attempts, jobs, meta, metadata, results
from edge_agent.errors import StateError
from edge_agent.folders import make_private
from edge_agent.wire import strict_cbor
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

FINAL = [state.value for state in FINAL_STATES]


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as the database has it, for people and for repeated requests."""

    id: bytes
    family: str
    state: JobState
    epoch: int
    submitted_ms: int
    ended_ms: int | None
    agent_id: str | None
    variant: bytes | None
    run_us: int | None
    outputs: tuple[Tensor, ...]
    receipt: bytes | None
    error: JobError | None


@dataclass(frozen=True, slots=True)
class StoredAgent:
    """An agent as the database has it."""

    id: str
    public_key: bytes | None
    approved: bool
    session: int
    software: str
    seen_ms: int | None


def pack_tensors(tensors: Iterable[Tensor]) -> bytes:
    """Encode tensors for a column."""
    return strict_cbor.encode(
        [[t.spec.name, t.spec.datatype.value, list(t.spec.shape), bytes(t.data)] for t in tensors]
    )


def unpack_tensors(data: bytes) -> tuple[Tensor, ...]:
    """Decode what `pack_tensors` made."""
    rows: Any = strict_cbor.decode(data, max_bytes=len(data))
    return tuple(Tensor(TensorSpec(n, DataType(d), tuple(shape)), raw) for n, d, shape, raw in rows)


class Store:
    """One SQLite database in WAL mode.

    Args:
        path: the file; made with mode 0600 when it is not there.

    Raises:
        StateError: `newer-schema` when a newer version wrote it: nothing is changed then.
    """

    def __init__(self, path: Path) -> None:
        make_private(path.parent)
        self.path = path
        url = sa.URL.create("sqlite", database=str(path))  # a path may hold ? and #
        self.engine: Engine = sa.create_engine(url, connect_args={"timeout": 30})
        try:
            path.touch(mode=0o600, exist_ok=True)
            self._open_schema()
        except OSError as error:
            self.close()
            raise self._unusable(error.strerror) from error
        except sa.exc.DatabaseError as error:
            self.close()
            raise self._unusable(error.orig) from error
        except StateError:
            self.close()
            raise

    def _open_schema(self) -> None:
        with self.engine.connect() as connection:
            if sa.inspect(connection).has_table("meta"):
                found = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema"))
                if found is not None and found > SCHEMA_VERSION:
                    raise StateError(
                        f"{self.path} has schema {found}; this version knows {SCHEMA_VERSION}",
                        code="newer-schema",
                        hint="Run the newer version again; nothing was changed.",
                    )
                if found is not None:
                    return
                # Without the number, a first start was cut short: what is missing is made now.
        with self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        with self.engine.begin() as connection:
            metadata.create_all(connection)
            connection.execute(sa.insert(meta).values(name="schema", value=SCHEMA_VERSION))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

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

    # -- sessions and agents --------------------------------------------------------------------------------------

    def next_session(self, wall_ms: int) -> int:
        """Return a coordinator session that is larger than any before, also when the clock went back."""
        with self._transaction() as connection:
            last = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "session"))
            session = max((last or 0) + 1, wall_ms)
            if last is None:
                connection.execute(sa.insert(meta).values(name="session", value=session))
            else:
                connection.execute(sa.update(meta).where(meta.c.name == "session").values(value=session))
        return session

    def approve(self, agent_id: str, *, approved: bool = True) -> None:
        """Let an agent work here, or no longer."""
        with self._transaction() as connection:
            changed = connection.execute(
                sa.update(agents).where(agents.c.id == agent_id).values(approved=approved)
            ).rowcount
            if not changed:
                connection.execute(sa.insert(agents).values(id=agent_id, approved=approved))

    def agents(self) -> list[StoredAgent]:
        """Return every agent that was ever here or is approved."""
        with self._connection() as connection:
            rows = connection.execute(sa.select(agents).order_by(agents.c.id)).mappings()
            return [StoredAgent(**row) for row in rows]

    def served_families(self) -> dict[str, set[str]]:
        """Return which families each agent has served so far."""
        query = sa.select(attempts.c.agent_id, jobs.c.family).join(jobs, jobs.c.id == attempts.c.job_id).distinct()
        served: dict[str, set[str]] = {}
        with self._connection() as connection:
            for agent_id, family in connection.execute(query):
                served.setdefault(agent_id, set()).add(family)
        return served

    # -- jobs -----------------------------------------------------------------------------------------------------

    def open_jobs(self, *, monotonic: float, wall_ms: int, lease_seconds: float) -> list[Job]:
        """Return the jobs that had not ended, with their leases and deadlines counted from now on."""
        latest = sa.and_(attempts.c.job_id == jobs.c.id, attempts.c.epoch == jobs.c.epoch)
        query = (
            sa.select(jobs, attempts.c.agent_id, attempts.c.variant.label("attempt_variant"))
            .add_columns(attempts.c.agent_session, attempts.c.coordinator_session)
            .join(attempts, latest, isouter=True)
            .where(jobs.c.state.not_in(FINAL))
            .order_by(jobs.c.submitted_ms)
        )
        with self._connection() as connection:
            rows = connection.execute(query).mappings().all()
        found = []
        for row in rows:
            job = Job(
                id=row["id"],
                family=row["family"],
                inputs=unpack_tensors(row["inputs"]),
                outputs=tuple(json.loads(row["outputs"])),
                salt=row["salt"],
                submitted_ms=row["submitted_ms"],
                deadline=monotonic + (row["deadline_ms"] - wall_ms) / 1000,
                max_attempts=row["max_attempts"],
                variant=row["variant"],
                state=JobState(row["state"]),
                epoch=row["epoch"],
            )
            if job.state is JobState.LEASED:
                job.attempt = Attempt(
                    job.epoch,
                    row["agent_id"],
                    row["attempt_variant"],
                    row["agent_session"],
                    row["coordinator_session"],
                    monotonic + lease_seconds,
                )
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
            sa.select(jobs, results.c.agent_id, results.c.variant.label("result_variant"))
            .add_columns(results.c.run_us, results.c.outputs.label("result_outputs"), results.c.receipt)
            .join(results, results.c.job_id == jobs.c.id, isouter=True)
            .where(jobs.c.id == job_id)
        )
        with self._connection() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        error = None
        if row["error_code"] is not None:
            error = JobError(row["error_code"], row["error_message"], Blame(row["error_blame"]))
        return StoredJob(
            id=row["id"],
            family=row["family"],
            state=JobState(row["state"]),
            epoch=row["epoch"],
            submitted_ms=row["submitted_ms"],
            ended_ms=row["ended_ms"],
            agent_id=row["agent_id"],
            variant=row["result_variant"],
            run_us=row["run_us"],
            outputs=unpack_tensors(row["result_outputs"]) if row["result_outputs"] is not None else (),
            receipt=row["receipt"],
            error=error,
        )

    def forget_ended_before(self, wall_ms: int, limit: int = 1000) -> list[str]:
        """Remove the jobs that ended before this Unix millisecond; return their idempotency keys.

        Args:
            wall_ms: jobs that ended then or later stay.
            limit: so many are removed in one transaction, so that the writer never waits for long.
        """
        keys: list[str] = []
        while True:
            removed, some = self._forget(wall_ms, limit)
            keys += some
            if removed < limit:
                return keys

    def _forget(self, wall_ms: int, limit: int) -> tuple[int, list[str]]:
        old = (
            sa.select(jobs.c.id, jobs.c.idempotency_key)
            .where(jobs.c.ended_ms < wall_ms, jobs.c.state.in_(FINAL))
            .limit(limit)
        )
        with self._transaction() as connection:
            rows = connection.execute(old).all()
            ids = [row.id for row in rows]
            connection.execute(sa.delete(results).where(results.c.job_id.in_(ids)))
            connection.execute(sa.delete(attempts).where(attempts.c.job_id.in_(ids)))
            connection.execute(sa.delete(jobs).where(jobs.c.id.in_(ids)))
        return len(rows), [row.idempotency_key for row in rows if row.idempotency_key is not None]
