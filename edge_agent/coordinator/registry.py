"""What the coordinator knows of each agent: admission, presence by session, offers, work in flight. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edge_agent.coordinator.credit import Credit
from edge_agent.coordinator.events import AgentCertificates, AgentsChanged
from edge_agent.coordinator.orders import Orders
from edge_agent.coordinator.speed import Speed
from edge_agent.coordinator.warming import Warming
from edge_agent.errors import RefusedError, ResourceError
from edge_agent.wire.identity import Revoked
from edge_agent.wire.job_options import Placement
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import Birth, Gone, Machine, Offer, Offers
from edge_agent.wire.status import Status
from edge_agent.wire.terms import Terms

MAX_AGENTS = 10_000
"""So many agents are kept in mind unless the settings say otherwise."""
STATUS_SECONDS = 1.0
"""More than one status of an agent in this time is passed over: agents leave twice as much between two."""


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
        birth: its newest one, as it signed it: whoever seals to it need not believe us what its key is.
        sealing_key: what inputs for it are sealed to, 32 bytes, as its birth says.
        labels: what its owner calls it; unknown after our own restart until its birth.
        in_flight: jobs that it holds a lease for, oldest first, with the monotonic second after which each is late.
        last_offered: monotonic seconds at which it ceased to offer each family; lets a short absence pass unnoticed.
        credit: how many attempts we trust it to take.
        clock_skew_ms: by how much its clock was ahead of ours at its last sign of life; None before the first.
        skewed: whether that is so much that its results would be refused.
        asked_at: monotonic seconds at which it was last asked for a birth that got lost.
        machine: what it is, as it says.
        status: how it fares, as it says; its fits are the last that it told.
        status_at: monotonic seconds at which that came.
        born_ms: Unix milliseconds of its present session's birth, by its clock.
        born_at: monotonic seconds at which that was heard.
        heard: whether it has said what it offers since then.
        terms: whose jobs it takes, as it says; None for any.
    """

    id: str
    key: PublicKey
    presence: Presence = Presence.GONE
    session: int = 0
    ended_session: int = 0
    sequence: int = 0
    software: str = ""
    offers: dict[str, Offer] = field(default_factory=dict)
    birth: bytes = b""
    sealing_key: bytes | None = None
    labels: frozenset[str] | None = None
    in_flight: dict[bytes, float] = field(default_factory=dict)
    last_offered: dict[str, float] = field(default_factory=dict)
    asked_at: float = float("-inf")
    credit: Credit = field(default_factory=Credit)
    clock_skew_ms: int | None = None
    skewed: bool = False
    speeds: dict[bytes, Speed] = field(default_factory=dict)
    machine: Machine | None = None
    status: Status | None = None
    status_at: float = float("-inf")
    born_ms: int | None = None
    born_at: float = float("-inf")
    heard: bool = False
    terms: Terms | None = None

    def withdraw(self, monotonic: float) -> None:
        """Offer nothing from this moment on."""
        for family in self.offers:
            self.last_offered[family] = monotonic
        self.offers = {}

    def speed(self, offer: Offer) -> Speed:
        """Return what is known of its speed with a variant that it offers."""
        speed = self.speeds.get(offer.variant)
        if speed is None or speed.offered_us != offer.latency_us:
            speed = self.speeds[offer.variant] = Speed.of_offer(offer.latency_us)
        return speed

    def overdue_us(self, monotonic: float) -> float:
        """Return for how long its oldest attempt has been late, microseconds."""
        late_at = next(iter(self.in_flight.values()), monotonic)
        return max(0.0, (monotonic - late_at) * 1e6)


