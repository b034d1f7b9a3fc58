"""The agent's rules without sockets, clocks, threads or processes: (state, event, now) to commands.

The agent is crash-only: nothing here is needed after a restart, because the coordinator leases again what a new
birth does not list. A finished answer is sent again until the coordinator settles it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeVar

from edge_agent.agent.answers import Answers, Blame
from edge_agent.agent.attempts import REDELIVER_MAX_SECONDS, Attempts, Held, Stage
from edge_agent.agent.events import (
    Command,
    Event,
    Exit,
    LinkDown,
    LinkUp,
    MessageReceived,
    PlanRequested,
    Publish,
    RunModel,
    StopRequested,
    StopWorker,
    Tick,
)
from edge_agent.agent.planner import Planner
from edge_agent.agent.presence import Presence
from edge_agent.clock import Now
from edge_agent.errors import PeerError, RefusedError
from edge_agent.inference.events import (
    CanaryDone,
    CanaryFailed,
    LoadFailed,
    ModelLoaded,
    RunDone,
    RunFailed,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
)
from edge_agent.notes import Note
from edge_agent.wire.envelope import attach, open_envelope
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import Control, Hello, Job, Settled

PIPELINE_RUNS = 2
"""Runs handed to the worker at once: one computes, the next is there already."""

CONTROL_MAX_BYTES = 64 * 1024

PRESENT_AGAIN_SECONDS = 60.0
"""Birth and offers are said again so often: a message that got lost on the way keeps nobody idle for longer."""

_Small = TypeVar("_Small", Settled, Control, Hello)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that the core goes by; units are in the names."""

    max_in_flight: int = 8
    max_message_bytes: int = 17 * 1024 * 1024
    worker_idle_seconds: float = 0.0


