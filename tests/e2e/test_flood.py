"""A flood of forged results over a real broker, at real processes: jobs go on, and little of it is looked at."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest
from brokers import Client, options
from networks import Network, running_network

from edge_agent.errors import TransportError
from edge_agent.mqtt import Connected, Message
from edge_agent.wire import cose
from edge_agent.wire.topics import Topics

JOBS = 20
FLOOD = 1_500
PATIENCE_SECONDS = 60.0


def _counters(network: Network) -> dict[str, int]:
    headers = {"Authorization": f"Bearer {(network.state / 'api.key').read_text().strip()}"}
    url = f"{network.about['http']}/api/v1/coordinator"
    found: dict[str, int] = httpx.get(url, trust_env=False, headers=headers).json()["counters"]
    return found


@pytest.mark.timeout(180)
def test_jobs_go_on_while_forged_results_pour_in(tmp_path: Path) -> None:
    """On the topic of the only agent, whose own results come on the same one: each of its jobs is verified."""
    # Two a second: so that a flood is one on any machine, however slow its broker.
    with running_network(tmp_path, EDGE_AGENT_COORDINATOR_MESSAGES_PER_SECOND="2") as network:
        _flood(network, tmp_path)


def _flood(network: Network, tmp_path: Path) -> None:
    topic = Topics("home").results(network.about["agent_id"])
    port = int(network.about["mqtt"].rpartition(":")[2])
    over = threading.Event()
    sent = 0
    with Client(options(port, "hostile"), [topic]) as hostile:
        hostile.expect(Connected)
        assert network.run_jobs(tmp_path / "before", 1).verified == 1
        message = hostile.skip_to(Message)
        while message.topic != topic:  # amqtt also gives retained messages of topics that others subscribed to
            message = hostile.skip_to(Message)
        forged = bytearray(message.payload)
        forged[cose.sign1_end(forged) - 1] ^= 1

        def pour() -> None:
            nonlocal sent
            while not over.is_set():
                try:
                    hostile.link.publish(topic, bytes(forged))
                    sent += 1
                except TransportError:  # its own outbox is full
                    over.wait(0.001)

        pouring = threading.Thread(target=pour)
        pouring.start()
        try:
            rounds = 0
            end = time.monotonic() + PATIENCE_SECONDS
            while rounds == 0 or (sent < FLOOD and time.monotonic() < end):
                rounds += 1
                assert network.run_jobs(tmp_path / f"during {rounds}", JOBS).verified == JOBS
        finally:
            over.set()
            pouring.join()
        counters = _counters(network)
    assert sent >= FLOOD
    assert counters["refused:rate-limited"] > counters["refused:bad-signature"] > 0
    assert network.log("coordinator").count("code=bad-signature") <= 200
    assert network.run_jobs(tmp_path / "after", JOBS).verified == JOBS
