"""Writing in fewer statements leaves the same database as one statement after the other."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.coordinator import writer
from edge_agent.coordinator.events import EndAttempt, EndJob, InsertAttempt, InsertJob, Outcome, Record, Submit
from edge_agent.coordinator.jobs import Blame, JobError, JobState
from edge_agent.coordinator.log_table import Appender
from edge_agent.coordinator.schema import attempts, jobs, log_nodes, results
from edge_agent.coordinator.store import Store
from edge_agent.errors import StateError
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.receipts import make_receipt

KEY = SigningKey.generate(bytes(32))
RECEIPT = make_receipt(KEY, result=b"r", agent_key=KEY.public, network="home", salt=bytes(32), accepted_ms=1)


def insert(number: int) -> InsertJob:
    """Submit a job."""
    job_id = number.to_bytes(16, "big")
    submit = Submit(
        job_id, bytes(32), "digits", (), (), None, f"key-{number}", bytes(32), durable=False, deadline_seconds=1
    )
    return InsertJob(submit, 1000, 2000, 3)


def lease(number: int, epoch: int) -> InsertAttempt:
    """Lease an attempt."""
    return InsertAttempt(number.to_bytes(16, "big"), epoch, "agent", bytes(32), 1, 1, 1000, state=JobState.LEASED)


def lose(number: int, epoch: int) -> EndAttempt:
    """Lose an attempt; its job is queued again."""
    return EndAttempt(number.to_bytes(16, "big"), epoch, "worker-died", 1500, state=JobState.QUEUED)


def end(number: int, epoch: int, *, well: bool) -> EndJob:
    """End a job."""
    job_id = number.to_bytes(16, "big")
    if well:
        return EndJob(
            Outcome(job_id, JobState.SUCCEEDED, receipt=RECEIPT, agent_id="agent", variant=bytes(32), run_us=5),
            epoch,
            1900,
        )
    return EndJob(Outcome(job_id, JobState.FAILED, error=JobError("late", "too late", Blame.DEADLINE)), epoch, 1900)


@st.composite
def lives(draw: st.DrawFn) -> list[list[Record]]:
    """Draw the records of a few jobs, interleaved, cut into transactions."""
    scripts: list[list[Record]] = []
    for number in range(draw(st.integers(1, 4))):
        script: list[Record] = [insert(number)]
        epochs = draw(st.integers(0, 3))
        for epoch in range(1, epochs + 1):
            script.append(lease(number, epoch))
            if epoch < epochs:
                script.append(lose(number, epoch))
        if draw(st.booleans()):
            script.append(end(number, epochs, well=epochs > 0 and draw(st.booleans())))
        scripts.append(script)
    order: list[Record] = []
    while any(scripts):
        order.append(draw(st.sampled_from([script for script in scripts if script])).pop(0))
    cuts = sorted(draw(st.sets(st.integers(0, len(order)), max_size=4)) | {0, len(order)})
    return [order[a:b] for a, b in itertools.pairwise(cuts)]


def content(store: Store) -> list[list[object]]:
    """Return every row of the tables that jobs are in."""
    found = []
    with store.engine.connect() as connection:
        for table in (jobs, attempts, results, log_nodes):
            found.append(sorted(map(repr, connection.execute(sa.select(table)))))  # noqa: PERF401 two lines read better
    return found


def written(store: Store, groups: list[list[Record]], *, together: bool) -> list[list[object]]:
    """Write and read back."""
    for group in groups:
        with store.engine.begin() as connection:
            log = Appender.load(connection)
            if together:
                writer.apply_all(connection, group, log)
            else:
                for record in group:
                    writer.apply(connection, record, log)
            log.write(connection)
    return content(store)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives())
def test_together_and_one_by_one_write_the_same(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Record]]
) -> None:
    """Whatever becomes of jobs, and wherever transactions begin and end."""
    folder: Path = tmp_path_factory.mktemp("bulk")
    found = []
    for together in (True, False):
        store = Store(folder / f"{together}.db")
        found.append(written(store, groups, together=together))
        store.close()
    assert found[0] == found[1]


def test_a_job_that_would_end_twice_in_one_transaction_stops_it(tmp_path: Path) -> None:
    """Memory and database have parted: nothing of the transaction is written."""
    store = Store(tmp_path / "x.db")
    twice: list[Record] = [insert(1), lease(1, 1), end(1, 1, well=True), end(1, 1, well=True)]
    with pytest.raises(StateError, match="end twice"):
        written(store, [twice], together=True)
    assert content(store)[0] == []
    store.close()
