"""What the three sides say after a run: the clients' records, the coordinator's database, each agent's own log."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.load import Record

ATTEMPT_ACTIONS = ("attempt-taken", "attempt-finished", "attempt-accepted", "attempt-refused", "attempt-unknown")
Key = tuple[str, int]
"""A job's id in hexadecimal, and an epoch."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in the database."""

    id: str
    key: str | None
    inputs: bytes
    state: str
    epoch: int
    max_attempts: int
    error_code: str | None
    error_blame: str | None

    @property
    def final(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.state in {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt in the database."""

    job_id: str
    epoch: int
    agent_id: str
    outcome: str | None


@dataclass(frozen=True, slots=True)
class ResultRow:
    """An accepted result in the database."""

    job_id: str
    epoch: int
    agent_id: str
    outputs: bytes
    receipt: bytes


@dataclass(slots=True)
class AgentLog:
    """What an agent's log says of attempts, by action; and what else in it must not be there."""

    attempts: dict[str, set[Key]] = field(default_factory=lambda: {action: set() for action in ATTEMPT_ACTIONS})
    alarms: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Evidence:
    """All of it; agents by their ids."""

    records: list[Record]
    jobs: list[JobRow]
    attempts: list[AttemptRow]
    results: list[ResultRow]
    logs: Mapping[str, AgentLog]
    coordinator_alarms: list[str] = field(default_factory=list)


def read_database(path: Path) -> tuple[list[JobRow], list[AttemptRow], list[ResultRow]]:
    """Read the tables that the oracle judges by; the coordinator may be running."""
    with closing(sqlite3.connect(path, timeout=30)) as database:
        jobs = [
            JobRow(job_id.hex(), key, inputs, state, epoch, most, code, blame)
            for job_id, key, inputs, state, epoch, most, code, blame in database.execute(
                "SELECT id, idempotency_key, inputs, state, epoch, max_attempts, error_code, error_blame FROM jobs"
            )
        ]
        attempts = [
            AttemptRow(job_id.hex(), epoch, agent_id, outcome)
            for job_id, epoch, agent_id, outcome in database.execute(
                "SELECT job_id, epoch, agent_id, outcome FROM attempts"
            )
        ]
        results = [
            ResultRow(job_id.hex(), epoch, agent_id, outputs, receipt)
            for job_id, epoch, agent_id, outputs, receipt in database.execute(
                "SELECT job_id, epoch, agent_id, outputs, receipt FROM results"
            )
        ]
    return jobs, attempts, results


def read_log(lines: Iterable[str]) -> AgentLog:
    """Read an agent's log, of all its lives; a line that a kill cut short is passed over."""
    found = AgentLog()
    for line in lines:
        text = line.strip()
        if text.startswith("Traceback"):
            found.alarms.append(text)
        if not text.startswith("{"):
            continue
        try:
            entry = json.loads(text)
        except ValueError:
            continue
        action = entry.get("action")
        if action in found.attempts:
            found.attempts[action].add((entry["job_id"], entry["epoch"]))
        elif action == "defect" or "error" in entry:
            found.alarms.append(f"{entry.get('message')}: {str(entry.get('error', ''))[-300:]}")
    return found


def read_alarms(path: Path) -> list[str]:
    """Return what must not be in the log of a process: tracebacks and defects."""
    with path.open(errors="replace") as file:
        return read_log(file).alarms
