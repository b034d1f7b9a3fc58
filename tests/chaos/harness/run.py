"""One run: build, load, break, mend, wait, judge."""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.wire.keys import PublicKey
from harness.cluster import BROKER, COORDINATOR, Cluster, in_thread
from harness.evidence import Evidence, read_alarms, read_database, read_log
from harness.faults import CLASSES, FaultClass
from harness.load import CALL_SECONDS, Load, Record, ask_again, replay, write_records
from harness.numbers import is_right
from harness.oracle import DEFECT, KINDS, STUCK, TWICE, Violation, judge
from harness.processes import wait_until

WHOLE_SECONDS = 120.0
"""After the last fault every agent must offer again within this."""
DRAIN_SECONDS = CALL_SECONDS + 30.0
"""Longer than any job may take by its own deadline."""
REPLAYED = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run consists of.

    Attributes:
        classes: the fault classes; several are combined, two faults at a time.
        seconds: how long faults are injected.
        rate: jobs a second.
        seed: of everything that is drawn.
        agents: how many.
        gap_seconds: the least and the most time between a fault's end and the next one.
        stretch: makes faults longer or shorter.
        settings: more variables for coordinator and agents.
    """

    classes: tuple[FaultClass, ...]
    seconds: float
    rate: float
    seed: int
    agents: int = 3
    gap_seconds: tuple[float, float] = (1.0, 5.0)
    stretch: float = 1.0
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The class, or how many are combined."""
        return self.classes[0].name if len(self.classes) == 1 else "combined"

    @property
    def parts(self) -> frozenset[str]:
        """What the cluster must be built with."""
        return frozenset().union(*(found.parts for found in self.classes))


@dataclass(slots=True)
class Injected:
    """A fault that was injected; moments are seconds since the load began."""

    kind: str
    victim: str
    began: float
    ended: float = 0.0


@dataclass(slots=True)
class Report:
    """What came of a run."""

    name: str
    seed: int
    seconds: float
    jobs: int = 0
    succeeded: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    faults: list[Injected] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    backlogs: list[float] = field(default_factory=list)
    attempts: int = 0
    violations: list[Violation] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """How many violations of a kind there are."""
        return sum(1 for violation in self.violations if violation.kind == kind)

    def as_json(self) -> dict[str, object]:
        """Return the figures for a machine."""
        return {
            "class": self.name,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "jobs": self.jobs,
            "succeeded": self.succeeded,
            "ended": dict(sorted(self.ended.items())),
            "attempts": self.attempts,
            "faults": len(self.faults),
            "faults_by_kind": dict(sorted(Counter(fault.kind for fault in self.faults).items())),
            **{kind: self.count(kind) for kind in KINDS},
            "first_answer_seconds": spread(self.recoveries),
            "backlog_cleared_seconds": spread(self.backlogs),
        }


def run(plan: Plan, folder: Path, say: Callable[[str], None] = lambda _: None) -> Report:
    """Do a whole run in a folder; what is worth keeping of a failing one lies there."""
    report = Report(plan.name, plan.seed, plan.seconds)
    say(f"{plan.name}: starting")
    with Cluster(folder, agents=plan.agents, parts=plan.parts, seed=plan.seed, settings=plan.settings) as cluster:
        load = Load(
            cluster,
            rate=plan.rate,
            seed=plan.seed,
            name=f"{plan.name}-{plan.seed}",
            submissions_only=any(found.submissions_only for found in plan.classes),
        )
        load.start()
        _break(plan, cluster, load, report, say)
        if not cluster.wait_whole(WHOLE_SECONDS):
            text = f"only {sorted(cluster.offering())} offer again {WHOLE_SECONDS:g} s after the last fault"
            report.violations.append(Violation(STUCK, "agents", text))
        say(f"{plan.name}: {len(report.faults)} faults mended, waiting for the last answers")
        records = load.finish(DRAIN_SECONDS)
        wait_until(lambda: _open_jobs(cluster) == 0, DRAIN_SECONDS, 0.2)
        impatient = [r for r in records if r.state == "unanswered" and r.acked_at is not None and r.job_id]
        ask_again(cluster, impatient, 30.0)
        done = [record for record in records if record.state == "succeeded"]
        chosen = random.Random(plan.seed).sample(done, min(REPLAYED, len(done)))
        report.violations += [Violation(TWICE, "sent again", text) for text in replay(cluster, chosen, 30.0)]
        before = _evidence(cluster, records)
        statuses = cluster.stop()
        _check_end(cluster, statuses, report)
        write_records(folder / "records.jsonl", records)
        key = PublicKey.from_file(folder / "coordinator.pub")
        report.violations += judge(before, key, is_right)
        _count(report, before)
    (folder / "report.json").write_text(json.dumps(report.as_json(), indent=1) + "\n")
    (folder / "violations.txt").write_text("".join(f"{violation}\n" for violation in report.violations))
    return report


