"""What the operator may see and do, beside what clients may: one job's way, the fleet, who may work here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edge_agent.clock import Now
from edge_agent.coordinator.core import Core
from edge_agent.coordinator.events import AgentsChanged, Event
from edge_agent.coordinator.orders import read_orders, write_drained, write_labels
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
        apply: has the core told.
    """

    def __init__(self, core: Core, store: Store, clock: Callable[[], Now], apply: Callable[[Event], None]) -> None:
        self._apply = apply
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

    # -- changes ----------------------------------------------------------------------------------------------------

    def found(self, event: AgentsChanged) -> None:
        """Have the core told what the database says of agents, if that is something new."""
        registry = self._core.registry
        known = (registry.approved, registry.owners, registry.orders)
        if (event.approved, event.owners, event.orders) != known:
            self._apply(event)

    async def approve(self, agent_id: str, owner: str | None) -> None:
        """Let an agent work here; an owner that is not given stays as it was."""
        await self._change(lambda: self._store.approve(agent_id, owner=owner))

    async def revoke(self, agent_id: str) -> None:
        """Let an agent work here no longer: what it holds goes to others, what it says is refused."""
        await self._change(lambda: self._store.approve(agent_id, approved=False))

    async def drain(self, agent_id: str, *, drained: bool) -> None:
        """Give an agent nothing new from now on, or again."""
        await self._change(lambda: self._store.write(lambda c: write_drained(c, agent_id, drained=drained)))

    async def label(self, agent_id: str, labels: frozenset[str]) -> None:
        """Call an agent so, beside what its owner calls it; jobs can ask for either."""
        await self._change(lambda: self._store.write(lambda c: write_labels(c, agent_id, labels)))

    async def _change(self, change: Callable[[], object]) -> None:
        await asyncio.to_thread(change)
        self.found(await asyncio.to_thread(admission, self._store))

    # -- what is looked up ------------------------------------------------------------------------------------------

    async def attempts(self, job_id: bytes) -> list[StoredAttempt]:
        """Return the attempts of a job, oldest first."""
        return await asyncio.to_thread(self._store.read, lambda connection: attempts_of(connection, job_id))

    async def stored_agents(self) -> Sequence[StoredAgent]:
        """Return every agent that the database knows."""
        return await asyncio.to_thread(self._store.agents)


def admission(store: Store) -> AgentsChanged:
    """Read who may work here, whose they are, and what else the operator ordered."""
    agents = store.agents()
    approved = frozenset(agent.id for agent in agents if agent.approved)
    owners = {agent.id: agent.owner for agent in agents if agent.owner is not None}
    return AgentsChanged(approved, owners, store.read(read_orders))


def attempts_of(connection: Connection, job_id: bytes) -> list[StoredAttempt]:
    """Read the attempts of a job, oldest first."""
    columns = (attempts.c[name] for name in StoredAttempt.__dataclass_fields__)
    query = sa.select(*columns).where(attempts.c.job_id == job_id).order_by(attempts.c.epoch)
    return [StoredAttempt(**row) for row in connection.execute(query).mappings()]
