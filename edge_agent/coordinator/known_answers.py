"""Questions of real traffic whose right answer is known: kept, to be asked again as jobs like any other. Pure.

A result that was drawn for a check, but that no other owner's machine could check at the time, says nothing of its
agent. So the agent is asked something that machines of other owners have agreed on before, at a moment that it cannot
foresee: its answer alone settles how far it is trusted, and which machines it is of one class with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_agent.coordinator.checks import MAX_VOTES, STRONG, Settlement, Standing, Vote
from edge_agent.coordinator.jobs import Job
from edge_agent.coordinator.reviews import Review
from edge_agent.coordinator.trust import Party

MAX_QUESTIONS = 256
MAX_QUESTION_BYTES = 16 * 1024 * 1024
"""So much of inputs and outputs is kept at most; the oldest go first."""

MAX_PLANS = 1000
MAX_DELAY_SECONDS = 60.0
"""A known question comes at most so long after the result for which it was drawn."""


@dataclass(frozen=True, slots=True)
class Question:
    """A job that has ended, with the answers that agree on it, one of each owner that knows it."""

    job: Job
    review: Review

    @property
    def strong(self) -> bool:
        """Whether one answer that contradicts all of these is wrong by that alone."""
        votes = self.review.votes
        return len(votes) >= STRONG or (len(votes) >= 2 and any(vote.party.trusted for vote in votes))

    @property
    def bytes(self) -> int:
        """What it takes to keep it, roughly."""
        outputs = (tensor for vote in self.review.votes for tensor in vote.answer.outputs)
        return self.job.input_bytes + sum(len(tensor.data) for tensor in outputs)


@dataclass(frozen=True, slots=True)
class Plan:
    """An agent that is to be asked.

    Attributes:
        at: monotonic second.
        seed: says which question; of the draw.
    """

    party: Party
    family: str
    variant: bytes
    at: float
    seed: bytes


class KnownAnswers:
    """What is known, and who is to be asked when; an agent is asked one thing at a time for each variant."""

    def __init__(self) -> None:
        self._questions: dict[bytes, Question] = {}
        self._bytes = 0
        self._plans: dict[tuple[str, bytes], Plan] = {}
        self._asked: dict[bytes, tuple[Plan, Question]] = {}

    def __len__(self) -> int:
        return len(self._questions)

    # -- what is known --------------------------------------------------------------------------------------------

    def remember(self, job: Job, review: Review, settlement: Settlement) -> None:
        """Keep a question on which enough machines agree that it needs no further one to know the answer."""
        if settlement.standing is not Standing.AGREED:
            return
        votes = [replace(review.votes[number], job_id=b"") for number in settlement.right]
        self._keep(Question(job, replace(review, wanted=2, votes=votes)))

    def learn(self, question: Question, vote: Vote) -> None:
        """Keep a further answer that agrees, so that its owner is not asked again; what too many know is forgotten."""
        self._drop(question.job.id)
        if len(question.review.votes) + 1 < MAX_VOTES:
            votes = [*question.review.votes, replace(vote, job_id=b"")]
            self._keep(Question(question.job, replace(question.review, votes=votes)))

    def distrust(self, party: Party) -> None:
        """Forget what a machine said that was proven wrong."""
        for question in list(self._questions.values()):
            votes = [vote for vote in question.review.votes if vote.party.lasting_id != party.lasting_id]
            if len(votes) < len(question.review.votes):
                self._drop(question.job.id)
                self._keep(Question(question.job, replace(question.review, votes=votes)))

    def _keep(self, question: Question) -> None:
        if not question.strong or question.bytes > MAX_QUESTION_BYTES:
            return
        self._drop(question.job.id)
        self._questions[question.job.id] = question
        self._bytes += question.bytes
        while self._bytes > MAX_QUESTION_BYTES or len(self._questions) > MAX_QUESTIONS:
            self._drop(next(iter(self._questions)))

    def _drop(self, job_id: bytes) -> None:
        question = self._questions.pop(job_id, None)
        if question is not None:
            self._bytes -= question.bytes

    # -- who is asked ---------------------------------------------------------------------------------------------

    def plan(self, party: Party, family: str, variant: bytes, seed: bytes, monotonic: float) -> None:
        """Have an agent asked at a moment that it cannot foresee, unless that is planned already.

        Args:
            party: who stands for its results.
            family: of the result that could not be checked.
            variant: digest of the one that it was computed with.
            seed: of the draw.
            monotonic: seconds, now.
        """
        who = (party.lasting_id, variant)
        busy = who in self._plans or any((p.party.lasting_id, p.variant) == who for p, _ in self._asked.values())
        if busy or len(self._plans) >= MAX_PLANS or not self._for(party, variant):
            return
        when = int.from_bytes(hashlib.sha256(b"known answer" + seed).digest()[:8], "big") / 2**64
        self._plans[who] = Plan(party, family, variant, monotonic + when * MAX_DELAY_SECONDS, seed)

    def next_at(self) -> float | None:
        """Return the monotonic second at which somebody is to be asked, if anybody."""
        return min((plan.at for plan in self._plans.values()), default=None)

    def take_due(self, monotonic: float) -> list[Plan]:
        """Return who is to be asked now, once."""
        due = [who for who, plan in self._plans.items() if plan.at <= monotonic]
        return [self._plans.pop(who) for who in due]

    def choose(self, plan: Plan, may: Callable[[Question], bool]) -> Question | None:
        """Return a question for an agent, one that no machine of its owner was ever asked.

        Args:
            plan: who is asked.
            may: whether it takes such a job, and anything would follow from its answer.
        """
        found = [question for question in self._for(plan.party, plan.variant) if may(question)]
        return min(found, key=lambda each: hashlib.sha256(plan.seed + each.job.id).digest(), default=None)

    def _for(self, party: Party, variant: bytes) -> list[Question]:
        return [
            question
            for question in self._questions.values()
            if question.review.variant == variant
            and all(vote.party.owner != party.owner for vote in question.review.votes)
        ]

    def ask(self, check_id: bytes, plan: Plan, question: Question) -> None:
        """Take note of the job by which an agent is asked."""
        self._asked[check_id] = (plan, question)

    def asked(self, check_id: bytes) -> Question | None:
        """Return what was asked by a job that has ended, once; it is nobody's fault if there was no answer."""
        found = self._asked.pop(check_id, None)
        return found[1] if found is not None else None
