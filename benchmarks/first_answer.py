"""How long after the start of `edge-agent run` the first answer comes, with what was measured before remembered.

    python benchmarks/first_answer.py [--rounds 7]

A network of `edge-agent up` has served a job; then its agent is killed, again and again, and starts anew. A client asks
at once each time and waits. Printed: seconds from the start of the new process to the answer, the median and the worst,
with optimised copies of models and without (`models.optimised`).
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from networks import Network, running_network

from edge_agent.client import Client, JobOptions
from edge_agent.local.demo import FAMILY, input_of
from edge_agent.models.scans import load_scans


def first_answers(network: Network, rounds: int) -> list[float]:
    """Kill the agent, and return the seconds from each new start to an answer."""
    client = Client(str(network.about["http"]))
    image = input_of(load_scans()[0])
    options = JobOptions(deadline_seconds=60.0)
    client.infer(FAMILY, [image], options=options, verify=False)
    found = []
    for _ in range(rounds):
        old = int(network.about["pids"]["agent"])
        os.kill(old, signal.SIGKILL)
        answered: list[float] = []

        def ask() -> None:
            client.infer(FAMILY, [image], options=options, verify=False)
            answered.append(time.clock_gettime(time.CLOCK_BOOTTIME))  # noqa: B023 - joined within the round

        asking = threading.Thread(target=ask)
        asking.start()
        new = network.wait_for_new_pid("agent", old)
        asking.join()
        found.append(answered[0] - started(new))
    return found


def started(pid: int) -> float:
    """Return when a process began, in seconds since the machine did; psutil's wall clock is off by up to a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    for optimised in ("on", "off"):
        with (
            tempfile.TemporaryDirectory() as folder,
            running_network(Path(folder), EDGE_AGENT_MODELS_OPTIMISED=optimised) as network,
        ):
            network.wait_for_loaded(FAMILY)
            if optimised == "on":
                while not list(Path(folder).rglob("optimised/*.json")):
                    time.sleep(0.1)
            times = first_answers(network, options.rounds)
        print(f"optimised {optimised:4} first answer {statistics.median(times):.2f} s, worst {max(times):.2f} s")


if __name__ == "__main__":
    main()
