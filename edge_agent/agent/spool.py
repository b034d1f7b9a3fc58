"""Unsettled results on disk: one SQLite file that survives a loss of power, and whose damage stops nobody.

It is used by one thread at a time. The core decides what is kept and for how long (`delivery`); this file only has
bounds of its own so that it never fills the disk. Ages are counted while an agent runs, on its monotonic clock, so
that no jump of the wall clock drops a result or keeps it for ever.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edge_agent.agent.events import Spooled
from edge_agent.agent.sqlite_errors import says_damaged
from edge_agent.errors import StateError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x65615350
"""Tells our file from any other SQLite database: the letters `eaSP`."""
MAX_DAMAGED_FILES = 3
"""So many damaged spools are kept for whoever wants to look at them; older ones make room."""
OVERHEAD_BYTES = 1024 * 1024
PAGE_BYTES = 4096

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100  # https://www.sqlite.org/fileformat.html, 1.3: user version at 60, application id at 68
_TABLES = """
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), ran_seconds REAL NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    number INTEGER PRIMARY KEY,
    job BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    payload BLOB NOT NULL,
    kept_at_seconds REAL NOT NULL,  -- on the clock of the table above
    UNIQUE (job, epoch)
);
INSERT OR IGNORE INTO clock VALUES (1, 0);
"""

_PUT = """
INSERT OR REPLACE INTO results (job, epoch, payload, kept_at_seconds) SELECT ?, ?, ?, ran_seconds + ? FROM clock
"""


class DamagedError(Exception):
    """The file is not the database that it should be; the message says in what way."""


class Spool:
    """An open spool.

    Args:
        path: the file; made with mode 0600 when it is not there.
        max_bytes: of all answers together.
        monotonic: reads the clock that ages are counted on, in seconds.
        since: the moment on that clock from which on time counts; by default the present one.

    Attributes:
        counted_at: the moment up to which time has been counted.

    Raises:
        StateError: `newer-schema`, and nothing is changed; or the disk does not let us.
        DamagedError: the file is there and is no whole spool.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
        since: float | None = None,
    ) -> None:
        self.path = path
        self._monotonic = monotonic
        self.counted_at = monotonic() if since is None else since
        check_header(path)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        except (OSError, sqlite3.Error) as error:
            raise unusable(path, error) from error
        try:
            self._open(max_bytes)
        except sqlite3.Error as error:
            self._database.close()
            raise _told(path, error) from error
        except DamagedError:
            self._database.close()
            raise

    def _open(self, max_bytes: int) -> None:
        run = self._database.execute
        # A rollback journal, synchronised: after a loss of power there is the state before or after a transaction.
        run("PRAGMA journal_mode=DELETE")
        run("PRAGMA synchronous=FULL")
        (verdict,) = run("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise DamagedError(str(verdict))
        if run("PRAGMA user_version").fetchone() != (SCHEMA_VERSION,):
            self._make()
        # An answer takes whole pages, so many small ones need more than their bytes.
        run(f"PRAGMA max_page_count={(2 * max_bytes + OVERHEAD_BYTES) // PAGE_BYTES}")

    def _make(self) -> None:
        run = self._database.execute
        run(f"PRAGMA page_size={PAGE_BYTES}")
        run("PRAGMA auto_vacuum=FULL")  # the file shrinks again with its content
        run("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";"):
            run(statement)
        run(f"PRAGMA application_id={APPLICATION_ID}")
        run(f"PRAGMA user_version={SCHEMA_VERSION}")
        run("COMMIT")

    def load(self) -> tuple[Spooled, ...]:
        """Return every answer, oldest first.

        Raises:
            DamagedError: the file cannot be read to its end.
            StateError: the disk does not let us.
        """
        try:
            rows = self._database.execute(
                "SELECT job, epoch, payload, ran_seconds - kept_at_seconds FROM results, clock ORDER BY number"
            ).fetchall()
        except sqlite3.Error as error:
            raise _told(self.path, error) from error
        return tuple(
            Spooled(job, epoch, payload, max(0.0, age))
            for job, epoch, payload, age in rows
            if isinstance(job, bytes) and isinstance(payload, bytes) and isinstance(epoch, int)
        )

    def put(self, job: bytes, epoch: int, payload: bytes) -> None:
        """Keep an answer; it is on disk when this returns.

        Raises:
            DamagedError: the file is damaged.
            StateError: the disk is full, read-only or broken; nothing was changed.
        """
        ran = self._count()
        self._write([(_PUT, (job, epoch, payload, ran))], ran)

    def forget(self, keys: Iterable[tuple[bytes, int]]) -> None:
        """Remove answers. Raises as `put` does."""
        self._write([("DELETE FROM results WHERE job = ? AND epoch = ?", key) for key in keys], self._count())

    def close(self) -> None:
        """Count the time that has passed, if the disk lets us, and close the file."""
        try:
            self._write([], self._count())
        except (StateError, DamagedError):
            pass  # the answers seem younger than they are
        finally:
            self._database.close()

    def _count(self) -> float:
        return self._monotonic() - self.counted_at

    def _write(self, statements: Sequence[tuple[str, tuple[object, ...]]], ran_seconds: float) -> None:
        run = self._database.execute
        try:
            run("BEGIN IMMEDIATE")
            for statement, values in statements:
                run(statement, values)
            run("UPDATE clock SET ran_seconds = ran_seconds + ?", (ran_seconds,))
            run("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.rollback()
            raise _told(self.path, error) from error
        self.counted_at += ran_seconds


def check_header(path: Path) -> None:
    """Look at a file's first bytes, without SQLite, which might change the file.

    Raises:
        StateError: `newer-schema`; or it cannot be read.
        DamagedError: it is something else than a spool.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable(path, error) from error
    if not header:
        return  # made, and cut off before the first transaction
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise DamagedError("it is no SQLite database")
    (version,) = struct.unpack_from(">I", header, 60)
    (application,) = struct.unpack_from(">I", header, 68)
    if application not in {0, APPLICATION_ID}:
        raise DamagedError("it is a database of something else")
    if version > SCHEMA_VERSION:
        raise StateError(
            f"{path} has schema {version}; this version knows {SCHEMA_VERSION}",
            code="newer-schema",
            hint="Run the newer version again, or move the file away: the results in it are then computed again. "
            "Nothing was changed.",
        )


def survey(path: Path) -> tuple[int, int]:
    """Look at a spool without changing it, also while an agent uses it.

    Returns:
        The number of answers and the bytes of their payloads.

    Raises:
        StateError: `newer-schema`; or it cannot be read now.
        DamagedError: it is no whole spool.
    """
    check_header(path)
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
        ) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise DamagedError(str(verdict))
            found: tuple[int, int] = database.execute(
                "SELECT count(*), coalesce(sum(length(payload)), 0) FROM results"
            ).fetchone()
            return found
    except sqlite3.Error as error:
        raise _told(path, error) from error


def set_aside(path: Path, stamp: str) -> Path:
    """Rename a damaged spool and what belongs to it; older damaged ones make room.

    Args:
        path: of the spool.
        stamp: the time, as part of the new name.

    Returns:
        The new name.

    Raises:
        StateError: it cannot be renamed.
    """
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    try:
        journal = path.with_name(f"{path.name}-journal")  # first, or SQLite would apply it to the next spool
        if journal.exists():
            journal.rename(target.with_name(f"{target.name}-journal"))
        path.rename(target)
        old = sorted(path.parent.glob(f"{path.name}.damaged-*"), key=lambda file: file.stat().st_mtime_ns)
        whole = [file for file in old if not file.name.endswith("-journal")]
        for file in whole[:-MAX_DAMAGED_FILES]:
            file.unlink()
            file.with_name(f"{file.name}-journal").unlink(missing_ok=True)
    except OSError as error:
        raise unusable(path, error) from error
    return target


def unusable(path: Path, error: Exception) -> StateError:
    """Make the error for a disk that does not let us."""
    why = error.strerror if isinstance(error, OSError) else error
    return StateError(
        f"the spool {path} cannot be used: {why}",
        hint="Look at the disk (full? read-only?); the agent goes on without it.",
    )


def _told(path: Path, error: sqlite3.Error) -> Exception:
    """Tell a disk that does not let us from a file that is damaged and to be set aside."""
    return DamagedError(str(error)) if says_damaged(error) else unusable(path, error)
