"""The coordinator's rules without sockets, clocks, threads or a database: (state, event, now) to commands.

Presence and reconciliation follow three numbers. An agent's *session* grows with each of its connections, the
coordinator's *session* with each of its own, and a job's *epoch* with each attempt. A birth names the agent's
session, the coordinator session whose hello it answers, and the attempts it holds. What was leased in an older
session of either side and is not held was lost on the way and is queued again at once; everything else is covered
by its lease. Nothing here depends on what a broker remembers, orders or repeats.
"""

from __future__ import annotations

import logging
from typing import TypeVar

from edge_agent.clock import Now
from edge_agent.coordinator.events import (
    AgentsChanged,
    BrokerConnected,
    BrokerDisconnected,
    CancelJob,
    Command,
    Commit,
    EndJob,
    Event,
    InsertJob,
    JobStored,
    MessageReceived,
    Outcome,
    SaveAgent,
    Submit,
    SubmitRefused,
    Tick,
)
from edge_agent.coordinator.idempotency import KnownRequests
from edge_agent.coordinator.jobs import Blame, Job, JobError, JobEvent
from edge_agent.coordinator.leasing import DEADLINE, Leasing, Rules, note
from edge_agent.coordinator.registry import Agent, Registry
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.verification import match_attempt, open_answer, verify_result
from edge_agent.errors import PeerError, RefusedError
from edge_agent.models.catalogue import Catalogue
from edge_agent.notes import Note
from edge_agent.wire.envelope import Opened, announced_key, open_envelope
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import Birth, Failure, Gone, Offer, Offers, Progress, Result

GONE_GRACE_SECONDS = 3.0
"""After a will, an agent has this long to come back and say what it still holds."""

PRESENCE_MAX_BYTES = 128 * 1024

LATE_CODES = frozenset({"stale-epoch", "stale-session", "unknown-job"})
"""What honest agents and brokers send, too, after a fault: repeated, retained, or overtaken. Worth no warning."""

HELLO_AGAIN_SECONDS = 5.0
"""To agents that have not heard our hello it is said again, but not more often than this."""

S = TypeVar("S", Offers, Progress, Gone)


