"""Brings jobs and agents together: what the scheduler is told of them, and when to ask it again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.clock import Now
from edge_agent.coordinator.jobs import Job
from edge_agent.coordinator.queues import FairQueue, Shape
from edge_agent.coordinator.refusals import Refusals
from edge_agent.coordinator.registry import Agent, Registry
from edge_agent.coordinator.scheduling import NOBODY, Candidate, Choice, pick


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
        queue: those that wait.
        jobs: all of them.
        refusals: says who else could be asked about a job that an owner's machine refused.
    """

    def __init__(self, registry: Registry, queue: FairQueue, jobs: Mapping[bytes, Job], refusals: Refusals) -> None:
        self._registry = registry
        self._queue = queue
        self._jobs = jobs
        self._refusals = refusals
        self._named: frozenset[str] = frozenset()

    def look_around(self, now: Now) -> View:
        """Look at every agent; whom their terms name waits by himself from now on."""
        registry = self._registry
        if registry.named is not self._named:
            self._named = registry.named
            self._queue.tell_apart(self._named, self._jobs)
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
            labels = (agent.labels, agent.terms)
            seen.append((held, credit.limit, waits, agent.presence, agent.skewed, agent.offers, *labels))
        return View(tuple(seen), room, min(paused, default=None))

    def choose(self, job: Job, now: Now, *, behind: int = 0) -> tuple[Choice, float]:
        """Pick an agent for a queued job; the second value is how long the run will take there, microseconds."""
        agents = self._agents_for(job)
        if job.refusals:
            others = [agent for agent in agents if not self._refusals.by_owner_of(agent, job.refusals)]
            if not others and (wait := self._wait_for_others(job, now)) is not None:
                return wait, 0.0
            agents = others or agents
        if job.killed:  # one owner's machines are no two witnesses of poison, and enough of its workers died
            agents = self._refusals.elsewhere(agents, job.killed) or agents
        candidates = {agent.id: self._candidate(agent, job, now) for agent in agents}
        choice = pick(candidates.values(), behind=behind)
        return choice, candidates[choice.agent_id].run_us if choice.agent_id else 0.0

    def choose_second(self, job: Job, now: Now) -> str | None:
        """Pick an agent for a second attempt: neither the one that has the first, nor one that failed the job.

        Nor one of an owner whose machine refused it, or lost its worker over it; and of who has the first attempt only
        where no other owner's machine may have it: one owner's machines are no two witnesses.
        """
        having = {attempt.agent_id for attempt in job.attempts}
        shunned = job.failed_on | having
        agents = self._refusals.elsewhere(self._agents_for(job), job.killed)
        others = [a for a in agents if a.id not in shunned and not self._refusals.by_owner_of(a, job.refusals)]
        others = self._refusals.elsewhere(others, having) or others
        return pick(self._candidate(agent, job, now) for agent in others).agent_id

    def _agents_for(self, job: Job) -> list[Agent]:
        """Return the agents that may have a job now: those whose owners' own jobs wait for them do those first."""
        eligible = self._registry.eligible(job.family, job.variant, job.placement, job.client)
        return [agent for agent in eligible if not self._has_better_to_do(agent, job)]

    def _has_better_to_do(self, agent: Agent, job: Job) -> bool:
        if agent.terms is None or not agent.terms.first or job.client in agent.terms.first:
            return False
        return any(
            shape.family in agent.offers
            and not self._refusals.by_owner_of(agent, shape.refused_by)
            and self._registry.may_have(agent, shape.family, shape.variant, shape.placement, shape.client)
            and not self._is_for_others(agent, shape)
            for shape in self._queue.apart(agent.terms.first)
        )

    def _is_for_others(self, agent: Agent, shape: Shape) -> bool:
        """Whether jobs that an agent may have wait for others rather: as `choose` and `pick` see to it."""
        if not shape.shunned and not shape.killed:
            return False
        agents = self._registry.eligible(shape.family, shape.variant, shape.placement, shape.client)
        agents = [one for one in agents if not self._refusals.by_owner_of(one, shape.refused_by)]
        agents = self._refusals.elsewhere(agents, shape.killed) or agents
        agents = [one for one in agents if one.id not in shape.shunned] or agents
        return all(one.id != agent.id for one in agents)

    def _wait_for_others(self, job: Job, now: Now) -> Choice | None:
        """Let a job wait whose refusal another owner could confirm or prove wrong; None if nobody could."""
        if self._refusals.others(job, job.refusals):
            return NOBODY  # they do their owners' jobs first
        left = self._refusals.expected_until(job, job.refusals, now.monotonic) - now.monotonic
        return Choice(None, look_again_us=left * 1e6) if left > 0 else None

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