class Core:
    """The state of an agent and the rules that change it.

    Args:
        presence: signs what the agent says of itself; holds its key and the network's topics.
        coordinator_key: the pinned key; nothing signed by another one is obeyed.
        planner: decides what is offered, by measuring.
        rules: limits and times.
    """

    def __init__(self, *, presence: Presence, coordinator_key: PublicKey, planner: Planner, rules: Rules) -> None:
        self.attempts = Attempts()
        self.session: int | None = None
        self.coordinator_session: int | None = None
        self.stopping = False
        self._presence = presence
        self._answers = Answers(presence.key, presence.topics)
        self._topics = presence.topics
        self._coordinator_key = coordinator_key
        self._planner = planner
        self._rules = rules
        self._sequence = 0
        self._stop_at = 0.0
        self._present_at = 0.0
        self._idle_since: float | None = None

    # -- what the daemon calls ------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Now) -> list[Command]:  # noqa: C901 one branch an event
        """Apply one event and say what is to be done, in order."""
        match event:
            case MessageReceived():
                commands = self._on_message(event, now)
            case RunDone():
                commands = self._on_run_done(event, now)
            case RunFailed():
                commands = self._on_run_failed(event, now)
            case WorkerDied():
                commands = self._on_worker_died(event, now)
            case LinkUp():
                self.session = event.session
                commands = self._announce(now)
            case LinkDown():
                self.session = None
                commands = [Note(logging.WARNING, f"Lost the broker: {event.reason}", "broker-lost")]
            case StopRequested():
                commands = self._on_stop(event, now)
            case Tick():
                commands = self._on_tick(now)
            case PlanRequested():
                commands = self._planner.begin(now)
            case WorkerStarted() | ModelLoaded() | LoadFailed() | CanaryDone() | CanaryFailed():
                commands = self._on_plan(event, now)
        commands += self._pump(now)
        if self.stopping:
            commands += self._finish_stop(now)
        return commands

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which a `Tick` is due, if any."""
        due = [self.attempts.next_deadline(), self._planner.next_deadline(), self._idle_deadline()]
        if self.stopping:
            due.append(self._stop_at)
        if self.session is not None:
            due.append(self._present_at)
        return min((moment for moment in due if moment is not None), default=None)

    # -- messages -------------------------------------------------------------------------------------------------

    def _on_message(self, event: MessageReceived, now: Now) -> list[Command]:  # noqa: PLR0911 one branch a channel
        try:
            agent_id, channel = self._topics.parse(event.topic)
            if agent_id not in {None, self._presence.agent_id}:  # amqtt gives away what others subscribed to
                return [Note(logging.DEBUG, f"Ignored {event.topic}, which is not for us", "not-for-us")]
            match channel:
                case "jobs":
                    return self._on_job(event.payload, now)
                case "settled":
                    return self._on_settled(self._open_small(event.payload, Settled))
                case "control":
                    return self._on_control(self._open_small(event.payload, Control), now)
                case "coordinator":
                    return self._on_hello(self._open_small(event.payload, Hello), now)
                case _:  # our own words, given back
                    return [Note(logging.DEBUG, f"Ignored our own {channel}", "not-for-us")]
        except PeerError as error:
            text = f"Refused a message on {event.topic}: {error.message}"
            return [Note(logging.WARNING, text, "refused", (("code", error.error_code),))]

    def _open_small(self, payload: bytes, kind: type[_Small]) -> _Small:
        statement = open_envelope(
            payload, self._coordinator_key, kind, network=self._topics.network, max_bytes=CONTROL_MAX_BYTES
        ).statement
        if not isinstance(statement, Hello) and statement.agent_id != self._presence.agent_id:
            raise RefusedError("the message is for another agent", code="wrong-agent")
        return statement

    def _on_hello(self, hello: Hello, now: Now) -> list[Command]:
        if self.coordinator_session is not None and hello.session <= self.coordinator_session:
            return []  # heard before, or the broker's memory of an older one
        self.coordinator_session = hello.session
        return self._announce(now)

    def _on_control(self, control: Control, now: Now) -> list[Command]:
        match control.command:
            case "rebirth":
                return self._announce(now)
            case "cancel" if control.job is not None and control.epoch is not None:
                self.attempts.drop((control.job, control.epoch))
                return []
            case "not-enrolled":
                text = (
                    "The coordinator does not know this machine yet; its operator can admit it with: "
                    f"edge-agent coordinator approve {self._presence.agent_id}"
                )
                return [Note(logging.WARNING, text, "not-enrolled")]
            case "no-room":
                text = "The coordinator has as many agents as it can take; this one asks again from time to time"
                return [Note(logging.WARNING, text, "no-room")]
        return []

    def _on_settled(self, settled: Settled) -> list[Command]:
        commands: list[Command] = []
        for attempt in settled.settled:
            dropped = self.attempts.drop((attempt.job, attempt.epoch))
            if dropped and attempt.outcome == "refused":
                text = f"The coordinator refused our answer: {attempt.code}"
                fields = (("job_id", attempt.job.hex()), ("epoch", attempt.epoch))
                commands.append(Note(logging.WARNING, text, "answer-refused", fields))
            if dropped:
                text = f"The coordinator settled an attempt as {attempt.outcome}"
                commands.append(_attempt_note(text, f"attempt-{attempt.outcome}", attempt.job, attempt.epoch))
        return commands

    # -- one attempt ----------------------------------------------------------------------------------------------

    def _on_job(self, payload: bytes, now: Now) -> list[Command]:
        opened = open_envelope(
            payload,
            self._coordinator_key,
            Job,
            network=self._topics.network,
            max_bytes=self._rules.max_message_bytes,
        )
        job = opened.statement
        if job.agent_id != self._presence.agent_id:
            raise RefusedError("the job is for another agent", code="wrong-agent")
        if job.session != self.session:  # it was sent before we reconnected, and is leased again by now
            raise RefusedError(f"the job is for session {job.session} of this agent", code="stale-session")
        key = (job.job, job.epoch)
        if (known := self.attempts.get(key)) is not None:
            return [self._deliver(known)] if known.stage is Stage.FINISHED else []
        if job.epoch < self.attempts.newest_epoch(job.job):  # it came late
            raise RefusedError("a newer attempt of this job is held already", code="stale-epoch")
        try:
            inputs = tuple(attach(job.inputs, opened.attachments, job.salt))
        except PeerError as error:
            text = f"Refused the inputs of a job: {error.message}"
            note = Note(logging.WARNING, text, "refused", (("code", error.error_code), ("job_id", job.job.hex())))
            return [note, self._refuse(job, error.error_code, error.message, now)]
        if self.stopping:
            return [self._refuse(job, "handed-back", "the agent is stopping", now)]
        if self._planner.offered(job.variant) is None:
            return [self._refuse(job, "wrong-model", "this variant is not offered here", now)]
        self.attempts.drop_older(job.job, job.epoch)
        if self.attempts.unfinished() >= self._rules.max_in_flight:
            return [self._refuse(job, "queue-full", "the agent's queue is full", now)]
        self.attempts.add(job, inputs, now)
        self._idle_since = None
        return [_attempt_note("Took an attempt on", "attempt-taken", job.job, job.epoch)]

    def _pump(self, now: Now) -> list[Command]:
        """Give the worker what it has room for; start one if there is work and none runs."""
        commands: list[Command] = []
        if not self._planner.ready:
            if self.attempts.waiting():
                commands += self._planner.wake(now)
            return commands
        while len(self.attempts.running_tokens()) < PIPELINE_RUNS:
            held = self.attempts.start_next(now)
            if held is None:
                break
            job = held.job
            commands.append(RunModel(held.token, job.variant, held.inputs, tuple(job.outputs), job.max_output_bytes))
        if self._idle_since is None and self.attempts.active() == 0:
            self._idle_since = now.monotonic
        return commands

    def _on_run_done(self, event: RunDone, now: Now) -> list[Command]:
        held = self.attempts.running(event.token)
        self.attempts.forget_run(event.token, now)
        if held is None:
            return []  # cancelled or fenced meanwhile
        job = held.job
        klass = self._planner.offered(job.variant)
        if klass is None:
            return [self._fail(held, "wrong-model", "the variant was withdrawn", "agent", now)]
        self.attempts.finish(held, self._answers.result(held, klass, event, now), now)
        return [_attempt_note("Finished an attempt", "attempt-finished", job.job, job.epoch), self._deliver(held)]

    def _on_run_failed(self, event: RunFailed, now: Now) -> list[Command]:
        held = self.attempts.running(event.token)
        self.attempts.forget_run(event.token, now)
        if held is None:
            return []
        retry = event.blame == "agent"
        return [self._fail(held, event.code, event.message, event.blame, now, retry=retry)]

    def _on_worker_died(self, event: WorkerDied, now: Now) -> list[Command]:
        """Report the attempt that was being computed; those behind it never began and run in the next worker."""
        commands: list[Command] = []
        tokens = self.attempts.running_tokens()
        if tokens:
            first = self.attempts.running(tokens[0])
            self.attempts.forget_run(tokens[0], now)
            self.attempts.back_to_waiting(tokens[1:])
            if first is not None:
                commands.append(self._fail(first, event.code, event.message, "agent", now, retry=True))
        before = self._planner.offers()
        commands += self._planner.on_worker_died(event, now)
        return [*commands, *self._offer(now)] if self._planner.offers() != before else commands

    def _refuse(self, job: Job, code: str, message: str, now: Now) -> Publish:
        """Answer a job that is not taken on; not kept: when it is lost, the lease runs out."""
        refusal = self._answers.failure(job, code, message, "agent", now, retry=True)
        return Publish(self._topics.results(self._presence.agent_id), refusal)

    def _fail(self, held: Held, code: str, message: str, blame: Blame, now: Now, *, retry: bool = True) -> Publish:  # noqa: PLR0913 the fields of the statement
        self.attempts.finish(held, self._answers.failure(held.job, code, message, blame, now, retry=retry), now)
        return self._deliver(held)

    def _deliver(self, held: Held) -> Publish:
        return Publish(self._topics.results(self._presence.agent_id), held.answer)

    # -- presence -------------------------------------------------------------------------------------------------

    def _announce(self, now: Now) -> list[Command]:
        """Birth, offers, and every answer that is not settled."""
        if self.session is None:
            return []
        return [*self._present(now), *(self._deliver(held) for held in self.attempts.unsettled())]

    def _present(self, now: Now) -> list[Command]:
        if self.session is None:
            return []
        self._present_at = now.monotonic + PRESENT_AGAIN_SECONDS
        birth = self._presence.birth("online", self.session, self.coordinator_session, self.attempts.keys(), now)
        return [birth, *self._offer(now)]

    def _offer(self, now: Now) -> list[Command]:
        if self.session is None or not self._planner.decided:
            return []
        self._sequence += 1
        offers = () if self.stopping else self._planner.offers()
        return [self._presence.offers(self.session, self._sequence, offers, now)]

    def _on_plan(self, event: WorkerEvent, now: Now) -> list[Command]:
        before = self._planner.offers()
        commands = self._planner.on_worker_event(event, now)
        changed = self._planner.decided and (self._planner.offers() != before or isinstance(event, WorkerStarted))
        return [*commands, *self._offer(now)] if changed else commands

    # -- time -----------------------------------------------------------------------------------------------------

    def _on_tick(self, now: Now) -> list[Command]:
        commands: list[Command] = [*self._planner.on_tick(now)]
        for held in self.attempts.unsettled():
            if held.redeliver_at <= now.monotonic:
                held.redeliver_after_seconds = min(2 * held.redeliver_after_seconds, REDELIVER_MAX_SECONDS)
                held.redeliver_at = now.monotonic + held.redeliver_after_seconds
                commands.append(self._deliver(held))
        working_on = self.attempts.renewable()
        if any(held.renew_at <= now.monotonic for held in working_on):
            for held in working_on:
                held.renew_at = now.monotonic + held.job.lease_ms / 3000
            if self.session is not None:
                held_keys = [(held.job.job, held.job.epoch) for held in working_on]
                commands.append(self._presence.progress(self.session, held_keys, now))
        first = self.attempts.first_running()
        if first is not None and first.lease_until <= now.monotonic:
            first.lease_until = now.monotonic + first.job.lease_ms / 1000
            text = f"A run took longer than its lease of {first.job.lease_ms} ms; ending the worker"
            commands += [Note(logging.WARNING, text, "run-timeout"), StopWorker(hung=True)]
        idle = self._idle_deadline()
        if idle is not None and idle <= now.monotonic:
            commands += [*self._planner.sleep(), *self._offer(now)]
        if self._present_at <= now.monotonic:
            commands += self._present(now)
        return commands

    def _idle_deadline(self) -> float | None:
        idle_for = self._rules.worker_idle_seconds
        if not idle_for or self._idle_since is None or not self._planner.ready or self.attempts.active():
            return None
        return self._idle_since + idle_for

    # -- the end --------------------------------------------------------------------------------------------------

    def _on_stop(self, event: StopRequested, now: Now) -> list[Command]:
        self.stopping = True
        self._stop_at = now.monotonic + event.within_seconds
        commands: list[Command] = [Note(logging.INFO, "Stopping: no new work is taken on", "stopping")]
        commands += self._offer(now)
        commands += [
            self._fail(held, "handed-back", "the agent is stopping", "agent", now) for held in self.attempts.waiting()
        ]
        return commands

    def _finish_stop(self, now: Now) -> list[Command]:
        due = now.monotonic >= self._stop_at
        if len(self.attempts) and self.session is not None and not due:
            return []
        commands: list[Command] = []
        if self.session is not None:  # what is still held is handed back by not being listed
            commands.append(self._presence.birth("stopped", self.session, self.coordinator_session, (), now))
        self.stopping = False
        return [*commands, StopWorker(), Exit(0)]


def _attempt_note(sentence: str, action: str, job: bytes, epoch: int) -> Note:
    """Make a line for the log at its most talkative: with it, every attempt can be followed to its end."""
    return Note(logging.DEBUG, sentence, action, (("job_id", job.hex()), ("epoch", epoch)))
