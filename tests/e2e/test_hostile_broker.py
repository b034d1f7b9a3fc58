"""A hostile client on the broker, a real coordinator, a real agent: refused, counted, logged, nothing changed."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import httpx
import pytest
from brokers import Client, options
from networks import Network

from edge_agent.mqtt import Connected, Message
from edge_agent.wire.envelope import messages_in, seal
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import Failure, Gone
from edge_agent.wire.topics import Topics

JOBS = 20
PATIENCE_SECONDS = 20.0


def counters(network: Network) -> dict[str, int]:
    """Return what the coordinator has counted."""
    url = f"{network.about['http']}/api/v1/coordinator"
    found: dict[str, int] = httpx.get(url, trust_env=False).json()["counters"]
    return found


def wait_for_count(network: Network, name: str, at_least: int) -> None:
    """Wait until a counter reaches a number."""
    end = time.monotonic() + PATIENCE_SECONDS
    while counters(network).get(name, 0) < at_least:
        assert time.monotonic() < end, counters(network)


def database(network: Network) -> list[tuple[object, ...]]:
    """Return all jobs and results as they are stored."""
    connection = sqlite3.connect(network.state / "coordinator" / "coordinator.db")
    try:
        jobs = connection.execute("SELECT id, state, epoch, ended_ms FROM jobs ORDER BY id").fetchall()
        results = connection.execute("SELECT job_id, agent_id, receipt FROM results ORDER BY job_id").fetchall()
    finally:
        connection.close()
    return [*jobs, *results]


def seen(client: Client, topic: str) -> list[bytes]:
    """Return what was sent on a topic; amqtt also gives retained messages of topics that others subscribed to."""
    payloads: list[bytes] = []
    while len(payloads) < JOBS:
        message = client.skip_to(Message)
        if message.topic == topic:
            payloads += messages_in(message.payload)
    return payloads


def run(network: Network, tmp_path: Path, name: str) -> int:
    """Run some jobs; return how many were verified."""
    return network.run_jobs(tmp_path / name, JOBS).verified


@pytest.mark.timeout(180)
def test_altered_foreign_and_replayed_results(network: Network, tmp_path: Path) -> None:
    """Altered bytes, another key's signature, another network, a replay, a forged will: each refused by its code."""
    about = network.about
    topics = Topics("home")
    agent_id = about["agent_id"]
    port = int(about["mqtt"].rpartition(":")[2])
    stranger = SigningKey.generate()
    with Client(options(port, "hostile"), [topics.results(agent_id)]) as hostile:
        hostile.expect(Connected)
        assert run(network, tmp_path, "before") == JOBS
        results = seen(hostile, topics.results(agent_id))
        before = database(network)

        def publish(payload: bytes, topic: str = topics.results(agent_id)) -> None:
            hostile.link.publish(topic, payload)

        altered = bytearray(results[0])
        altered[len(altered) // 3] ^= 1
        publish(bytes(altered))
        publish(results[1][:-1])
        publish(results[2])  # a replay of a settled answer
        failure = Failure(
            network="home",
            issued_ms=1,
            job=b"j" * 16,
            epoch=1,
            agent_id=stranger.public.id,
            code="model-run",
            message="no",
            blame="model",
            retry=False,
            retry_after_ms=0,
        )
        publish(seal(stranger, failure))  # another key under the agent's topic
        publish(seal(stranger, failure), topics.results(stranger.public.id))  # an agent that nobody admitted
        gone = Gone(network="home", issued_ms=1, agent_id=stranger.public.id, session=2**40)
        publish(seal(stranger, gone), topics.gone(agent_id))
        publish(b"", topics.birth(agent_id))
        publish(b"\xff" * 1000, topics.offers(agent_id))

        wait_for_count(network, "refused:unknown-job", 1)
        wait_for_count(network, "refused:unknown-key", 2)
        wait_for_count(network, "refused:not-enrolled", 1)
        wait_for_count(network, "refused", 8)
        assert database(network) == before
        assert run(network, tmp_path, "after") == JOBS

    log = network.log("coordinator")
    for code in ("unknown-job", "unknown-key", "not-enrolled", "malformed"):
        assert f"code={code}" in log, code
    assert "agent-gone" not in log


@pytest.mark.timeout(180)
def test_agent_obeys_only_the_pinned_coordinator(network: Network, tmp_path: Path) -> None:
    """Messages to the agent that the pinned key did not sign are refused, and it works on."""
    about = network.about
    topics = Topics("home")
    agent_id = about["agent_id"]
    port = int(about["mqtt"].rpartition(":")[2])
    with Client(options(port, "hostile"), [topics.jobs(agent_id)]) as hostile:
        hostile.expect(Connected)
        assert run(network, tmp_path, "before") == JOBS
        jobs = seen(hostile, topics.jobs(agent_id))
        altered = bytearray(jobs[0])
        altered[-1] ^= 1  # the input, whose digest the coordinator signed
        hostile.link.publish(topics.jobs(agent_id), bytes(altered))
        hostile.link.publish(topics.coordinator, b"\0" * 100)
        hostile.link.publish(topics.settled(agent_id), jobs[1])
        assert run(network, tmp_path, "after") == JOBS
    log = network.log("agent")
    for code in ("digest-mismatch", "malformed", "wrong-kind"):
        assert f"code={code}" in log, code
    assert network.about["pids"] == about["pids"]
