"""An agent's process: its real core, planner and presence, with the daemon's and the worker's part played."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from fakes import (
    BUDGET_BYTES,
    COORDINATOR_KEY,
    MACHINE,
    MAX_BYTES,
    NETWORK,
    RUNTIME,
    TOPICS,
    answer_to,
    canary_done,
    scan,
)

from edge_agent.agent.core import Core
from edge_agent.agent.events import (
    Command,
    Event,
    Exit,
    ForgetSpooled,
    LinkDown,
    LinkUp,
    LoadModel,
    MessageReceived,
    PlanRequested,
    Publish,
    RestRequested,
    RunCanary,
    RunModel,
    Spooled,
    SpoolFailed,
    SpoolLoaded,
    SpoolResult,
    StartWorker,
    StopRequested,
    StopWorker,
    Tick,
    WorkRequested,
)
from edge_agent.agent.planner import Planner
from edge_agent.agent.policy import Policy
from edge_agent.agent.presence import Presence
from edge_agent.agent.rules import Rules
from edge_agent.inference.events import ModelLoaded, RunDone, RunFailed, WorkerDied, WorkerEvent, WorkerStarted
from edge_agent.models.catalogue import Catalogue
from edge_agent.models.fit import MachineFacts
from edge_agent.notes import Note
from edge_agent.wire import envelope
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import Birth
from simulator.broker import Broker, Link
from simulator.chance import share
from simulator.script import Script
from simulator.world import Process, Promise, World

STOP_SECONDS = 10.0
WORKER_START_SECONDS = 0.3
CANARY_SECONDS = 0.05
LOAD_SECONDS = 0.05
SPOOL_SECONDS = 0.02
"""The longest that a healthy disk takes for one result."""
RUN_SECONDS = 0.4
"""The longest that a run takes that is not slow."""
SLOW_RUN_SECONDS = 2.5
REFUSAL = "wrong-input"
"""How an attempt ends whose input is refused."""


class Worker:
    """A worker process: it does what it is told in order, one thing at a time, until it is killed or hangs.

    Args:
        agent: whose daemon hears of it.
        pid: names it.
    """

    def __init__(self, agent: AgentProcess, pid: int) -> None:
        self.pid = pid
        self.hung = False
        self._agent = agent
        self._todo: deque[tuple[float, WorkerEvent | None]] = deque()
        self._busy = False

    def do(self, seconds: float, event: WorkerEvent | None) -> None:
        """Do something that takes so long and ends with this event, or with the worker's death."""
        self._todo.append((seconds, event))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._todo)
        if self._todo:
            seconds, event = self._todo.popleft()
            self._agent.world.later(seconds, lambda: self._done(event))

    def _done(self, event: WorkerEvent | None) -> None:
        if self.hung or self._agent.worker is not self:
            return
        if event is None:
            self._agent.kill_worker()
            return
        self._agent.give(event)
        self._next()


