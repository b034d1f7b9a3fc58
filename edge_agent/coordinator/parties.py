"""Whose each agent is, and which of them could check a result. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_agent.coordinator.jobs import Job
from edge_agent.coordinator.owners import OPERATOR, STRANGERS, owner_of
from edge_agent.coordinator.registry import Agent, Registry
from edge_agent.coordinator.trust import Party, Trust
from edge_agent.wire.job_options import Placement


class Parties:
    """Owners of agents, for checks.

    Args:
        registry: the agents.
        trusted_owners: whose machines the operator trusts beside its own.
    """

    def __init__(self, registry: Registry, trusted_owners: Iterable[str] = ()) -> None:
        self._registry = registry
        self._trusted = frozenset((OPERATOR, *(f"={owner}" for owner in trusted_owners)))
        self._expires_ms: int | None = None

    def party(self, agent_id: str) -> Party:
        """Say who stands for the results of an agent.

        One that the operator admitted without naming an owner is the operator's own. Those that nobody named, where
        anybody is let in, count as one owner.
        """
        owner = owner_of(self._registry, agent_id)
        return Party(agent_id, owner, owner in self._trusted, self._registry.first_ids.get(agent_id, ""))

    def kind(self, party: Party) -> str:
        """Say in one word whose a machine is: `own`, `trusted`, `owner` or `stranger`."""
        if party.owner == OPERATOR:
            return "own"
        return "trusted" if party.trusted else "stranger" if party.owner == STRANGERS else "owner"

    def admitted(self, agent_id: str) -> bool:
        """Whether an agent may still work here."""
        return self._registry.admitted(agent_id)

    def candidates(self, job: Job, variant: bytes, able: Callable[[str], bool]) -> list[Party]:
        """Return those that offer this very variant now, in a class of which something follows, for jobs like this."""
        return [self.party(agent.id) for agent in self._takers(job, variant) if able(agent.offers[job.family].klass.id)]

    def others(self, job: Job, variant: bytes, owner: str) -> bool:
        """Whether any machine of another owner offers this very variant now, for jobs like this."""
        return any(self.party(agent.id).owner != owner for agent in self._takers(job, variant))

    def owners_of(self, job: Job) -> int:
        """Return how many owners' machines offer a job's family now, and take jobs of its client."""
        return len({self.party(agent.id).owner for agent in self._takers(job, job.variant)})

    def _takers(self, job: Job, variant: bytes | None) -> list[Agent]:
        like = Placement(job_labels=job.placement.job_labels)  # others than who may have the job itself may check it
        return self._registry.eligible(job.family, variant, like, job.client)

    def owners_known(self) -> int:
        """Return how many owners have machines that were let in, whether these are here now or not."""
        known = (agent_id for agent_id in {*self._registry.approved, *self._registry.agents} if self.admitted(agent_id))
        return len({self.party(agent_id).owner for agent_id in known})

    def expire(self, trust: Trust, now_ms: int) -> None:
        """Let the registry know who rests, when that changes."""
        if not trust.news and (self._expires_ms is None or now_ms < self._expires_ms):
            return
        trust.news = False
        resting = trust.resting(now_ms)
        self._registry.resting = frozenset(resting)
        self._expires_ms = min(resting.values(), default=None)
