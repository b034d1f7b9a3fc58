"""From version 1 of the database to this one: whole or not at all, with a copy, and nothing lost."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from fakes import digits, scan

from edge_agent.coordinator import ledger_table, migrations
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.rows import pack_tensors
from edge_agent.coordinator.schema import SCHEMA_VERSION
from edge_agent.coordinator.store import Store
from edge_agent.errors import StateError
from edge_agent.wire.job_options import ANYWHERE
from edge_agent.wire.ledger import EMPTY_CHAIN

VARIANT = digits().variants[0].digest_bytes
NEW_MS = 1_800_000_000_000

VERSION_1 = """
CREATE TABLE meta (name VARCHAR NOT NULL, value BIGINT NOT NULL, PRIMARY KEY (name));
CREATE TABLE agents (
    id VARCHAR NOT NULL, public_key BLOB, approved BOOLEAN NOT NULL, session BIGINT NOT NULL,
    software VARCHAR NOT NULL, seen_ms BIGINT, PRIMARY KEY (id)
);
CREATE TABLE jobs (
    id BLOB NOT NULL, family VARCHAR NOT NULL, variant BLOB, inputs BLOB NOT NULL, outputs VARCHAR NOT NULL,
    salt BLOB NOT NULL, state VARCHAR NOT NULL, epoch INTEGER NOT NULL, max_attempts INTEGER NOT NULL,
    submitted_ms BIGINT NOT NULL, deadline_ms BIGINT NOT NULL, ended_ms BIGINT, idempotency_key VARCHAR,
    request_digest BLOB NOT NULL, error_code VARCHAR, error_message VARCHAR, error_blame VARCHAR,
    PRIMARY KEY (id), UNIQUE (idempotency_key)
);
CREATE INDEX jobs_by_end ON jobs (ended_ms);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TABLE attempts (
    job_id BLOB NOT NULL, epoch INTEGER NOT NULL, agent_id VARCHAR NOT NULL, variant BLOB NOT NULL,
    agent_session BIGINT NOT NULL, coordinator_session BIGINT NOT NULL, leased_ms BIGINT NOT NULL,
    ended_ms BIGINT, outcome VARCHAR, PRIMARY KEY (job_id, epoch)
);
CREATE TABLE results (
    job_id BLOB NOT NULL, epoch INTEGER NOT NULL, agent_id VARCHAR NOT NULL, variant BLOB NOT NULL,
    run_us BIGINT NOT NULL, outputs BLOB NOT NULL, receipt BLOB NOT NULL, PRIMARY KEY (job_id)
);
INSERT INTO meta VALUES ('schema', 1), ('session', 1700000000000);
"""
"""What version 1 made, word by word."""


def fill(connection: sqlite3.Connection) -> None:
    """Write what version 1 would have: an agent, a leased job, a queued one with a key, one that has its result."""
    connection.execute("INSERT INTO agents VALUES ('agent', ?, 1, 7, 'edge-agent/0.1.0', 5)", (bytes(32),))
    for letter, state, epoch, key, ended in (
        (b"l", "leased", 2, None, None),
        (b"q", "queued", 0, "k", None),
        (b"s", "succeeded", 1, None, NEW_MS),
    ):
        inputs = pack_tensors([scan(1)])
        connection.execute(
            "INSERT INTO jobs VALUES (?, 'digits', NULL, ?, '[]', ?, ?, ?, 5, ?, ?, ?, ?, ?, NULL, NULL, NULL)",
            (letter * 16, inputs, bytes(32), state, epoch, NEW_MS, NEW_MS + 60_000, ended, key, b"d" * 32),
        )
    for letter, epoch, outcome in ((b"l", 1, "worker-died"), (b"l", 2, None), (b"s", 1, "succeeded")):
        row = (letter * 16, epoch, VARIANT, outcome)
        connection.execute("INSERT INTO attempts VALUES (?, ?, 'agent', ?, 7, 100, 0, NULL, ?)", row)
    row = (b"s" * 16, VARIANT, pack_tensors([scan(9)]), b"receipt")
    connection.execute("INSERT INTO results VALUES (?, 1, 'agent', ?, 250, ?, ?)", row)
    connection.commit()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a database of version 1 with something of everything in it."""
    path = tmp_path / "coordinator.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(VERSION_1)
        fill(connection)
    path.chmod(0o600)
    return path


