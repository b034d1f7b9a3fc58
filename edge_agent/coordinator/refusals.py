"""Jobs of which a machine says that they can never succeed: who else could say so. Pure.

See docs/adr/0033-refusals.md for why one owner's word ends no job as long as another owner can be asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from edge_agent.coordinator.jobs import Job
from edge_agent.coordinator.owners import owner_of
from edge_agent.coordinator.registry import Agent, Registry

BACK_SECONDS: Final = 30.0
"""So long another owner's machine that went away is waited for: a restart fits in, and its end comes soon enough."""


class Refusals:
    """Finds machines of other owners than those that have had their say.

    Args:
        registry: the agents.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def by_owner_of(self, agent: Agent, owners: Collection[str]) -> bool:
        """Whether the owner of an agent is among those that refused a job."""
        return bool(owners) and owner_of(self._registry, agent.id) in owners

    def elsewhere(self, agents: Iterable[Agent], agent_ids: Iterable[str]) -> list[Agent]:
        """Return those agents that are of other owners than these."""
        owners = {owner_of(self._registry, agent_id) for agent_id in agent_ids}
        return [agent for agent in agents if not self.by_owner_of(agent, owners)]

    def others(self, job: Job, owners: Collection[str]) -> list[Agent]:
        """Return the machines of other owners that may have a job now."""
        able = self._registry.eligible(job.family, job.variant, job.placement, job.client)
        return [agent for agent in able if not self.by_owner_of(agent, owners)]

    def expected_until(self, job: Job, owners: Collection[str], monotonic: float) -> float:
        """Return until when machines of other owners are expected back that may have a job, monotonic seconds.

        Not later than now if none is: nobody is waited for.
        """
        since = monotonic - BACK_SECONDS
        away = self._registry.returning(job.family, job.placement, job.client, since)
        left = (agent.last_offered[job.family] for agent in away if not self.by_owner_of(agent, owners))
        return max(left, default=since) + BACK_SECONDS

    def can_ask(self, job: Job, owners: Collection[str], monotonic: float) -> bool:
        """Whether machines of other owners have a job, may have it now, or are expected back."""
        # Who is to be given nothing new may still finish what it has.
        if any(owner_of(self._registry, attempt.agent_id) not in owners for attempt in job.attempts):
            return True
        return bool(self.others(job, owners)) or self.expected_until(job, owners, monotonic) > monotonic
