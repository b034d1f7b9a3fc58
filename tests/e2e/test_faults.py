"""kill -9 of each process during 200 jobs: all 200 end verified, and each exactly once."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import pytest
from networks import Network

JOBS = 200
KILL_AFTER = 60


@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", ["agent", "worker", "coordinator", "broker"])
def test_killed_process_loses_and_doubles_nothing(network: Network, tmp_path: Path, victim: str) -> None:
    """SIGKILL of one process after 60 of 200 jobs: 200 verified receipts, 200 results, one each."""
    about = network.about
    pid = about["pids"][victim]
    done = Counter[str]()
    lock = threading.Lock()

    def progress() -> None:
        with lock:
            done["jobs"] += 1
            due = done["jobs"] == KILL_AFTER
        if due:
            os.kill(pid, signal.SIGKILL)

    tally = network.run_jobs(tmp_path / "receipts", JOBS, progress)

    assert tally.failures == []
    assert tally.verified == JOBS
    assert tally.right >= 0.96 * JOBS
    assert network.wait_for_new_pid(victim, pid) != pid
    with sqlite3.connect(network.state / "coordinator" / "coordinator.db") as database:
        states = dict(database.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        results = database.execute("SELECT count(*), count(DISTINCT job_id) FROM results").fetchone()
    database.close()
    assert states == {"succeeded": JOBS}
    assert results == (JOBS, JOBS)
    assert len(list((tmp_path / "receipts").glob("*.receipt"))) == JOBS
