"""The agent as a process.

The link's thread and the worker's threads put events into one queue; one loop takes them out, asks the core, and does
what it says. Imports neither numpy nor onnxruntime nor coordinator code.
"""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent import supervisor
from edge_agent.agent.asked import HomeSaid, HomeUp, OwnerAsked, ReloadRequested
from edge_agent.agent.control import ControlSocket
from edge_agent.agent.core import Core
from edge_agent.agent.events import (
    CatalogueChanged,
    Command,
    CountAccepted,
    Event,
    Exit,
    FetchModels,
    ForgetSpooled,
    KeepCertificates,
    LinkDown,
    LinkUp,
    MessageReceived,
    PlanRequested,
    Publish,
    RestRequested,
    SaveExperience,
    SpoolResult,
    StartWorker,
    StopRequested,
    StopWorker,
    Tick,
    WorkRequested,
)
from edge_agent.agent.fetching import Fetching
from edge_agent.agent.inbox import Inbox
from edge_agent.agent.lookout import Lookout, look
from edge_agent.agent.options import MachineSummary, Options
from edge_agent.agent.owner import Owner
from edge_agent.agent.planner import Planner
from edge_agent.agent.presence import Presence
from edge_agent.agent.readers import terminal_is_there
from edge_agent.agent.reporting import Reporting, Standing
from edge_agent.agent.sessions import Sessions
from edge_agent.agent.spooling import SPOOL_FILE, Spooling
from edge_agent.agent.status import StatusFile, in_a_line, standing
from edge_agent.agent.tracing import Traces
from edge_agent.agent.unsealing import Unsealing, halves_of, hybrid_key
from edge_agent.agent.wanted import Ways
from edge_agent.agent.workers import WorkerCommand, Workers
from edge_agent.clock import boot_number, system_now, utc_stamp
from edge_agent.enrolling.keeping import keep_certificates
from edge_agent.inference.events import RunDone, WorkerEvent
from edge_agent.models import experience_file
from edge_agent.models.catalogue import Catalogue
from edge_agent.models.store import Store
from edge_agent.models.watch import Watch
from edge_agent.mqtt import Connected, Disconnected, Link, LinkEvent, Message, Will
from edge_agent.mqtt.packing import send
from edge_agent.notes import Journal, Note
from edge_agent.watchdog import NETWORK_PATIENCE_SECONDS, STORE_PATIENCE_SECONDS, WORKER_PATIENCE_SECONDS, Part
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.topics import Topics
from hardware.sysfs import Root

log = logging.getLogger("edge_agent.agent")

LINK_STOP_SECONDS = 2.0
LEAVE_SECONDS = 15.0
"""Beyond the stop that was asked for, until everything is closed; told to the service manager."""
MQTT_OVERHEAD_BYTES = 1024  # a packet is larger than its message by its header, topic and properties
PACKET_BYTES = 240  # that a message costs beside its payload, on average: MQTT, TCP, IP, its acknowledgement


