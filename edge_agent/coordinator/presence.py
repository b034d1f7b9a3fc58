"""What the coordinator does about what agents say of themselves: births, wills, offers, progress. Pure.

A birth names the agent's session, the coordinator session whose hello it answers, and the attempts it holds. What
was leased in an older session of either side and is not held was lost on the way and is queued again at once;
everything else is covered by its lease.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypeVar

from edge_agent.clock import Now
from edge_agent.coordinator.events import AgentCertificates, AgentsChanged, Command, Commit, SaveAgent
from edge_agent.coordinator.leasing import Leasing
from edge_agent.coordinator.registry import Agent, Registry
from edge_agent.coordinator.statements import Statements
from edge_agent.errors import RefusedError, ResourceError
from edge_agent.models.catalogue import Family
from edge_agent.notes import Note
from edge_agent.wire.envelope import announced_key, open_envelope
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import Birth, Gone, Offer, Offers, Progress
from edge_agent.wire.status import Status

GONE_GRACE_SECONDS = 3.0
"""After a will, an agent has this long to come back and say what it still holds."""

PRESENCE_MAX_BYTES = 128 * 1024

MAX_LOST_EPOCHS = 1000
"""So many attempts of one job may have been lost in a power cut of ours."""
HELLO_AGAIN_SECONDS = 5.0
"""To agents that have not heard our hello it is said again, but not more often than this."""

BIRTH_AGAIN_SECONDS = 1.0
"""An agent whose birth got lost is asked for it again, but not more often than this."""

S = TypeVar("S", Offers, Progress, Gone, Status)


class Presence:
    """Who is there, and what that means for the jobs.

    Args:
        registry: the agents.
        leasing: the jobs that they hold.
        statements: signs what we say; holds the network's topics.
        families: what may be offered, by name.
        max_skew_seconds: an agent whose clock is further off is given nothing.
    """

    def __init__(
        self,
        registry: Registry,
        leasing: Leasing,
        statements: Statements,
        families: dict[str, Family],
        max_skew_seconds: float,
    ) -> None:
        self.session = 0
        self.connected = False
        self._registry = registry
        self._leasing = leasing
        self._statements = statements
        self._network = statements.topics.network
        self._families = families
        self._max_skew_ms = int(max_skew_seconds * 1000)
        self._hello_again_at = 0.0
        self._unheard: dict[str, float] = {}

    # -- ourselves ------------------------------------------------------------------------------------------------

    def connect(self, session: int, now: Now) -> list[Command]:
        """Announce a session of ours."""
        self.connected = True
        self.session = session
        for agent in self._registry.agents.values():  # it may have another session by now: its birth will tell
            agent.withdraw(now.monotonic)
        self.renew_all(now)
        commands = [self._hello(now)]
        if self._registry.revoked:
            commands.append(self._statements.revocations(self._registry.revoked, now))
        return commands

    def renew_all(self, now: Now) -> None:
        """Give every attempt another lease: it was us who did not listen."""
        for job in self._leasing.jobs.values():
            for attempt in job.attempts:
                self._leasing.renew(attempt, now)

    def disconnect(self) -> None:
        """Take note that nobody hears us."""
        self.connected = False

    def _hello(self, now: Now) -> Command:
        self._hello_again_at = now.monotonic + HELLO_AGAIN_SECONDS
        return self._statements.hello(self.session, now)

    # -- the operator ---------------------------------------------------------------------------------------------

    def agents_changed(self, event: AgentsChanged, now: Now) -> list[Command]:
        """Ask those who were let in for their birth, which was refused before; take back what others hold."""
        let_in = event.approved - self._registry.approved
        renewed = self._renewed(event.certificates)
        newly_revoked = event.revoked != self._registry.revoked
        self._registry.adopt(event)
        asked = sorted(let_in) if self.connected else []
        commands: list[Command] = [self._statements.control(agent_id, "rebirth", now) for agent_id in asked]
        if self.connected:
            commands += [
                self._statements.certificates(agent_id, event.certificates[agent_id], now) for agent_id in renewed
            ]
        if newly_revoked and self.connected:
            commands.append(self._statements.revocations(event.revoked, now))
        for agent in self._registry.agents.values():
            if not self._registry.admitted(agent.id):
                agent.withdraw(now.monotonic)
                commands += self._take_back(agent, "not-enrolled", now)
        return commands

    def _renewed(self, certificates: Mapping[str, AgentCertificates]) -> list[str]:
        """Return the agents that are here and have a certificate that they were not given yet."""
        before, here = self._registry.certificates, self._registry.agents
        return [name for name in sorted(certificates) if name in here and certificates[name] != before.get(name)]

    def _take_back(self, agent: Agent, why: str, now: Now) -> list[Command]:
        commands: list[Command] = []
        for job_id in tuple(agent.in_flight):
            job = self._leasing.jobs[job_id]
            attempt = job.attempt_on(agent.id)
            if attempt is not None:
                commands += self._leasing.lose(job, attempt, why, now)
        return commands

    # -- agents ---------------------------------------------------------------------------------------------------

    def _open(self, agent_id: str, payload: bytes, kind: type[S]) -> S:
        agent = self._registry.get(agent_id)
        statement = open_envelope(
            payload, agent.key, kind, network=self._network, max_bytes=PRESENCE_MAX_BYTES
        ).statement
        if statement.agent_id != agent_id:
            raise RefusedError("the statement names another agent than the topic", code="wrong-agent")
        return statement

    def on_birth(self, agent_id: str, payload: bytes, now: Now) -> list[Command]:
        """Let an agent in, or tell it why not; queue again what it lost.

        Raises:
            PeerError: it is refused, and nothing has changed.
        """
        self._registry.refuse_revoked(agent_id)
        known = self._registry.agents.get(agent_id)
        key = known.key if known else _key_of_first_birth(agent_id, payload)
        birth = open_envelope(payload, key, Birth, network=self._network, max_bytes=PRESENCE_MAX_BYTES).statement
        if birth.agent_id != agent_id or birth.public_key != key.raw:
            raise RefusedError("the birth names another agent than the topic or the key", code="wrong-agent")
        save = SaveAgent(agent_id, key.raw, birth.session, birth.software, now.wall_ms, birth.sealing_key)
        if not self._registry.admitted(agent_id):
            text = f"An agent asks to be admitted; allow it with: edge-agent coordinator approve {agent_id}"
            return [
                Commit((save,)),
                self._statements.control(agent_id, "not-enrolled", now),
                Note(logging.WARNING, text, "not-enrolled", (("agent_id", agent_id),)),
            ]
        before = known.presence if known else None
        try:
            agent, new = self._registry.birth(birth, key, now.monotonic)
        except ResourceError as error:
            told = Note(logging.WARNING, f"Let an agent wait: {error.message}", "no-room", (("agent_id", agent_id),))
            return [self._statements.control(agent_id, "no-room", now), told]
        agent.birth = bytes(payload)
        commands: list[Command] = [Commit((save,))] if new else []
        if new or agent.presence is not before:
            word = "online" if birth.state == "online" else "stopped cleanly"
            commands.append(Note(logging.INFO, f"Agent is {word}", f"agent-{birth.state}", (("agent_id", agent_id),)))
        if new and self.connected and birth.state == "online":  # its offers may have come before, from a stranger
            commands.append(self._statements.control(agent_id, "rebirth", now))
            if (certificates := self._registry.certificates.get(agent_id)) is not None:
                commands.append(self._statements.certificates(agent_id, certificates, now))
        unheard = birth.state == "online" and (birth.coordinator_session or 0) < self.session
        if unheard and self.connected and now.monotonic >= self._hello_again_at:
            commands.append(self._hello(now))
        return [*commands, *self._reconcile(agent, birth, now)]

    def _reconcile(self, agent: Agent, birth: Birth, now: Now) -> list[Command]:
        """Queue again what was leased in an older session of either side and is not held."""
        held = {(attempt.job, attempt.epoch) for attempt in birth.held}
        newer = {attempt.job for attempt in birth.held if self._lost_epochs(attempt.job, attempt.epoch)}
        answers = birth.coordinator_session or 0
        commands: list[Command] = []
        for job_id in tuple(agent.in_flight):
            job = self._leasing.jobs[job_id]
            attempt = job.attempt_on(agent.id)
            if attempt is None:
                raise AssertionError("a job in flight has an attempt")
            if (job.id, attempt.epoch) in held:
                self._leasing.renew(attempt, now)
            elif job.id in newer:  # what our database has of it is older than what the agent was given
                commands += self._leasing.lose(job, attempt, "not-arrived", now)
            elif birth.state == "stopped":
                commands += self._leasing.lose(job, attempt, "handed-back", now)
            elif attempt.agent_session < birth.session:
                commands += self._leasing.lose(job, attempt, "not-held", now)
            elif attempt.coordinator_session < answers:  # it was our connection that ended, and not the agent's
                commands += self._leasing.lose(job, attempt, "not-arrived", now)
        return commands

    def _lost_epochs(self, job_id: bytes, epoch: int) -> bool:
        """Whether an agent holds a newer attempt of a job than we know of; the next one will be newer than that.

        A power cut takes back attempts that were not synchronised to the disk. Agents refuse what is older than what
        they hold, and nobody can make epochs run out: an agent knows the ids of its own jobs alone, a step is bounded.
        """
        job = self._leasing.jobs.get(job_id)
        if job is None or not job.epoch < epoch <= job.epoch + MAX_LOST_EPOCHS:
            return False
        job.epoch = epoch
        return True

    def _ask_for_birth(self, agent_id: str, session: int, now: Now) -> list[Command]:
        """Ask an agent whose birth got lost to say it again; not more often than needed.

        Either it speaks in a session that we know nothing of, or we have heard no birth since our own start and so know
        neither its labels nor what inputs for it are sealed to.
        """
        agent = self._registry.get(agent_id)
        known = session <= agent.session and agent.birth
        if known or now.monotonic < agent.asked_at + BIRTH_AGAIN_SECONDS:
            return []
        agent.asked_at = now.monotonic
        fields = (("code", "stale-session"), ("agent_id", agent_id))
        text = f"Agent speaks in session {session}, whose birth has not come: asked it to say it again"
        return [self._statements.control(agent_id, "rebirth", now), Note(logging.INFO, text, "refused", fields)]

    def ask_unheard(self, agent_id: str, now: Now) -> list[Command]:
        """Ask an agent that was admitted, and of which no birth ever came, for its birth: it may have lost each.

        Whoever the operator did not name is not asked: anybody can make names up.
        """
        registry = self._registry
        if agent_id in registry.agents or agent_id not in registry.approved or not registry.admitted(agent_id):
            return []
        self._unheard = {name: at for name, at in self._unheard.items() if now.monotonic < at + BIRTH_AGAIN_SECONDS}
        if agent_id in self._unheard:
            return []
        self._unheard[agent_id] = now.monotonic
        text = "An agent speaks whose birth never came: asked it to say it"
        fields = (("code", "not-enrolled"), ("agent_id", agent_id))
        return [self._statements.control(agent_id, "rebirth", now), Note(logging.INFO, text, "refused", fields)]

    def on_offers(self, agent_id: str, payload: bytes, now: Now) -> list[Command]:
        """Take note of what an agent offers; what the catalogue does not have is never leased to it.

        Raises:
            PeerError: as `on_birth`.
        """
        offers = self._open(agent_id, payload, Offers)
        if asked := self._ask_for_birth(agent_id, offers.session, now):
            return asked
        known = tuple(offer for offer in offers.offers if self._in_catalogue(offer))
        before = self._registry.get(offers.agent_id).offers
        agent = self._registry.offers(offers.model_copy(update={"offers": known}), now.monotonic)
        commands = self._compare_clocks(agent, offers.issued_ms, now)
        if len(known) < len(offers.offers):
            text = f"Agent offers {len(offers.offers) - len(known)} variants that are not in the catalogue"
            commands.append(Note(logging.WARNING, text, "unknown-offers", (("agent_id", agent.id),)))
        return [*commands, _offer_note(agent)] if agent.offers != before else commands

    def _compare_clocks(self, agent: Agent, issued_ms: int, now: Now) -> list[Command]:
        """See how far off an agent's clock is: offers are never kept by a broker, so that they are fresh."""
        agent.clock_skew_ms = issued_ms - now.wall_ms
        skewed = abs(agent.clock_skew_ms) > self._max_skew_ms
        if skewed == agent.skewed:
            return []
        agent.skewed = skewed
        if not skewed:
            return [Note(logging.INFO, "Agent's clock is right again", "clock-right", (("agent_id", agent.id),))]
        text = (
            f"Agent's clock is {agent.clock_skew_ms / 1000:g} s from ours, so that its results would be refused; "
            "it gets no jobs until one of the two clocks is set"
        )
        return [Note(logging.WARNING, text, "clock-skew", (("agent_id", agent.id),))]

    def _in_catalogue(self, offer: Offer) -> bool:
        family = self._families.get(offer.family)
        return family is not None and family.variant(offer.variant) is not None

    def on_gone(self, agent_id: str, payload: bytes, now: Now) -> list[Command]:
        """Give an agent whose will was spoken a few seconds to come back.

        Raises:
            PeerError: as `on_birth`.
        """
        agent = self._registry.gone(self._open(agent_id, payload, Gone), now.monotonic)
        for job_id in agent.in_flight:
            job = self._leasing.jobs[job_id]
            attempt = job.attempt_on(agent.id)
            if attempt is not None:
                self._leasing.shorten(job, attempt, now.monotonic + GONE_GRACE_SECONDS)
        return [Note(logging.WARNING, "Agent is gone", "agent-gone", (("agent_id", agent.id),))]

    def on_status(self, agent_id: str, payload: bytes, now: Now) -> list[Command]:
        """Take note of how an agent fares; nothing is decided by it.

        Raises:
            PeerError: as `on_birth`.
        """
        if self._registry.status(self._open(agent_id, payload, Status), now.monotonic):
            return []
        text = "Passed over a status, because the agent says more of them than it should"
        return [Note(logging.INFO, text, "status-too-often", (("agent_id", agent_id),))]

    def on_progress(self, agent_id: str, payload: bytes, now: Now) -> list[Command]:
        """Renew the leases that the agent says it works on and really holds.

        Raises:
            PeerError: as `on_birth`.
        """
        progress = self._open(agent_id, payload, Progress)
        if asked := self._ask_for_birth(agent_id, progress.session, now):
            return asked
        if progress.session != self._registry.get(agent_id).session:
            raise RefusedError("progress of an older session", code="stale-session")
        for held in progress.held:
            job = self._leasing.jobs.get(held.job)
            attempt = job.attempt_on(agent_id) if job else None
            if attempt is not None and attempt.epoch == held.epoch:
                self._leasing.renew(attempt, now)
        return []


def _key_of_first_birth(agent_id: str, payload: bytes) -> PublicKey:
    """Take the key that the envelope claims; opening it with that key then proves that the sender holds it."""
    key = announced_key(payload, PRESENCE_MAX_BYTES)
    if key.id != agent_id:
        raise RefusedError("the birth is signed by another key than the topic names", code="wrong-agent")
    return key


def _offer_note(agent: Agent) -> Note:
    offered = ", ".join(f"{o.family} as {o.variant_name}" for o in agent.offers.values()) or "nothing"
    return Note(logging.INFO, f"Agent offers {offered}", "agent-offers", (("agent_id", agent.id),))
