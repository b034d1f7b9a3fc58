"""The coordinator's rules without sockets, clocks, threads or a database: (state, event, now) to commands.

Presence and reconciliation follow three numbers. An agent's *session* grows with each of its connections, the
coordinator's *session* with each of its own, and a job's *epoch* with each attempt. Nothing here depends on what a
broker remembers, orders or repeats.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from edge_agent.clock import Now
from edge_agent.coordinator import assortment
from edge_agent.coordinator.acceptance import Acceptance
from edge_agent.coordinator.answers import Answers, refusal
from edge_agent.coordinator.checking import Checking
from edge_agent.coordinator.events import (
    AgentsChanged,
    BrokerConnected,
    BrokerDisconnected,
    CancelJob,
    CatalogueChanged,
    Command,
    Commit,
    Event,
    InsertJob,
    JobStored,
    MessageReceived,
    SendFailed,
    Submit,
    SubmitRefused,
    Tick,
)
from edge_agent.coordinator.floods import Floods
from edge_agent.coordinator.idempotency import KnownRequests
from edge_agent.coordinator.job_note import note
from edge_agent.coordinator.jobs import Attempt, Blame, Job, JobError, JobEvent, JobState
from edge_agent.coordinator.leasing import Leasing
from edge_agent.coordinator.parties import Parties
from edge_agent.coordinator.presence import PRESENCE_MAX_BYTES, Presence
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.retries import unconfirmed
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.timers import Kind
from edge_agent.coordinator.trust import Trust, TrustRules
from edge_agent.coordinator.vetting import Vetting
from edge_agent.errors import PeerError, RefusedError, TooLargeError
from edge_agent.models.catalogue import Catalogue
from edge_agent.notes import Note

if TYPE_CHECKING:
    import random

LISTENS_PER_LEASE = 8
"""While something is leased, the core is asked so often in a lease; a longer gap shows that it was not running."""


class Core:
    """The state of a coordinator and the rules that change it.

    Args:
        statements: signs what we say; holds the key and the network's topics.
        catalogue: what may be asked for.
        registry: the agents; restored ones included.
        rules: limits and times.
        rng: draws the jitter of retries; without it, every wait has its full length.
        check_rules: how often results are checked.
        check_secret: 32 bytes that nobody else knows: what agents could guess, they could cheat around.
        trusted_owners: whose machines the operator trusts beside its own.
    """

    def __init__(  # noqa: PLR0913 each is a part of what a coordinator is
        self,
        *,
        statements: Statements,
        catalogue: Catalogue,
        registry: Registry,
        rules: Rules,
        rng: random.Random | None = None,
        check_rules: TrustRules | None = None,
        check_secret: bytes = b"",
        trusted_owners: Iterable[str] = (),
    ) -> None:
        draw = rng.random if rng is not None else lambda: 1.0
        self._families = families = {family.name: family for family in catalogue.families}
        self.registry = registry
        self.leasing = Leasing(registry, statements, rules, draw)
        self.requests = KnownRequests()
        self.presence = Presence(registry, self.leasing, statements, families, rules.max_clock_skew_seconds)
        self._floods = Floods(rules.messages_per_second)
        self._acceptance = Acceptance(registry, self.leasing, statements)
        self.parties = Parties(registry, trusted_owners)
        trust = Trust(check_rules or TrustRules())
        self.checking = Checking(
            self.parties, self.leasing, statements, self._acceptance, families, trust, check_secret
        )
        self._answers = Answers(registry, self.parties, self.leasing, statements, self.checking, families, rules, draw)
        self._vetting = Vetting(registry, self.leasing, self.parties, rules)
        self._statements = statements
        self._topics = statements.topics
        self._rules = rules
        self._max_packet_bytes: int | None = None
        self._listened_at: float | None = None

    @property
    def connected(self) -> bool:
        """Whether the broker is connected."""
        return self.presence.connected

    @property
    def session(self) -> int:
        """Our own session: that of the last connection."""
        return self.presence.session

    # -- what the daemon calls ------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Now) -> list[Command]:
        """Apply one event and say what is to be done, in order."""
        return self.handle_together((event,), now)

    def handle_together(
        self, events: Sequence[Event], now: Now, defect: Callable[[Event, Exception], None] | None = None
    ) -> list[Command]:
        """Apply events that came at one moment: what is signed because of them is signed together.

        Args:
            events: in order.
            now: the moment.
            defect: told of what was raised over one of the events, which then has no commands; else it is raised.
        """
        commands = self._notice_standstill(now)
        for event in events:
            try:
                commands += self._apply(event, now)
            except Exception as error:
                if defect is None:
                    raise
                defect(event, error)
        commands += self.checking.follow_up(now)
        commands += self._acceptance.finish(now)
        if self.connected:  # whatever happened may have made room, or have shown that waiting is in vain
            commands += self.leasing.dispatch(now, self.session)
        else:
            self.leasing.rest()
        return commands

    def _apply(self, event: Event, now: Now) -> list[Command]:  # noqa: PLR0911 one branch an event
        match event:
            case MessageReceived():
                return self._on_message(event, now)
            case Submit():
                return self._on_submit(event, now)
            case CancelJob():
                return self._on_cancel(event, now)
            case SendFailed():
                return self._on_send_failed(event, now)
            case Tick():
                return self._on_tick(now)
            case BrokerConnected():
                self._max_packet_bytes = event.max_packet_bytes
                text = f"Connected to the broker as session {event.session}"
                return [*self.presence.connect(event.session, now), Note(logging.INFO, text, "broker-connected")]
            case BrokerDisconnected():
                self.presence.disconnect()
                return [Note(logging.WARNING, f"Lost the broker: {event.reason}", "broker-lost")]
            case AgentsChanged():
                return self._on_agents_changed(event, now)
            case CatalogueChanged():
                agents = self.registry.agents.values()
                return assortment.change(self._families, event.catalogue, agents, self._statements, now)

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which a `Tick` is due, if any."""
        due = min((at for at in (self.leasing.next_deadline(), self.checking.next_deadline()) if at), default=None)
        if self._listened_at is None or not self._something_is_leased():
            return due
        listen = self._listened_at + self._rules.lease_seconds / LISTENS_PER_LEASE
        return listen if due is None else min(due, listen)

    def _notice_standstill(self, now: Now) -> list[Command]:
        """Renew every lease if this process stood still: what renewed them meanwhile waits to be read."""
        before, self._listened_at = self._listened_at, now.monotonic
        if before is None or now.monotonic - before <= 2 * self._rules.lease_seconds / LISTENS_PER_LEASE:
            return []
        if not self._something_is_leased():
            return []
        self.presence.renew_all(now)
        text = f"This process stood still for {now.monotonic - before:.1f} s; every lease begins anew"
        return [Note(logging.WARNING, text, "stood-still")]

    def _something_is_leased(self) -> bool:
        return any(agent.in_flight for agent in self.registry.agents.values())

    # -- clients --------------------------------------------------------------------------------------------------

    def _on_submit(self, submit: Submit, now: Now) -> list[Command]:
        key = submit.idempotency_key
        if key is not None and (found := self.requests.find(key)) is not None:
            known, digest = found
            if digest != submit.request_digest:
                text = "this idempotency key was used for a different request"
                return [SubmitRefused(submit.job_id, "idempotency-conflict", text, None)]
            if submit.durable and (live := self.leasing.jobs.get(known)) is not None:
                live.synchronous = False  # from here on somebody relies on its being stored
            # An empty transaction: the answer waits until whatever was written before it is stored.
            return [Commit((), durable=submit.durable, then=(JobStored(known, submit.job_id, repeated=True),))]
        job = Job(
            id=submit.job_id,
            family=submit.family,
            inputs=submit.inputs,
            outputs=submit.outputs,
            salt=submit.salt,
            submitted_ms=now.wall_ms,
            deadline=now.monotonic + submit.deadline_seconds,
            max_attempts=submit.max_attempts or self._rules.max_attempts,
            variant=submit.variant,
            client=submit.client,
            priority=submit.priority,
            placement=submit.placement,
            synchronous=not submit.durable,
            mode=submit.mode,
            accept_newcomers=submit.accept_newcomers,
        )
        refused = self._vetting.refuse(job, self._max_packet_bytes, now)
        if refused is not None:
            return [refused]
        self.leasing.add(job)
        if key is not None:
            self.requests.remember(key, job.id, submit.request_digest)
        deadline_ms = now.wall_ms + int(submit.deadline_seconds * 1000)
        record = InsertJob(submit, now.wall_ms, deadline_ms, job.max_attempts, job.deadline)
        stored = JobStored(job.id, submit.job_id, repeated=False)
        if submit.durable:
            return [Commit((record,), durable=True, then=(stored,))]
        # The client of a synchronous job is told nothing before its result, which is stored with or after this.
        return [Commit((record,), urgent=False), stored]

    def _on_cancel(self, event: CancelJob, now: Now) -> list[Command]:
        job = self.leasing.jobs.get(event.job_id)
        if job is None:
            return []
        error = JobError("cancelled", "the client cancelled the job", Blame.CANCELLED)
        return self.leasing.end(job, JobEvent.CANCEL, error, now)

    def _on_send_failed(self, event: SendFailed, now: Now) -> list[Command]:
        job = self.leasing.jobs.get(event.job_id)
        attempt = job.attempt_of(event.epoch) if job else None
        if job is None or attempt is None or job.state is JobState.HELD:  # it was sent: its result is here
            return []
        if event.code == "too-large":
            # It was taken on before this broker's limit was known, or the operator allows requests above it.
            error = JobError("too-large", f"the job cannot be sent: {event.message}", Blame.COORDINATOR)
            return self.leasing.fail(job, attempt, error, now)
        return self.leasing.lose(job, attempt, "not-sent", now, message=event.message)

    def _on_agents_changed(self, event: AgentsChanged, now: Now) -> list[Command]:
        before = self.registry.orders.reinstated
        commands = self.presence.agents_changed(event, now)
        for agent_id, at_ms in sorted(event.orders.reinstated.items()):
            if before.get(agent_id) != at_ms:
                # Its standing in the database says so already.
                self.checking.trust.reinstate(self.registry.lasting_id(agent_id))
                text = "Agent may work again before its rest is over, as the operator wants"
                commands.append(Note(logging.INFO, text, "reinstated", (("agent_id", agent_id),)))
        return commands

    # -- time -----------------------------------------------------------------------------------------------------

    def _on_tick(self, now: Now) -> list[Command]:
        commands: list[Command] = []
        for job, timer in self.leasing.due(now):
            attempt = job.attempt_of(timer.epoch)
            match timer.kind:
                case Kind.DEADLINE:
                    error = JobError("deadline", _too_late(job, self.registry), Blame.DEADLINE)
                    commands += self.leasing.end(job, JobEvent.FAIL, error, now)
                case Kind.HEDGE if self.connected:
                    commands += self.leasing.hedge(job, now, self.session)
                case Kind.LEASE if attempt is not None and not self.connected:
                    self.leasing.extend(job, attempt, now)  # our own absence is not the agent's fault
                case Kind.LEASE if attempt is not None:
                    commands += self._on_lease_expired(job, attempt, now)
        return commands

    def _on_lease_expired(self, job: Job, attempt: Attempt, now: Now) -> list[Command]:
        commands: list[Command] = [note(logging.WARNING, "A lease ran out", "lease-expired", job, attempt)]
        agent = self.registry.agents.get(attempt.agent_id)
        if agent is not None:  # it may be gone without a will: no more work until it speaks again
            agent.withdraw(now.monotonic)
            commands.append(self._statements.control(agent.id, "rebirth", now))
        return [*commands, *self.leasing.lose(job, attempt, "lease-expired", now)]

    # -- the broker -----------------------------------------------------------------------------------------------

    def _on_message(self, event: MessageReceived, now: Now) -> list[Command]:
        try:
            agent_id, channel = self._topics.parse(event.topic)
            if agent_id is None:
                return []
            if channel != "birth" and (asked := self.presence.ask_unheard(agent_id, now)):
                return asked
            self._admit(agent_id, channel, event.payload, now)
            commands = self._on_channel(agent_id, channel, event.payload, now)
        except PeerError as error:
            return [refusal(event.topic, error)]
        if not any(isinstance(command, Note) and command.action == "refused" for command in commands):
            self._floods.was_good(answer=channel == "results")
        return commands

    def _admit(self, agent_id: str, channel: str, payload: bytes, now: Now) -> None:
        """Steps 1 to 3 for every message: its size, who it is said to be from, and whether they said too much."""
        limit = self._rules.max_message_bytes if channel == "results" else PRESENCE_MAX_BYTES
        if len(payload) > limit:
            raise TooLargeError(f"A message of {len(payload)} bytes is longer than the limit of {limit} bytes.")
        agent = self.registry.agents.get(agent_id) if channel == "birth" else self.registry.get(agent_id)
        if not self._floods.admits(agent_id, agent.in_flight if agent else None, payload, now.monotonic):
            raise RefusedError("too much was refused of late, or said, on this topic", code="rate-limited")

    def _on_channel(self, agent_id: str, channel: str, payload: bytes, now: Now) -> list[Command]:
        match channel:
            case "results":
                return self._answers.on_answer(agent_id, payload, now)
            case "birth":
                return self.presence.on_birth(agent_id, payload, now)
            case "offers":
                return self.presence.on_offers(agent_id, payload, now)
            case "progress":
                return self.presence.on_progress(agent_id, payload, now)
            case "status":
                return self.presence.on_status(agent_id, payload, now)
            case "gone":
                return self.presence.on_gone(agent_id, payload, now)
            case _:
                raise RefusedError(f"nothing is expected on {channel}", code="wrong-kind")


def _too_late(job: Job, registry: Registry) -> str:
    """Say where a job was when its deadline passed."""
    if job.state is JobState.HELD:
        where = "its result was still being checked"
    elif job.attempts:
        where = "it was still with an agent"
    elif (refused := unconfirmed(job)) is not None:
        where = refused
    elif job.failures:
        where = f"{job.failures} attempt{'s' if job.failures != 1 else ''} had failed"
    elif _taken_by_none(job, registry):
        where = "no owner of a machine that could do it lets it take such jobs any more"
    else:
        where = "no agent had room for it"
    return f"the deadline passed before there was a result: {where}"


def _taken_by_none(job: Job, registry: Registry) -> bool:
    """Whether agents are there for a job, and none takes its client's jobs, or what it is labelled."""
    asked = (job.family, job.variant, job.placement)
    return bool(registry.eligible(*asked, None)) and not registry.eligible(*asked, job.client)
