"""A review: the question whether a result is right, from the first vote to the settlement. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_agent.coordinator.checks import MAX_VOTES, STRONG, Settlement, Vote, checkers, settle
from edge_agent.coordinator.classes import Classes
from edge_agent.coordinator.comparing import Agreement, checkable, compare
from edge_agent.coordinator.trust import Party, Trust
from edge_agent.models.catalogue import Reproducibility
from edge_agent.wire.draws import Draw


@dataclass(slots=True)
class Review:
    """The votes about one input.

    Attributes:
        variant: digest of the variant that every vote is by.
        reproducibility: what the catalogue says of its outputs.
        draw: of the result in question; puts the checkers in order.
        trusted_share: of the checks, on machines that the operator trusts.
        wanted: so many owners must agree.
        votes: that of the result in question first.
    """

    variant: bytes
    reproducibility: Reproducibility
    draw: Draw
    trusted_share: float
    wanted: int = 2
    votes: list[Vote] = field(default_factory=list)

    @property
    def subject(self) -> Vote:
        """The result in question."""
        return self.votes[0]

    def able(self, klass: str) -> bool:
        """Whether a machine of this class can say anything about the result in question."""
        return checkable(self.reproducibility) or klass == self.subject.answer.klass

    def order(
        self, candidates: Iterable[Party], trust: Trust, *, dispute: bool, asked: Iterable[Party] = ()
    ) -> list[str]:
        """Put those who may vote next in order.

        Args:
            candidates: those that could compute it now; their classes are `able`.
            trust: tells who is new.
            dispute: whether a disagreement is to be settled: then by a machine that the operator trusts, if any.
            asked: those who were asked already and have not answered.
        """
        found = list(candidates)
        new = (party.agent_id for party in found if trust.newcomer(party, self.variant))
        voted = [*(vote.party for vote in self.votes), *asked]
        trusted_first = dispute or self.draw.trusted < self.trusted_share
        return checkers(found, voted, self.draw.seed, trusted_first=trusted_first, newcomers=new)

    def settle(self, classes: Classes, trust: Trust, *, more: bool = True) -> Settlement:
        """Say where the review stands.

        Newcomers that agree with nobody but each other are not enough, as long as there is anybody else to ask:
        cheats of one kind agree, too, when they run the same smaller model.

        Args:
            classes: what is known of the machines.
            trust: tells who is new.
            more: whether there is anybody left to ask.
        """

        def agreement(one: Vote, other: Vote) -> Agreement:
            klass = one.answer.klass
            same = klass == other.answer.klass and classes.same(klass, one.party.lasting_id, other.party.lasting_id)
            return compare(self.reproducibility, one.answer, other.answer, same_class=same)

        known = any(not trust.newcomer(vote.party, self.variant) for vote in self.votes)
        wanted = self.wanted if known or not more else max(self.wanted, STRONG)
        return settle(self.votes, agreement, wanted=wanted, most=max(MAX_VOTES, wanted) if more else len(self.votes))

    def close(self, settlement: Settlement, trust: Trust, classes: Classes, now_ms: int, *, known: int = 0) -> None:
        """Let everybody's standing follow from the settlement, but for the first votes, so many as were `known`."""
        for number in settlement.right:
            if number < known:
                continue
            vote = self.votes[number]
            trust.confirmed(vote.party, self.variant)
            for other in settlement.right[: settlement.right.index(number)]:
                with_whom = self.votes[other]
                if with_whom.answer == vote.answer:  # the same class and the same bits
                    classes.learn(vote.answer.klass, with_whom.party.lasting_id, vote.party.lasting_id)
        for number in settlement.wrong:
            trust.failed(self.votes[number].party, now_ms)
            classes.forget(self.votes[number].party.lasting_id)
        settled = {*settlement.right, *settlement.wrong}
        for number, vote in enumerate(self.votes):
            if number >= known and number not in settled and len(self.votes) > 1:
                trust.unclear(vote.party, self.variant, now_ms)
