"""A real network of processes for the end-to-end tests, on free ports, ended by each test."""

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

import pytest
import tied
from broker_processes import free_port

from edge_agent.local.demo import Tally, run_jobs
from edge_agent.models.scans import load_scans
from edge_agent.wire.keys import PublicKey

READY_SECONDS = 60.0
PATIENCE_SECONDS = 120.0


class Network:
    """A running `edge-agent up`."""

    def __init__(self, process: subprocess.Popen[str], ready_file: Path, state: Path) -> None:
        self.process = process
        self.ready_file = ready_file
        self.state = state

    @property
    def about(self) -> dict[str, Any]:
        """What the ready file says now."""
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def wait_for_new_pid(self, name: str, old: int) -> int:
        """Wait until the ready file names another process under `name`."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            pid = self.about["pids"][name]
            if pid not in (None, old):
                return int(pid)
            time.sleep(0.02)  # polls a file that another process writes; the deadline decides
        raise AssertionError(f"no new {name} within {READY_SECONDS} s; its log:\n{self.log(name)}")

    def wait_for_loaded(self, family: str) -> None:
        """Wait until the agent's status file says that the family is loaded: without jobs it changes no more."""
        path, end = self.state / "agent" / "status.json", time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            status = json.loads(path.read_text())
            if any(entry["family"] == family and entry["loaded"] for entry in status["families"]):
                return
            time.sleep(0.02)  # as above
        raise AssertionError(f"{family} was not loaded within {READY_SECONDS} s; its log:\n{self.log('agent')}")

    def run_jobs(self, receipts: Path, jobs: int, progress: Callable[[], None] = lambda: None) -> Tally:
        """Send so many scans as jobs, each checked by its receipt; `progress` is called after each, from threads."""
        receipts.mkdir()
        return run_jobs(
            self.about["http"],
            load_scans()[:jobs],
            coordinator_key=PublicKey.from_file(self.about["coordinator_key"]),
            receipts=receipts,
            progress=progress,
            stop=threading.Event(),
        )

    def log(self, name: str) -> str:
        """Return the log of one process."""
        return (self.state / "logs" / f"{name}.log").read_text(errors="replace")


@contextmanager
def running_network(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[Network]:
    """Start `edge-agent up`, with more variables, and wait for its ready file; end it cleanly afterwards."""
    ready, state = tmp_path / "ready.json", tmp_path / "state"
    command = [sys.executable, "-m", "edge_agent", "up", "--state", str(state), "--ready-file", str(ready)]
    with (tmp_path / "up.log").open("w") as log:
        process = tied.start(
            [*command, *arguments], stdout=log, stderr=log, text=True, env={**clean_environment(), **environment}
        )
    try:
        end = time.monotonic() + READY_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"the network did not come up:\n{(tmp_path / 'up.log').read_text()}")
            time.sleep(0.02)  # as above
        yield Network(process, ready, state)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def child(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with these arguments while the block lasts; what it says goes to `log`."""
    with log.open("wb") as out:
        process = tied.start([sys.executable, *command], stdout=out, stderr=out, env=clean_environment())
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(what: Callable[[], bool], log: Path) -> None:
    """Wait for something that other processes bring about; `log` is shown if it does not come."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)  # polls another process; the deadline decides


@contextmanager
def coordinator(folder: Path, *flags: str) -> Iterator[str]:
    """Run a coordinator on a free port, its state in `folder / "coordinator"`; give its address when it is ready."""
    ready, log = folder / "ready.json", folder / "coordinator.log"
    command = ["-m", "edge_agent", "coordinator", *flags, "--state", str(folder / "coordinator")]
    command += ["--http", f"127.0.0.1:{free_port()}", "--ready-file", str(ready)]
    with child(log, *command) as running:
        wait_until(lambda: running.poll() is not None or (ready.exists() and ready.read_text() != ""), log)
        assert running.poll() is None, log.read_text()
        yield str(json.loads(ready.read_text())["http"])


def clean_environment() -> dict[str, str]:
    """Return the environment without settings that would change what is tested."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EDGE_AGENT_", "XDG_", "STATE_"))}
    return {**kept, "ORT_DISABLE_TELEMETRY": "1"}
