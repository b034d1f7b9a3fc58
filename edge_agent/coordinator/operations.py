"""What the operator may see and do, beside what clients may: one job's way, the fleet, who may work here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edge_agent.clock import Now
from edge_agent.coordinator import identities
from edge_agent.coordinator.core import Core
from edge_agent.coordinator.events import AgentsChanged, Event
from edge_agent.coordinator.orders import write_drained, write_labels
from edge_agent.coordinator.registrar import Registrar
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.rows import StoredAgent, StoredAttempt
from edge_agent.coordinator.schema import attempts, standings
from edge_agent.coordinator.store import Store

MAX_STANDINGS: Final = 1000


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
        registrar: certifies agents; None where no certificates are asked for.
    """

    def __init__(
        self,
        core: Core,
        store: Store,
        clock: Callable[[], Now],
        apply: Callable[[Event], None],
        registrar: Registrar | None = None,
    ) -> None:
        self._registrar = registrar
        self._apply = apply
        self._core = core
        self._store = store
        self.clock = clock

    @property
    def registry(self) -> Registry:
        """The agents as they are known now; to be read only."""
        return self._core.registry

    def trust_in(self, agent_id: str) -> dict[str, Any] | None:
        """Return whose a machine that was let in is, and how far it is trusted with what it offers; see `Summary`."""
        core, live = self._core, self._core.registry.agents.get(agent_id)
        if not core.parties.admitted(agent_id):
            return None
        party = core.parties.party(agent_id)
        variants = () if live is None else tuple(offer.variant for offer in live.offers.values())
        summary = core.checking.trust.summary(party, variants, self.clock().wall_ms)
        return {"kind": core.parties.kind(party), **summary._asdict()}

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
        if event != self._core.registry.standing:
            self._apply(event)

    async def approve(self, agent_id: str, owner: str | None) -> None:
        """Let an agent work here; an owner that is not given stays as it was."""
        await self._change(lambda: self._store.approve(agent_id, owner=owner))

    async def revoke(self, agent_id: str) -> None:
        """Refuse an agent's key for ever: what it holds goes to others, what it says is refused."""
        now_ms = self.clock().wall_ms
        await self._change(lambda: self._store.revoke(agent_id, "revoked by the operator", now_ms))

    async def reinstate(self, agent_id: str) -> None:
        """Let an agent that was proven wrong, or could not be checked, work again before its rest is over."""
        now_ms = self.clock().wall_ms
        await self._change(lambda: self._store.write(lambda c: identities.reinstate(c, agent_id, now_ms)))

    async def drain(self, agent_id: str, *, drained: bool) -> None:
        """Give an agent nothing new from now on, or again."""
        await self._change(lambda: self._store.write(lambda c: write_drained(c, agent_id, drained=drained)))

    async def label(self, agent_id: str, labels: frozenset[str]) -> None:
        """Call an agent so, beside what its owner calls it; jobs can ask for either."""
        await self._change(lambda: self._store.write(lambda c: write_labels(c, agent_id, labels)))

    async def invite(self, network: str, coordinator_id: str, owner: str | None, seconds: float) -> str:
        """Make a token that lets one machine in, once, within this time; return its text."""
        now_ms = self.clock().wall_ms

        def made(connection: Connection) -> str:
            token = identities.new_token(
                connection,
                network=network,
                coordinator_id=coordinator_id,
                owner=owner,
                now_ms=now_ms,
                ttl_ms=int(seconds * 1000),
            )
            return token.text()

        return await asyncio.to_thread(self._store.write, made)

    async def _change(self, change: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(change)
        finally:  # also what was done but in part
            self.found(await asyncio.to_thread(self._store.standing, self._registrar, self.clock().wall_ms))

    # -- what is looked up ------------------------------------------------------------------------------------------

    async def attempts(self, job_id: bytes) -> list[StoredAttempt]:
        """Return the attempts of a job, oldest first."""
        return await asyncio.to_thread(self._store.read, lambda connection: attempts_of(connection, job_id))

    async def standings(self) -> list[dict[str, Any]]:
        """Return how far each agent, by its first id, and each owner is trusted."""
        query = sa.select(standings).order_by(standings.c.name, standings.c.variant).limit(MAX_STANDINGS)

        def rows(connection: Connection) -> list[dict[str, Any]]:
            return [dict(row) for row in connection.execute(query).mappings()]

        return await asyncio.to_thread(self._store.read, rows)

    async def stored_agents(self) -> Sequence[StoredAgent]:
        """Return every agent that the database knows."""
        return await asyncio.to_thread(self._store.agents)


def attempts_of(connection: Connection, job_id: bytes) -> list[StoredAttempt]:
    """Read the attempts of a job, oldest first."""
    columns = (attempts.c[name] for name in StoredAttempt.__dataclass_fields__)
    query = sa.select(*columns).where(attempts.c.job_id == job_id).order_by(attempts.c.epoch)
    return [StoredAttempt(**row) for row in connection.execute(query).mappings()]
