"""A result that is being checked, from its draw to its settlement. Pure."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from edge_agent.coordinator.checks import Vote
from edge_agent.coordinator.events import SaveStanding, Verification
from edge_agent.coordinator.job_note import note
from edge_agent.coordinator.jobs import Attempt, Job
from edge_agent.coordinator.reviews import Review
from edge_agent.coordinator.trust import Trust
from edge_agent.coordinator.verification import VerifiedResult
from edge_agent.notes import Note
from edge_agent.wire.job_options import owners_wanted
from edge_agent.wire.tensors import Tensor


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


@dataclass(frozen=True, slots=True)
class Pending:
    """A result with its job.

    Attributes:
        job: as it ended.
        epoch: of the attempt that the result is of.
        agent_id: who signed it.
        variant: digest of the one that it was computed with.
        klass: id of the class of machines that computed it.
        outputs: its tensors.
        signed: the agent's COSE_Sign1, which was drawn for.
        verification: as it was when it was given out.
    """

    job: Job
    epoch: int
    agent_id: str
    variant: bytes
    klass: str
    outputs: tuple[Tensor, ...]
    signed: bytes
    verification: Verification


def blamed(vote: Vote, job: Job) -> Note:
    """Make the log line about a result that was proven wrong."""
    text = (
        f"A result of {vote.party.agent_id} (owner {vote.party.owner or 'unknown'}) is wrong: machines of other owners "
        "agree on another one; it gets no work for a while"
    )
    line = note(logging.WARNING, text, "wrong-result", job)
    return Note(line.level, line.sentence, line.action, (*line.fields, ("agent_id", vote.party.agent_id)))


def changed(trust: Trust) -> tuple[SaveStanding, ...]:
    """Return what is to be stored of how far everybody is trusted, once."""
    return tuple(
        SaveStanding(s.name, s.variant, st.count, st.failures, st.unclear, st.resting_until_ms)
        for s, st in trust.take_changed()
    )
