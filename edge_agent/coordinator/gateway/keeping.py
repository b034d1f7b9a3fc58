"""Keeps what the gateway goes by up to date while it runs: API keys, what clients did, and the certificate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy.engine import Connection

from edge_agent.clock import Now
from edge_agent.coordinator.access import DAY_MS, Access, KeyRecord, Usage
from edge_agent.coordinator.gateway.tls import Certificate
from edge_agent.coordinator.key_table import read_keys, read_usage, write_usage
from edge_agent.coordinator.store import Store
from edge_agent.errors import EdgeAgentError

log = logging.getLogger("edge_agent.coordinator")

POLL_SECONDS = 1.0
"""A key that is added or revoked is noticed within this time; a crash forgets as much of what clients did."""


class Keeper:
    """Reads and writes the database beside the coordinator's writer.

    Args:
        store: the open database.
        access: is kept up to date.
        clock: both clocks.
        certificate: is looked at, if there is one.
    """

    def __init__(
        self, store: Store, access: Access, clock: Callable[[], Now], certificate: Certificate | None = None
    ) -> None:
        self._store = store
        self._access = access
        self._clock = clock
        self._certificate = certificate
        self._failed = ""

    def start(self) -> None:
        """Read everything once, before anybody is let in.

        Raises:
            StateError: the database cannot be read.
        """
        day = self._clock().wall_ms // DAY_MS

        def first(connection: Connection) -> tuple[list[KeyRecord], dict[str, Usage]]:
            return read_keys(connection), read_usage(connection, day)

        keys, usages = self._store.read(first)
        self._access.adopt(keys)
        self._access.restore(usages)

    async def run(self) -> None:
        """Do it until cancelled; then write what is left."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                try:
                    await self._once()
                    self._failed = ""
                except EdgeAgentError as error:
                    if error.message != self._failed:  # once, not each second
                        log.warning("%s", error.message, extra={"action": "gateway-upkeep", "code": error.error_code})
                    self._failed = error.message
        finally:
            with suppress(EdgeAgentError):  # the database may be why we stop
                self._write(self._access.changed())

    async def _once(self) -> None:
        changed = self._access.changed()
        if changed:
            await asyncio.to_thread(self._write, changed)
        self._access.adopt(await asyncio.to_thread(self._store.read, read_keys))
        if self._certificate is not None and self._certificate.renew():
            log.info("Took over a new certificate", extra={"action": "certificate"})

    def _write(self, usages: dict[str, Usage]) -> None:
        if usages:
            self._store.write(lambda connection: write_usage(connection, usages))