@pytest.fixture
def upgraded(old: Path) -> Iterator[Store]:
    """Return it after the upgrade."""
    store = Store(old, upgrade=True)
    yield store
    store.close()


def dump(path: Path) -> list[str]:
    """Return all that a database holds, as statements."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def schema_of(path: Path) -> dict[str, object]:
    """Return tables with their columns, and indexes with theirs, as SQLite understands them."""
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        found: dict[str, object] = {}
        for kind, name in names:
            pragma = "table_info" if kind == "table" else "index_info"
            rows = connection.execute(f"PRAGMA {pragma}({name})").fetchall()
            found[f"{kind} {name}"] = {row[1:] for row in rows} if kind == "table" else [row[2] for row in rows]
        return found


def test_an_old_database_has_the_schema_of_a_new_one_afterwards(upgraded: Store, tmp_path: Path) -> None:
    """Column by column and index by index: whatever way a database came to be, it is the same."""
    fresh = tmp_path / "fresh.db"
    Store(fresh).close()
    assert schema_of(upgraded.path) == schema_of(fresh)
    assert migrations.found_version(upgraded.path) == SCHEMA_VERSION


def test_what_was_there_goes_on(upgraded: Store) -> None:
    """Open jobs with attempts and failures, keys, results, agents, sessions; with the new options' defaults."""
    leased, queued = sorted(
        upgraded.open_jobs(monotonic=50.0, wall_ms=NEW_MS + 10_000, lease_seconds=30.0, boot=1), key=lambda job: job.id
    )
    assert (leased.state, leased.epoch, [a.epoch for a in leased.attempts]) == (JobState.LEASED, 2, [2])
    assert (leased.failures, leased.failed_on, leased.killed) == (1, {"agent"}, {"agent"})
    assert (queued.state, queued.client, queued.priority, queued.placement) == (JobState.QUEUED, "", 0, ANYWHERE)
    assert queued.deadline == pytest.approx(100.0)
    assert upgraded.request("k") == (b"q" * 16, b"d" * 32)
    ended = upgraded.job(b"s" * 16)
    assert ended is not None
    assert (ended.state, ended.outputs, ended.receipt, ended.klass) == (
        JobState.SUCCEEDED,
        (scan(9),),
        b"receipt",
        None,
    )
    (agent,) = upgraded.agents()
    assert (agent.id, agent.approved, agent.owner) == ("agent", True, None)
    assert upgraded.next_session(1) == 1_700_000_000_001
    assert upgraded.accepted() == {VARIANT: 1}
    assert upgraded.forget_older(upgraded.age_ms(boot=1, monotonic=0.0, wall_ms=NEW_MS), 0) == []
    assert upgraded.job(b"s" * 16) is not None  # it is as old as the upgrade, not as its wall clock said


def test_a_copy_of_the_old_database_is_kept(old: Path) -> None:
    """Whole, with what stood in the log only, and for its owner alone; the older version can be started with it."""
    with closing(sqlite3.connect(old)) as held:  # keeps the log from being folded in
        held.execute("SELECT count(*) FROM jobs").fetchall()
        with closing(sqlite3.connect(old)) as late:
            late.execute("UPDATE agents SET software = 'in the log'")
            late.commit()
    before = dump(old)
    store = Store(old, upgrade=True)
    assert store.older_copy == old.with_name("coordinator.db.schema-1")
    store.close()
    copy = old.with_name("coordinator.db.schema-1")
    assert dump(copy) == before
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert not [path for path in old.parent.iterdir() if path.name.startswith(".")]


def test_an_upgrade_happens_once(upgraded: Store) -> None:
    """The second start finds nothing to do."""
    again = Store(upgraded.path, upgrade=True)
    assert again.older_copy is None
    again.close()


def test_a_command_beside_the_coordinator_does_not_upgrade(old: Path) -> None:
    """The coordinator that runs would be an older one: only a start of the new one may, and nothing is changed."""
    before = dump(old)
    with pytest.raises(StateError, match=f"schema 1; this version works with {SCHEMA_VERSION}") as caught:
        Store(old)
    assert caught.value.error_code == "older-schema"
    assert dump(old) == before
    assert not old.with_name("coordinator.db.schema-1").exists()


