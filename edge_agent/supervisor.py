"""How a daemon talks to the service manager that started it: sd_notify(3), without its library.

Datagrams of `NAME=value` lines to the Unix socket that `NOTIFY_SOCKET` names. Without that variable everything here
does nothing. Nothing here raises: a service manager that does not listen must not end what it is to keep alive.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Final

from edge_agent.watchdog import Part, stuck

MICROSECONDS: Final = 1_000_000
FEEDS_PER_PERIOD: Final = 3
"""The manual advises two; a third lets one come late."""
MAX_STATUS: Final = 200

log = logging.getLogger("edge_agent.supervisor")


class Supervisor:
    """The service manager's ear.

    Args:
        environ: where `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are looked for.
        pid: of this process.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._every = _feed_seconds(environ, pid) if self._address else None
        self._due = 0.0
        self._status = ""
        self._stuck = ""

    @property
    def due(self) -> float | None:
        """The monotonic second at which `feed` is to be called at the latest; None if nobody asks for it."""
        return None if self._every is None else self._due

    def ready(self, status: str = "") -> None:
        """Say that the service works, at the start and after `reloading`."""
        self._say("READY=1", *self._changed(status))

    def reloading(self) -> None:
        """Say that settings are being read anew; `ready` is to follow."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, within_seconds: float) -> None:
        """Say that the service ends, and how long that may take."""
        self._say("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within_seconds * MICROSECONDS)}")

    def status(self, text: str) -> None:
        """Say in a line what the service does; said once until it changes."""
        if changed := self._changed(text):
            self._say(*changed)

    def feed(self, parts: Iterable[Part], monotonic: float) -> None:
        """Feed the watchdog if all parts make progress and it is time; say so once if one does not."""
        if self._every is None or monotonic < self._due:
            return
        self._due = monotonic + self._every
        before, self._stuck = self._stuck, stuck(parts, monotonic)
        if not self._stuck:
            self._say("WATCHDOG=1")
            if before:
                log.warning("All parts make progress again", extra={"action": "watchdog-fed"})
        elif not before:
            text = "No progress of %s; the service manager will start this process again"
            log.error(text, self._stuck, extra={"action": "watchdog-hungry"})
            self.status(f"no progress of {self._stuck}")

    def _changed(self, status: str) -> list[str]:
        line = "".join(char if char.isprintable() else " " for char in status)[:MAX_STATUS]
        if not line or line == self._status:
            return []
        self._status = line
        return [f"STATUS={line}"]

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        # Linux's abstract names start with a zero byte, which an environment cannot hold.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ear:
                ear.setblocking(False)
                ear.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.debug("The service manager does not listen: %s", error, extra={"action": "not-notified"})


def here() -> Supervisor:
    """Return the one of this process."""
    return Supervisor(os.environ, os.getpid())


def _feed_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """Return after how many seconds the watchdog wants to be fed; None if there is none, or it is not for us."""
    period, whom = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(pid))
    if not period.isascii() or not period.isdecimal() or not int(period) or whom != str(pid):
        return None
    return int(period) / MICROSECONDS / FEEDS_PER_PERIOD
