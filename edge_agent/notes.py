"""Log lines that the cores ask for: counted all, and written so that nobody can fill the disk with them."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

BURST_LINES = 50
"""So many lines of one kind are written in each window; the others are counted, and their number is told."""
WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Note:
    """A log line: a sentence with fields, and a counter of the same name as its action."""

    level: int
    sentence: str
    action: str
    fields: tuple[tuple[str, str | int], ...] = ()


@dataclass(slots=True)
class _Window:
    """What was written of one kind since the beginning of the window."""

    began: float
    written: int = 0
    left_out: int = 0


class Journal:
    """Writes notes to one logger.

    What strangers send decides how many notes there are, but not how many lines: of each kind (action and code) at
    most `BURST_LINES` are written in `WINDOW_SECONDS`, unless the log is set to debug. The kinds are ours, so the
    tables here are bounded.

    Attributes:
        counters: how often each action happened, and each `action:code`.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.counters: Counter[str] = Counter()
        self._log = log
        self._windows: dict[str, _Window] = {}

    def write(self, note: Note, monotonic: float) -> None:
        """Count a note and, if there is room in its window at this monotonic second, write it."""
        fields: dict[str, str | int] = dict(note.fields)
        self.counters[note.action] += 1
        kind = note.action
        if "code" in fields:
            kind = f"{note.action}:{fields['code']}"
            self.counters[kind] += 1
        if not self._log.isEnabledFor(note.level):
            return
        window = self._windows.setdefault(kind, _Window(monotonic))
        if monotonic - window.began >= WINDOW_SECONDS:
            left_out, self._windows[kind] = window.left_out, _Window(monotonic)
            window = self._windows[kind]
            if left_out:
                extra = {"action": "log-shortened", "kind": kind, "left_out": left_out}
                self._log.warning("Left out %d more lines like the following", left_out, extra=extra)
        if window.written >= BURST_LINES and not self._log.isEnabledFor(logging.DEBUG):
            window.left_out += 1
            return
        window.written += 1
        self._log.log(note.level, note.sentence, extra={"action": note.action, **fields})
