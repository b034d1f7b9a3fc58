"""Looks after the database from time to time: what the operator's commands changed, and what is old enough to go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from edge_agent.clock import Now
from edge_agent.coordinator.events import AgentsChanged
from edge_agent.coordinator.registrar import Registrar
from edge_agent.coordinator.store import Store

ADMISSION_POLL_SECONDS = 1.0
RETENTION_SWEEP_SECONDS = 60.0


class Housekeeping:
    """Reads and clears the database beside the writer.

    Args:
        store: the open database.
        clock: reads both clocks.
        boot: `clock.boot_number`.
        retention_seconds: jobs are kept so long after their end.
        found: called with what the operator's list says, each time.
        registrar: makes certificates and checks them; None where none are asked for.
        forgot: called with the idempotency keys that are free again.
        failed: called with what went wrong; it is tried again.
    """

    def __init__(  # noqa: PLR0913 each is a seam of its own
        self,
        store: Store,
        *,
        clock: Callable[[], Now],
        boot: int,
        retention_seconds: float,
        registrar: Registrar | None,
        found: Callable[[AgentsChanged], None],
        forgot: Callable[[Iterable[str]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._boot = boot
        self._registrar = registrar
        self._retention_ms = int(retention_seconds * 1000)
        self._found = found
        self._forgot = forgot
        self._failed = failed

    async def run(self) -> None:
        """Do it until cancelled."""
        next_retention = 0.0
        while True:
            try:
                self._found(await asyncio.to_thread(self._store.standing, self._registrar, self._clock().wall_ms))
                monotonic = self._clock().monotonic
                if monotonic >= next_retention:
                    next_retention = monotonic + RETENTION_SWEEP_SECONDS
                    self._forgot(await asyncio.to_thread(self._forget))
            except Exception as error:  # noqa: BLE001 what it looks after must not end silently
                self._failed(error)
            await asyncio.sleep(ADMISSION_POLL_SECONDS)

    def _forget(self) -> list[str]:
        now = self._clock()
        age_ms = self._store.age_ms(boot=self._boot, monotonic=now.monotonic, wall_ms=now.wall_ms)
        return self._store.forget_older(age_ms, self._retention_ms)
