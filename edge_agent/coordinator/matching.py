"""Brings jobs and agents together: what the scheduler is told of them, and when to ask it again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.clock import Now
from edge_agent.coordinator.jobs import Job
from edge_agent.coordinator.registry import Agent, Registry
from edge_agent.coordinator.scheduling import Candidate, Choice, pick


@dataclass(frozen=True, slots=True)
class View:
    """The agents at one moment.

    Attributes:
        seen: all that decides who may have what; equal views give equal refusals.
        room: how many attempts the agents have room for.
        free_at: monotonic seconds at which the first pause of an agent is over, if any is paused.
    """

    seen: tuple[object, ...]
    room: int
    free_at: float | None


class Matching:
    """Chooses agents for jobs.

    Args:
        registry: the agents.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def look_around(self, now: Now) -> View:
        """Look at every agent."""
        registry = self._registry
        seen: list[object] = [registry.approved, registry.owners, registry.orders, registry.resting]
        room = 0
        paused: list[float] = []
        for agent in self._registry.agents.values():
            credit, held = agent.credit, len(agent.in_flight)
            asked = max((offer.max_in_flight for offer in agent.offers.values()), default=0)
            room += max(0, credit.allowed(asked, now.monotonic) - held)
            waits = credit.paused_until > now.monotonic
            if waits:
                paused.append(credit.paused_until)
            seen.append((held, credit.limit, waits, agent.presence, agent.skewed, agent.offers, agent.labels))
        return View(tuple(seen), room, min(paused, default=None))

    def choose(self, job: Job, now: Now, *, behind: int = 0) -> tuple[Choice, float]:
        """Pick an agent for a queued job; the second value is how long the run will take there, microseconds."""
        agents = self._registry.eligible(job.family, job.variant, job.placement)
        candidates = {agent.id: self._candidate(agent, job, now) for agent in agents}
        choice = pick(candidates.values(), behind=behind)
        return choice, candidates[choice.agent_id].run_us if choice.agent_id else 0.0

    def choose_second(self, job: Job, now: Now) -> str | None:
        """Pick an agent for a second attempt: neither the one that has the first, nor one that failed the job."""
        agents = self._registry.eligible(job.family, job.variant, job.placement)
        shunned = job.failed_on | {attempt.agent_id for attempt in job.attempts}
        return pick(self._candidate(agent, job, now) for agent in agents if agent.id not in shunned).agent_id

    @staticmethod
    def _candidate(agent: Agent, job: Job, now: Now) -> Candidate:
        offer = agent.offers[job.family]
        speed = agent.speed(offer)
        return Candidate(
            agent.id,
            speed.run_us,
            len(agent.in_flight),
            agent.credit.allowed(offer.max_in_flight, now.monotonic),
            overhead_us=speed.overhead_us,
            overdue_us=agent.overdue_us(now.monotonic),
            loaded=offer.loaded,
            failed_before=agent.id in job.failed_on,
        )
