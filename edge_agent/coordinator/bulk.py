"""Fewer statements for what is written together: a job that begins and ends in one transaction is three rows.

Most jobs are done before their first record has been written, so that the updates of a row that is not in the database
yet can be made in the row. Rows of one table go there together, and so do the updates of rows that are there already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection

from edge_agent.errors import StateError

K = TypeVar("K")

_OPEN = {"ended_ms": None, "error_code": None, "error_message": None, "error_blame": None}
_DIALECT = sqlite.dialect()


class Done(NamedTuple):
    """What became of a statement that was not sent: as much of a result as anybody asks for."""

    rowcount: int


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements that are held back."""

    insert_job: sa.Insert
    lease_job: sa.Update
    end_job: sa.Update
    insert_attempt: sa.Insert
    end_attempt: sa.Update
    insert_result: sa.Insert


class Bulk:
    """Takes statements as a connection does; all are sent when `flush` returns.

    Args:
        connection: inside a transaction.
        final: the states from which a job does not move.
        statements: those that are held back; any other is sent at once, behind what came before it.
    """

    def __init__(self, connection: Connection, final: Sequence[str], statements: Statements) -> None:
        self._connection = connection
        self._final = final
        self._is = statements
        self._jobs: dict[bytes, dict[str, Any]] = {}
        self._attempts: dict[tuple[bytes, int], dict[str, Any]] = {}
        self._results: list[Mapping[str, Any]] = []
        # Of rows that are in the database already:
        self._leased: dict[bytes, Mapping[str, Any]] = {}
        self._ended: dict[bytes, Mapping[str, Any]] = {}
        self._ended_attempts: dict[tuple[bytes, int], Mapping[str, Any]] = {}

    def execute(self, statement: sa.Executable, values: Mapping[str, Any] | None = None) -> Done | sa.CursorResult[Any]:
        """Do what a statement says, now or by `flush`.

        The end of a job that is in the database already counts as done: `flush` raises if it was not.
        """
        done = self._hold_back(statement, values or {})
        if done is not None:
            return done
        self.flush()
        return self._connection.execute(statement, values)

    def _hold_back(self, statement: sa.Executable, known: Mapping[str, Any]) -> Done | None:
        if statement is self._is.insert_job:
            return _keep(self._jobs, known["id"], {**_OPEN, **known})
        if statement is self._is.insert_attempt:
            return _keep(self._attempts, (known["job_id"], known["epoch"]), dict(known))
        if statement is self._is.insert_result:
            self._results.append(known)
            return Done(1)
        if statement is self._is.lease_job or statement is self._is.end_job:
            return self._move(known, ends=statement is self._is.end_job)
        if statement is self._is.end_attempt:
            return self._end_attempt(known)
        return None

    def _move(self, known: Mapping[str, Any], *, ends: bool) -> Done:
        job_id = known["b_id"]
        row = self._jobs.get(job_id)
        if row is not None:
            moves = row["state"] not in self._final
            if moves:
                keeps = {"b_id"} if known.get("inputs") is not None else {"b_id", "inputs"}
                row.update({name: value for name, value in known.items() if name not in keeps})
            return Done(int(moves))
        if job_id in self._ended:
            return Done(0)
        (self._ended if ends else self._leased)[job_id] = known
        return Done(1)

    def _end_attempt(self, known: Mapping[str, Any]) -> Done:
        key = known["b_job"], known["b_epoch"]
        row = self._attempts.get(key)
        if row is not None:
            runs = row["outcome"] is None
            if runs:
                row.update({name: known[name] for name in ("outcome", "refused_by", "ended_ms")})
            return Done(int(runs))
        if known["b_job"] in self._jobs or key in self._ended_attempts:
            return Done(0)
        self._ended_attempts[key] = known
        return Done(1)

    def flush(self) -> None:
        """Send what was held back.

        Raises:
            StateError: a job that would end had ended, or is not there; the transaction must be given up.
        """
        connection, these = self._connection, self._is
        send(connection, these.insert_job, list(self._jobs.values()))
        send(connection, these.insert_attempt, list(self._attempts.values()))
        send(connection, these.lease_job, list(self._leased.values()))
        send(connection, these.end_attempt, list(self._ended_attempts.values()))
        send(connection, these.insert_result, self._results)
        if send(connection, these.end_job, list(self._ended.values())) != len(self._ended):
            raise StateError("a job would end twice")
        for held in (self._jobs, self._attempts, self._leased, self._ended_attempts, self._ended):
            held.clear()
        self._results = []


def send(connection: Connection, statement: sa.Insert | sa.Update, rows: Sequence[Mapping[str, Any]]) -> int:
    """Execute a statement for each of some rows, which have the same columns; return how many rows it met.

    SQLAlchemy's own way costs more than SQLite's work on the few rows of one moment: it looks at each value of each
    row. Here the values go to the driver as they are, so that columns must be of the driver's own types.
    """
    if not rows:
        return 0
    text, values = _compiled(statement, tuple(rows[0]))
    cursor = connection.connection.cursor()
    try:
        cursor.executemany(text, list(map(values, rows)))
        return cursor.rowcount
    finally:
        cursor.close()


@lru_cache(maxsize=64)
def _compiled(statement: sa.Insert | sa.Update, names: tuple[str, ...]) -> tuple[str, Callable[[Any], Any]]:
    """Return the text of a statement for rows with these names, and what takes a row's values in the text's order."""
    columns = names if isinstance(statement, sa.Insert) else None
    found = statement.compile(dialect=_DIALECT, column_keys=columns)
    return str(found), itemgetter(*(found.positiontup or ()))


def _keep(rows: dict[K, dict[str, Any]], key: K, row: dict[str, Any]) -> Done | None:
    if key in rows:
        return None  # the same twice: for the database to refuse
    rows[key] = row
    return Done(1)