def lanes_of(classes: Sequence[FaultClass]) -> list[list[FaultClass]]:
    """Return what may go on at once: classes that break the same part are on one lane, one fault after the other."""
    lanes: list[list[FaultClass]] = [[], []]
    breaking: dict[frozenset[str], list[FaultClass]] = {}
    for found in classes:
        breaking.setdefault(found.parts or frozenset({found.name}), []).append(found)
    for group in breaking.values():
        min(lanes, key=len).extend(group)
    return [lane for lane in lanes if lane]


def _break(plan: Plan, cluster: Cluster, load: Load, report: Report, say: Callable[[str], None]) -> None:
    """Inject and mend faults until the time is over; several classes go on two lanes at once."""
    lanes = lanes_of(plan.classes)
    timeline = (cluster.folder / "timeline.jsonl").open("w")
    lock = threading.Lock()
    failures: list[BaseException] = []

    def lane(number: int, classes: Sequence[FaultClass]) -> None:
        rng = random.Random(f"{plan.seed}/faults/{number}")
        end = load.began + plan.seconds
        try:
            while time.monotonic() < end:
                time.sleep(rng.uniform(*plan.gap_seconds))  # good weather
                fault = rng.choice(list(classes)).draw(cluster, rng, plan.stretch)
                injected = Injected(fault.kind, fault.victim, load.now())
                fault.inject()
                time.sleep(fault.seconds)  # bad weather
                fault.mend()
                injected.ended = load.now()
                with lock:
                    report.faults.append(injected)
                    about = {"kind": fault.kind, "victim": fault.victim, "lane": number}
                    timeline.write(json.dumps({**about, "began": injected.began, "ended": injected.ended}) + "\n")
                    timeline.flush()
                    say(f"{plan.name}: {injected.began:7.1f} s  {fault.kind} of {fault.victim}, {fault.seconds:.1f} s")
        except BaseException as error:  # noqa: BLE001 told by the thread that waits
            failures.append(error)

    threads = [in_thread(lambda n=n, c=c: lane(n, c), f"lane-{n}") for n, c in enumerate(lanes)]
    for thread in threads:
        thread.join()
    timeline.close()
    if failures:
        raise failures[0]


def _open_jobs(cluster: Cluster) -> int:
    jobs, _, _ = read_database(cluster.database)
    return sum(1 for job in jobs if not job.final)


def _evidence(cluster: Cluster, records: list[Record]) -> Evidence:
    """Collect what all three sides say; the network still runs."""
    jobs, attempts, results = read_database(cluster.database)
    logs = {}
    for name, agent_id in cluster.agent_ids.items():
        with cluster.log_of(name).open(errors="replace") as file:
            logs[agent_id] = read_log(file)
    return Evidence(records, jobs, attempts, results, logs, read_alarms(cluster.log_of(COORDINATOR)))


def _check_end(cluster: Cluster, statuses: dict[str, int | None], report: Report) -> None:
    """A clean stop ends with 0 and leaves no worker behind."""
    for name, status in statuses.items():
        if status != 0 and name != BROKER:
            text = f"{name} ended with {status} when it was asked to stop (None: it had to be killed)"
            report.violations.append(Violation(DEFECT, "clean stop", text))
    if not wait_until(lambda: not cluster.leftovers(), 5.0):
        text = f"workers without an agent: {cluster.leftovers()}"
        report.violations.append(Violation(DEFECT, "clean stop", text))


def _count(report: Report, evidence: Evidence) -> None:
    rows = {row.key: row for row in evidence.jobs}
    report.jobs = len(evidence.records)
    report.attempts = len(evidence.attempts)
    for record in evidence.records:
        row = rows.get(record.key)
        if row is not None and row.state == "succeeded":
            report.succeeded += 1
        elif row is not None and row.state == "failed":
            report.ended[f"failed: {row.error_blame} ({row.error_code})"] += 1
        else:
            report.ended[f"{row.state if row else 'never taken on'}: {record.code or record.state}"] += 1
    ends = sorted(record.ended_at for record in evidence.records if record.ended_at and record.state == "succeeded")
    for fault in report.faults:
        following = next((moment for moment in ends if moment > fault.ended), None)
        if following is not None:
            report.recoveries.append(following - fault.ended)
        waiting = [
            record.ended_at
            for record in evidence.records
            if record.ended_at and record.sent_at < fault.ended < record.ended_at
        ]
        report.backlogs.append(max(waiting) - fault.ended if waiting else 0.0)


def spread(values: list[float]) -> dict[str, float] | None:
    """Return median, 90th percentile and maximum."""
    if not values:
        return None
    ordered = sorted(values)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return {"p50": round(statistics.median(ordered), 2), "p90": round(p90, 2), "max": round(ordered[-1], 2)}


def classes_of(names: Sequence[str]) -> tuple[FaultClass, ...]:
    """Return the classes of these names."""
    return tuple(CLASSES[name] for name in names)
