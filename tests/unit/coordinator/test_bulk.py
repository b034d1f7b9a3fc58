"""Writing in fewer statements leaves the same database as one statement after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from records import end, insert, lease, lives

from edge_agent.coordinator import writer
from edge_agent.coordinator.events import Record
from edge_agent.coordinator.log_table import Appender
from edge_agent.coordinator.schema import attempts, jobs, log_nodes, results
from edge_agent.coordinator.store import Store
from edge_agent.errors import StateError


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
