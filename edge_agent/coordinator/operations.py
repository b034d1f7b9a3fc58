"""What the operator may see and do, beside what clients may: one job's way, the fleet, who may work here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edge_agent.clock import Now
from edge_agent.coordinator.core import Core
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.rows import StoredAgent, StoredAttempt
from edge_agent.coordinator.schema import attempts
from edge_agent.coordinator.store import Store


@dataclass(frozen=True, slots=True)
class LiveJobs:
    """The jobs that have not ended: how many in each state, how long the oldest has been there, and their inputs."""

    states: dict[str, int]
    oldest_seconds: float
    input_bytes: int


class Operations:
    """Reads and changes for the operator; belongs to the coordinator's loop.

    Args:
        core: the running rules.
        store: the open database.
        clock: both clocks.
    """

    def __init__(self, core: Core, store: Store, clock: Callable[[], Now]) -> None:
        self._core = core
        self._store = store
        self.clock = clock

    @property
    def registry(self) -> Registry:
        """The agents as they are known now; to be read only."""
        return self._core.registry

    def live_jobs(self) -> LiveJobs:
        """Count what has not ended."""
        states = {"queued": 0, "leased": 0, "hedged": 0}
        oldest = now = self.clock().wall_ms
        for job in self._core.leasing.jobs.values():
            states[job.state.value] = states.get(job.state.value, 0) + 1
            oldest = min(oldest, job.submitted_ms)
        return LiveJobs(states, max(0, now - oldest) / 1000, self._core.leasing.input_bytes)

    async def attempts(self, job_id: bytes) -> list[StoredAttempt]:
        """Return the attempts of a job, oldest first."""
        return await asyncio.to_thread(self._store.read, lambda connection: attempts_of(connection, job_id))

    async def stored_agents(self) -> Sequence[StoredAgent]:
        """Return every agent that the database knows."""
        return await asyncio.to_thread(self._store.agents)


def attempts_of(connection: Connection, job_id: bytes) -> list[StoredAttempt]:
    """Read the attempts of a job, oldest first."""
    columns = (attempts.c[name] for name in StoredAttempt.__dataclass_fields__)
    query = sa.select(*columns).where(attempts.c.job_id == job_id).order_by(attempts.c.epoch)
    return [StoredAttempt(**row) for row in connection.execute(query).mappings()]
