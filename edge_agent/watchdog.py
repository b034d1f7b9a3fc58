"""When a service manager's watchdog may be fed: only while every part of a daemon makes progress. Pure.

A part *owes* a sign of life from the moment on which it was given something to do, or last gave one, until it is done.
One that owes for longer than its patience is stuck, and then the watchdog is not fed, so that the service manager ends
the process and starts it again. Whoever asks is the daemon's own loop; when that is stuck, nobody feeds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

NETWORK_PATIENCE_SECONDS: Final = 90.0
"""The C library may take this long to look up a name and to connect; a broker that is away is no hang."""
STORE_PATIENCE_SECONDS: Final = 90.0
"""Of one command to the disk: a slow card takes seconds, in bad moments tens of them."""
WORKER_PATIENCE_SECONDS: Final = 30.0
"""From the end that is due until it has come: SIGKILL takes no longer on a machine that works."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a daemon, as it stands now.

    Attributes:
        name: for people.
        owes_since: the monotonic second since which it owes a sign of life; None if it has nothing to do.
        patience_seconds: how long it may owe one.
    """

    name: str
    owes_since: float | None
    patience_seconds: float


def stuck(parts: Iterable[Part], monotonic: float) -> str:
    """Say which parts make no progress, and for how long; empty if all do, so that the watchdog may be fed."""
    late = [
        f"{part.name} for {monotonic - part.owes_since:.0f} s"
        for part in parts
        if part.owes_since is not None and monotonic - part.owes_since > part.patience_seconds
    ]
    return ", ".join(late)
