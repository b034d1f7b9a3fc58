"""Starts child processes, says when they are ready, starts them again when they die, and leaves none behind."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.errors import ProcessFailedError

log = logging.getLogger("edge_agent.local")

LOG_TAIL_LINES = 20
STOP_SECONDS = 12.0
RESTART_FIRST_SECONDS = 0.1
RESTART_MAX_SECONDS = 5.0
STABLE_SECONDS = 10.0


@dataclass(slots=True)
class Child:
    """One supervised process.

    Attributes:
        name: for messages and for the log file.
        arguments: of `edge-agent`, the command first.
        ready_file: written by the child once it works; its content is a JSON object.
        log_file: its standard output and error.
        ended_badly: how often in a row it ended soon after its start.
    """

    name: str
    arguments: list[str]
    ready_file: Path
    log_file: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float | None = None
    ended_badly: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def start(self) -> None:
        """Start it; a Ctrl-C at the terminal reaches the supervisor alone, which then stops all in order."""
        self.ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "edge_agent.cli.child", str(os.getpid()), *self.arguments]
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        self.started_at = time.monotonic()
        self.restart_at = None

    def ready(self) -> dict[str, Any] | None:
        """Return what it wrote when it became ready, or None."""
        try:
            found: dict[str, Any] = json.loads(self.ready_file.read_bytes())
        except (OSError, ValueError):
            return None
        return found

    def log_tail(self) -> str:
        """Return the end of its log, for people."""
        with suppress(OSError):
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        return ""

    def failure(self, what: str) -> ProcessFailedError:
        """Make the error that says what happened to it."""
        status = self.process.poll() if self.process is not None else None
        how = "" if status is None else f" ({describe_status(status)})"
        tail = self.log_tail()
        text = f"the {self.name} {what}{how}"
        return ProcessFailedError(f"{text}; the end of its log:\n{tail}" if tail else text)


def describe_status(status: int) -> str:
    """Say in words how a process ended."""
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


class Supervisor:
    """A few children, kept running until `stop`.

    Args:
        on_restart: called after a child was started again.
    """

    def __init__(self, on_restart: Callable[[Child], None] | None = None) -> None:
        self.children: list[Child] = []
        self._on_restart = on_restart

    def add(self, child: Child) -> None:
        """Start a child and look after it from now on."""
        self.children.append(child)
        child.start()

    def wait_ready(
        self, child: Child, timeout_seconds: float, done: Callable[[], bool] | None = None
    ) -> dict[str, Any]:
        """Wait until a child says that it is ready, or until `done` says so, looking after all meanwhile.

        Raises:
            ProcessFailedError: it ended, or took too long.
        """
        end = time.monotonic() + timeout_seconds
        while True:
            ready = child.ready()
            if ready is not None and (done is None or done()):
                return ready
            if child.process is not None and child.process.poll() is not None:
                raise child.failure("did not come up")
            if time.monotonic() >= end:
                raise child.failure(f"was not ready within {timeout_seconds:g} s")
            self.look_after(0.02)

    def look_after(self, timeout_seconds: float) -> None:
        """Wait this long, or until a child ends; start again those that ended."""
        descriptors: dict[int, Child] = {}
        for child in self.children:
            if child.pid is not None:
                with suppress(OSError):
                    descriptors[os.pidfd_open(child.pid)] = child
        now = time.monotonic()
        due = [c.restart_at for c in self.children if c.restart_at is not None]
        wait = max(0.0, min([timeout_seconds, *(moment - now for moment in due)]))
        try:
            poll = select.poll()
            for descriptor in descriptors:
                poll.register(descriptor, select.POLLIN)
            poll.poll(wait * 1000)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        for child in self.children:
            self._mend(child)

    def _mend(self, child: Child) -> None:
        now = time.monotonic()
        if child.restart_at is not None:
            if child.restart_at <= now:
                child.start()
                if self._on_restart is not None:
                    self._on_restart(child)
            return
        if child.process is None or child.process.poll() is None:
            return
        child.ended_badly = child.ended_badly + 1 if now - child.started_at < STABLE_SECONDS else 1
        wait = min(RESTART_FIRST_SECONDS * 2 ** (child.ended_badly - 1), RESTART_MAX_SECONDS)
        child.restart_at = now + wait
        status = describe_status(child.process.returncode)
        fields = {"action": "child-ended", "child": child.name}
        log.warning("The %s ended (%s); starting it again in %.1f s", child.name, status, wait, extra=fields)

    def stop(self, order: Sequence[str] = ()) -> None:
        """End every child: SIGTERM in the given order, each waited for, then SIGKILL for what is left."""
        ranks = {name: rank for rank, name in enumerate(order)}
        for child in sorted(self.children, key=lambda c: ranks.get(c.name, len(ranks))):
            process = child.process
            child.restart_at = None
            if process is None or process.poll() is not None:
                continue
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                log.warning("The %s did not stop; killing it", child.name, extra={"action": "child-killed"})
                process.kill()
                process.wait()
        self.children.clear()
