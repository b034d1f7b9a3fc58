"""Fetches model files beside the daemon, one after the other, each in a process that ends: `edge-agent models pull`.

The process keeps the daemon small, and verifies what it fetches as it does for people. It never removes files to make
room: what one family needs must not cost another its own. That files came is seen by whoever watches the store.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from edge_agent.agent.events import Wanted

RETRY_FIRST_SECONDS = 600.0
RETRY_MAX_SECONDS = 24 * 3600.0
LIMIT_SECONDS = 24 * 3600.0
"""A fetch that takes longer is ended; what came of it is gone on with the next time."""
STOP_SECONDS = 2.0

log = logging.getLogger("edge_agent.fetching")


class Fetching:
    """The files that are wanted, and the process that fetches one of them.

    Args:
        settings: environment variables for the process, beside the daemon's own.
        command: how files are fetched; the variant's name is added.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        command: Sequence[str] = (sys.executable, "-P", "-m", "edge_agent", "models", "pull", "--keep", "--json"),
    ) -> None:
        self._environment = {**os.environ, **settings}
        self._command = tuple(command)
        self._change = threading.Condition()
        self._wanted: tuple[Wanted, ...] = ()
        self._failed: dict[str, tuple[float, float]] = {}  # digest → (not before, pause)
        self._done: set[str] = set()
        self._stopping = False
        self._process: subprocess.Popen[str] | None = None
        self._current: Wanted | None = None
        self._called_off = False
        self._thread: threading.Thread | None = None
        self.fetched_bytes = 0
        """Of all files that were fetched, for whoever counts them."""

    def want(self, wanted: Sequence[Wanted]) -> None:
        """Fetch these, in this order, and no longer what was wanted before; a fetch of that is ended."""
        with self._change:
            self._wanted = tuple(wanted)
            if self._process is not None and self._current not in self._wanted:
                self._called_off = True  # also if it is wanted again before it has ended
                self._process.terminate()
            if self._thread is None and self._wanted:
                self._thread = threading.Thread(target=self._run, name="fetching", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def stop(self) -> None:
        """End what goes on; it is gone on with at the next start."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
            if self._process is not None:
                self._process.terminate()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while (wanted := self._next()) is not None:
            started = time.monotonic()
            problem = self._fetch(wanted)
            fields = {"action": "fetched", "family": wanted.family, "variant": wanted.variant}
            with self._change:
                if self._stopping:
                    return
                if problem and (self._called_off or wanted not in self._wanted):
                    continue  # it was ended because nobody wanted it
                if not problem:
                    self._done.add(wanted.digest)
                    seconds = time.monotonic() - started
                    log.info("Fetched %s of %s in %.1f s", wanted.variant, wanted.family, seconds, extra=fields)
                    continue
                pause = min(2 * self._failed.get(wanted.digest, (0.0, RETRY_FIRST_SECONDS / 2))[1], RETRY_MAX_SECONDS)
                self._failed[wanted.digest] = (time.monotonic() + pause, pause)
            fields["action"] = "fetch-failed"
            text = "Could not fetch %s of %s: %s Trying again in %.0f s"
            log.warning(text, wanted.variant, wanted.family, problem, pause, extra=fields)

    def _next(self) -> Wanted | None:
        """Wait for something that may be fetched now; None at the end."""
        with self._change:
            while not self._stopping:
                now = time.monotonic()
                left = [wanted for wanted in self._wanted if wanted.digest not in self._done]
                due = [self._failed.get(wanted.digest, (0.0, 0.0))[0] for wanted in left]
                ready = next((wanted for wanted, at in zip(left, due, strict=True) if at <= now), None)
                if ready is not None:
                    return ready
                self._change.wait(min(due) - now if due else None)
            return None

    def _fetch(self, wanted: Wanted) -> str:
        """Return in words what went wrong, or nothing."""
        command = [*self._command, f"{wanted.family}/{wanted.variant}"]
        try:
            with self._change:
                if self._stopping or wanted not in self._wanted:
                    return "stopping"
                self._current, self._called_off = wanted, False
                process = self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=self._environment,
                    cwd="/",
                    text=True,
                    errors="replace",
                    process_group=0,
                )
            printed, said = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"It took longer than {LIMIT_SECONDS / 3600:g} hours."
        except OSError as error:
            return f"{error}."
        finally:
            self._process = None
        lines = [line for line in said.splitlines() if line.startswith("edge-agent: error: ")]
        last = lines[-1].removeprefix("edge-agent: error: ") if lines else f"It ended with {process.returncode}."
        if process.returncode == 0:
            self._count(printed)
        return "" if process.returncode == 0 else last[:300]

    def _count(self, printed: str) -> None:
        """Take note of how much was fetched, as the command says it in JSON."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            files = json.loads(printed)["files"]
            self.fetched_bytes += sum(int(file["bytes"]) for file in files if not file["was_here"])