class Core:
    """The state of a coordinator and the rules that change it.

    Args:
        statements: signs what we say; holds the key and the network's topics.
        catalogue: what may be asked for.
        registry: the agents; restored ones included.
        rules: limits and times.
    """

    def __init__(self, *, statements: Statements, catalogue: Catalogue, registry: Registry, rules: Rules) -> None:
        self.registry = registry
        self.leasing = Leasing(registry, statements, rules)
        self.requests = KnownRequests()
        self.session = 0
        self.connected = False
        self._statements = statements
        self._topics = statements.topics
        self._families = {family.name: family for family in catalogue.families}
        self._rules = rules
        self._hello_again_at = 0.0

    # -- what the daemon calls ------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Now) -> list[Command]:
        """Apply one event and say what is to be done, in order."""
        commands = self._apply(event, now)
        if self.connected:  # whatever happened may have made room, or have shown that waiting is in vain
            commands += self.leasing.dispatch_all(now, self.session)
        return commands

    def _apply(self, event: Event, now: Now) -> list[Command]:  # noqa: PLR0911 one branch an event
        match event:
            case MessageReceived():
                return self._on_message(event, now)
            case Submit():
                return self._on_submit(event, now)
            case CancelJob():
                return self._on_cancel(event, now)
            case Tick():
                return self._on_tick(now)
            case BrokerConnected():
                return self._on_connected(event, now)
            case BrokerDisconnected():
                self.connected = False
                return [Note(logging.WARNING, f"Lost the broker: {event.reason}", "broker-lost")]
            case AgentsChanged():
                return self._on_agents_changed(event, now)

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which a `Tick` is due, if any."""
        return self.leasing.next_deadline()

    # -- clients --------------------------------------------------------------------------------------------------

    def _on_submit(self, submit: Submit, now: Now) -> list[Command]:
        key = submit.idempotency_key
        if key is not None and (found := self.requests.find(key)) is not None:
            known, digest = found
            if digest != submit.request_digest:
                text = "this idempotency key was used for a different request"
                return [SubmitRefused(submit.job_id, "idempotency-conflict", text, None)]
            # An empty transaction: the answer waits until whatever was written before it is stored.
            return [Commit((), durable=submit.durable, then=(JobStored(known, submit.job_id, repeated=True),))]
        if len(self.leasing.jobs) >= self._rules.max_queued_jobs:
            return [SubmitRefused(submit.job_id, "queue-full", "the coordinator's queue is full", 1.0)]
        if not self.registry.offered_since(submit.family, now.monotonic - self._rules.offer_grace_seconds):
            text = f"no machine offers {submit.family} at the moment"
            return [SubmitRefused(submit.job_id, "no-agent", text, 2.0)]
        job = Job(
            id=submit.job_id,
            family=submit.family,
            inputs=submit.inputs,
            outputs=submit.outputs,
            salt=submit.salt,
            submitted_ms=now.wall_ms,
            deadline=now.monotonic + submit.deadline_seconds,
            max_attempts=self._rules.max_attempts,
            variant=submit.variant,
        )
        self.leasing.add(job)
        if key is not None:
            self.requests.remember(key, job.id, submit.request_digest)
        deadline_ms = now.wall_ms + int(submit.deadline_seconds * 1000)
        record = InsertJob(submit, now.wall_ms, deadline_ms, job.max_attempts)
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
        return [*self._call_off(job, now), *self.leasing.end(job, JobEvent.CANCEL, error, now)]

    def _call_off(self, job: Job, now: Now) -> list[Command]:
        """Tell the agent that holds the job, if any, to drop it: what it still works on would take up its room."""
        if job.attempt is None:
            return []
        return [self._statements.control(job.attempt.agent_id, "cancel", now, job)]

    # -- time -----------------------------------------------------------------------------------------------------

    def _on_tick(self, now: Now) -> list[Command]:
        commands: list[Command] = []
        for job, epoch in self.leasing.expired(now):
            if epoch == DEADLINE:
                error = JobError("deadline", "the deadline passed before there was a result", Blame.DEADLINE)
                commands += [*self._call_off(job, now), *self.leasing.end(job, JobEvent.FAIL, error, now)]
            elif job.attempt is not None and not self.connected:  # our own absence is not the agent's fault
                self.leasing.extend(job, now)
            elif job.attempt is not None:
                commands += self._on_lease_expired(job, job.attempt.agent_id, now)
        return commands

    def _on_lease_expired(self, job: Job, agent_id: str, now: Now) -> list[Command]:
        commands: list[Command] = [note(logging.WARNING, "A lease ran out", "lease-expired", job)]
        job.failed_on.add(agent_id)
        agent = self.registry.agents.get(agent_id)
        if agent is not None:  # it may be gone without a will: no more work until it speaks again
            agent.withdraw(now.monotonic)
            commands.append(self._statements.control(agent_id, "rebirth", now))
        return [*commands, *self.leasing.requeue(job, "lease-expired", now)]

    # -- the broker -----------------------------------------------------------------------------------------------

    def _on_connected(self, event: BrokerConnected, now: Now) -> list[Command]:
        self.connected = True
        self.session = event.session
        for agent in self.registry.agents.values():  # it may have another session by now: its birth will tell
            agent.withdraw(now.monotonic)
        for job in self.leasing.jobs.values():
            if job.attempt is not None:
                self.leasing.renew(job.attempt, now)
        return [
            self._hello(now),
            Note(logging.INFO, f"Connected to the broker as session {event.session}", "broker-connected"),
        ]

    def _hello(self, now: Now) -> Command:
        self._hello_again_at = now.monotonic + HELLO_AGAIN_SECONDS
        return self._statements.hello(self.session, now)

    def _on_agents_changed(self, event: AgentsChanged, now: Now) -> list[Command]:
        """Ask those who were let in for their birth, which was refused before; take back what others hold."""
        let_in = event.approved - self.registry.approved
        self.registry.approved = event.approved
        asked = sorted(let_in) if self.connected else []
        commands: list[Command] = [self._statements.control(agent_id, "rebirth", now) for agent_id in asked]
        for agent in self.registry.agents.values():
            if not self.registry.admitted(agent.id):
                agent.withdraw(now.monotonic)
                for job_id in tuple(agent.in_flight):
                    commands += self.leasing.requeue(self.leasing.jobs[job_id], "not-enrolled", now)
        return commands

    def _on_message(self, event: MessageReceived, now: Now) -> list[Command]:
        try:
            agent_id, channel = self._topics.parse(event.topic)
            if agent_id is None:
                return []
            return self._on_channel(agent_id, channel, event.payload, now)
        except PeerError as error:
            return [_refusal(event.topic, error)]

    def _on_channel(self, agent_id: str, channel: str, payload: bytes, now: Now) -> list[Command]:
        match channel:
            case "results":
                return self._on_answer(agent_id, payload, now)
            case "birth":
                return self._on_birth(agent_id, payload, now)
            case "offers":
                return self._on_offers(self._open(agent_id, payload, Offers), now)
            case "progress":
                return self._on_progress(agent_id, self._open(agent_id, payload, Progress), now)
            case "gone":
                return self._on_gone(self.registry.gone(self._open(agent_id, payload, Gone), now.monotonic), now)
            case _:
                raise RefusedError(f"nothing is expected on {channel}", code="wrong-kind")

    def _open(self, agent_id: str, payload: bytes, kind: type[S]) -> S:
        agent = self.registry.get(agent_id)
        network = self._topics.network
        statement = open_envelope(payload, agent.key, kind, network=network, max_bytes=PRESENCE_MAX_BYTES).statement
        if statement.agent_id != agent_id:
            raise RefusedError("the statement names another agent than the topic", code="wrong-agent")
        return statement

    def _on_birth(self, agent_id: str, payload: bytes, now: Now) -> list[Command]:
        known = self.registry.agents.get(agent_id)
        key = known.key if known else _key_of_first_birth(agent_id, payload)
        network = self._topics.network
        birth = open_envelope(payload, key, Birth, network=network, max_bytes=PRESENCE_MAX_BYTES).statement
        if birth.agent_id != agent_id or birth.public_key != key.raw:
            raise RefusedError("the birth names another agent than the topic or the key", code="wrong-agent")
        save = SaveAgent(agent_id, key.raw, birth.session, birth.software, now.wall_ms)
        if not self.registry.admitted(agent_id):
            text = f"An agent asks to be admitted; allow it with: edge-agent coordinator approve {agent_id}"
            return [
                Commit((save,)),
                self._statements.control(agent_id, "not-enrolled", now),
                Note(logging.WARNING, text, "not-enrolled", (("agent_id", agent_id),)),
            ]
        before = known.presence if known else None
        agent, new = self.registry.birth(birth, key, now.monotonic)
        commands: list[Command] = [Commit((save,))] if new else []
        if new or agent.presence is not before:
            word = "online" if birth.state == "online" else "stopped cleanly"
            commands.append(Note(logging.INFO, f"Agent is {word}", f"agent-{birth.state}", (("agent_id", agent_id),)))
        unheard = birth.state == "online" and (birth.coordinator_session or 0) < self.session
        if unheard and self.connected and now.monotonic >= self._hello_again_at:
            commands.append(self._hello(now))
        return [*commands, *self._reconcile(agent, birth, now)]

    def _reconcile(self, agent: Agent, birth: Birth, now: Now) -> list[Command]:
        """Queue again what was leased in an older session of either side and is not held."""
        held = {(attempt.job, attempt.epoch) for attempt in birth.held}
        answers = birth.coordinator_session or 0
        commands: list[Command] = []
        for job_id in tuple(agent.in_flight):
            job = self.leasing.jobs[job_id]
            attempt = job.attempt
            if attempt is None:
                raise AssertionError("a job in flight has an attempt")
            older = attempt.agent_session < birth.session or attempt.coordinator_session < answers
            if (job.id, attempt.epoch) in held:
                self.leasing.renew(attempt, now)
            elif birth.state == "stopped" or older:
                commands += self.leasing.requeue(job, "not-held", now)
        return commands

    def _on_offers(self, offers: Offers, now: Now) -> list[Command]:
        """Take note of what an agent offers; what the catalogue does not have is never leased to it."""
        known = tuple(offer for offer in offers.offers if self._in_catalogue(offer))
        before = self.registry.get(offers.agent_id).offers
        agent = self.registry.offers(offers.model_copy(update={"offers": known}), now.monotonic)
        commands: list[Command] = []
        if len(known) < len(offers.offers):
            text = f"Agent offers {len(offers.offers) - len(known)} variants that are not in the catalogue"
            commands.append(Note(logging.WARNING, text, "unknown-offers", (("agent_id", agent.id),)))
        return [*commands, _offer_note(agent)] if agent.offers != before else commands

    def _in_catalogue(self, offer: Offer) -> bool:
        family = self._families.get(offer.family)
        return family is not None and family.variant(offer.variant) is not None

    def _on_gone(self, agent: Agent, now: Now) -> list[Command]:
        for job_id in agent.in_flight:
            self.leasing.shorten(self.leasing.jobs[job_id], now.monotonic + GONE_GRACE_SECONDS)
        return [Note(logging.WARNING, "Agent is gone", "agent-gone", (("agent_id", agent.id),))]

    def _on_progress(self, agent_id: str, progress: Progress, now: Now) -> list[Command]:
        if progress.session != self.registry.get(agent_id).session:
            raise RefusedError("progress of an older session", code="stale-session")
        for held in progress.held:
            job = self.leasing.jobs.get(held.job)
            if job and job.attempt and job.attempt.agent_id == agent_id and job.attempt.epoch == held.epoch:
                self.leasing.renew(job.attempt, now)
        return []

    # -- answers --------------------------------------------------------------------------------------------------

    def _on_answer(self, agent_id: str, payload: bytes, now: Now) -> list[Command]:
        agent = self.registry.get(agent_id)
        network = self._topics.network
        opened = open_answer(payload, agent.key, network=network, max_bytes=self._rules.max_message_bytes)
        statement = opened.statement
        job = self.leasing.jobs.get(statement.job)
        if job is None:  # ended or never known: say so, so that it is not sent again
            text = "the job has ended or was never known"
            settled = self._statements.settled(agent_id, statement, "unknown", "unknown-job", now)
            return [
                Commit((), then=(settled,)),  # if it ended a moment ago, its end is stored first
                _refusal(f"results of {agent_id}", RefusedError(text, code="unknown-job")),
            ]
        try:
            match_attempt(statement, job, agent_id)
            if isinstance(statement, Failure):
                return self._on_failure(agent, statement, job, now)
            return self._accept(opened, job, now)
        except RefusedError as error:
            return [
                self._statements.settled(agent_id, statement, "refused", error.error_code, now),
                _refusal(f"results of {agent_id}", error),
            ]
        except PeerError as error:  # the tensors beside the signature were changed on the way: it may send them again
            return [_refusal(f"results of {agent_id}", error)]

    def _accept(self, opened: Opened[Result | Failure], job: Job, now: Now) -> list[Command]:
        family = self._families.get(job.family)
        if family is None:  # the job is from before a change of the catalogue
            raise RefusedError(f"the family {job.family} is no longer in the catalogue", code="wrong-model")
        verified = verify_result(opened, job, family, received_ms=now.wall_ms)
        statement = verified.statement
        receipt = verified.receipt(self._statements.key, salt=job.salt, accepted_ms=now.wall_ms)
        self.leasing.succeed(job)
        outcome = Outcome(
            job.id,
            job.state,
            outputs=verified.outputs,
            receipt=receipt,
            agent_id=statement.agent_id,
            variant=statement.variant,
            run_us=statement.run_us,
        )
        settled = self._statements.settled(statement.agent_id, statement, "accepted", None, now)
        return [Commit((EndJob(outcome, job.epoch, now.wall_ms),), then=(outcome, settled))]

    def _on_failure(self, agent: Agent, failure: Failure, job: Job, now: Now) -> list[Command]:
        job.failed_on.add(agent.id)
        failed = note(logging.WARNING, f"An attempt failed: {failure.message}", "attempt-failed", job)
        settled = self._statements.settled(agent.id, failure, "accepted", None, now)
        if failure.retry:
            ended = self.leasing.requeue(job, failure.code, now, then=settled)
        else:
            error = JobError(failure.code, failure.message, Blame(failure.blame))
            ended = [*self.leasing.end(job, JobEvent.FAIL, error, now), settled]
        return [failed, *ended]


def _key_of_first_birth(agent_id: str, payload: bytes) -> PublicKey:
    """Take the key that the envelope claims; opening it with that key then proves that the sender holds it."""
    key = announced_key(payload, PRESENCE_MAX_BYTES)
    if key.id != agent_id:
        raise RefusedError("the birth is signed by another key than the topic names", code="wrong-agent")
    return key


def _offer_note(agent: Agent) -> Note:
    offered = ", ".join(f"{o.family} as {o.variant_name}" for o in agent.offers.values()) or "nothing"
    return Note(logging.INFO, f"Agent offers {offered}", "agent-offers", (("agent_id", agent.id),))


def _refusal(where: str, error: PeerError) -> Note:
    text = f"Refused a message on {where}: {error.message}"
    level = logging.INFO if error.error_code in LATE_CODES else logging.WARNING
    return Note(level, text, "refused", (("code", error.error_code),))
