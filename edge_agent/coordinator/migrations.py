"""From an older schema to this version's: one transaction, with a copy of the file made before.

An older version refuses a newer schema and changes nothing; the copy is what it can be started with again.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from edge_agent.coordinator.schema import SCHEMA_VERSION
from edge_agent.errors import StateError

STEPS: Final[dict[int, tuple[str, ...]]] = {
    1: (
        "ALTER TABLE agents ADD COLUMN owner VARCHAR",
        "ALTER TABLE jobs ADD COLUMN client VARCHAR DEFAULT '' NOT NULL",
        "ALTER TABLE jobs ADD COLUMN priority INTEGER DEFAULT '0' NOT NULL",
        "ALTER TABLE jobs ADD COLUMN placement VARCHAR",
        "ALTER TABLE jobs ADD COLUMN deadline_at_ms BIGINT",
        "ALTER TABLE jobs ADD COLUMN ended_age_ms BIGINT",
        "DROP INDEX IF EXISTS jobs_by_end",
        "CREATE INDEX jobs_by_age ON jobs (ended_age_ms)",
        "ALTER TABLE results ADD COLUMN klass VARCHAR",
    ),
    2: (  # the log begins here: receipts from before stay what they are, and stand in no log
        """CREATE TABLE log_nodes (
            level INTEGER NOT NULL, position BIGINT NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, position)
        ) WITHOUT ROWID""",
        "CREATE INDEX log_leaves ON log_nodes (hash) WHERE level = 0",
    ),
    3: (
        """CREATE TABLE api_keys (
            id VARCHAR NOT NULL, name VARCHAR NOT NULL, digest BLOB NOT NULL, scopes VARCHAR NOT NULL,
            created_ms BIGINT NOT NULL, requests_per_minute INTEGER NOT NULL, jobs_per_day BIGINT NOT NULL,
            expires_ms BIGINT, revoked_ms BIGINT, PRIMARY KEY (id)
        )""",
        """CREATE TABLE api_key_usage (
            name VARCHAR NOT NULL, day INTEGER NOT NULL, requests BIGINT NOT NULL, jobs BIGINT NOT NULL,
            PRIMARY KEY (name, day)
        )""",
    ),
    4: (
        """CREATE TABLE agent_orders (
            agent_id VARCHAR NOT NULL, drained BOOLEAN NOT NULL, labels VARCHAR, PRIMARY KEY (agent_id)
        )""",
    ),
    5: (  # agents that were approved before get their certificates at the next start
        "ALTER TABLE agents ADD COLUMN sealing_key BLOB",
        """CREATE TABLE identities (
            agent_id VARCHAR NOT NULL, request BLOB, commitment BLOB, nonce BLOB, code VARCHAR, asked_ms BIGINT,
            certificate BLOB, x509 BLOB, revoked_ms BIGINT, revoked_reason VARCHAR, successor VARCHAR,
            PRIMARY KEY (agent_id)
        )""",
        """CREATE TABLE tokens (
            id BLOB NOT NULL, mac_key BLOB NOT NULL, owner VARCHAR, created_ms BIGINT NOT NULL,
            expires_ms BIGINT NOT NULL, used_ms BIGINT, used_by VARCHAR, refused INTEGER DEFAULT '0' NOT NULL,
            refused_from VARCHAR, PRIMARY KEY (id)
        )""",
    ),
    6: (
        "ALTER TABLE jobs ADD COLUMN checks BLOB",
        "ALTER TABLE jobs ADD COLUMN mode VARCHAR",
        "ALTER TABLE results ADD COLUMN verification VARCHAR",
        """CREATE TABLE standings (
            name VARCHAR NOT NULL, variant BLOB NOT NULL, count BIGINT NOT NULL, failures BIGINT NOT NULL,
            unclear BIGINT NOT NULL, resting_until_ms BIGINT NOT NULL, PRIMARY KEY (name, variant)
        )""",
        """CREATE TABLE ledger (
            number BIGINT NOT NULL, kind VARCHAR NOT NULL, debit VARCHAR NOT NULL, credit VARCHAR NOT NULL,
            amount BIGINT NOT NULL, leaf BLOB, at_ms BIGINT NOT NULL, chain BLOB NOT NULL,
            PRIMARY KEY (number), UNIQUE (leaf)
        ) WITHOUT ROWID""",
    ),
    7: ("ALTER TABLE agent_orders ADD COLUMN reinstated_ms BIGINT",),
    8: ("CREATE INDEX results_pending ON results (job_id) WHERE instr(verification, '\"pending\"') > 0",),
    9: ("ALTER TABLE attempts ADD COLUMN refused_by VARCHAR",),
}
"""What leads from each version to the next."""

PATIENCE_SECONDS = 30.0


def found_version(path: Path) -> int | None:
    """Return the schema version of a file without changing anything of it, or None when it has none yet.

    Raises:
        StateError: `newer-schema`.
        sqlite3.Error: it is no database.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    # Without a log nobody has it open: then not even the files are made that readers share.
    alone = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    address = f"{path.absolute().as_uri()}?mode=ro{alone}"
    with closing(sqlite3.connect(address, uri=True, timeout=PATIENCE_SECONDS)) as reader:
        if reader.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'").fetchone() is None:
            return None
        row = reader.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    if row is None:
        return None
    found = int(row[0])
    if found > SCHEMA_VERSION:
        raise StateError(
            f"{path} has schema {found}; this version knows {SCHEMA_VERSION}",
            code="newer-schema",
            hint="Run the newer version again; nothing was changed.",
        )
    return found


def migrate(path: Path, found: int) -> Path:
    """Bring a database of an older version to this one's schema; return the copy of the older one.

    Nobody else may use the database meanwhile. When the process dies on the way, the file is as it was before.

    Raises:
        sqlite3.Error: nothing was changed.
        OSError: as above.
    """
    copy = _copy(path, found)
    with closing(sqlite3.connect(path, timeout=PATIENCE_SECONDS, isolation_level=None)) as writer:
        writer.execute("PRAGMA synchronous=FULL")
        writer.execute("BEGIN EXCLUSIVE")
        try:
            for version in range(found, SCHEMA_VERSION):
                for statement in STEPS[version]:
                    writer.execute(statement)
            writer.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (SCHEMA_VERSION,))
        except sqlite3.Error:
            writer.execute("ROLLBACK")
            raise
        writer.execute("COMMIT")
    return copy


def _copy(path: Path, found: int) -> Path:
    """Copy the whole database, what stands in its log included, under its version's name."""
    copy = path.with_name(f"{path.name}.schema-{found}")
    unfinished = path.with_name(f".{copy.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    try:
        unfinished.touch(mode=0o600)
        with (
            closing(sqlite3.connect(path, timeout=PATIENCE_SECONDS)) as source,
            closing(sqlite3.connect(unfinished)) as target,
        ):
            source.backup(target)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(copy)
    finally:
        unfinished.unlink(missing_ok=True)
    return copy
