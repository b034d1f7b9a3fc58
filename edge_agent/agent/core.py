"""The agent's rules without sockets, clocks, threads or processes: (state, event, now) to commands.

The agent is crash-only: the coordinator leases again what a new birth does not list. An answer is sent again until
the coordinator settles it (`delivery`); the few that were expensive survive a restart on disk. All rules go by the
monotonic clock: the wall clock is only written into statements, for people.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from edge_agent import __version__
from edge_agent.agent.answers import Answers
from edge_agent.agent.attempts import Attempts, renew_seconds
from edge_agent.agent.delivery import Delivery
from edge_agent.agent.ending import Ending
from edge_agent.agent.events import (
    CatalogueChanged,
    Command,
    ConditionsChanged,
    Event,
    JobTurnedAway,
    LinkDown,
    LinkUp,
    MachineMeasured,
    MessageReceived,
    PaceChanged,
    PlanRequested,
    RestRequested,
    RunModel,
    SpoolFailed,
    SpoolLoaded,
    StopRequested,
    StopWorker,
    TermsChanged,
    Tick,
    WorkRequested,
)
from edge_agent.agent.intake import Intake
from edge_agent.agent.pacing import Pacing
from edge_agent.agent.planner import Planner
from edge_agent.agent.presence import Presence
from edge_agent.agent.repeating import Repeating
from edge_agent.agent.resting import RESTING, Resting
from edge_agent.agent.rules import Rules
from edge_agent.agent.standing import Standing, keep
from edge_agent.agent.terms import Clientele
from edge_agent.agent.unsettled import no_jitter
from edge_agent.clock import Now
from edge_agent.errors import PeerError, RefusedError
from edge_agent.inference.events import (
    CanaryDone,
    CanaryFailed,
    CopyMade,
    CopyWanted,
    LoadFailed,
    ModelLoaded,
    RunDone,
    RunFailed,
    WorkerDied,
    WorkerStarted,
)
from edge_agent.models.worth import amount_in
from edge_agent.notes import Note
from edge_agent.spelling import newer
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.identity import Enrolled, Revocations
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import Control, Hello, Settled

__all__ = ["Core", "Rules"]

CONTROL_MAX_BYTES = 64 * 1024

_Small = TypeVar("_Small", Settled, Control, Hello, Enrolled, Revocations)


class Core:
    """The state of an agent and the rules that change it.

    Args:
        presence: signs what the agent says of itself; holds its key and the network's topics.
        coordinator_key: the pinned key; nothing signed by another one is obeyed.
        planner: decides what is offered, by measuring.
        rules: limits and times.
        draw: gives random numbers from 0 to 1, for the jitter of redelivery.
    """

    def __init__(
        self,
        *,
        presence: Presence,
        coordinator_key: PublicKey,
        planner: Planner,
        rules: Rules,
        draw: Callable[[], float] = no_jitter,
    ) -> None:
        self.attempts = Attempts(rules.unsettled_seconds, draw)
        self.session: int | None = None
        self.coordinator_session: int | None = None
        self.latest_version, self.refused_control = __version__, ""  # known in this network; shown to the owner
        self._presence = presence
        answers = Answers(presence.key, presence.topics)
        self._topics = presence.topics
        self._delivery = Delivery(
            self.attempts,
            answers,
            self._topics.results(presence.agent_id),
            rules,
            worth=lambda family, variant: amount_in(planner.catalogue, family, variant),
        )
        self.tally = self._delivery.tally
        self.clientele = Clientele(self.attempts, self._delivery)
        self._intake = Intake(presence, coordinator_key, planner, self.attempts, self._delivery, rules, self.clientele)
        self.resting = Resting(self.attempts, self._delivery, planner)
        self._ending = Ending(self.attempts, self._delivery, presence)
        self._pacing = Pacing(self.attempts, planner)
        self._coordinator_key = coordinator_key
        self.standing = Standing(presence.agent_id)
        self._planner = planner
        self._rules = rules
        self._sequence = 0
        self._repeating = Repeating()
        self._idle_since: float | None = None
        self._offered: tuple[object, ...] | None = None

    # -- what the daemon calls ------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Now) -> list[Command]:
        """Apply one event and say what is to be done, in order."""
        return self.handle_together((event,), now)

    def handle_together(self, events: Sequence[Event], now: Now) -> list[Command]:
        """Apply events that came at one moment: results among them are signed together."""
        commands: list[Command] = []
        for event in events:
            commands += self._apply(event, now)
        commands += self._delivery.sign(now)
        commands += [*self._pacing.finish(now), *self._pump(now)]
        if not self._ending.on:
            commands += self._planner.on_load(self.attempts.active(), now)
        commands += self.resting.finish(now)
        if self._offering() != self._offered:
            commands += self._offer(now)
        commands += self._delivery.forget_on_disk()
        if self._ending.on:
            commands += self._ending.finish(self.session, self.coordinator_session, now)
        return commands

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which a `Tick` is due, if any."""
        connected = self.session is not None
        due = [self.attempts.next_deadline(connected=connected), self._planner.next_deadline(), self._idle_deadline()]
        due += [self.resting.next_deadline(), self._ending.next_deadline()]
        due.append(self._repeating.at if connected else None)
        return min((moment for moment in due if moment is not None), default=None)

    def _apply(self, event: Event, now: Now) -> list[Command]:  # noqa: C901, PLR0911, PLR0912 one branch an event
        match event:
            case MessageReceived() | JobTurnedAway():
                return self._on_message(event, now)
            case RunDone():
                return self._on_run_done(event, now)
            case RunFailed():
                return self._on_run_failed(event, now)
            case WorkerDied():
                return self._on_worker_died(event, now)
            case LinkUp():
                self.session = event.session
                return [*self._delivery.on_link_up(event.max_message_bytes, now), *self._announce(now)]
            case LinkDown():
                self.session = None
                return [Note(logging.WARNING, f"Lost the broker: {event.reason}", "broker-lost")]
            case SpoolLoaded():
                return [*self._delivery.on_spool_loaded(event, now), *self._announce(now)]
            case SpoolFailed():
                return self._delivery.on_spool_failed(event)
            case StopRequested():
                return self._ending.begin(event, self._offer, now)
            case RestRequested():
                return [*self.resting.begin(event, now), *self._present(now)]
            case WorkRequested():
                ended = self.resting.end(now)
                return [*ended, *self._present(now)] if ended else []
            case PaceChanged():
                return self._pacing.begin(event)
            case TermsChanged():
                return self.clientele.change(event, now)
            case Tick():
                return self._on_tick(now)
            case PlanRequested():
                return self._planner.begin(now)
            case CatalogueChanged():
                return self._planner.on_catalogue(event.catalogue, now)
            case MachineMeasured():
                self._planner.on_machine(event.facts)
                return []
            case ConditionsChanged():
                return self._planner.on_conditions(event.budget_bytes, event.conditions, now)
            case CopyWanted() | CopyMade():
                return self._planner.on_copy(event, now)
            case WorkerStarted() | ModelLoaded() | LoadFailed() | CanaryDone() | CanaryFailed():
                return self._planner.on_worker_event(event, now)

    # -- messages -------------------------------------------------------------------------------------------------

    def _on_message(self, event: MessageReceived | JobTurnedAway, now: Now) -> list[Command]:  # noqa: PLR0911 one branch a channel
        try:
            agent_id, channel = self._topics.parse(event.topic)
            if agent_id not in {None, self._presence.agent_id}:  # amqtt gives away what others subscribed to
                return [Note(logging.DEBUG, f"Ignored {event.topic}, which is not for us", "not-for-us")]
            if isinstance(event, JobTurnedAway):
                return self._intake.turn_away(event.signed, self.session, now)
            match channel:
                case "jobs":
                    return self._intake.take(event.payload, self.session, now, why_not=self._why_not())
                case "settled":
                    return self._delivery.settle(self._open_small(event.payload, Settled))
                case "control":
                    return self._on_control(self._open_small(event.payload, Control), now)
                case "enrolled":
                    return keep(self._open_small(event.payload, Enrolled))
                case "revocations":
                    return self.standing.on_revocations(self._open_small(event.payload, Revocations))
                case "coordinator":
                    return self._on_hello(self._open_small(event.payload, Hello), now)
                case _:  # our own words, given back
                    return [Note(logging.DEBUG, f"Ignored our own {channel}", "not-for-us")]
        except PeerError as error:
            text = f"Refused a message on {event.topic}: {error.message}"
            self.refused_control = text if event.topic.endswith("/control") else self.refused_control
            return [Note(logging.WARNING, text, "refused", (("code", error.error_code),))]

    def _open_small(self, payload: bytes, kind: type[_Small]) -> _Small:
        statement = open_envelope(
            payload, self._coordinator_key, kind, network=self._topics.network, max_bytes=CONTROL_MAX_BYTES
        ).statement
        if not isinstance(statement, Hello | Revocations) and statement.agent_id != self._presence.agent_id:
            raise RefusedError("the message is for another agent", code="wrong-agent")
        return statement

    def _on_hello(self, hello: Hello, now: Now) -> list[Command]:
        if self.coordinator_session is not None and hello.session <= self.coordinator_session:
            return []  # heard before, or the broker's memory of an older one
        self.coordinator_session = hello.session
        self.latest_version = newer(__version__, hello.software)
        self.clientele.on_hello(hello)
        return self._announce(now)

    def _on_control(self, control: Control, now: Now) -> list[Command]:
        match control.command:
            case "rebirth":
                return self._announce(now)
            case "cancel" if control.job is not None and control.epoch is not None:
                self.attempts.drop((control.job, control.epoch))
                return []
            case "not-enrolled" | "no-room":
                return self.standing.turned_away(control.command)
        return []

    # -- one attempt ----------------------------------------------------------------------------------------------

    def _pump(self, now: Now) -> list[Command]:
        """Give the worker what it has room for; start one if there is work and none runs."""
        commands = self._delivery.hand_back_withdrawn(self._planner.offered, now) if self._planner.decided else []
        if not self._planner.ready:
            if self.attempts.waiting():
                commands += self._planner.wake(now)
            return commands
        while not self._pacing.waits and (variant := self.attempts.next_variant()) is not None:
            lanes, at_once = self._planner.pipeline(variant)
            if self.attempts.running_count() >= at_once:
                break
            held = self.attempts.start_next(now, lanes)
            if held is None:
                break
            job = held.job
            commands.append(RunModel(held.token, job.variant, held.inputs, tuple(job.outputs), job.max_output_bytes))
        if self.attempts.active():
            self._idle_since = None
        elif self._idle_since is None:
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
            return self._delivery.fail(held, "wrong-model", "the variant was withdrawn", "agent", now, retry=True)
        self._planner.on_job_done(job.variant, held.inputs, event.run_us, now)
        self._delivery.result(held, event, klass)
        return []

    def _on_run_failed(self, event: RunFailed, now: Now) -> list[Command]:
        held = self.attempts.running(event.token)
        self.attempts.forget_run(event.token, now)
        if held is None:
            return []
        retry = event.blame == "agent"
        return self._delivery.fail(held, event.code, event.message, event.blame, now, retry=retry)

    def _on_worker_died(self, event: WorkerDied, now: Now) -> list[Command]:
        """Report the attempts that were being computed; those behind them never began and run in the next worker."""
        commands: list[Command] = []
        computing = self.attempts.computing()
        begun = self.attempts.computing_tokens()
        lost = [held for token in begun if (held := self.attempts.running(token)) is not None]
        for token in begun:
            self.attempts.forget_run(token, now)
        self.attempts.back_to_waiting(self.attempts.running_tokens())
        for held in lost:
            commands += self._delivery.fail(held, event.code, event.message, "agent", now, retry=True)
        return [*commands, *self._planner.on_worker_died(event, computing, now)]

    # -- presence -------------------------------------------------------------------------------------------------

    def _announce(self, now: Now) -> list[Command]:
        """Birth, offers, and every answer that is not settled."""
        if self.session is None:
            return []
        self.standing.waits = False
        return [*self._present(now), *self._delivery.say_all_again(now)]

    def _present(self, now: Now, *, again: bool = False) -> list[Command]:
        if self.session is None:
            return []
        known = self.coordinator_session and self._planner.decided and not self.standing.waits
        if not self._repeating.whole(now, quiet=bool(again and known)):
            return self._offer(now)
        birth = self._presence.birth("online", self.session, self.coordinator_session, self.attempts.keys(), now)
        return [birth, *self._offer(now)]

    def _offer(self, now: Now) -> list[Command]:
        if self.session is None or not self._planner.decided:
            return []
        self._sequence += 1
        self._offered = self._offering()
        offers = () if self._why_not() else self._planner.offers()
        return [self._presence.offers(self.session, self._sequence, offers, now, self.clientele.said)]

    def _offering(self) -> tuple[object, ...] | None:
        """Return what others must hear of at once when it changes; how fast it is, they hear in time."""
        if not self._planner.decided:
            return None
        return (self.clientele.said, () if self._why_not() else self._planner.offering)

    def _why_not(self) -> str | None:
        """Say why nothing is taken on, if that is so."""
        if self._ending.on:
            return "the agent is stopping"
        return RESTING if self.resting.on else self.clientele.unheard

    # -- time -----------------------------------------------------------------------------------------------------

    def _on_tick(self, now: Now) -> list[Command]:
        commands = [*self._planner.on_tick(now), *self._delivery.on_tick(now, connected=self.session is not None)]
        working_on = self.attempts.renewable()
        if any(held.renew_at <= now.monotonic for held in working_on):
            for held in working_on:
                held.renew_at = now.monotonic + renew_seconds(held.job)
            if self.session is not None:
                commands.append(self._presence.progress(self.session, [held.key for held in working_on], now))
        if (seconds := self.attempts.overdue_run(now)) is not None:
            text = f"A run took longer than its lease of {seconds:g} s; ending the worker"
            commands += [Note(logging.WARNING, text, "run-timeout"), StopWorker(hung=True)]
        idle = self._idle_deadline()
        if idle is not None and idle <= now.monotonic:
            commands += self._planner.sleep()
        if self._repeating.at <= now.monotonic:
            commands += self._present(now, again=True)
        return commands

    def _idle_deadline(self) -> float | None:
        idle_for = self._rules.worker_idle_seconds
        if not idle_for or self._idle_since is None or not self._planner.ready or self.attempts.active():
            return None
        return self._idle_since + idle_for
