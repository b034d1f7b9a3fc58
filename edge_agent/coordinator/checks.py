"""Checks of results: who is drawn, who checks, and what follows when machines disagree. Pure.

An agent commits to its result by its signature; only then a keyed hash of what it signed decides whether the result
is checked, and by whom (`wire.draws`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edge_agent.coordinator.comparing import Agreement, Answer
from edge_agent.coordinator.trust import Party

MAX_VOTES: Final = 6
"""So many machines are asked at most before a disagreement is left open."""

STRONG: Final = 3
"""Without a trusted machine among them, so many owners must agree before anybody else is said to be wrong."""


# -- who checks ---------------------------------------------------------------------------------------------------


def checkers(
    candidates: Iterable[Party], voted: Iterable[Party], seed: bytes, *, trusted_first: bool, newcomers: Iterable[str]
) -> list[str]:
    """Put the machines that may check a result in order; nobody can tell it without the seed.

    Args:
        candidates: those that could compute it now.
        voted: those that have answered already: their owners are out.
        seed: of the draw.
        trusted_first: whether machines that the operator trusts come first.
        newcomers: ids of agents that are not known yet; they come last.
    """
    owners = {party.owner for party in voted}
    unknown = frozenset(newcomers)

    def rank(party: Party) -> tuple[bool, bool, bytes]:
        mixed = hashlib.sha256(seed + party.agent_id.encode()).digest()
        return trusted_first and not party.trusted, party.agent_id in unknown, mixed

    return [party.agent_id for party in sorted((c for c in candidates if c.owner not in owners), key=rank)]


# -- what follows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Vote:
    """What one machine says about the inputs in question.

    Attributes:
        job_id: of the job that it answered so; empty when that is paid for already.
    """

    party: Party
    answer: Answer
    job_id: bytes = b""


class Standing(StrEnum):
    """Where a disagreement, or the want of agreement, stands."""

    OPEN = "open"
    AGREED = "agreed"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the votes say.

    Attributes:
        right: votes that confirm each other, by their number.
        wrong: votes that all of those contradict.
        dispute: whether a further vote is to settle a disagreement, and not just to confirm.
    """

    standing: Standing
    right: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    dispute: bool = False


def settle(
    votes: Sequence[Vote], compare: Callable[[Vote, Vote], Agreement], *, wanted: int = 2, most: int = MAX_VOTES
) -> Settlement:
    """Settle by independent machines; nobody is said to be wrong by one other alone.

    The largest set of votes of which each confirms each other decides. Votes that every one of them contradicts are
    wrong, if the set is strong: `STRONG` owners, two more than contradict them, or two with a trusted machine among
    them. Two accomplices of different owners can thus never bring a third one down.

    Args:
        votes: of machines of different owners.
        compare: what a comparison of two of them says.
        wanted: so many must agree.
        most: with so many votes and no decision, it stays open for ever.
    """
    count = len(votes)
    found = {(i, j): compare(votes[i], votes[j]) for i in range(count) for j in range(i + 1, count)}

    def between(i: int, j: int) -> Agreement:
        return found[min(i, j), max(i, j)]

    best: list[int] = []
    for seed in range(count):
        group = [seed]
        for other in range(count):
            if other not in group and all(between(other, member).agrees for member in group):
                group.append(other)
        if len(group) > len(best):
            best = group
    against = tuple(
        i for i in range(count) if i not in best and all(between(i, member) is Agreement.DIFFERENT for member in best)
    )
    right = tuple(sorted(best))
    open_or_not = Standing.OPEN if count < most else Standing.DISPUTED
    if not against:
        unclear = len(best) < count
        if len(best) >= wanted:
            return Settlement(Standing.AGREED, right)
        return Settlement(open_or_not, dispute=unclear)
    vouched = len(best) >= 2 and any(votes[i].party.trusted for i in best)
    strong = vouched or (len(best) >= STRONG and len(best) >= len(against) + 2)
    if strong and len(best) >= wanted:
        return Settlement(Standing.AGREED, right, against)
    return Settlement(open_or_not, dispute=not strong)
