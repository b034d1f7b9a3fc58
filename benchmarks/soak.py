"""An hour of steady work: does any process grow? Memory, file descriptors and threads of each, and their slopes.

`python benchmarks/soak.py --minutes 60`: Mosquitto, a coordinator and three agents with their workers, a few jobs a
second. Asked for: after the first ten minutes no process gains more than 1 MB an hour, neither of resident nor of
anonymous memory, and descriptors and threads are constant. The exit status is 1 when that does not hold or a job was
lost.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "chaos"))

from harness.cluster import BROKER, COORDINATOR, Cluster
from harness.evidence import Evidence, read_alarms, read_database, read_log
from harness.load import Load
from harness.namespaces import PREFIX
from harness.numbers import is_right
from harness.oracle import judge

from edge_agent.wire.keys import PublicKey

EVERY_SECONDS = 10.0
WARM_UP_MINUTES = 10.0
MOST_BYTES_AN_HOUR = 1_000_000.0
MINUTE = 60.0
PATIENCE_SECONDS = 120.0
LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process.

    Attributes:
        seconds: since the load began.
        rss: resident memory in bytes, /proc/PID/smaps_rollup, with the files that are mapped.
        pss: the same with each shared page counted by its part. Not judged: other programs that come and go on the
            machine change it, because they share the pages of Python itself.
        anonymous: what is its own alone: heap and stacks, in bytes.
        descriptors: without the connections of HTTP clients, which come and go as clients please.
    """

    name: str
    pid: int
    seconds: float
    rss: int
    pss: int
    anonymous: int
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Trend:
    """What the samples of one process say after the warm-up.

    Attributes:
        first: resident memory, bytes.
        last: the same.
        rss_slope: of the resident memory, bytes an hour, by least squares.
        pss_slope: of the share of memory.
        heap_slope: of the anonymous memory.
    """

    name: str
    lives: int
    first: int
    last: int
    rss_slope: float
    pss_slope: float
    heap_slope: float
    descriptors: tuple[int, int]
    threads: tuple[int, int]

    @property
    def flat(self) -> bool:
        """Whether it meets what is asked for."""
        constant = self.descriptors[0] == self.descriptors[1] and self.threads[0] == self.threads[1]
        return self.lives == 1 and max(self.rss_slope, self.heap_slope) <= MOST_BYTES_AN_HOUR and constant


