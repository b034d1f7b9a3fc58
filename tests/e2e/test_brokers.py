"""The main job on every broker that users have: the same result, also when the broker is killed and forgets."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_processes import KINDS, BrokerProcess
from networks import Network, running_network

JOBS = 50
PATIENT = {"EDGE_AGENT_COORDINATOR_JOB_DEADLINE_SECONDS": "300"}
"""RabbitMQ needs up to a minute on a busy machine to come back; that is no fault of the jobs."""


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerProcess]:
    """Run one broker."""
    folder = tmp_path / request.param
    folder.mkdir()
    found = KINDS[request.param](folder)
    try:
        found.start()
        yield found
    finally:
        found.close()


def run(network: Network, receipts: Path, after: int = 0, then: threading.Event | None = None) -> None:
    """Run the jobs; each must be verified. After some of them an event is set, and the jobs go on."""
    done = 0
    lock = threading.Lock()

    def progress() -> None:
        nonlocal done
        with lock:
            done += 1
            if then is not None and done == after:
                then.set()

    tally = network.run_jobs(receipts, JOBS, progress)
    assert tally.failures == []
    assert tally.verified == JOBS


@pytest.mark.timeout(900)
def test_fifty_jobs_and_fifty_more_through_a_broker_that_is_killed_and_forgets(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    """All verified, each accepted once; both sides say what they speak, and the agent what the broker lacks."""
    with running_network(tmp_path, "--broker", broker.url, **PATIENT) as network:
        run(network, tmp_path / "quiet")
        due = threading.Event()

        def break_broker() -> None:
            due.wait()
            broker.kill()
            broker.forget()
            broker.start()

        breaker = threading.Thread(target=break_broker)
        breaker.start()
        run(network, tmp_path / "broken", after=JOBS // 3, then=due)
        breaker.join()
        with sqlite3.connect(network.state / "coordinator" / "coordinator.db") as database:
            states = dict(database.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
            results = database.execute("SELECT count(*), count(DISTINCT job_id) FROM results").fetchone()
        database.close()
        assert states == {"succeeded": 2 * JOBS}
        assert results == (2 * JOBS, 2 * JOBS)
        kind = type(broker)
        for name in ("agent", "coordinator"):
            assert f"with MQTT {kind.protocols[0]}." in network.log(name)
        told = re.findall(r"was asked what it can do\. (.+?)\. ", network.log("agent") + " ")
        assert len(told) >= 1
        lacks_wildcards = "retained messages for subscriptions with wildcards" in told[0]
        assert lacks_wildcards is not kind.retained_by_wildcard
        assert ("MQTT 5" in told[0]) is (kind.protocols[0] != "5")
