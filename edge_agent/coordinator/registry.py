"""What the coordinator knows of each agent: admission, presence by session, offers, work in flight. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from edge_agent.errors import RefusedError
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import Birth, Gone, Offer, Offers


class Presence(StrEnum):
    """The three states of an agent."""

    ONLINE = "online"
    STOPPED = "stopped"
    GONE = "gone"


@dataclass(slots=True)
class Agent:
    """One agent.

    Attributes:
        session: the newest session number that it announced; older messages about presence are history.
        ended_session: the newest session that is known to have ended: its birth, repeated, brings nobody back.
        sequence: of the newest offers inside that session.
        in_flight: ids of the jobs that it holds a lease for.
        last_offered: monotonic seconds at which it ceased to offer each family; lets a short absence pass unnoticed.
    """

    id: str
    key: PublicKey
    presence: Presence = Presence.GONE
    session: int = 0
    ended_session: int = 0
    sequence: int = 0
    software: str = ""
    offers: dict[str, Offer] = field(default_factory=dict)
    in_flight: set[bytes] = field(default_factory=set)
    last_offered: dict[str, float] = field(default_factory=dict)

    def withdraw(self, monotonic: float) -> None:
        """Offer nothing from this moment on."""
        for family in self.offers:
            self.last_offered[family] = monotonic
        self.offers = {}


class Registry:
    """The agents by id, and the rules by which their announcements change them."""

    def __init__(self, *, admit_anyone: bool) -> None:
        self.agents: dict[str, Agent] = {}
        self.approved: frozenset[str] = frozenset()
        self._admit_anyone = admit_anyone

    def admitted(self, agent_id: str) -> bool:
        """Whether the operator lets this agent work here."""
        return self._admit_anyone or agent_id in self.approved

    def get(self, agent_id: str) -> Agent:
        """Return a known, admitted agent.

        Raises:
            RefusedError: `not-enrolled`.
        """
        agent = self.agents.get(agent_id)
        if agent is None or not self.admitted(agent_id):
            raise RefusedError(f"the agent {agent_id} is not enrolled here", code="not-enrolled")
        return agent

    def birth(self, birth: Birth, key: PublicKey, monotonic: float) -> tuple[Agent, bool]:
        """Take note of a birth, or of a clean stop.

        Returns:
            The agent, and whether this starts a new session of it.

        Raises:
            RefusedError: `not-enrolled`, or `stale-session` for an older session or one that ended already.
        """
        if not self.admitted(birth.agent_id):
            raise RefusedError(f"the agent {birth.agent_id} is not enrolled here", code="not-enrolled")
        agent = self.agents.setdefault(birth.agent_id, Agent(birth.agent_id, key))
        over = birth.state == "online" and birth.session <= agent.ended_session
        if birth.session < agent.session or over:
            raise RefusedError(
                f"a birth of session {birth.session}, but session {agent.session} is known", code="stale-session"
            )
        new = birth.session > agent.session
        if new:
            agent.session, agent.sequence = birth.session, 0
            agent.withdraw(monotonic)
        agent.software = birth.software
        agent.presence = Presence.ONLINE if birth.state == "online" else Presence.STOPPED
        if agent.presence is Presence.STOPPED:
            agent.ended_session = birth.session
            agent.withdraw(monotonic)
        return agent, new

    def gone(self, gone: Gone, monotonic: float) -> Agent:
        """Take note of a will. One of an older session says nothing about the present one.

        Raises:
            RefusedError: `stale-session` or `not-enrolled`.
        """
        agent = self.get(gone.agent_id)
        if gone.session != agent.session:
            raise RefusedError(
                f"a will of session {gone.session}, but session {agent.session} is known", code="stale-session"
            )
        agent.ended_session = gone.session
        if agent.presence is Presence.ONLINE:
            agent.presence = Presence.GONE
        agent.withdraw(monotonic)
        return agent

    def restore(self, agent_id: str, key: PublicKey, session: int, offered: Iterable[str], monotonic: float) -> None:
        """Remember an agent from before our own restart; it is gone until it says otherwise.

        Args:
            agent_id: whose.
            key: that it signs with.
            session: the newest that it announced.
            offered: families that it served before; clients may wait a little for it to come back.
            monotonic: now.
        """
        last = dict.fromkeys(offered, monotonic)
        self.agents[agent_id] = Agent(agent_id, key, session=session, last_offered=last)

    def offers(self, offers: Offers, monotonic: float) -> Agent:
        """Replace what an agent offers.

        Raises:
            RefusedError: `stale-session` for another session than the present one or an older sequence.
        """
        agent = self.get(offers.agent_id)
        if offers.session != agent.session or offers.sequence < agent.sequence:
            raise RefusedError("offers of an older session or sequence", code="stale-session")
        if agent.presence is not Presence.ONLINE:
            raise RefusedError(f"offers of an agent that is {agent.presence}", code="stale-session")
        agent.sequence = offers.sequence
        agent.withdraw(monotonic)
        agent.offers = {offer.family: offer for offer in offers.offers}
        return agent

    def offering(self, family: str) -> list[Agent]:
        """Return the online, admitted agents that offer a family now."""
        return [
            agent
            for agent in self.agents.values()
            if family in agent.offers and agent.presence is Presence.ONLINE and self.admitted(agent.id)
        ]

    def offered_since(self, family: str, monotonic: float) -> bool:
        """Whether any agent offers the family now or did at or after this moment."""
        return any(
            family in agent.offers or agent.last_offered.get(family, float("-inf")) >= monotonic
            for agent in self.agents.values()
        )
