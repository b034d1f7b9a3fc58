"""A result that is being checked, from its draw to its settlement. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_agent.coordinator.events import Verification
from edge_agent.coordinator.jobs import Attempt, Job
from edge_agent.coordinator.reviews import Review
from edge_agent.coordinator.verification import VerifiedResult
from edge_agent.wire.job_options import owners_wanted


@dataclass(slots=True)
class Case:
    """A result that is being checked.

    Attributes:
        job: that it is of, as it was.
        held: the attempt and its result, while they wait for the end of this; the job is live then.
        asked: checks without an answer, by their ids.
        sent: how many checks were sent out.
        waiting: whether nobody could be asked when it was last tried.
    """

    job: Job
    review: Review
    verification: Verification
    epoch: int
    held: tuple[Attempt, VerifiedResult] | None = None
    asked: dict[bytes, Job] = field(default_factory=dict)
    sent: int = 0
    waiting: bool = False

    @property
    def demanded(self) -> bool:
        """Whether the client asked for more than the agent's signature."""
        return owners_wanted(self.verification.mode) > 1

    @property
    def over(self) -> bool:
        """Whether its job ended without the result that was held; what the checks show of agents still counts."""
        return self.held is not None and self.job.state.final
