"""The supervisor: ready, started again, stopped in order, and none left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from edge_agent.errors import ProcessFailedError
from edge_agent.local.processes import Child, Supervisor, describe_status


def broker(tmp_path: Path, *more: str) -> Child:
    """Make the smallest real child: the embedded broker on a free port."""
    ready = tmp_path / "ready.json"
    return Child(
        "broker", ["broker", "--listen", "127.0.0.1:0", "--ready-file", str(ready), *more], ready, tmp_path / "log"
    )


def test_child_becomes_ready_and_stops(tmp_path: Path) -> None:
    """A child says that it is ready; stop ends it."""
    supervisor = Supervisor()
    child = broker(tmp_path)
    supervisor.add(child)
    ready = supervisor.wait_ready(child, 30)
    assert ready["pid"] == child.pid
    supervisor.stop()
    assert child.pid is None


def test_killed_child_is_started_again(tmp_path: Path) -> None:
    """SIGKILL: another process under the same name, and the caller is told."""
    told: list[str] = []
    supervisor = Supervisor(on_restart=lambda child: told.append(child.name))
    child = broker(tmp_path)
    supervisor.add(child)
    first = supervisor.wait_ready(child, 30)["pid"]
    try:
        os.kill(first, signal.SIGKILL)
        for _ in range(200):
            supervisor.look_after(0.05)
            if told and child.ready() is not None:
                break
        assert told == ["broker"]
        assert child.pid not in (None, first)
    finally:
        supervisor.stop()
    assert not psutil.pid_exists(first)


def test_child_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    """A child that ends before it is ready: the error carries the end of its log."""
    supervisor = Supervisor()
    child = broker(tmp_path, "--no-such-flag")
    supervisor.add(child)
    try:
        with pytest.raises(ProcessFailedError, match="no-such-flag"):
            supervisor.wait_ready(child, 30)
    finally:
        supervisor.stop()


def test_status_in_words() -> None:
    """Exit statuses and signals are named."""
    assert describe_status(3) == "exit status 3"
    assert describe_status(-9) == "killed by SIGKILL"
