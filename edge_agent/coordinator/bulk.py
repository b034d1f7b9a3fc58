"""Fewer statements for what is written together: a job that begins and ends in one transaction is three rows.

Most jobs are done before their first record has been written, so that the updates of a row that is not in the database
yet can be made in the row, and rows of one table go there together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

K = TypeVar("K")

_OPEN = {"ended_ms": None, "error_code": None, "error_message": None, "error_blame": None}


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

    def execute(self, statement: sa.Executable, values: Mapping[str, Any] | None = None) -> Done | sa.CursorResult[Any]:
        """Do what a statement says, now or by `flush`."""
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
        rows: bool | int = 1
        if statement is self._is.insert_result:
            self._results.append(known)
        elif statement is self._is.lease_job or statement is self._is.end_job:
            row = self._jobs.get(known["b_id"])
            if row is None:
                return None
            rows = row["state"] not in self._final
            if rows:
                row.update({name: value for name, value in known.items() if name != "b_id"})
        elif statement is self._is.end_attempt:
            row = self._attempts.get((known["b_job"], known["b_epoch"]))
            if row is None and known["b_job"] not in self._jobs:
                return None
            rows = row is not None and row["outcome"] is None
            if row is not None and rows:
                row["outcome"], row["ended_ms"] = known["outcome"], known["ended_ms"]
        else:
            return None
        return Done(int(rows))

    def flush(self) -> None:
        """Send what was held back."""
        for statement, rows in (
            (self._is.insert_job, list(self._jobs.values())),
            (self._is.insert_attempt, list(self._attempts.values())),
            (self._is.insert_result, self._results),
        ):
            if rows:
                self._connection.execute(statement, rows)
        self._jobs.clear()
        self._attempts.clear()
        self._results = []


def _keep(rows: dict[K, dict[str, Any]], key: K, row: dict[str, Any]) -> Done | None:
    if key in rows:
        return None  # the same twice: for the database to refuse
    rows[key] = row
    return Done(1)