class Registry:
    """The agents by id, and the rules by which their announcements change them.

    Args:
        admit_anyone: whether agents may work here that the operator did not name.
        max_agents: so many are kept in mind; a further one is let in only in place of one that is away.

    Attributes:
        approved: the agents that the operator named.
        owners: whose they are, as far as the operator said so.
        orders: what else the operator ordered of single agents.
        certificates: of those that have one.
        revoked: keys that count no more, whoever else may work here.
        first_ids: the first id of each agent whose key was replaced, by its present one.
        resting: (lasting id, variant) to whom nothing of the variant is given; an empty variant is all of them.
        named: the clients that the terms of some agent name.
    """

    def __init__(self, *, admit_anyone: bool, max_agents: int = MAX_AGENTS) -> None:
        self.agents: dict[str, Agent] = {}
        self.approved: frozenset[str] = frozenset()
        self.owners: Mapping[str, str] = {}
        self.orders = Orders()
        self.warming = Warming()
        self.certificates: Mapping[str, AgentCertificates] = {}
        self.revoked: Mapping[str, Revoked] = {}
        self.first_ids: Mapping[str, str] = {}
        self.resting: frozenset[tuple[str, bytes]] = frozenset()
        self.named: frozenset[str] = frozenset()
        self._namings: Counter[str] = Counter()
        self._admit_anyone = admit_anyone
        self._max_agents = max_agents

    def admitted(self, agent_id: str) -> bool:
        """Whether the operator lets this agent work here."""
        return (self._admit_anyone or agent_id in self.approved) and agent_id not in self.revoked

    def get(self, agent_id: str) -> Agent:
        """Return a known, admitted agent.

        Raises:
            RefusedError: `not-enrolled`, `revoked`.
        """
        self.refuse_revoked(agent_id)
        agent = self.agents.get(agent_id)
        if agent is None or not self.admitted(agent_id):
            raise RefusedError(f"the agent {agent_id} is not enrolled here", code="not-enrolled")
        return agent

    @property
    def standing(self) -> AgentsChanged:
        """What the operator's list said last."""
        return AgentsChanged(self.approved, self.owners, self.orders, self.certificates, self.revoked, self.first_ids)

    def adopt(self, said: AgentsChanged) -> None:
        """Go by what the operator's list says now."""
        self.approved, self.owners, self.orders = said.approved, said.owners, said.orders
        self.certificates, self.revoked, self.first_ids = said.certificates, said.revoked, said.first_ids

    def lasting_id(self, agent_id: str) -> str:
        """Return the id under which is kept what an agent earned and owes, whatever its key is now."""
        return self.first_ids.get(agent_id, agent_id)

    def refuse_revoked(self, agent_id: str) -> None:
        """Refuse a key that counts no more, before anything that it signed is looked at.

        Raises:
            RefusedError: `revoked`.
        """
        if (revoked := self.revoked.get(agent_id)) is not None:
            raise RefusedError(f"the key of the agent {agent_id} was revoked: {revoked.reason}", code="revoked")

    def birth(self, birth: Birth, key: PublicKey, monotonic: float) -> tuple[Agent, bool]:
        """Take note of a birth, or of a clean stop.

        Returns:
            The agent, and whether this starts a new session of it.

        Raises:
            RefusedError: `not-enrolled`, or `stale-session` for an older session or one that ended already.
            ResourceError: `no-room`.
        """
        if not self.admitted(birth.agent_id):
            raise RefusedError(f"the agent {birth.agent_id} is not enrolled here", code="not-enrolled")
        if birth.agent_id not in self.agents:
            self._make_room()
            self.agents[birth.agent_id] = Agent(birth.agent_id, key)
        agent = self.agents[birth.agent_id]
        over = birth.state == "online" and birth.session <= agent.ended_session
        if birth.session < agent.session or over:
            raise RefusedError(
                f"a birth of session {birth.session}, but session {agent.session} is known", code="stale-session"
            )
        new = birth.session > agent.session
        if new:
            agent.session, agent.sequence = birth.session, 0
            agent.credit = Credit()
            agent.status = None
            agent.born_ms, agent.born_at, agent.heard = birth.issued_ms, monotonic, False
            agent.withdraw(monotonic)
        agent.software = birth.software
        agent.sealing_key = birth.sealing_key
        agent.labels = frozenset(birth.machine.labels)
        agent.machine = birth.machine
        agent.presence = Presence.ONLINE if birth.state == "online" else Presence.STOPPED
        if agent.presence is Presence.STOPPED:
            agent.ended_session = birth.session
            agent.withdraw(monotonic)
        return agent, new

    def _make_room(self) -> None:
        if len(self.agents) < self._max_agents:
            return
        away = (a.id for a in self.agents.values() if a.presence is not Presence.ONLINE and not a.in_flight)
        forgotten = next(away, None)
        if forgotten is None:
            raise ResourceError(
                f"there are {len(self.agents)} agents, as many as the coordinator can take",
                code="no-room",
                hint="The operator sets the limit with coordinator.max_agents.",
            )
        self._change_terms(self.agents.pop(forgotten), None)

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
        if not agent.heard and offers.offers:
            self.warming.observe(monotonic - agent.born_at)
        agent.heard = True
        agent.sequence = offers.sequence
        agent.withdraw(monotonic)
        agent.offers = {offer.family: offer for offer in offers.offers}
        if offers.terms != agent.terms:
            self._change_terms(agent, offers.terms)
        return agent

    def _change_terms(self, agent: Agent, terms: Terms | None) -> None:
        before, agent.terms = agent.terms, terms
        self._namings.subtract(before.named if before is not None else ())
        self._namings.update(terms.named if terms is not None else ())
        self._namings = +self._namings
        self.named = frozenset(self._namings)

    def status(self, status: Status, monotonic: float) -> bool:
        """Take note of how an agent fares; return whether it was, which is not so when it says that too often.

        Raises:
            RefusedError: `stale-session` for another session than the present one or an older sequence.
        """
        agent = self.get(status.agent_id)
        older = agent.status is not None and status.sequence <= agent.status.sequence
        if status.session != agent.session or older:
            raise RefusedError("a status of an older session or sequence", code="stale-session")
        if monotonic < agent.status_at + STATUS_SECONDS:
            return False
        if status.fits is None and agent.status is not None:
            status = status.model_copy(update={"fits": agent.status.fits})
        agent.status, agent.status_at = status, monotonic
        return True

    def expected_seconds(self, placement: Placement, client: str | None, monotonic: float) -> float | None:
        """Return when the first of the machines that came online and still prepare may offer something; None if none.

        An agent says nothing of what it loads and measures before it offers; until then it may be any family.
        """
        preparing = [
            monotonic - agent.born_at
            for agent in self.agents.values()
            if agent.presence is Presence.ONLINE
            and not agent.heard
            and self.admitted(agent.id)
            and self._placed(agent, placement, None)
            and self._takes(agent, placement, client)
        ]
        return self.warming.left(preparing)

    def offering(self, family: str) -> list[Agent]:
        """Return the online, admitted agents that offer a family now and whose results would count."""
        return [
            agent
            for agent in self.agents.values()
            if (offer := agent.offers.get(family)) is not None
            and agent.presence is Presence.ONLINE
            and not self._rests(agent.id, offer.variant)
            and not agent.skewed
            and self.admitted(agent.id)
            and agent.id not in self.orders.drained
        ]

    def eligible(self, family: str, variant: bytes | None, placement: Placement, client: str | None) -> list[Agent]:
        """Return those that may have a job of this family, for this variant if one is asked for, placed so.

        Args:
            family: what is asked for.
            variant: if only one of its variants will do.
            placement: which agents will do.
            client: whose it is; None where it does not matter.
        """
        return [agent for agent in self.offering(family) if self.may_have(agent, family, variant, placement, client)]

    def may_have(
        self, agent: Agent, family: str, variant: bytes | None, placement: Placement, client: str | None
    ) -> bool:
        """Whether an agent that offers a family may have such a job; the arguments are those of `eligible`."""
        if not self._takes(agent, placement, client):
            return False
        offer = agent.offers[family]
        if self._rests(agent.id, offer.variant):
            return False
        return (variant is None or offer.variant == variant) and self._placed(agent, placement, offer)

    def _rests(self, agent_id: str, variant: bytes) -> bool:
        if not self.resting:
            return False
        who = self.lasting_id(agent_id)
        return (who, b"") in self.resting or (who, variant) in self.resting

    def _placed(self, agent: Agent, placement: Placement, offer: Offer | None) -> bool:
        own = self.orders.labels.get(agent.id, frozenset())
        if placement.labels and agent.labels is not None and not (agent.labels | own).issuperset(placement.labels):
            return False
        if placement.agents and agent.id not in placement.agents:
            return False
        if placement.owner is not None and self.owners.get(agent.id) != placement.owner:
            return False
        return placement.klass is None or offer is None or offer.klass.id == placement.klass

    @staticmethod
    def _takes(agent: Agent, placement: Placement, client: str | None) -> bool:
        """Whether the owner of an agent lets it take jobs of a client, labelled so."""
        return client is None or agent.terms is None or agent.terms.why_not(client, placement.job_labels) is None

    def may_serve(
        self, family: str, variant: bytes | None, placement: Placement, client: str | None, since: float
    ) -> bool:
        """Whether any agent may have such a job now, or may when it is back; see `eligible` and `returning`."""
        here = (a for a in self.agents.values() if family in a.offers and a.id not in self.orders.drained)
        return any(self.may_have(agent, family, variant, placement, client) for agent in here) or any(
            self.returning(family, placement, client, since)
        )

    def returning(self, family: str, placement: Placement, client: str | None, since: float) -> Iterator[Agent]:
        """Give those that offered a family since then (monotonic seconds) and may have such a job when back."""
        for agent in self.agents.values():
            if family in agent.offers or agent.last_offered.get(family, float("-inf")) < since:
                continue
            if agent.id in self.orders.drained or not self.admitted(agent.id):
                continue
            if self._placed(agent, placement, None) and self._takes(agent, placement, client):
                yield agent
