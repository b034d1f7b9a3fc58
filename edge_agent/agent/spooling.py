"""Keeps the spool on a thread of its own: a slow card delays no message, and trouble with it is only told."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.agent.events import ForgetSpooled, SpoolFailed, SpoolLoaded, SpoolResult
from edge_agent.errors import StateError

if TYPE_CHECKING:
    from edge_agent.agent.spool import Spool

SPOOL_FILE = "spool.db"
STOP_SECONDS = 2.0


class Spooling:
    """Does what the core says about the spool, in order.

    The file, its thread and SQLite come into being with the first result that is worth it. The queue to the thread
    needs no bound of its own: what waits in it are answers that the core holds in memory anyway.

    Args:
        path: of the file.
        max_bytes: of all answers together.
        sink: gets an event when something does not work; called on the thread.
        stamp: gives the present time as part of a file name.

    Attributes:
        owes_since: the monotonic second at which the command that the disk works on was begun; None if there is none.
    """

    def __init__(
        self, path: Path, max_bytes: int, sink: Callable[[SpoolFailed], None], stamp: Callable[[], str]
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._sink = sink
        self._stamp = stamp
        self._commands: queue.SimpleQueue[SpoolResult | ForgetSpooled | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._spool: Spool | None = None
        self._since = time.monotonic()  # from here on, time counts for the age of what is on disk
        self._counts = False
        self.owes_since: float | None = None

    def load(self) -> SpoolLoaded:
        """Read what an earlier process left; to be called before the first command.

        Whatever is wrong with the file or the disk is told to the sink, and nothing is loaded.

        Raises:
            StateError: `newer-schema`: this version must not touch the file.
        """
        if not self._path.exists():
            return SpoolLoaded(())
        from edge_agent.agent.spool import DamagedError, Spool  # noqa: PLC0415 most agents never need SQLite

        try:
            spool = Spool(self._path, self._max_bytes)
            try:
                found = spool.load()
            finally:
                spool.close()
                self._since = spool.counted_at
            self._counts = bool(found)
            return SpoolLoaded(found)
        except DamagedError as error:
            self._sink(SpoolFailed((), self._put_away(error)))
        except StateError as error:
            if error.error_code == "newer-schema":
                raise
            self._sink(SpoolFailed((), error.message))
        return SpoolLoaded(())

    def do(self, command: SpoolResult | ForgetSpooled) -> None:
        """Enqueue a command; never waits and never fails."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
            self._thread.start()
        self._commands.put(command)

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> bool:
        """Finish what was asked for and close the file.

        Returns:
            Whether that was done in time; a disk that hangs does not hold up the end of the process.
        """
        if self._counts:
            self.do(ForgetSpooled(()))  # what an earlier process left has become older, even if nothing was written
        if self._thread is None:
            return True
        self._commands.put(None)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (command := self._commands.get()) is not None:
            self.owes_since = time.monotonic()
            try:
                reason = self._try(command)
            except Exception as error:  # noqa: BLE001 - a result in memory alone is better than an agent that is gone
                reason = f"{type(error).__name__}: {error}"
            if reason is not None:
                self._close()
                keys = ((command.job, command.epoch),) if isinstance(command, SpoolResult) else ()
                self._sink(SpoolFailed(keys, reason))
            self.owes_since = None
        self._close()

    def _try(self, command: SpoolResult | ForgetSpooled) -> str | None:
        """Carry a command out; return why it could not be done."""
        from edge_agent.agent.spool import DamagedError, Spool  # noqa: PLC0415 as above

        try:
            if self._spool is None:
                self._spool = Spool(self._path, self._max_bytes, since=self._since)
            if isinstance(command, SpoolResult):
                self._spool.put(command.job, command.epoch, command.payload)
            else:
                self._spool.forget(command.keys)
        except DamagedError as error:
            self._close()
            return self._put_away(error)
        except StateError as error:
            return error.message
        return None

    def _put_away(self, error: Exception) -> str:
        from edge_agent.agent.spool import set_aside  # noqa: PLC0415 as above

        try:
            target = set_aside(self._path, self._stamp())
        except StateError as refused:
            return f"it is damaged ({error}), and {refused.message}"
        return f"{self._path} was damaged ({error}) and is now {target.name}"

    def _close(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()
            self._since = spool.counted_at