KILLED = """
import os, sqlite3, sys
from pathlib import Path
from edge_agent.coordinator import ledger_table, migrations
class Mortal(sqlite3.Connection):
    done = number = 0
    def execute(self, sql, *more):
        if sql.lstrip().startswith(("ALTER", "DROP", "CREATE", "UPDATE", "COMMIT")):
            Mortal.done += 1
            if Mortal.done == Mortal.number:
                os.kill(os.getpid(), 9)
        return super().execute(sql, *more)
real = sqlite3.connect
sqlite3.connect = lambda *a, **k: real(*a, **{"factory": Mortal, **k})
for number, path in enumerate(sys.argv[1:], start=1):
    child = os.fork()
    if child == 0:
        Mortal.number = number
        migrations.migrate(Path(path), 1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""For each file, a process that upgrades it and is killed before its first, its second, … statement."""


def test_a_kill_in_the_middle_leaves_version_1(old: Path, tmp_path: Path) -> None:
    """Before each statement of the upgrade in turn: the file is as it was, and the next start upgrades it."""
    before = dump(old)
    statements = sum(map(len, migrations.STEPS.values())) + 2
    paths = [tmp_path / f"{number}" / "coordinator.db" for number in range(1, statements + 1)]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(old, path)
    ended = subprocess.run([sys.executable, "-c", KILLED, *paths], check=True, stdout=subprocess.PIPE, text=True)
    assert ended.stdout.split() == ["-9"] * statements
    for path in paths:
        assert dump(path) == before
    for path in (paths[0], paths[-1]):
        Store(path, upgrade=True).close()
        assert migrations.found_version(path) == SCHEMA_VERSION


def test_a_step_that_fails_leaves_version_1_and_says_why(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the process lives on."""
    before = dump(old)
    monkeypatch.setitem(migrations.STEPS, 1, (*migrations.STEPS[1], "ALTER TABLE nowhere ADD COLUMN x"))
    with pytest.raises(StateError, match="no such table: nowhere"):
        Store(old, upgrade=True)
    assert dump(old) == before


def _fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if not path.name.endswith("-shm")  # SQLite's shared memory: nothing that stays
    }


@pytest.mark.parametrize("upgrade", [True, False])
@pytest.mark.parametrize("log", [True, False])
def test_a_newer_database_is_refused_and_no_byte_of_it_changes(tmp_path: Path, *, upgrade: bool, log: bool) -> None:
    """Nor its time: also when what matters stands in its log only, after a kill of the newer version."""
    folder = tmp_path / "state"
    path = folder / "coordinator.db"
    Store(path).close()
    holder = sqlite3.connect(path)
    holder.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (SCHEMA_VERSION + 1,))
    holder.commit()
    if log:  # as a kill leaves it: the log is not folded in
        killed = tmp_path / "killed"
        shutil.copytree(folder, killed)
        folder, path = killed, killed / "coordinator.db"
        assert path.with_name("coordinator.db-wal").stat().st_size > 0
    holder.close()
    before = _fingerprint(folder)
    with pytest.raises(StateError) as caught:
        Store(path, upgrade=upgrade)
    assert caught.value.error_code == "newer-schema"
    assert _fingerprint(folder) == before


def test_the_ledger_begins_empty_after_the_upgrade_and_holds_one_entry_a_result(upgraded: Store) -> None:
    """Results from before are in no log, and are paid by nobody; a second entry for one receipt is refused."""
    insert = (
        "INSERT INTO ledger (number, kind, debit, credit, amount, leaf, at_ms, chain) "
        "VALUES (?, 'result', 'work', 'owner:ada', 1, ?, 0, x'00')"
    )
    assert upgraded.read(ledger_table.head) == (0, EMPTY_CHAIN)
    assert upgraded.read(ledger_table.balances) == {}
    with upgraded.engine.begin() as connection:
        connection.exec_driver_sql(insert, (1, b"leaf"))
    with pytest.raises(sa.exc.IntegrityError), upgraded.engine.begin() as connection:
        connection.exec_driver_sql(insert, (2, b"leaf"))
    assert upgraded.read(ledger_table.balances) == {"work": -1, "owner:ada": 1}
