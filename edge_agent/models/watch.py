"""Keeps an eye on a catalogue while a process runs: asks for news at the start and from time to time.

A thread that waits. Between two refreshes it looks at two dates: of the record, which shows what `edge-agent models
refresh` did meanwhile, and of the folder with the models, which shows what `edge-agent models pull` did.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent.errors import EdgeAgentError
from edge_agent.models.known import RECORD_FILE, Known, Source, known
from edge_agent.models.refresher import Refresher

if TYPE_CHECKING:
    from pathlib import Path

LOOK_SECONDS = 15.0
RETRY_FIRST_SECONDS = 60.0
JITTER = 0.1
"""Of the time between two refreshes: a fleet that was switched on together must not ask together for ever."""
STOP_SECONDS = 5.0


def pause_seconds(refresh_seconds: float, failures: int, jitter: float) -> float:
    """Return how long to wait before the next refresh.

    Args:
        refresh_seconds: after one that went well.
        failures: in a row; each doubles a short pause, up to the ordinary one.
        jitter: between -1 and 1.
    """
    base = refresh_seconds
    if failures:
        base = min(refresh_seconds, RETRY_FIRST_SECONDS * 2.0 ** min(failures - 1, 32))
    return base * (1.0 + JITTER * jitter)


class Watch:
    """Refreshes one source in the background, and tells when the catalogue is another one.

    Args:
        source: without an address, only the files are looked at.
        now: what the process goes by so far.
        log: where failures and changes are told.
        rng: for the jitter.
        files: says when the files of models last changed; None if they do not matter here.
    """

    look_seconds = LOOK_SECONDS

    def __init__(
        self,
        source: Source,
        now: Known,
        log: logging.Logger,
        rng: random.Random,
        files: Callable[[], int] | None = None,
    ) -> None:
        self._source = source
        self._files = files
        self._refresher = Refresher(source)
        self._known = now
        self._log = log
        self._rng = rng
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen = (0, 0)
        self._said: list[str] = []

    @property
    def known(self) -> Known:
        """What was known at the last look."""
        return self._known

    def start(self, on_news: Callable[[Known], None]) -> None:
        """Begin.

        Args:
            on_news: called on the watching thread with what is known, whenever the families, or the files, changed.
        """
        self._seen = self._dates()
        self._thread = threading.Thread(target=self._run, args=(on_news,), name="catalogue", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, also in the middle of a refresh."""
        self._stop.set()
        self._refresher.stop()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self, on_news: Callable[[Known], None]) -> None:
        failures = 0
        while not self._stop.is_set():
            if self._source.url is not None:
                try:
                    self._refresher.refresh()
                    failures = 0
                except EdgeAgentError as error:
                    if self._stop.is_set():
                        return
                    failures += 1
                    text = f"The catalogue could not be refreshed: {error.message} {error.hint}"
                    self._log.warning(text, extra={"action": "catalogue-refresh", "code": error.error_code})
            self._look(on_news)
            self._wait(pause_seconds(self._source.refresh_seconds, failures, self._rng.uniform(-1.0, 1.0)), on_news)

    def _wait(self, seconds: float, on_news: Callable[[Known], None]) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stop.wait(min(left, self.look_seconds)):
            if self._dates() != self._seen:
                self._look(on_news)

    def _dates(self) -> tuple[int, int]:
        return _changed_at(self._source.folder / RECORD_FILE), self._files() if self._files is not None else 0

    def _look(self, on_news: Callable[[Known], None]) -> None:
        """Read what is kept; tell when the families, or what is wrong with them, or the files changed."""
        (_, files), self._seen = self._seen, self._dates()
        before, self._known = self._known, known(self._source, time.time_ns() // 1_000_000)
        self._say_problems()
        if self._known.catalogue.families != before.catalogue.families:
            record = self._known.record
            fields = {
                "action": "catalogue-changed",
                "catalogue": record.catalogue if record is not None else None,
                "families": len(self._known.catalogue.families),
            }
            self._log.info("The catalogue changed", extra=fields)
            on_news(self._known)
        elif files != self._seen[1]:
            self._log.info("The files of models changed", extra={"action": "models-changed"})
            on_news(self._known)

    def _say_problems(self) -> None:
        """Say what is wrong, each thing once as long as it lasts."""
        now = []
        if self._known.problem:
            now.append(f"About the catalogue: {self._known.problem}")
        if self._known.hidden:
            now.append(f"Published, but built in under the same name: {', '.join(self._known.hidden)}")
        for text in now:
            if text not in self._said:
                self._log.warning(text, extra={"action": "catalogue-problem"})
        self._said = now


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
