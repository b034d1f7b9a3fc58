"""How fast an idle agent gives its memory back when its owner says pause, and serves again after resume.

`python benchmarks/pause.py [--rounds N]`; on Mosquitto, the built-in family served; the script plays the coordinator.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import psutil
from agents import Agent, Coordinator, running_agent
from brokers import mosquitto

from edge_agent.agent.ask import ask
from edge_agent.wire.messages import Offers, Result


def pss_mb(agent: Agent) -> float:
    """Return the proportional memory of the agent and its children, MB."""
    assert agent.process is not None
    daemon = psutil.Process(agent.process.pid)
    return sum(process.memory_full_info().pss for process in [daemon, *daemon.children(recursive=True)]) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    pauses, resumes, befores, afters = [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            mosquitto(folder, "allow_anonymous true") as port,
            running_agent(folder, port) as agent,
            Coordinator(agent, port) as coordinator,
        ):
            birth = coordinator.wait_for_offers()
            for number in range(args.rounds):
                coordinator.job(2 * number, birth)
                coordinator.hear(Result)
                coordinator.settled(2 * number)
                befores.append(pss_mb(agent))
                worker = agent.status["worker_pid"]
                began = time.monotonic()
                ask(agent.state, {"do": "pause"})
                assert not psutil.pid_exists(worker)
                pauses.append(time.monotonic() - began)
                afters.append(pss_mb(agent))
                began = time.monotonic()
                ask(agent.state, {"do": "resume"})
                coordinator.hear(Offers, lambda offers: len(offers.offers) > 0)
                coordinator.job(2 * number + 1, birth)
                coordinator.hear(Result)
                resumes.append(time.monotonic() - began)
                coordinator.settled(2 * number + 1)
    for text, seconds in (("pause to worker gone", pauses), ("resume to first result", resumes)):
        low, high = min(seconds), max(seconds)
        print(f"{text:24}median {statistics.median(seconds):.2f} s of {args.rounds} ({low:.2f} to {high:.2f})")
    before, after = statistics.median(befores), statistics.median(afters)
    print(f"{'PSS, agent and worker':24}{before:.1f} MB before, {after:.1f} MB at rest")
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
