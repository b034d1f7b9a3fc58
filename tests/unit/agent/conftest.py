"""What a process leaves to its end, tests clean up."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _close_databases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the databases that a test left open, as the end of an agent's process would: Python 3.13 wants it.

    A connection is in a cycle with its statements, so that it is found long after the test that left it.
    """
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noticed(*args: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401 sqlite3's own
        opened.append(connect(*args, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", noticed)
    yield
    for database in opened:
        with contextlib.suppress(sqlite3.ProgrammingError):  # it belongs to another thread
            database.close()