class AgentProcess(Process):
    """One machine with an agent, killed and started again on the same state directory.

    Args:
        world: that it lives in.
        number: from 0.
        key: its identity.
        broker: that it talks through.
        script: for the rules.
        catalogue: what may be served.
    """

    timer_first = False  # its loop looks into its queue first

    def __init__(  # noqa: PLR0917 each is a seam
        self, world: World, number: int, key: SigningKey, broker: Broker, script: Script, catalogue: Catalogue
    ) -> None:
        super().__init__(world, number)
        self.key = key
        self.id = key.public.id
        self.worker: Worker | None = None
        self.stops: list[tuple[float, float, bool]] = []
        """(asked at, ended at, whether the broker was there at the end)"""
        self.silent_stops = 0
        self.withdrew = False
        """Whether it offers its only variant no longer, because the worker ended over it too often."""
        self._broker = broker
        self._script = script
        self._catalogue = catalogue
        self._link: Link = broker.join(self, self.id)
        self._session = 0
        self._pids = 1000 * (number + 1)
        self._stop_asked: float | None = None
        self._back_after = 0.0
        self._last_state = "online"
        self.spool: dict[tuple[bytes, int], bytes] = {}
        """What is on disk, whatever happens to the process."""
        self._spooling: deque[SpoolResult | ForgetSpooled] = deque()
        self._spool_fails_until = 0.0
        self._presence = Presence(key, TOPICS, MACHINE)
        self.core = self._new_core()

    def __str__(self) -> str:
        return f"agent {self.number}"

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process: it plans, and reaches for the broker."""
        if self.alive:
            return
        self.alive = True
        self.incarnation += 1
        self.core = self._new_core()
        self.withdrew = False
        self._stop_asked = None
        self.give(SpoolLoaded(tuple(Spooled(job, epoch, kept, 1.0) for (job, epoch), kept in self.spool.items())))
        self.give(PlanRequested())
        self._broker.connect_soon(self.number, 0.1)

    def _new_core(self) -> Core:
        script = self._script
        planner = Planner(
            self._catalogue,
            Policy(max_in_flight=script.agent_room),
            MachineFacts(cpus=2.0),
            isa=MACHINE.isa,
            budget_bytes=BUDGET_BYTES,
            threads=2,
        )
        return Core(
            presence=self._presence,
            coordinator_key=COORDINATOR_KEY.public,
            planner=planner,
            rules=Rules(
                max_in_flight=script.agent_room,
                worker_idle_seconds=script.worker_idle_seconds,
                spool_seconds=0.0 if script.spool else 3600.0,
            ),
            draw=lambda: self.world.draw(200 + self.number),
        )

    def crash(self, seconds: float, *, power: bool = False) -> None:
        """End the process here, and its worker with it; only its session number is left."""
        if not self.alive:
            return
        self._end()
        if power:
            self.boot()
        self._broker.end(self.number, noticed=not power)
        self.world.later(seconds, self.start)

    def stop(self, seconds: float) -> None:
        """Ask it to stop."""
        if not self.alive or self._stop_asked is not None:
            return
        self._stop_asked, self._back_after = self.world.now, seconds
        self.give(StopRequested(STOP_SECONDS))

    def pause(self, seconds: float, grace_seconds: float) -> None:
        """Let its owner want it to rest for a while."""
        incarnation = self.incarnation
        self.give(RestRequested("you paused it", grace_seconds))
        self.world.later(seconds, lambda: self.resume() if incarnation == self.incarnation else None)

    def resume(self) -> None:
        """Let its owner want it to work."""
        self.give(WorkRequested())

    def _end(self) -> None:
        self.alive = False
        self.incarnation += 1
        self.worker = None
        self._spooling.clear()
        self.forget_inbox()

    # -- the link -----------------------------------------------------------------------------------------------------

    def link_up(self) -> tuple[str, bytes]:
        """Begin a session, whose number is larger than any before."""
        now = self.clock()
        self._session = max(self._session + 1, now.wall_ms)
        gone = self._presence.gone(self._session, now)
        self.give(LinkUp(self._session))
        return gone.topic, gone.payload

    def link_down(self, reason: str) -> None:
        """Lose the broker."""
        self.give(LinkDown(reason))

    def message(self, topic: str, payload: bytes) -> None:
        """Get a message."""
        self.give(MessageReceived(topic, payload), message=True)

    # -- the worker ---------------------------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        """Let the worker die."""
        self._bury("worker-died")

    def hang_worker(self) -> None:
        """Let the worker stand still until it is killed."""
        if self.worker is not None:
            self.worker.hung = True

    def _bury(self, code: str) -> None:
        worker, self.worker = self.worker, None
        if worker is None:
            return
        tokens = tuple(self.core.attempts.running_tokens())
        died = WorkerDied(worker.pid, code, "It was killed.", tokens)  # type: ignore[arg-type] # one of two codes
        incarnation = self.incarnation
        self.world.later(0.01, lambda: self.give(died) if incarnation == self.incarnation else None)

    # -- the core -----------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> Sequence[Command]:
        """Ask the core."""
        return self.core.handle(event, self.clock())

    def execute(self, commands: Sequence[Command]) -> None:  # noqa: C901 one branch a command
        """Do what the core says, in order; the process may be killed before each command."""
        for command in commands:
            self.boundary()
            match command:
                case Publish():
                    if self._link.up:
                        self._note_state(command)
                        self._broker.publish(self.number, command.topic, command.payload, retain=command.retain)
                case Note():
                    self.world.counts[f"note {command.action}"] += 1
                    self.withdrew |= command.action == "withdrawn"
                    self.world.say(f"{self}: {command.sentence} {dict(command.fields)}")
                case StartWorker():
                    self._pids += 1
                    self.worker = Worker(self, self._pids)
                    self.worker.do(WORKER_START_SECONDS, WorkerStarted(self._pids, RUNTIME, (), 300.0))
                case StopWorker(hung=True):
                    self._bury("worker-hung")
                case StopWorker():
                    self.worker = None
                case RunCanary(variant=variant):
                    self._measure(canary_done(variant.digest_bytes, p50_us=200 + 100 * self.number))
                case LoadModel(variant=variant):
                    self._do(LOAD_SECONDS, ModelLoaded(variant.digest_bytes, 5.0, (), (), 1_000_000))
                case RunModel():
                    self._run(command)
                case SpoolResult() | ForgetSpooled():
                    self._keep(command)
                case Exit():
                    self._exit()
                    return
        self.boundary()

    # -- the disk -----------------------------------------------------------------------------------------------------

    def spool_fails(self, seconds: float) -> None:
        """Let its disk take nothing for a while."""
        self._spool_fails_until = self.world.now + seconds

    def _keep(self, command: SpoolResult | ForgetSpooled) -> None:
        self._spooling.append(command)
        if len(self._spooling) == 1:
            self._keep_next()

    def _keep_next(self) -> None:
        incarnation = self.incarnation

        def done() -> None:
            if incarnation != self.incarnation:
                return
            command = self._spooling.popleft()
            if self.world.now < self._spool_fails_until:
                keys = ((command.job, command.epoch),) if isinstance(command, SpoolResult) else ()
                self.give(SpoolFailed(keys, "The disk is full."))
            elif isinstance(command, SpoolResult):
                self.spool[command.job, command.epoch] = command.payload
            else:
                for key in command.keys:
                    self.spool.pop(key, None)
            if self._spooling and incarnation == self.incarnation:
                self._keep_next()

        self.world.later(SPOOL_SECONDS * self.world.draw(100 + self.number), done)

    def _note_state(self, command: Publish) -> None:
        """Remember which birth was said last, for the promise that a stop is said."""
        if command.retain and self._stop_asked is not None:
            opened = envelope.open_envelope(
                command.payload, self.key.public, Birth, network=NETWORK, max_bytes=MAX_BYTES
            )
            self._last_state = opened.statement.state

    def _measure(self, event: WorkerEvent) -> None:
        """Make a canary run, in a worker of its own: whatever becomes of the serving one, its outcome comes."""
        incarnation = self.incarnation
        self.world.later(CANARY_SECONDS, lambda: self.give(event) if incarnation == self.incarnation else None)

    def _run(self, command: RunModel) -> None:
        image = command.inputs[0]
        chance = share(self.world.seed, 6, self.number, command.token)
        seconds = RUN_SECONDS * chance if chance < 0.9 else SLOW_RUN_SECONDS
        if self._script.poison and image == scan(self._script.poison):
            self._do(seconds, None)
        elif self._script.bad and image == scan(self._script.bad):
            self._do(seconds, RunFailed(command.token, REFUSAL, "This input is refused.", "requester"))
        else:
            self._do(seconds, RunDone(command.token, answer_to(image), 300))

    def _do(self, seconds: float, event: WorkerEvent | None) -> None:
        if self.worker is not None:  # a command to a worker that has died is dropped
            self.worker.do(seconds, event)

    def _exit(self) -> None:
        """End as the daemon does: the link says what it was given, then goodbye."""
        if self._stop_asked is None:
            self.world.violate(Promise.CLEAN_STOP, f"{self} exits and nobody asked it to")
        else:
            self.stops.append((self._stop_asked, self.world.now, self._link.up))
            self.silent_stops += self._link.up and self._last_state != "stopped"
        for command in self._spooling:  # the daemon lets the disk finish
            if isinstance(command, SpoolResult):
                self.spool[command.job, command.epoch] = command.payload
            else:
                for key in command.keys:
                    self.spool.pop(key, None)
        self._end()
        self._broker.end(self.number, noticed=True, goodbye=True)
        self.world.later(self._back_after, self.start)

    def deadline(self) -> float | None:
        """Return when the core wants a tick."""
        return self.core.next_deadline()

    def tick(self) -> Tick:
        """Say that it is time."""
        return Tick()
