"""Processes that are started again when they end, as a service manager does it, by one thread that outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

LAUNCH = Path(__file__).with_name("launch.py")
STOP_SECONDS = 15.0
RESTART_FIRST_SECONDS = 0.25
RESTART_MAX_SECONDS = 2.0
"""A service manager waits so long before it starts a service again (systemd's default is 0.1 s); longer and longer for
one that ends soon after its start."""
STABLE_SECONDS = 5.0
LOOK_SECONDS = 0.02


@dataclass(slots=True)
class Service:
    """One process that should run.

    Attributes:
        name: for people, and for its log.
        command: what is run.
        environment: more variables.
        log: gets standard output and error, of all its lives.
        netns: file of the network namespace to run in.
        cgroups: `cgroup.procs` files of the control groups to run in.
        held: not started again while this is set: a fault wants it down.
        ended_badly: how often in a row it ended soon after its start.
        pids: of all its lives.
        statuses: the exit statuses of its past lives.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    netns: str | None = None
    cgroups: tuple[Path, ...] = ()
    held: bool = False
    process: subprocess.Popen[bytes] | None = None
    restart_at: float | None = None
    started_at: float = 0.0
    ended_badly: int = 0
    pids: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self.process.pid if self.process is not None and self.process.returncode is None else None

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; return whether there was a process to send it to."""
        pid = self.pid
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def start(self) -> None:
        """Start it. To be called on a thread that stays: the kernel kills the process with its parent thread."""
        options: list[str] = []
        if self.netns is not None:
            options += ["--netns", self.netns]
        for procs in self.cgroups:
            options += ["--cgroup", str(procs)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCH), *options, "--", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**clean_environment(), **self.environment},
            )
        self.pids.append(self.process.pid)
        self.started_at = time.monotonic()
        self.restart_at = None

    def reap(self) -> bool:
        """Take note of its end; return whether it has ended just now."""
        if self.process is None or self.process.returncode is not None or self.process.poll() is None:
            return False
        self.statuses.append(self.process.returncode)
        return True


class Keeper:
    """Starts services and starts again those that end, until it is left."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self._wanted: list[Service] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._errors: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs."""
        self._stop.set()
        self._thread.join()
        for service in self.services.values():
            service.signal(signal.SIGCONT)
            service.signal(signal.SIGKILL)
            if service.process is not None:
                service.process.wait()

    def add(self, service: Service) -> Service:
        """Have a service started and kept running."""
        with self._lock:
            self.services[service.name] = service
            self._wanted.append(service)
        return service

    def hold(self, name: str, number: signal.Signals, patience_seconds: float = STOP_SECONDS) -> None:
        """End a service and do not start it again until `release`."""
        service = self.services[name]
        service.held = True
        service.signal(number)
        if not wait_until(lambda: service.pid is None, patience_seconds):
            service.signal(signal.SIGKILL)
            wait_until(lambda: service.pid is None, STOP_SECONDS)

    def release(self, name: str) -> None:
        """Have a service started again."""
        self.services[name].held = False

    def stop(self, order: Sequence[str]) -> dict[str, int | None]:
        """Stop every service cleanly, in this order; return the exit statuses, None for what had to be killed."""
        found: dict[str, int | None] = {}
        for name in order:
            service = self.services[name]
            service.held = True
            was_running = service.signal(signal.SIGTERM)
            if wait_until(lambda: service.pid is None, STOP_SECONDS):  # noqa: B023 used up inside the loop
                found[name] = service.statuses[-1] if was_running and service.statuses else None
            else:
                service.signal(signal.SIGKILL)
                found[name] = None
        return found

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            with self._lock:
                wanted, self._wanted = self._wanted, []
            for service in wanted:
                service.start()
            now = time.monotonic()
            for service in list(self.services.values()):
                if service.reap():
                    soon = now - service.started_at < STABLE_SECONDS
                    service.ended_badly = service.ended_badly + 1 if soon else 0
                    wait = RESTART_FIRST_SECONDS * 2 ** min(service.ended_badly, 8)
                    service.restart_at = now + min(wait, RESTART_MAX_SECONDS)
                due = service.restart_at is not None and service.restart_at <= now
                if due and not service.held:
                    with suppress(OSError):  # a fault may be in the way of starting anything: tried again
                        service.start()


def wait_until(done: Callable[[], bool], seconds: float, every_seconds: float = LOOK_SECONDS) -> bool:
    """Poll what another process or thread changes; return whether it came true in time."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= end:
            return False
        time.sleep(every_seconds)
    return True


def children_of(pid: int) -> list[int]:
    """Return the child processes of a process, of all its threads."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return found


def clean_environment() -> dict[str, str]:
    """Return the environment without settings that would change what is tested."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EDGE_AGENT_", "XDG_", "STATE_"))}
    return {**kept, "ORT_DISABLE_TELEMETRY": "1"}
