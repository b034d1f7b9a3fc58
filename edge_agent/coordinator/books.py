"""The ledger and the keys of the draws as the gateway shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from edge_agent.clock import Now
from edge_agent.coordinator import ledger_table, log_table
from edge_agent.coordinator.store import Store
from edge_agent.wire.draws import commitment, period_key, period_of
from edge_agent.wire.envelope import seal
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.ledger import LedgerEntry
from edge_agent.wire.pledges import CheckKey, LedgerHead

SHOWN_PERIODS = 31
"""So many periods that are over are shown, with their keys."""


@dataclass(frozen=True, slots=True)
class Balances:
    """All accounts, and the signed head of the ledger that they follow from."""

    size: int
    chain: bytes
    signed: bytes
    accounts: dict[str, int]


class Books:
    """Reads the ledger and signs what it says. Lives in the coordinator's loop; the database is asked on other threads.

    Args:
        store: the open database.
        key: signs.
        network: that the ledger is of.
        secret: that the keys of the draws are derived from.
        clock: reads both clocks.
    """

    def __init__(self, store: Store, key: SigningKey, network: str, secret: bytes, clock: Callable[[], Now]) -> None:
        self._store = store
        self._key = key
        self._network = network
        self._secret = secret
        self._clock = clock
        self._check_keys: tuple[int, list[dict[str, Any]]] = (-1, [])

    async def balances(self) -> Balances:
        """Add everything up."""

        def state(connection: Connection) -> tuple[int, bytes, dict[str, int]]:
            return *ledger_table.head(connection), ledger_table.balances(connection)

        size, chain, accounts = await asyncio.to_thread(self._store.read, state)
        head = LedgerHead(network=self._network, issued_ms=self._clock().wall_ms, size=size, chain=chain)
        return Balances(size, chain, seal(self._key, head), accounts)

    async def entries(self, *, after: int, limit: int, owner: str | None) -> list[LedgerEntry]:
        """Return entries in order; see `ledger_table.entries`."""

        def some(connection: Connection) -> list[LedgerEntry]:
            return ledger_table.entries(connection, after=after, limit=limit, owner=owner)

        return await asyncio.to_thread(self._store.read, some)

    async def leaves(self, *, after: int, limit: int) -> list[bytes]:
        """Return leaves of the log of receipts, in order."""
        return await asyncio.to_thread(
            self._store.read, lambda connection: log_table.leaves(connection, after=after, limit=limit)
        )

    def check_keys(self) -> list[dict[str, Any]]:
        """Return the commitments of the next, the present and past periods, and the keys of those that are over.

        Anybody may ask for them, so they are signed once a period only.
        """
        now = self._clock()
        present = period_of(now.wall_ms)
        if self._check_keys[0] == present:
            return self._check_keys[1]
        found = []
        for period in range(present + 1, max(0, present - SHOWN_PERIODS) - 1, -1):
            key = period_key(self._secret, period)
            statement = CheckKey(
                network=self._network, issued_ms=now.wall_ms, period=period, commitment=commitment(key)
            )
            row: dict[str, Any] = {"period": period, "commitment": statement.commitment.hex()}
            row["signed"] = seal(self._key, statement).hex()
            if period < present:
                row["key"] = key.hex()
            found.append(row)
        self._check_keys = (present, found)
        return found
