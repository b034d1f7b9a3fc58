"""The ledger in the database: entries with their chain, appended by the one thread that writes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edge_agent.coordinator.bulk import Bulk, send
from edge_agent.coordinator.events import AddEntry
from edge_agent.coordinator.schema import ledger, results
from edge_agent.errors import StateError
from edge_agent.wire.ledger import EMPTY_CHAIN, LedgerEntry, owner_of
from edge_agent.wire.receipts import receipt_leaf

_INSERT = sa.insert(ledger)
_RECEIPT = sa.select(results.c.receipt).where(results.c.job_id == sa.bindparam("job_id"))
_COLUMNS = ("number", "kind", "debit", "credit", "amount", "leaf", "at_ms")


class Chain:
    """The end of the ledger; of no use any more when a transaction is given up.

    Args:
        size: entries so far.
        chain: after the last of them.
    """

    def __init__(self, size: int, chain: bytes) -> None:
        self._size = size
        self._chain = chain
        self._rows: list[dict[str, Any]] = []
        self._leaves: dict[bytes, bytes] = {}

    @classmethod
    def load(cls, connection: Connection) -> Chain:
        """Read what is needed."""
        return cls(*head(connection))

    def note(self, job_id: bytes, leaf: bytes) -> None:
        """Take note of the leaf of a result of this transaction: it need not be looked up."""
        self._leaves[job_id] = leaf

    def append(self, connection: Connection | Bulk, record: AddEntry) -> None:
        """Append an entry; `write` must follow in the same transaction.

        Raises:
            StateError: the result that it is for is not stored.
        """
        leaf = b"" if record.job_id is None else self._leaf(connection, record.job_id)
        entry = LedgerEntry(self._size + 1, record.kind, record.debit, record.credit, record.amount, leaf, record.at_ms)
        self._size, self._chain = entry.number, entry.chained(self._chain)
        row: dict[str, Any] = {name: getattr(entry, name) for name in _COLUMNS}
        # Two entries for one leaf break the table's rule; a NULL is not compared.
        self._rows.append(row | {"leaf": leaf or None, "chain": self._chain})

    def _leaf(self, connection: Connection | Bulk, job_id: bytes) -> bytes:
        known = self._leaves.get(job_id)
        if known is not None:
            return known
        found = connection.execute(_RECEIPT, {"job_id": job_id})
        receipt = found.scalar() if isinstance(found, sa.CursorResult) else None
        if receipt is None:
            raise StateError(f"the ledger would pay the job {job_id.hex()}, which has no result")
        return receipt_leaf(receipt)

    def write(self, connection: Connection) -> None:
        """Write what was appended, inside the caller's transaction."""
        if self._rows:
            send(connection, _INSERT, self._rows)
        self._rows = []
        self._leaves = {}


def head(connection: Connection) -> tuple[int, bytes]:
    """Return how many entries there are, and the chain after the last."""
    row = connection.execute(
        sa.select(ledger.c.number, ledger.c.chain).order_by(ledger.c.number.desc()).limit(1)
    ).first()
    return (0, EMPTY_CHAIN) if row is None else (row.number, row.chain)


def balances(connection: Connection) -> dict[str, int]:
    """Add all accounts up."""
    found: dict[str, int] = {}
    for column, sign in ((ledger.c.debit, -1), (ledger.c.credit, 1)):
        for name, amount in connection.execute(sa.select(column, sa.func.sum(ledger.c.amount)).group_by(column)):
            found[name] = found.get(name, 0) + sign * int(amount)
    return found


def entries(connection: Connection, *, after: int, limit: int, owner: str | None = None) -> list[LedgerEntry]:
    """Return entries in order.

    Args:
        connection: to read with.
        after: the number of the last that is known.
        limit: how many at most.
        owner: only those that touch an account of this owner.
    """
    query = sa.select(ledger).where(ledger.c.number > after).order_by(ledger.c.number)
    if owner is not None:
        mine = [f"owner:{owner}", *_escrows(connection, owner)]
        query = query.where(sa.or_(ledger.c.debit.in_(mine), ledger.c.credit.in_(mine)))
    rows = connection.execute(query.limit(limit)).mappings()
    return [
        LedgerEntry(
            row["number"], row["kind"], row["debit"], row["credit"], row["amount"], row["leaf"] or b"", row["at_ms"]
        )
        for row in rows
    ]


def _escrows(connection: Connection, owner: str) -> list[str]:
    prefix = f"escrow:{owner}/"
    query = sa.select(ledger.c.credit).where(ledger.c.credit.startswith(prefix, autoescape=True)).distinct()
    return [name for name in connection.scalars(query) if owner_of(name) == owner]
