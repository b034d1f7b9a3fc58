"""The account on disk: one SQLite file with a row a day and family, and the blocks of the own copy; bounded.

Nothing depends on it: what it loses with the power is at most half an hour of figures. A file that is damaged is set
aside, and a new one begun.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from edge_agent.agent.sqlite_errors import says_damaged
from edge_agent.errors import StateError

log = logging.getLogger("edge_agent.agent.account")

ACCOUNT_FILE = "account.db"
APPLICATION_ID = 0x65614143
"""Tells our file from any other SQLite database: the letters `eaAC`."""
SCHEMA_VERSION = 2
"""Version 1 had no credit."""
KEEP_DAYS = 800
MAX_COPY_BYTES = 32 * 1024 * 1024
"""Of all blocks together; the oldest go."""
MAX_FAMILIES_A_DAY = 64
OTHERS = "(others)"


@dataclass(slots=True)
class Row:
    """What one family took on one day.

    Attributes:
        finished: results that were given.
        failed: attempts that were answered with a failure.
        handed_back: attempts that were given back.
        accepted: results that the coordinator has accepted.
        busy_us: time that finished ones took in the worker, microseconds.
        measured_joules: energy, by a meter.
        estimated_joules: energy, by an estimate.
        cost: of that energy, in the owner's currency, as far as the price was known.
        unpriced_joules: energy for which no price was known.
        credit: what the accepted results are worth by the catalogue, millions of multiply-accumulates; our own count.
    """

    finished: int = 0
    failed: int = 0
    handed_back: int = 0
    accepted: int = 0
    busy_us: int = 0
    measured_joules: float = 0.0
    estimated_joules: float = 0.0
    cost: float = 0.0
    unpriced_joules: float = 0.0
    credit: int = 0

    @property
    def joules(self) -> float:
        """Energy, measured and estimated."""
        return self.measured_joules + self.estimated_joules

    def add(self, other: Row) -> None:
        """Add another one."""
        for name in ROW:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Usage:
    """What the whole machine and the agent used on one day.

    Attributes:
        seconds: that the agent ran.
        joules: of the whole machine, whoever used it, while it was known.
        known_seconds: while it was known.
        sent: bytes to the network's broker.
        received: bytes from it.
        downloaded: bytes of models.
        written: bytes to disks.
    """

    seconds: float = 0.0
    joules: float = 0.0
    known_seconds: float = 0.0
    sent: int = 0
    received: int = 0
    downloaded: int = 0
    written: int = 0

    @property
    def network(self) -> int:
        """All bytes over the network."""
        return self.sent + self.received + self.downloaded

    def add(self, other: Usage) -> None:
        """Add another one."""
        for name in USAGE:
            setattr(self, name, getattr(self, name) + getattr(other, name))


ROW = tuple(field.name for field in fields(Row))
USAGE = tuple(field.name for field in fields(Usage))

_TABLES = f"""
CREATE TABLE IF NOT EXISTS days (day TEXT NOT NULL, family TEXT NOT NULL,
    {", ".join(f"{name} NUMERIC NOT NULL" for name in ROW)}, PRIMARY KEY (day, family)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (day TEXT PRIMARY KEY,
    {", ".join(f"{name} NUMERIC NOT NULL" for name in USAGE)}) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS copy (number INTEGER PRIMARY KEY, to_ms INTEGER NOT NULL, block BLOB NOT NULL)
"""


def _upsert(table: str, key: tuple[str, ...], names: tuple[str, ...]) -> str:
    marks = ", ".join("?" * (len(key) + len(names)))
    added = ", ".join(f"{name} = {name} + excluded.{name}" for name in names)
    columns = ", ".join((*key, *names))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO UPDATE SET {added}"  # noqa: S608 our names


_Run = Callable[..., sqlite3.Cursor]
_ADD_ROW = _upsert("days", ("day", "family"), ROW)
_ADD_USAGE = _upsert("usage", ("day",), USAGE)


class Book:
    """The open file.

    Args:
        folder: the state directory; the file is made with mode 0600.

    Raises:
        OSError: the disk does not let us.
        sqlite3.Error: the same.
        StateError: `newer-schema`, and nothing is changed.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ACCOUNT_FILE
        try:
            self._database = self._open()
        except sqlite3.Error as error:
            if not says_damaged(error):
                raise
            aside = self._path.with_suffix(".damaged")
            log.warning("The account is damaged (%s); it lies in %s", error, aside, extra={"action": "account"})
            self._path.replace(aside)
            # What it has of a transaction that was cut short belongs to the file that is gone.
            self._path.with_name(f"{ACCOUNT_FILE}-journal").unlink(missing_ok=True)
            self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        try:
            self._prepare(database.execute)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, run: _Run) -> None:
        (version,) = run("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StateError(
                f"{self._path} has schema {version}; this version knows {SCHEMA_VERSION}",
                code="newer-schema",
                hint="Run the newer version again, or move the file away: the account then begins anew. "
                "Nothing was changed.",
            )
        run("PRAGMA journal_mode=TRUNCATE")
        run("PRAGMA synchronous=NORMAL")
        run("PRAGMA cache_size=-256")  # KiB: it is read a few pages at a time
        if version != SCHEMA_VERSION:
            run("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";"):
                run(statement)
            if version == 1:
                run("ALTER TABLE days ADD COLUMN credit NUMERIC NOT NULL DEFAULT 0")
            run(f"PRAGMA application_id={APPLICATION_ID}")
            run(f"PRAGMA user_version={SCHEMA_VERSION}")
            run("COMMIT")
        run("SELECT count(*) FROM usage").fetchone()

    def add(
        self,
        rows: Mapping[tuple[str, str], Row],
        usage: Mapping[str, Usage],
        blocks: Iterable[tuple[int, int, bytes]],
    ) -> None:
        """Add figures by (day, family) and by day, and blocks; in one transaction, what is too old goes.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        with _transaction(self._database) as run:
            for (day, family), row in rows.items():
                run(_ADD_ROW, (day, self._named(day, family), *astuple(row)))
            for day, used in usage.items():
                run(_ADD_USAGE, (day, *astuple(used)))
            for block in blocks:
                run("INSERT OR IGNORE INTO copy VALUES (?, ?, ?)", block)
            self._forget(run)

    def _named(self, day: str, family: str) -> str:
        known = {name for (name,) in self._database.execute("SELECT family FROM days WHERE day = ?", (day,))}
        return family if family in known or len(known) < MAX_FAMILIES_A_DAY else OTHERS

    @staticmethod
    def _forget(run: _Run) -> None:
        for table in ("days", "usage"):
            (newest,) = run(f"SELECT max(day) FROM {table}").fetchone()  # noqa: S608 our names
            run(f"DELETE FROM {table} WHERE day < date(?, '-{KEEP_DAYS} days')", (newest,))  # noqa: S608 as above
        (size,) = run("SELECT coalesce(sum(length(block)), 0) FROM copy").fetchone()
        while size > MAX_COPY_BYTES:
            number, gone = run("SELECT number, length(block) FROM copy ORDER BY number LIMIT 1").fetchone()
            run("DELETE FROM copy WHERE number = ?", (number,))
            size -= gone

    def rows(self, first: str, last: str) -> dict[tuple[str, str], Row]:
        """Return the figures of these days, both included, by (day, family)."""
        return rows_of(self._database, first, last)

    def total(self) -> Row:
        """Return the sum of all figures that are kept."""
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in ROW)
        return Row(*self._database.execute(f"SELECT {sums} FROM days").fetchone())  # noqa: S608 our names

    def usage(self, first: str, last: str) -> dict[str, Usage]:
        """Return what was used on these days, both included."""
        return usage_of(self._database, first, last)

    def blocks(self) -> list[bytes]:
        """Return every block of the own copy, in its order."""
        return blocks_of(self._database)

    def last_block(self) -> tuple[int, bytes] | None:
        """Return the number of the last block, and the block."""
        found = self._database.execute("SELECT number, block FROM copy ORDER BY number DESC LIMIT 1").fetchone()
        return None if found is None else (found[0], found[1])

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def rows_of(database: sqlite3.Connection, first: str, last: str) -> dict[tuple[str, str], Row]:
    """Return the figures of an account's days, both included, by (day, family)."""
    there = {name for _, name, *_ in database.execute("PRAGMA table_info(days)")}
    names = [name if name in there else f"0 AS {name}" for name in ROW]  # an older agent's file is only read here
    found = database.execute(
        f"SELECT day, family, {', '.join(names)} FROM days WHERE day BETWEEN ? AND ? ORDER BY day, family",  # noqa: S608
        (first, last),
    )
    return {(day, family): Row(*values) for day, family, *values in found}


def usage_of(database: sqlite3.Connection, first: str, last: str) -> dict[str, Usage]:
    """Return what was used on an account's days, both included."""
    found = database.execute(
        f"SELECT day, {', '.join(USAGE)} FROM usage WHERE day BETWEEN ? AND ? ORDER BY day",  # noqa: S608 our names
        (first, last),
    )
    return {day: Usage(*values) for day, *values in found}


def blocks_of(database: sqlite3.Connection) -> list[bytes]:
    """Return every block of an account's own copy, in its order."""
    return [block for (block,) in database.execute("SELECT block FROM copy ORDER BY number")]


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[_Run]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database.execute
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
