"""How far each agent is trusted, and so how often its results are checked. Pure.

Trust is kept for each agent and variant, and for each owner. The first `first` results are always checked; after n
results, the next one is with probability max(1/n, floor). A result that is proven wrong leads back to the start, and
its agent rests for a while, longer each time. Whoever cheats in a share of its jobs has, whatever that share, on
average (1-qd)/(qd) wrong results accepted before it is caught: q is the probability of a check, d that of a check to
notice a wrong result (docs/verification.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

HOUR_MS: Final = 3_600_000
FIRST_REST_MS: Final = 24 * HOUR_MS
MAX_REST_MS: Final = 365 * 24 * HOUR_MS
"""An agent that was proven wrong is given nothing for a day, then two, then four, and a year at most."""

MAX_UNCLEAR: Final = 3
UNCLEAR_REST_MS: Final = 6 * HOUR_MS
"""After so many checks in a row from which nothing follows, an agent gets nothing of the variant for a while."""

MAX_COUNT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class TrustRules:
    """How often results are checked.

    Attributes:
        first: so many results of an agent with a variant, and of an owner, are always checked.
        floor: the probability of a check never falls below it.
        trusted_share: share of the checks that run on machines that the operator trusts, where there are any.
    """

    first: int = 10
    floor: float = 0.05
    trusted_share: float = 0.2

    def probability(self, count: int) -> float:
        """Return the probability with which the next result is checked after so many."""
        return 1.0 if count < self.first else max(1.0 / max(1, count), self.floor)


class Subject(NamedTuple):
    """What trust is kept for: an agent, by its lasting id, with a variant, or an owner, whose variant is empty."""

    name: str
    variant: bytes = b""


@dataclass(slots=True)
class Standing:
    """How far one subject is.

    Attributes:
        count: results since the start, of the first ones only those that a check confirmed.
        failures: results that were proven wrong, ever.
        unclear: checks in a row from which nothing followed.
        resting_until_ms: Unix milliseconds until which the agent is given nothing, or nothing of the variant.
    """

    count: int = 0
    failures: int = 0
    unclear: int = 0
    resting_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Party:
    """Who stands for a result.

    Attributes:
        agent_id: who signed it.
        owner: whose machine that is; machines of one owner never check each other.
        trusted: whether the operator trusts this machine: its results need no check, and a disagreement is settled
            by it where possible.
        first_id: the id that it had before its key was replaced for the first time; empty where that never happened.
    """

    agent_id: str
    owner: str
    trusted: bool = False
    first_id: str = ""

    @property
    def lasting_id(self) -> str:
        """What it earned and what it owes is kept under this id: a new key neither loses nor sheds anything of it."""
        return self.first_id or self.agent_id


class Summary(NamedTuple):
    """How far a machine is trusted, for people.

    Attributes:
        check_share: of its next results, so many are checked; the most of what it offers, None where that is nothing.
        resting_until_ms: Unix milliseconds until which it is given nothing, or nothing of a variant; else None.
    """

    check_share: float | None
    resting_until_ms: int | None


@dataclass(slots=True)
class Trust:
    """The standing of everybody.

    Attributes:
        changed: subjects whose standing is not stored yet.
        news: whether who rests may have changed since somebody last looked.
    """

    rules: TrustRules = field(default_factory=TrustRules)
    standings: dict[Subject, Standing] = field(default_factory=dict)
    changed: set[Subject] = field(default_factory=set)
    news: bool = False

    def restore(self, standings: Mapping[Subject, Standing]) -> None:
        """Take over what was stored."""
        self.standings.update(standings)
        self.news = True

    def probability(self, party: Party, variant: bytes) -> float:
        """Return with which probability the next result of an agent with a variant is checked."""
        if party.trusted:
            return 0.0
        return max(self.rules.probability(self._count(subject)) for subject in _subjects(party, variant))

    def newcomer(self, party: Party, variant: bytes) -> bool:
        """Whether its results are held until they are checked."""
        return not party.trusted and self.probability(party, variant) >= 1.0

    def summary(self, party: Party, variants: Sequence[bytes], now_ms: int) -> Summary:
        """Say for people how far a machine is trusted with what it offers."""
        shares = [self.probability(party, variant) for variant in variants]
        found = (self.standings.get(Subject(party.lasting_id, variant)) for variant in (b"", *variants))
        rests = max((standing.resting_until_ms for standing in found if standing is not None), default=0)
        return Summary(max(shares, default=None), rests if rests > now_ms else None)

    def resting(self, now_ms: int) -> dict[tuple[str, bytes], int]:
        """Return who is given nothing of a variant, or at all where that is empty; until when, Unix milliseconds."""
        return {
            (subject.name, subject.variant): standing.resting_until_ms
            for subject, standing in self.standings.items()
            if standing.resting_until_ms > now_ms
        }

    def confirmed(self, party: Party, variant: bytes) -> None:
        """Take note of a result that a check confirmed."""
        for subject in _subjects(party, variant):
            self._grow(subject)
            self._standing(subject).unclear = 0
            self.changed.add(subject)

    def unclear(self, party: Party, variant: bytes, now_ms: int) -> None:
        """Take note of a check from which nothing followed, without blame.

        A machine that nobody can check with a variant is given other work: each of its results would cost several
        others and still be worth nothing to a client.
        """
        subject = Subject(party.lasting_id, variant)
        standing = self._standing(subject)
        standing.unclear += 1
        if standing.unclear >= MAX_UNCLEAR:
            standing.resting_until_ms = now_ms + UNCLEAR_REST_MS
            standing.unclear = 0
            self.news = True
        self.changed.add(subject)

    def accepted(self, party: Party, variant: bytes) -> None:
        """Take note of a result that was accepted without a check: it counts once the first ones are behind it.

        It is not stored for itself: that would be a write for each job, and what is lost with the process makes the
        next checks a little more frequent.
        """
        for subject in _subjects(party, variant):
            if self._count(subject) >= self.rules.first:
                self._grow(subject)

    def failed(self, party: Party, now_ms: int) -> None:
        """Take note of a result that was proven wrong: back to the start, with everything that is the owner's.

        The agent rests; the owner's other machines go on, each result of theirs checked.
        """
        for subject, standing in self.standings.items():
            if subject.name == party.lasting_id:
                standing.count = 0
                self.changed.add(subject)
        self.news = True
        agent = self._standing(Subject(party.lasting_id))
        agent.failures += 1
        agent.resting_until_ms = now_ms + min(MAX_REST_MS, FIRST_REST_MS * 2 ** min(agent.failures - 1, 20))
        owner = self._standing(Subject(f"owner:{party.owner}"))
        owner.failures += 1
        owner.count = 0
        self.changed |= {Subject(party.lasting_id), Subject(f"owner:{party.owner}")}

    def reinstate(self, agent_id: str) -> None:
        """Let an agent, by its lasting id, work again before its time; its failures are not forgotten."""
        for subject, standing in self.standings.items():
            if subject.name == agent_id and standing.resting_until_ms:
                standing.resting_until_ms = 0
                self.changed.add(subject)
        self.news = True

    def take_changed(self) -> list[tuple[Subject, Standing]]:
        """Return what is to be stored, once."""
        rows = [(subject, self.standings[subject]) for subject in sorted(self.changed)]
        self.changed = set()
        return rows

    def _count(self, subject: Subject) -> int:
        standing = self.standings.get(subject)
        return 0 if standing is None else standing.count

    def _standing(self, subject: Subject) -> Standing:
        return self.standings.setdefault(subject, Standing())

    def _grow(self, subject: Subject) -> None:
        standing = self._standing(subject)
        standing.count = min(MAX_COUNT, standing.count + 1)


def _subjects(party: Party, variant: bytes) -> Iterable[Subject]:
    return (Subject(party.lasting_id, variant), Subject(f"owner:{party.owner}"))
