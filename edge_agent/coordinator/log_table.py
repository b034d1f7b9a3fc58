"""The log of receipts in the database: one leaf for each accepted result, in the order of acceptance.

Kept are the hashes of all complete subtrees, about two for each leaf: an append writes O(log n) of them (two on
average) and reads none, a proof reads O(log n). Leaves stay when the jobs are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edge_agent.coordinator.bulk import send
from edge_agent.coordinator.schema import log_nodes, meta
from edge_agent.wire import merkle
from edge_agent.wire.merkle import Frontier, Place, Span

SIGNED = "log-signed"
"""In `meta`: the size of the largest tree that was signed. Whatever stands before it survives a power cut."""

_INSERT = sa.insert(log_nodes)
_LAST = sa.select(sa.func.max(log_nodes.c.position)).where(log_nodes.c.level == 0)


def size(connection: Connection) -> int:
    """Return how many leaves there are."""
    last: int | None = connection.scalar(_LAST)
    return 0 if last is None else last + 1


class Appender:
    """Appends leaves; what the leaves of one transaction add is written in one statement.

    Args:
        frontier: of the log as it stands in the database.
    """

    def __init__(self, frontier: Frontier) -> None:
        self._frontier = frontier
        self._rows: list[dict[str, int | bytes]] = []

    @classmethod
    def load(cls, connection: Connection) -> Appender:
        """Read what is needed."""
        leaves = size(connection)
        return cls(Frontier(leaves, _hashes(connection, merkle.places(Span(0, leaves)))))

    def append(self, leaf: bytes) -> None:
        """Append a leaf; `write` must follow in the same transaction."""
        for place, found in self._frontier.append(leaf):
            self._rows.append({"level": place.level, "position": place.position, "hash": found})

    def write(self, connection: Connection) -> None:
        """Write what was appended, inside the caller's transaction. If that is given up, so must be the appender."""
        if self._rows:
            send(connection, _INSERT, self._rows)
            self._rows = []


def find(connection: Connection, leaf: bytes) -> int | None:
    """Return the number of a leaf, from 0, or None."""
    query = sa.select(log_nodes.c.position).where(log_nodes.c.level == 0, log_nodes.c.hash == leaf)
    found: int | None = connection.scalar(query.order_by(log_nodes.c.position).limit(1))
    return found


def leaves(connection: Connection, *, after: int, limit: int) -> list[bytes]:
    """Return the hashes of leaves in order, from number `after` on (the first is 0)."""
    query = sa.select(log_nodes.c.hash).where(log_nodes.c.level == 0, log_nodes.c.position >= after)
    return list(connection.scalars(query.order_by(log_nodes.c.position).limit(limit)))


def root(connection: Connection, leaves: int) -> bytes:
    """Return the root of the tree of the first `leaves` leaves, which there are."""
    return merkle.fold(_hashes(connection, merkle.places(Span(0, leaves))))


def path(connection: Connection, spans: list[Span]) -> list[bytes]:
    """Return the proof that these spans make (`merkle.inclusion_spans`, `merkle.consistency_spans`)."""
    wanted = [place for span in spans for place in merkle.places(span)]
    known = dict(zip(wanted, _hashes(connection, wanted), strict=True))
    return merkle.path_of(spans, known.__getitem__)


def keep(leaves: int) -> Callable[[Connection], None]:
    """Make the change after which a tree of `leaves` leaves may be signed.

    Leaves are written without waiting for the disk where nobody was promised more. A power cut that took back some
    that had been signed would look like a forged log ever after. A transaction that is synchronised has everything
    before it on the disk, too.
    """

    def change(connection: Connection) -> None:
        changed = connection.execute(sa.update(meta).where(meta.c.name == SIGNED).values(value=leaves))
        if not changed.rowcount:
            connection.execute(sa.insert(meta).values(name=SIGNED, value=leaves))

    return change


def _hashes(connection: Connection, places: Iterable[Place]) -> list[bytes]:
    wanted = list(places)
    if not wanted:
        return []
    # At most some hundred places, in one question: (level, position) is the key.
    query = sa.select(log_nodes).where(sa.tuple_(log_nodes.c.level, log_nodes.c.position).in_(wanted))
    found = {Place(row.level, row.position): row.hash for row in connection.execute(query)}
    return [found[place] for place in wanted]
