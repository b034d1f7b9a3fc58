"""What strangers and time could let grow in the database stays bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from edge_agent.coordinator import writer
from edge_agent.coordinator.events import EndJob, InsertJob, Outcome, Record, SaveAgent, Submit
from edge_agent.coordinator.jobs import Blame, JobError, JobState
from edge_agent.coordinator.log_table import Appender
from edge_agent.coordinator.store import Store
from edge_agent.errors import StateError


def write(store: Store, *records: Record) -> None:
    """Write records in one transaction."""
    with store.engine.begin() as connection:
        log = Appender.load(connection)
        for record in records:
            writer.apply(connection, record, log)
        log.write(connection)


def ended_job(number: int) -> tuple[InsertJob, EndJob]:
    """Make a job that was submitted at second `number` and failed at once."""
    job_id = number.to_bytes(16, "big")
    submit = Submit(
        job_id, bytes(32), "digits", (), (), None, f"key-{number}", bytes(32), durable=False, deadline_seconds=1
    )
    failed = Outcome(job_id, JobState.FAILED, error=JobError("deadline", "too late", Blame.DEADLINE))
    return InsertJob(submit, number * 1000, number * 1000, 1), EndJob(failed, 0, number * 1000)


def test_agents_that_nobody_admitted_are_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up agents cannot fill the disk: the latest few are kept, and those that are admitted all."""
    monkeypatch.setattr(writer, "_FORGET_STRANGERS", writer.forget_strangers(most=3))
    store.approve("admitted")
    write(store, *(SaveAgent(f"stranger-{n}", bytes(32), 1, "x", seen_ms=n) for n in range(10)))
    assert [agent.id for agent in store.agents()] == ["admitted", "stranger-7", "stranger-8", "stranger-9"]


def test_retention_removes_everything_that_is_old(store: Store) -> None:
    """More jobs than fit in one transaction are removed in one sweep; younger ones stay."""
    for number in range(20):
        write(store, *ended_job(number))
    assert store.forget_older(1_000, 500) == []
    for number in range(20, 25):
        write(store, *ended_job(number))
    keys = store.forget_older(2_000, 500, limit=4)
    assert sorted(keys) == sorted(f"key-{n}" for n in range(20))
    with store.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM jobs")) == 5


def test_newest_requests_are_given_oldest_first(store: Store) -> None:
    """A restart takes over the newest keys; older ones can be asked for."""
    for number in range(5):
        write(store, *ended_job(number))
    assert [key for key, _, _ in store.requests(2)] == ["key-3", "key-4"]
    assert store.request("key-0") == ((0).to_bytes(16, "big"), bytes(32))
    assert store.request("never") is None


def test_database_that_breaks_later_is_told(store: Store) -> None:
    """A table that is gone comes out as our error with a hint, not as the library's."""
    with store.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE agents"))
    with pytest.raises(StateError, match="no such table") as caught:
        store.approve("a")
    assert "disk" in caught.value.hint


def test_database_in_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    """A wrong path is our error, too."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be made"):
        Store(tmp_path / "file" / "coordinator.db")
