"""Two agents, one of which is paused while jobs run: nothing is lost, and what it held ends on the other one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import tied
from networks import READY_SECONDS, Network, clean_environment, running_network

from edge_agent.agent.ask import ask
from edge_agent.local.demo import Tally

pytestmark = pytest.mark.timeout(300)


def wait_until(true: Callable[[], bool]) -> None:
    """Poll other processes until it is so; the deadline decides."""
    end = time.monotonic() + READY_SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def offering(network: Network) -> set[str]:
    """Return the agents that the coordinator knows an offer of."""
    with httpx.Client(base_url=network.about["http"], timeout=10) as client:
        return {agent["agent_id"] for agent in client.get("/api/v1/agents").json() if agent["offers"]}


@contextmanager
def second_agent(network: Network, folder: Path) -> Iterator[tuple[Path, str]]:
    """Run another agent in the network; yields its state directory and its id."""
    state, ready = folder / "second", folder / "second.json"
    about = network.about
    command = [sys.executable, "-m", "edge_agent"]
    run = [*command, "run", "--broker", about["mqtt"], "--state", str(state), "--ready-file", str(ready)]
    environment = {**clean_environment(), "EDGE_AGENT_POLICY_GRACE_SECONDS": "0.5"}
    with (folder / "second.log").open("w") as log:
        process = tied.start(
            [*run, "--coordinator-key", about["coordinator_key"]], stdout=log, stderr=log, env=environment
        )
    try:
        wait_until(ready.exists)
        agent_id = json.loads(ready.read_text())["agent_id"]
        approve = ["coordinator", "approve", agent_id, "--state", str(network.state / "coordinator")]
        subprocess.run([*command, *approve], check=True, capture_output=True, env=clean_environment())
        wait_until(lambda: agent_id in offering(network))
        yield state, agent_id
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Run a network whose agent leaves work quickly."""
    with running_network(tmp_path, EDGE_AGENT_POLICY_GRACE_SECONDS="0.5") as found:
        yield found


def held(state: Path) -> int:
    """Return how many attempts an agent holds."""
    attempts: dict[str, int] = ask(state, {"do": "status"})["attempts"]
    return sum(attempts.values())


def test_pause_and_resume_under_load_lose_nothing(network: Network, tmp_path: Path) -> None:
    """Each of 100 jobs ends verified; then only the other agent works, and after a change of roles only the first."""
    first = network.state / "agent"
    with second_agent(network, tmp_path) as (second, second_id):
        done, lock = 0, threading.Lock()

        def progress() -> None:
            nonlocal done
            with lock:
                done += 1
                now = done
            if now in {20, 60}:
                ask(first, {"do": "pause"})
            if now in {40, 80}:
                ask(first, {"do": "resume"})

        tally = network.run_jobs(tmp_path / "under-load", 100, progress)
        assert (tally.failures, tally.verified) == ([], 100)

        assert ask(first, {"do": "pause"})["mode"] == "rest"
        wait_until(lambda: ask(first, {"do": "status"})["worker_pid"] is None)
        alone = network.run_jobs(tmp_path / "second-alone", 20)
        assert (alone.failures, alone.verified, alone.agents) == ([], 20, {second_id})

        ask(first, {"do": "resume"})
        ask(second, {"do": "pause"})
        wait_until(lambda: offering(network) == {network.about["agent_id"]})
        back = network.run_jobs(tmp_path / "first-alone", 20)
        assert (back.failures, back.verified, back.agents) == ([], 20, {network.about["agent_id"]})


def test_jobs_in_progress_that_do_not_finish_end_on_the_other_agent(network: Network, tmp_path: Path) -> None:
    """A worker that hangs holds them; the pause hands them back long before their leases run out."""
    first = network.state / "agent"
    with second_agent(network, tmp_path) as (second, second_id):
        ask(second, {"do": "pause"})
        wait_until(lambda: offering(network) == {network.about["agent_id"]})
        os.kill(ask(first, {"do": "status"})["worker_pid"], signal.SIGSTOP)
        found: list[Tally] = []
        jobs = threading.Thread(target=lambda: found.append(network.run_jobs(tmp_path / "receipts", 8)))
        jobs.start()
        wait_until(lambda: held(first) > 0)
        ask(second, {"do": "resume"})
        ask(first, {"do": "pause"})
        jobs.join(READY_SECONDS)
        (tally,) = found
        assert (tally.failures, tally.verified, tally.agents) == ([], 8, {second_id})
        today: dict[str, Any] = ask(first, {"do": "status"})["today"]
        assert today["digits"]["handed_back"] > 0
        wait_until(lambda: held(first) == 0)  # settlements come by another way than answers
