"""How soon full throughput is back after a process was killed or the broker was away.

`python benchmarks/recovery.py [--agents N] [--repeats N] [--kinds worker broker …]`. A few clients send one job after
the other at a steady pace; a process is killed; from the end of the fault (a worker, an agent, the coordinator: the
kill; the broker: it listens again) it is measured how long the next answer takes, and how long until a whole second
brings at least 90 % of the rate before.
"""

from __future__ import annotations

import argparse
import bisect
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "chaos"))

from harness.cluster import BROKER, COORDINATOR, Cluster, in_thread
from harness.load import request_of
from harness.namespaces import PREFIX
from harness.processes import wait_until

from edge_agent.client import Client
from edge_agent.errors import EdgeAgentError
from edge_agent.local.demo import FAMILY

CLIENTS = 8
PAUSE_SECONDS = 0.1
"""Between an answer and the next job: the machine is kept well below its limits, so that the rate is steady."""
BEFORE_SECONDS = 4.0
AFTER_SECONDS = 6.0
FULL = 0.9
WINDOW_SECONDS = 1.0
GIVE_UP_SECONDS = 60.0
OUTAGE_SECONDS = (0.5, 15.0)
KINDS = ("worker", "broker", "agent", "coordinator")


@dataclass(slots=True)
class Pace:
    """The moments at which answers came."""

    ends: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, since: float, until: float) -> int:
        """Return how many answers came in a span of time."""
        with self.lock:
            return bisect.bisect_left(self.ends, until) - bisect.bisect_left(self.ends, since)

    def first_after(self, moment: float) -> float | None:
        """Return when the next answer came."""
        with self.lock:
            at = bisect.bisect_right(self.ends, moment)
            return self.ends[at] if at < len(self.ends) else None

    def full_after(self, moment: float, rate: float, until: float) -> float | None:
        """Return the first moment from which a whole second brought nearly the old rate."""
        with self.lock:
            ends = list(self.ends)
        for start in [moment, *(end for end in ends if end > moment)]:
            if start + WINDOW_SECONDS > until:
                return None
            inside = bisect.bisect_left(ends, start + WINDOW_SECONDS) - bisect.bisect_left(ends, start)
            if inside >= FULL * rate * WINDOW_SECONDS:
                return start
        return None


def client(cluster: Cluster, pace: Pace, stop: threading.Event, number: int) -> None:
    """Send one job after the other."""
    cluster.enter()
    rng = random.Random(number)
    with Client(cluster.base_url, deadline_seconds=GIVE_UP_SECONDS, seed=number) as to:
        while not stop.is_set():
            try:
                to.infer_json(FAMILY, request_of(rng.randrange(50_000)))
            except EdgeAgentError as error:
                pace.failures.append(error.message)
            else:
                with pace.lock:
                    bisect.insort(pace.ends, time.monotonic())
            stop.wait(PAUSE_SECONDS)


def break_it(cluster: Cluster, kind: str, rng: random.Random) -> float:
    """Do the fault; return the moment at which it was over."""
    if kind == BROKER:
        cluster.keeper.hold(BROKER, signal.SIGKILL)
        time.sleep(rng.uniform(*OUTAGE_SECONDS))  # the outage
        cluster.keeper.release(BROKER)
        wait_until(cluster.broker_listens, GIVE_UP_SECONDS, 0.005)
        return time.monotonic()
    agent = rng.choice(cluster.agents)
    victim = {"worker": f"{agent}/worker", "agent": agent, "coordinator": COORDINATOR}[kind]
    pid = cluster.pid(victim)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def measure(cluster: Cluster, pace: Pace, kind: str, rng: random.Random) -> tuple[float, float, float, float]:
    """Return the rate before, and the seconds to the next answer, to full throughput, and until all offer again."""
    cluster.wait_whole(GIVE_UP_SECONDS)
    time.sleep(BEFORE_SECONDS)  # what comes in this time is the rate before
    began = time.monotonic()
    rate = pace.count(began - BEFORE_SECONDS, began) / BEFORE_SECONDS
    over = break_it(cluster, kind, rng)
    wait_until(lambda: pace.first_after(over) is not None, GIVE_UP_SECONDS, 0.01)
    cluster.wait_whole(GIVE_UP_SECONDS)
    whole = time.monotonic() - over
    time.sleep(AFTER_SECONDS)  # so that there is a whole second to look at
    full = pace.full_after(over, rate, time.monotonic())
    first = pace.first_after(over)
    return (
        rate,
        (first or float("inf")) - over,
        (full if full is not None else float("inf")) - over,
        whole,
    )


def row(name: str, values: list[float]) -> str:
    """Return a line with the distribution."""
    ordered = sorted(values)
    shown = ", ".join(f"{value:.2f}" for value in ordered)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return f"  {name:22} p50 {statistics.median(ordered):6.2f}  p90 {p90:6.2f}  max {ordered[-1]:6.2f}   ({shown})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=3, help="how many; default 3")
    parser.add_argument("--repeats", type=int, default=10, help="of each kind; default 10")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what is killed")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rng = random.Random(args.seed)
    # The settings that people have, but for short logs.
    settings = {
        "EDGE_AGENT_BROKER_KEEPALIVE_SECONDS": "30",
        "EDGE_AGENT_COORDINATOR_LEASE_SECONDS": "30",
        "EDGE_AGENT_LOG_LEVEL": "info",
    }
    pace, stop = Pace(), threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix=f"{PREFIX}-{os.getpid()}-recovery-") as folder,
        Cluster(Path(folder), agents=args.agents, settings=settings) as cluster,
    ):
        threads = [in_thread(lambda n=n: client(cluster, pace, stop, n), f"client-{n}") for n in range(CLIENTS)]
        for kind in args.kinds:
            found = [measure(cluster, pace, kind, rng) for _ in range(args.repeats)]
            print(f"{kind} killed, {args.repeats} times, {args.agents} agents, {found[0][0]:.0f} jobs/s before")
            names = ("first answer s", "full throughput s", "every agent offers s")
            for name, values in zip(names, list(zip(*found, strict=True))[1:], strict=True):
                print(row(name, list(values)), flush=True)
        stop.set()
        for thread in threads:
            thread.join(GIVE_UP_SECONDS)
    print(f"{len(pace.ends)} jobs, {len(pace.failures)} failed {sorted(set(pace.failures))[:5] or ''}")


if __name__ == "__main__":
    main()
