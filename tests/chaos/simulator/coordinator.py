"""A coordinator's process: its real core and registry; the daemon, the writer and the gateway are played."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from fakes import COORDINATOR_KEY, TOPICS

from edge_agent.coordinator.core import Core
from edge_agent.coordinator.events import (
    AgentsChanged,
    BrokerConnected,
    BrokerDisconnected,
    CancelJob,
    Command,
    Commit,
    EndAttempt,
    EndJob,
    Event,
    InsertJob,
    JobStored,
    MessageReceived,
    Outcome,
    Publish,
    Record,
    SendFailed,
    Submit,
    SubmitRefused,
    Tick,
)
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.takeover import take_over
from edge_agent.coordinator.writer import GROUP_COMMITS, LINGER_SECONDS
from edge_agent.coordinator.young import YoungJobs
from edge_agent.models.catalogue import Catalogue
from edge_agent.notes import Note
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.tensors import Tensor
from simulator.broker import Broker, Link
from simulator.chance import mix
from simulator.database import BrokenRuleError, Database
from simulator.script import COORDINATOR, Script
from simulator.world import Process, Promise, World

TRANSACTION_SECONDS = 0.012
"""The longest that a transaction takes on a healthy disk."""

MAX_YOUNG_BYTES = 20_000
"""Inputs of scripts are small, so that this is little: it happens that it is full."""

MISSED = frozenset({"not-held", "not-arrived"})
"""Ends of attempts that a birth does not list."""

Answer = JobStored | SubmitRefused | None
"""What a submission comes to; None when the process ended before."""


class _Writer(Enum):
    """What the writer's thread does."""

    IDLE = 0
    LINGERS = 1
    WRITES = 2


