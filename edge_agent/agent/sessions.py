"""The numbers of the agent's connections: each larger than any before, whatever the clock or the disk does."""

from __future__ import annotations

from pathlib import Path

from edge_agent.folders import write_durably
from edge_agent.wire.messages import MAX_INTEGER

SESSION_FILE = "session"


class Sessions:
    """Counts sessions in a file: `max(last + 1, milliseconds of the wall clock)`.

    The clock only helps where the file is lost: a new session then does not look old. Where the file cannot be
    written, this process goes on counting in memory, and a later one leans on the clock.

    Args:
        folder: the agent's state directory.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SESSION_FILE
        self._last = 0

    def next(self, wall_ms: int) -> tuple[int, OSError | None]:
        """Return a session number, and why it could not be remembered on disk, if it could not.

        Args:
            wall_ms: Unix milliseconds.
        """
        self._last = max(self._read(), self._last) + 1
        self._last = max(self._last, wall_ms)
        try:
            write_durably(self._path, f"{self._last}\n")
        except OSError as error:
            return self._last, error
        return self._last, None

    def _read(self) -> int:
        try:
            last = int(self._path.read_text()[:32])
        except (OSError, ValueError):
            return 0
        return last if 0 < last < MAX_INTEGER // 2 else 0  # whatever else stands there, we did not write it