class Agent:
    """A running agent.

    Args:
        options: limits and times.
        key: the agent's identity.
        coordinator_key: the pinned key.
        catalogue: what may be offered.
        store: where the models are.
        machine: what this machine is.
        watch: keeps an eye on a published catalogue, if there is one.
        fetching: fetches model files, if the owner allows it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 each is a seam
        self,
        options: Options,
        key: SigningKey,
        coordinator_key: PublicKey,
        catalogue: Catalogue,
        store: Store,
        machine: MachineSummary,
        watch: Watch | None = None,
        fetching: Fetching | None = None,
    ) -> None:
        self._watch = watch
        self._fetching = fetching
        self._catalogue = catalogue
        self._journal = Journal(log)
        self._options = options
        self._machine = machine
        self._topics = Topics(options.network)
        self._coordinator_id = coordinator_key.id
        halves = halves_of(options.sealing)
        self._presence = Presence(
            key, self._topics, machine.statement, options.sealing_public, hybrid_key=hybrid_key(halves)
        )
        self._planner = Planner(
            catalogue,
            options.policy,
            machine.facts,
            isa=machine.statement.isa,
            budget_bytes=machine.budget_bytes,
            threads=options.threads,
            circumstances=machine.circumstances,
        )
        self._core = Core(
            presence=self._presence,
            coordinator_key=coordinator_key,
            planner=self._planner,
            rules=options.rules,
            draw=random.Random(os.urandom(16)).random,  # noqa: S311 jitter, not a secret
        )
        self._inbox = Inbox(options.inbox_messages, options.inbox_bytes, self._topics.jobs(self._presence.agent_id))
        self._sessions = Sessions(options.state_dir)
        self._session = 0
        self._spooling = Spooling(
            options.state_dir / SPOOL_FILE, options.rules.spool_bytes, self._inbox.put, stamp=utc_stamp
        )
        self._exit_status: int | None = None
        self._lookout = Lookout(system_now().monotonic)
        room = options.policy.room_bytes(machine.budget_bytes)
        unsealing = Unsealing(halves, options.network, self._presence.agent_id)
        self._workers = Workers(self._inbox.put, store, options.threads, room, unsealing, options.copies)
        self._supervisor = supervisor.here()
        fetched = (lambda: 0) if fetching is None else (lambda: fetching.fetched_bytes)
        ways = Ways(self._inbox.put, self._status, lambda: self._core.latest_version, fetched)
        self._owner = Owner(options.state_dir, options.when, boot_number(), self._core.tally, system_now(), ways)
        self._traces = Traces(options.tracer, self._core.attempts.running)
        self._reporting = Reporting(key, self._topics, Root(), options.status_detail)
        self._status_file = StatusFile(options.state_dir)
        self._control = ControlSocket(options.state_dir, self._inbox.put)

    def run(self, on_online: Callable[[], None] | None = None) -> int:
        """Run until SIGTERM or SIGINT; return the exit status. To be called on the main thread.

        Args:
            on_online: called once, when the first birth has been given to the broker.

        Raises:
            StateError: `newer-schema`: a newer version's spool is not touched.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._has_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and terminal_is_there()  # nohup
        signal.signal(signal.SIGHUP, lambda *_: self._inbox.put(ReloadRequested()))
        agent_id = self._presence.agent_id
        link = Link(
            self._options.link,
            [*self._topics.all_channels(agent_id), self._topics.coordinator, self._topics.revocations],
            self._sink,
            will=self._will,
            rng=random.Random(os.urandom(16)),  # noqa: S311 jitter, not a secret
            log=log,
        )
        self._link = link
        fields = {"action": "starting", "agent_id": agent_id, "network": self._options.network}
        log.info("This is agent %s on %s", agent_id, self._machine.text, extra=fields)
        self._inbox.put(self._spooling.load())  # before the first birth, which lists it
        self._tell(self._owner.start(system_now()))  # what rests from the start offers nothing, not even once
        self._control.start()
        link.start()
        self._plan_with(PlanRequested(), self._catalogue)
        if self._watch is not None:
            self._watch.start(lambda known: self._plan_with(CatalogueChanged(known.served), known.served))
        try:
            self._supervisor.ready()
            while self._exit_status is None:
                self._supervisor.feed(self._parts(), system_now().monotonic)
                event = self._next_event()
                self._handle(event)
                standing = Standing.of(self._core, self._planner, self._owner)
                self._execute(self._reporting.look(standing, self._planner.plans, system_now()))
                self._tell_dropped()
                if isinstance(event, LinkUp) and on_online is not None:
                    on_online()
                    on_online = None
        finally:
            self._control.stop()
            if self._watch is not None:
                self._watch.stop()
            if self._fetching is not None:
                self._fetching.stop()
            self._workers.end()
            link.stop(LINK_STOP_SECONDS)
            if not self._spooling.stop():
                log.warning("The spool's disk does not answer; left without it", extra={"action": "spool-failed"})
            self._owner.leave(system_now())
            self._traces.stop()
        return self._exit_status

    def _plan_with(self, event: Event, catalogue: Catalogue) -> None:
        if self._machine.calibrator is None:
            self._inbox.put(event)
        else:
            self._machine.calibrator.before(event, catalogue, self._inbox.put)

    # -- events in ------------------------------------------------------------------------------------------------

    def _parts(self) -> Iterator[Part]:
        """Say what the watchdog goes by, when it asks; this loop itself, which feeds it, is the fourth."""
        yield Part("network", self._link.turned_at, NETWORK_PATIENCE_SECONDS)
        yield Part("worker", self._workers.owes_since, WORKER_PATIENCE_SECONDS)
        yield Part("store", self._spooling.owes_since, STORE_PATIENCE_SECONDS)

    def _on_signal(self, *_: object) -> None:
        self._inbox.put(StopRequested(self._options.stop_seconds))

    def _sink(self, event: LinkEvent) -> None:
        """Enqueue; called on the network thread."""
        match event:
            case Message():
                self._owner.account.received(len(event.payload) + PACKET_BYTES)
                self._inbox.put_message(event.topic, event.payload)
            case Connected():
                self._inbox.put(LinkUp(self._session, event.max_packet_bytes - MQTT_OVERHEAD_BYTES))
            case Disconnected():
                self._inbox.put(LinkDown(event.reason))
            case _:  # the link itself logs what else happens to it
                pass

    def _next_event(self) -> Event | OwnerAsked | ReloadRequested | HomeSaid | HomeUp:
        idle = self._planner.decided and not self._planner.offers()
        look_at, owner_at = self._lookout.due(idle=idle), self._owner.look_at
        moments = (self._core.next_deadline(), look_at, owner_at, self._reporting.due_at, self._supervisor.due)
        until = min(moment for moment in moments if moment is not None)
        event = self._inbox.get(max(0.0, until - system_now().monotonic))
        now = system_now()
        if owner_at <= now.monotonic:  # however busy the queue is
            self._tell(self._owner.look(now))
        if event is None and until == look_at:
            self._lookout.looked(now.monotonic, idle=idle)
            event = look(self._workers.pid)
        return event or Tick()

    def _handle(self, event: Event | OwnerAsked | ReloadRequested | HomeSaid | HomeUp) -> None:
        match event:
            case OwnerAsked():
                self._owner.serve(event, system_now(), self._tell)
            case HomeSaid() | HomeUp():
                self._owner.hear(event, system_now(), self._tell)
            case ReloadRequested() if self._has_terminal and not terminal_is_there():
                self._on_signal()  # whoever started it closed the window
            case ReloadRequested():
                self._supervisor.reloading()
                self._tell(self._owner.reload(system_now()))
                self._supervisor.ready()
            case MessageReceived() | RunDone():
                together = [event, *self._inbox.more()]
                self._traces.saw(together, system_now())
                self._workers.has_run(together)
                self._execute(self._core.handle_together(together, system_now()))
            case _ if isinstance(event, WorkerEvent):
                self._tell(self._workers.heard(event))
            case _:
                if isinstance(event, StopRequested):
                    self._supervisor.stopping(event.within_seconds + LEAVE_SECONDS)
                self._tell([event])

    def _tell(self, events: Sequence[Event]) -> None:
        """Give events to the core and do what it says."""
        for event in events:
            self._traces.saw((event,), system_now())
            self._execute(self._core.handle(event, system_now()))
            if isinstance(event, RestRequested | WorkRequested):
                if self._machine.calibrator is not None:
                    self._machine.calibrator.allow(work=isinstance(event, WorkRequested))
                self._write_status()

    def _tell_dropped(self) -> None:
        if dropped := self._inbox.take_dropped():
            text = f"Dropped {dropped} messages, because too many wait; their senders repeat them"
            self._journal.write(Note(logging.WARNING, text, "inbox-full"), system_now().monotonic)

    def _will(self) -> Will:
        """Begin a new session; called on the network thread before each connect."""
        now = system_now()
        self._session, problem = self._sessions.next(now.wall_ms)
        if problem is not None:
            extra = {"action": "session-not-kept", "session": self._session}
            log.warning("Could not write the session's number, going on without: %s", problem, extra=extra)
        gone = self._presence.gone(self._session, now)
        return Will(gone.topic, gone.payload, retain=True)

    # -- commands out ---------------------------------------------------------------------------------------------

    def _execute(self, commands: Sequence[Command]) -> None:  # noqa: C901 one branch a command
        messages: list[Publish] = []
        for command in commands:
            match command:
                case Publish():
                    messages.append(command)
                case StartWorker() | StopWorker():
                    self._publish(messages)  # ending a worker may take a while
                    messages = []
                    self._workers.do(command)
                    self._write_status()
                case _ if isinstance(command, WorkerCommand):
                    self._workers.do(command)
                case Note():
                    self._journal.write(command, system_now().monotonic)
                case FetchModels():
                    if self._fetching is not None:
                        self._fetching.want(command.wanted)
                case KeepCertificates():
                    self._keep("certificates", partial(keep_certificates, said=command.said))
                case SaveExperience():
                    self._keep("experience", partial(experience_file.write, document=command.document))
                case CountAccepted():
                    self._owner.account.settled(command.family, command.entry, command.amount, system_now())
                case SpoolResult() | ForgetSpooled():
                    self._spooling.do(command)
                case Exit():
                    self._exit_status = command.status
        self._workers.flush()
        self._publish(messages)

    def _publish(self, messages: Sequence[Publish]) -> None:
        for _, error in send(messages, self._publish_packet):
            # Births after a reconnect and redelivery make up for it.
            level = logging.DEBUG if error.error_code == "not-connected" else logging.WARNING
            note = Note(level, f"Not published: {error.message}", "not-published", (("code", error.error_code),))
            self._journal.write(note, system_now().monotonic)
        if any(message.topic == self._topics.offers(self._presence.agent_id) for message in messages):
            self._write_status()

    def _publish_packet(self, packet: Sequence[Publish], payload: bytes) -> None:
        self._link.publish(packet[0].topic, payload, retain=packet[0].retain)
        self._owner.account.sent(len(payload) + PACKET_BYTES, system_now())

    def _keep(self, what: str, write: Callable[[Path], None]) -> None:
        try:
            write(self._options.state_dir)
        except OSError as error:  # it is measured again, and the coordinator gives certificates in each session
            log.warning("Could not write the agent's %s: %s", what, error, extra={"action": what})

    # -- status ---------------------------------------------------------------------------------------------------

    def _write_status(self) -> None:
        status = self._status()
        self._supervisor.status(in_a_line(status))
        try:
            self._status_file.write(status)
        except OSError as error:
            note = Note(logging.WARNING, f"Could not write the status: {error}", "status-not-written")
            self._journal.write(note, system_now().monotonic)

    def _status(self) -> dict[str, Any]:
        contained = self._workers.containment
        core = self._core
        return {
            "agent_id": self._presence.agent_id,
            "pid": os.getpid(),
            "worker_pid": self._workers.pid,
            "containment": contained.document() if contained is not None else None,
            "bounds": self._workers.bounds,
            "machine": self._machine.text,
            "session": self._session,
            "catalogue": self._watch.known.state if self._watch is not None else None,
            "mode": self._owner.mode.value,
            "network": self._options.network,
            "coordinator_id": self._coordinator_id,
            **standing(
                self._planner,
                core.session is not None,
                core.coordinator_session is not None,
                core.standing.revoked,
                core.clientele.unheard,
            ),
            "attempts": core.attempts.counts(),
            "refused_control": core.refused_control or None,
        }
