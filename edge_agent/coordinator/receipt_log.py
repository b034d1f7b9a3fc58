"""The log of receipts as the gateway shows it: signed tree heads and proofs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from edge_agent.clock import Now
from edge_agent.coordinator import log_table
from edge_agent.coordinator.store import Store
from edge_agent.errors import InputError, RefusedError
from edge_agent.wire import merkle
from edge_agent.wire.envelope import seal
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import TreeHead

HEAD_SECONDS = 1.0
"""A tree head is given again for so long, unless somebody asks about a leaf that came after it."""


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A tree head with its signature.

    Attributes:
        begun: monotonic seconds; what was stored by then is in it.
    """

    statement: TreeHead
    signed: bytes
    begun: float


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Where a leaf is in the tree of a certain size, and the proof of it."""

    index: int
    size: int
    path: list[bytes]


class ReceiptLog:
    """Signs tree heads and makes proofs. Lives in the coordinator's loop; the database is asked on other threads.

    Args:
        store: the open database.
        key: signs.
        network: that the log is of.
        clock: reads both clocks.
    """

    def __init__(self, store: Store, key: SigningKey, network: str, clock: Callable[[], Now]) -> None:
        self._store = store
        self._key = key
        self._network = network
        self._clock = clock
        self._head: SignedHead | None = None
        self._signing = asyncio.Lock()

    async def head(self, least: int = 0) -> SignedHead:
        """Return a signed tree head.

        It is a new one if the last is older than `HEAD_SECONDS` or smaller than `least`. One at a time is made,
        and whoever asked before it was begun gets that one.
        """
        asked = self._clock().monotonic
        if (found := self._head) is not None and self._serves(found, least, asked):
            return found
        async with self._signing:
            found = self._head
            if found is None or (found.begun < asked and not self._serves(found, least, asked)):
                found = self._head = await asyncio.to_thread(self._sign)
            return found

    async def inclusion(self, leaf: bytes, size: int | None = None) -> tuple[Inclusion, SignedHead]:
        """Prove that a leaf is in the log.

        Args:
            leaf: its hash.
            size: of the tree to prove it for; None takes that of the tree head that is returned, too.

        Raises:
            RefusedError: `not-logged`.
            InputError: there is no tree of that size, or the leaf is not in it.
        """
        index = await asyncio.to_thread(self._store.read, lambda connection: log_table.find(connection, leaf))
        if index is None:
            raise RefusedError(
                "This receipt is not in the log.",
                code="not-logged",
                hint="Receipts from before the coordinator kept a log are in none; they can be checked without it.",
            )
        there = await self._size()
        if size is not None and not index < size <= there:  # nothing is signed for who asks for what is not
            text = f"There is no tree of {size} leaves with leaf {index}; the log has {there} leaves."
            raise InputError(text)
        head = await self.head(max(index + 1, size or 0))
        leaves = head.statement.size if size is None else size
        path = await self._path(merkle.inclusion_spans(index, leaves))
        return Inclusion(index, leaves, path), head

    async def consistency(self, old: int, new: int) -> list[bytes]:
        """Prove that the log of `new` leaves starts with that of `old`.

        Raises:
            InputError: not 0 <= old <= new <= the log's size.
        """
        if not 0 <= old <= new:
            raise InputError(f"A log of {new} leaves cannot start with one of {old}.")
        there = await self._size()
        if new > there:
            raise InputError(f"The log has {there} leaves, not {new}.")
        await self.head(new)
        return await self._path(merkle.consistency_spans(old, new))

    async def _size(self) -> int:
        return await asyncio.to_thread(self._store.read, log_table.size)

    def _serves(self, head: SignedHead, least: int, now: float) -> bool:
        return head.statement.size >= least and now - head.begun <= HEAD_SECONDS

    async def _path(self, spans: list[merkle.Span]) -> list[bytes]:
        return await asyncio.to_thread(self._store.read, lambda connection: log_table.path(connection, spans))

    def _sign(self) -> SignedHead:
        now = self._clock()

        def state(connection: Connection) -> tuple[int, bytes]:
            size = log_table.size(connection)
            return size, log_table.root(connection, size)

        size, root = self._store.read(state)
        if self._head is None or self._head.statement.size < size:
            self._store.write(log_table.keep(size))
        statement = TreeHead(network=self._network, issued_ms=now.wall_ms, size=size, root=root)
        return SignedHead(statement, seal(self._key, statement), now.monotonic)
