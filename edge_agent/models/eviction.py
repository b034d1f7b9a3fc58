"""Which files leave the store: pure rules over what there is. Least recently used first, pinned ones never."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from edge_agent.errors import ResourceError
from edge_agent.models.content import Entry

STALE_SECONDS = 7 * 24 * 3600.0
"""An unfinished file that got no byte for so long is no longer waited for."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the disk and the owner allow.

    Attributes:
        free_bytes: on the disk now.
        used_bytes: by the store now, unfinished files included.
        max_bytes: the store may take at most so much.
        keep_free_bytes: of the disk, so much is left to everybody else.
    """

    free_bytes: int
    used_bytes: int
    max_bytes: int
    keep_free_bytes: int

    def missing(self, needed_bytes: int) -> int:
        """Return how many bytes have to go before `needed_bytes` more may come; 0 if none."""
        over_budget = self.used_bytes + needed_bytes - self.max_bytes
        over_disk = needed_bytes + self.keep_free_bytes - self.free_bytes
        return max(0, over_budget, over_disk)


def make_room(
    entries: Sequence[Entry], room: Room, needed_bytes: int, *, in_use: AbstractSet[str] = frozenset()
) -> list[Entry]:
    """Return what is to be removed so that `needed_bytes` more fit; all of it or nothing.

    Args:
        entries: the store's files.
        room: what is allowed.
        needed_bytes: of the file that is to come.
        in_use: digests that stay whatever their age.

    Raises:
        ResourceError: `disk-full`: not even without everything that may go. Nothing should be removed then.
    """
    missing = room.missing(needed_bytes)
    removable = [entry for entry in entries if not entry.pinned and entry.digest not in in_use]
    if missing > sum(entry.size_bytes for entry in removable):
        kept = sum(entry.size_bytes for entry in entries) - sum(entry.size_bytes for entry in removable)
        limit = (
            f"the store may take {_mb(room.max_bytes)} (models.max_bytes)"
            if room.used_bytes + needed_bytes - room.max_bytes >= needed_bytes + room.keep_free_bytes - room.free_bytes
            else f"{_mb(room.free_bytes)} are free, of which {_mb(room.keep_free_bytes)} stay free "
            "(models.keep_free_bytes)"
        )
        raise ResourceError(
            f"There is no room for {_mb(needed_bytes)}: {limit}, and {_mb(kept)} are pinned or in use.",
            code="disk-full",
            hint="Unpin what is not needed (`edge-agent models unpin`), raise the limit, or set `models.dir`.",
        )
    gone: list[Entry] = []
    for entry in sorted(removable, key=lambda entry: (entry.used, entry.digest)):
        if missing <= 0:
            break
        gone.append(entry)
        missing -= entry.size_bytes
    return gone


def unwanted(entries: Iterable[Entry], known: AbstractSet[str]) -> list[Entry]:
    """Return the files that no catalogue names any more and nobody pinned."""
    return [entry for entry in entries if not entry.pinned and entry.digest not in known]


def stale(partials: Iterable[tuple[str, int, float]], now: float) -> list[str]:
    """Return the digests of unfinished files that nobody goes on with; `now` is Unix time."""
    return [digest for digest, _, touched in partials if now - touched > STALE_SECONDS]


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