class CoordinatorProcess(Process):
    """One machine with a coordinator, killed and started again on the same database.

    Args:
        world: that it lives in.
        broker: that it talks through.
        script: for the rules.
        catalogue: what may be asked for.
        keys: the agents' keys by id, which the database would hold.
    """

    def __init__(
        self, world: World, broker: Broker, script: Script, catalogue: Catalogue, keys: dict[str, PublicKey]
    ) -> None:
        super().__init__(world, COORDINATOR)
        self.database = Database()
        self.rules = Rules(
            lease_seconds=script.lease_seconds,
            max_attempts=script.max_attempts,
            max_queued_jobs=script.max_queued_jobs,
            hedge_share=script.hedge_share,
        )
        self.approved = frozenset(keys)
        self.owners = {name: f"owner {i % script.owners}" for i, name in enumerate(keys)} if script.owners else {}
        self.slow_disk_seconds = 0.0
        self.notes: list[tuple[float, Note]] = []
        self.submitted_at: dict[bytes, float] = {}
        self.ended_at: dict[bytes, list[float]] = {}
        """When each end that was written was decided on; more than one only where a power cut took the first."""
        self.inputs: dict[bytes, tuple[Tensor, ...]] = {}
        """Of every job there ever was: the database does not keep them for as long."""
        self.decided_at: dict[bytes, list[float]] = {}
        """When each end was decided on, those included that were never written because the process ended before."""
        self.attempt_ended_at: dict[tuple[bytes, int], float] = {}
        self.most_jobs = 0
        self.holds: Callable[[bytes, int], bool] = lambda _job_id, _epoch: False
        self.taken_though_held: list[tuple[bytes, int]] = []
        self._catalogue = catalogue
        self._broker = broker
        self._link: Link = broker.join(self, None)
        self._submitted: dict[bytes, Callable[[Answer], None]] = {}
        self._waiting: dict[bytes, list[Callable[[Outcome | None], None]]] = {}
        self._commits: deque[Commit] = deque()
        self._group: list[Commit] = []
        self._group_records: list[Record] = []
        self._young = YoungJobs(MAX_YOUNG_BYTES)
        self._writer = _Writer.IDLE
        self._turn = 0
        self.core = self._new_core()

    def __str__(self) -> str:
        return "the coordinator"

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process: take over what is stored, then reach for the broker."""
        if self.alive:
            return
        self.alive = True
        self.ups.append((self.world.now, None))
        self.incarnation += 1
        self.core = self._new_core()
        store: Any = self.database  # it answers as the real one
        take_over(self.core, store, self.clock(), boot=self.boots, lease_seconds=self.rules.lease_seconds)
        self.core.registry.approved, self.core.registry.owners = self.approved, self.owners
        self.schedule()
        self._broker.connect_soon(COORDINATOR, 0.05)

    def _new_core(self) -> Core:
        return Core(
            statements=Statements(COORDINATOR_KEY, TOPICS),
            catalogue=self._catalogue,
            registry=Registry(admit_anyone=False),
            rules=self.rules,
            rng=random.Random(mix(self.world.seed, 7, self.incarnation)),
        )

    def crash(self, seconds: float, *, power: bool = False) -> None:
        """End the process here; what was not written is lost, and clients lose their connections."""
        if not self.alive:
            return
        self._end()
        if power:
            self.database.lose_power(self.world.draw(4))
            self.boot()
        self._broker.end(COORDINATOR, noticed=not power)
        self.world.later(seconds, self.start)

    def stop(self, seconds: float) -> None:
        """Stop as the daemon does: no new request, then the link, then everything is written."""
        if not self.alive or self.hung:
            return
        self._broker.end(COORDINATOR, noticed=True, goodbye=True)
        records = [*self._group_records, *self._taken(self._commits), *self._young.all()]
        self._write(records, durable=True)  # the transaction that is open, too
        self._end()
        self.world.later(seconds, self.start)

    def _end(self) -> None:
        self.alive = False
        self.ups[-1] = (self.ups[-1][0], self.world.now)
        self.incarnation += 1
        self.forget_inbox()
        self._commits.clear()
        self._group, self._group_records = [], []
        self._young = YoungJobs(MAX_YOUNG_BYTES)
        self._writer = _Writer.IDLE
        broken = [*self._submitted.values(), *(told for waiting in self._waiting.values() for told in waiting)]
        self._submitted.clear()
        self._waiting.clear()
        for tell in broken:
            tell(None)

    # -- the link -----------------------------------------------------------------------------------------------------

    def link_up(self) -> None:
        """Begin a session of ours."""
        session = self.database.next_session(self.clock().wall_ms)
        self.give(BrokerConnected(session))

    def link_down(self, reason: str) -> None:
        """Lose the broker."""
        self.give(BrokerDisconnected(reason))

    def message(self, topic: str, payload: bytes) -> None:
        """Get a message."""
        self.give(MessageReceived(topic, payload), message=True)

    # -- the gateway --------------------------------------------------------------------------------------------------

    def submit(self, submit: Submit, answer: Callable[[Answer], None]) -> bool:
        """Take a submission, as the gateway does; return False when nobody listens."""
        if not self.alive:
            return False
        self._submitted[submit.job_id] = answer
        self.give(submit)
        return True

    def outcome(self, job_id: bytes, tell: Callable[[Outcome | None], None]) -> bool:
        """Tell a job's outcome once it is known; return False when nobody listens."""
        if not self.alive:
            return False

        # Its connection is there from now on, and breaks with the process, also while that hangs.
        self._waiting.setdefault(job_id, []).append(tell)

        def ask() -> None:
            if job_id in self.core.leasing.jobs or tell not in self._waiting.get(job_id, []):
                return
            row = self.database.tables.jobs.get(job_id)
            if row is None or row.outcome is not None:
                self._waiting[job_id].remove(tell)
                tell(row.outcome if row is not None else None)

        self.call(ask)
        return True

    def cancel(self, job_id: bytes) -> None:
        """Take a cancellation."""
        self.give(CancelJob(job_id))

    def change_approved(self, approved: frozenset[str]) -> None:
        """Notice what the operator changed in the database."""
        self.approved = approved
        self.give(AgentsChanged(approved, self.owners))

    # -- the core -----------------------------------------------------------------------------------------------------

    def handle(self, event: Event | _Committed) -> Sequence[Command]:
        """Ask the core; what follows a commit is done as it stands."""
        if isinstance(event, _Committed):
            return event.then
        commands = self.core.handle(event, self.clock())
        of_clients = sum(job.checks is None for job in self.core.leasing.jobs.values())
        self.most_jobs = max(self.most_jobs, of_clients)
        return commands

    def execute(self, commands: Sequence[Command]) -> None:
        """Do what the core says, in order; the process may be killed before each command."""
        for command in commands:
            self.boundary()
            match command:
                case Publish():
                    self._publish(command)
                case Commit():
                    self._put(command)
                case Note():
                    self.world.counts[f"note {command.action}"] += 1
                    self.notes.append((self.world.now, command))
                    self.world.say(f"coordinator: {command.sentence} {dict(command.fields)}")
                case JobStored() | SubmitRefused():
                    answer = self._submitted.pop(command.ticket, None)
                    if answer is not None:
                        answer(command)
                case Outcome():
                    for tell in self._waiting.pop(command.job_id, []):
                        tell(command)
        self.boundary()

    def _publish(self, command: Publish) -> None:
        if self._link.up:
            self._broker.publish(COORDINATOR, command.topic, command.payload, retain=command.retain)
        elif command.attempt is not None:
            failed = SendFailed(*command.attempt, "not-connected", "there is no connection")
            incarnation = self.incarnation
            self.world.later(0.0, lambda: self.give(failed) if incarnation == self.incarnation else None)

    def deadline(self) -> float | None:
        """Return when the core wants a tick."""
        return self.core.next_deadline()

    def tick(self) -> Tick:
        """Say that it is time."""
        return Tick()

    # -- the writer ---------------------------------------------------------------------------------------------------

    def _put(self, commit: Commit) -> None:
        for record in commit.records:
            match record:
                case InsertJob(submit=submit):
                    self.submitted_at[submit.job_id] = self.world.now
                    self.inputs[submit.job_id] = submit.inputs
                case EndAttempt():
                    if record.outcome in MISSED and self.holds(record.job_id, record.epoch):
                        self.taken_though_held.append((record.job_id, record.epoch))
                    self.attempt_ended_at.setdefault((record.job_id, record.epoch), self.world.now)
                case EndJob(outcome=outcome):
                    self.decided_at.setdefault(outcome.job_id, []).append(self.world.now)
                    self.attempt_ended_at.setdefault((outcome.job_id, record.epoch), self.world.now)
        self._commits.append(commit)
        if self._writer is _Writer.IDLE or (self._writer is _Writer.LINGERS and commit.urgent):
            self._begin_soon(urgent=commit.urgent)

    def _begin_soon(self, *, urgent: bool) -> None:
        self._writer = _Writer.LINGERS
        self._turn += 1
        turn, incarnation = self._turn, self.incarnation

        def begin() -> None:
            if incarnation == self.incarnation and turn == self._turn:
                self._begin()

        self.world.later(0.0 if urgent else LINGER_SECONDS, begin)

    def _taken(self, commits: Iterable[Commit]) -> list[Record]:
        return [record for commit in commits for record in self._young.take(commit, self.world.now)]

    def _begin(self) -> None:
        self._writer = _Writer.WRITES
        group = self._group = [self._commits.popleft() for _ in range(min(GROUP_COMMITS, len(self._commits)))]
        records = self._group_records = [*self._taken(group), *self._young.due(self.world.now)]
        wait = self.slow_disk_seconds or TRANSACTION_SECONDS * self.world.draw(5)
        self.slow_disk_seconds = 0.0
        incarnation = self.incarnation

        def done() -> None:
            if incarnation != self.incarnation:
                return  # it died with the transaction open
            if self.hung:  # the writer's thread stands still, too
                self.call(done)
                return
            self._write(records, durable=any(commit.durable for commit in group))
            self._group, self._group_records = [], []
            self._writer = _Writer.IDLE
            if self._commits:
                self._begin_soon(urgent=any(commit.urgent for commit in self._commits))
            elif (due := self._young.next_due()) is not None:
                self.world.later(max(0.0, due - self.world.now), begin_if_idle)
            then = tuple(command for commit in group for command in commit.then)
            if then:
                self.give(_Committed(then))

        def begin_if_idle() -> None:
            if incarnation == self.incarnation and self._writer is _Writer.IDLE:
                self._begin()

        self.world.later(wait, done)

    def _write(self, records: Sequence[Record], *, durable: bool) -> None:
        try:
            self.database.write(records, durable=durable)
            for record in records:
                if isinstance(record, EndJob):
                    job_id = record.outcome.job_id
                    self.ended_at.setdefault(job_id, []).append(self.decided_at[job_id][-1])
        except BrokenRuleError as error:
            self.world.violate(Promise.ENDS_ONCE, f"the database refused a transaction: {error}")


class _Committed:
    """What follows a group that is stored; the daemon executes it in its loop."""

    def __init__(self, then: tuple[Publish | JobStored | Outcome, ...]) -> None:
        self.then = then