def clients_of(port: int) -> set[str]:
    """Return what /proc/PID/fd shows for the connections that clients have to this port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [words for words in lines if int(words[1].rpartition(":")[2], 16) == port and words[3] != LISTEN]
    return {f"socket:[{words[9]}]" for words in mine}


def look(name: str, pid: int, seconds: float, port: int) -> Sample | None:
    """Read /proc; None when the process is gone."""
    clients = clients_of(port)
    folder = Path(f"/proc/{pid}")
    with suppress(OSError):
        rollup = dict(line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines() if ":" in line)
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        rss, pss, anonymous = (int(rollup[key].split()[0]) * 1024 for key in ("Rss", "Pss", "Anonymous"))
        open_now = [str(path.readlink()) for path in (folder / "fd").iterdir()]
        clients |= clients_of(port)  # those that came meanwhile
        descriptors = sum(1 for target in open_now if target not in clients)
        return Sample(name, pid, seconds, rss, pss, anonymous, descriptors, int(status["Threads"]))
    return None


def look_at_all(cluster: Cluster, seconds: float) -> list[Sample]:
    """Look at every process once."""
    names = [BROKER, COORDINATOR, *(part for name in cluster.agents for part in (name, f"{name}/worker"))]
    port = int(cluster.base_url.rpartition(":")[2])
    found = [look(name, pid, seconds, port) for name in names if (pid := cluster.pid(name)) is not None]
    return [sample for sample in found if sample is not None]


def trend(samples: list[Sample]) -> Trend:
    """Judge the samples of one process."""
    hours = [sample.seconds / 3600 for sample in samples]

    def slope(sizes: list[int]) -> float:
        return statistics.linear_regression(hours, sizes).slope if len(samples) > 1 else 0.0

    return Trend(
        samples[0].name,
        len({sample.pid for sample in samples}),
        samples[0].rss,
        samples[-1].rss,
        slope([sample.rss for sample in samples]),
        slope([sample.pss for sample in samples]),
        slope([sample.anonymous for sample in samples]),
        (min(s.descriptors for s in samples), max(s.descriptors for s in samples)),
        (min(s.threads for s in samples), max(s.threads for s in samples)),
    )


def print_trends(trends: Iterable[Trend]) -> None:
    """Print a row a process."""
    head = ["process", "RSS first / last MB", "RSS's slope MB/h", "heap's slope MB/h", "PSS's slope MB/h"]
    print(f"| {' | '.join([*head, 'descriptors', 'threads', 'flat'])} |\n|{'---|' * 8}")
    for found in trends:
        descriptors = "–".join(str(n) for n in sorted(set(found.descriptors)))
        threads = "–".join(str(n) for n in sorted(set(found.threads)))
        lives = "" if found.lives == 1 else f" ({found.lives} lives)"
        slopes = " | ".join(f"{slope / 1e6:+.3f}" for slope in (found.rss_slope, found.heap_slope, found.pss_slope))
        print(
            f"| {found.name}{lives} | {found.first / 1e6:.2f} / {found.last / 1e6:.2f} | {slopes} | "
            f"{descriptors} | {threads} | {'yes' if found.flat else 'NO'} |"
        )


def account(cluster: Cluster, load: Load) -> list[str]:
    """End the load and have the oracle judge it; return what is wrong."""
    records = load.finish(PATIENCE_SECONDS)
    jobs, attempts, results = read_database(cluster.database)
    logs = {}
    for name, agent_id in cluster.agent_ids.items():
        with cluster.log_of(name).open(errors="replace") as file:
            logs[agent_id] = read_log(file)
    evidence = Evidence(records, jobs, attempts, results, logs, read_alarms(cluster.log_of(COORDINATOR)))
    key = PublicKey.from_file(cluster.folder / "coordinator.pub")
    violations = [str(violation) for violation in judge(evidence, key, is_right)]
    done = sum(1 for record in records if record.state == "succeeded")
    print(f"{len(records)} jobs, {done} succeeded, {len(violations)} violations")
    return violations if done == len(records) else [*violations, f"{len(records) - done} jobs did not succeed"]


def main() -> int:
    """Measure, print, and say whether it is flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long; default 60")
    parser.add_argument("--warm-up-minutes", type=float, default=WARM_UP_MINUTES, help="left out of the slopes; 10")
    parser.add_argument("--rate", type=float, default=3.0, help="jobs a second; default 3")
    parser.add_argument("--agents", type=int, default=3, help="how many; default 3")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="also write every sample there, as CSV")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-soak-"))
    samples: list[Sample] = []
    # The settings that people have, but for the log, which the oracle reads.
    settings = {
        "EDGE_AGENT_BROKER_KEEPALIVE_SECONDS": "30",
        "EDGE_AGENT_COORDINATOR_LEASE_SECONDS": "30",
        "EDGE_AGENT_AGENT_THREADS": "1",
    }
    with Cluster(folder, agents=args.agents, settings=settings) as cluster:
        load = Load(cluster, rate=args.rate, seed=1, name="soak")
        load.start()
        due = time.monotonic()
        while load.now() < args.minutes * MINUTE:
            samples += look_at_all(cluster, load.now())
            due += EVERY_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
        wrong = account(cluster, load)
        cluster.stop()
    if args.samples is not None:
        with args.samples.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(field.name for field in fields(Sample))
            writer.writerows(astuple(sample) for sample in samples)
    warm = [sample for sample in samples if sample.seconds >= args.warm_up_minutes * MINUTE]
    names = list(dict.fromkeys(sample.name for sample in warm))
    trends = [trend([sample for sample in warm if sample.name == name]) for name in names]
    print_trends(trends)
    print(f"{args.minutes:g} minutes, {args.rate:g} jobs/s, {args.agents} agents, Mosquitto; {sys.version.split()[0]}")
    print("\n".join(wrong[:20]))
    if wrong:
        print(f"kept: {folder}")
    else:
        shutil.rmtree(folder)
    return int(bool(wrong) or not trends or not all(found.flat for found in trends))


if __name__ == "__main__":
    sys.exit(main())
