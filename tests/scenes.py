"""A connected coordinator with agents, for scripts of events."""

from __future__ import annotations

from fakes import CoordinatorScript, FakeAgent, ManualClock

from edge_agent.coordinator.jobs import Job
from edge_agent.wire.messages import Offer


class Setting:
    """A connected coordinator with agents by name, each with room for two.

    Args:
        names: of the agents.
        script: passed on to `CoordinatorScript`.
    """

    def __init__(self, *names: str, **script: object) -> None:
        self.clock = ManualClock()
        self.script = CoordinatorScript(self.clock, **script)  # type: ignore[arg-type] # passed through
        self.agents: dict[str, FakeAgent] = {}
        self.script.connect()
        for name in names:
            self.join(name)

    def join(self, name: str, *, labels: tuple[str, ...] = (), **offer: object) -> FakeAgent:
        """Let an agent come and offer."""
        agent = self.agents[name] = FakeAgent(name, self.clock)
        offers: list[Offer] = [agent.offer(**offer)]  # type: ignore[arg-type] # passed through
        self.script.tell(agent.birth(answers=self.script.session, labels=labels), agent.offers(*offers))
        return agent

    def job(self, job_id: bytes) -> Job:
        """Return a live job."""
        return self.script.core.leasing.jobs[job_id]

    @property
    def live(self) -> int:
        """How many jobs have not ended."""
        return len(self.script.core.leasing.jobs)
