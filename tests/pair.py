"""Both cores on one network in memory, which loses, delays, repeats and reorders what it is given, by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fakes import (
    MACHINE,
    RUNTIME,
    TOPICS,
    AgentScript,
    CoordinatorScript,
    ManualClock,
    answer_to,
    canary_done,
    chosen_variant,
    of_type,
)

from edge_agent.agent import events as agent_events
from edge_agent.agent.presence import Presence
from edge_agent.coordinator import events as coordinator_events
from edge_agent.coordinator.jobs import Attempt, Job, JobState
from edge_agent.coordinator.rules import Rules
from edge_agent.inference.events import ModelLoaded, RunDone, WorkerDied, WorkerStarted

COMMIT_SECONDS = 0.01
"""A transaction takes so long; a crash meanwhile loses it."""


@dataclass(order=True)
class _Due:
    at: float
    order: int
    act: Callable[[], None] = field(compare=False)


class Pair:
    """A coordinator's core and several agents' cores on one network that may lose, delay, repeat and reorder.

    Each side may crash: a coordinator that comes back knows what was committed, an agent that comes back knows
    nothing. All that happens follows from the seed.

    Args:
        seed: of everything that is left to chance.
        agents: how many.
        loss: share of messages that vanish, while `faults` is on.
        repeat: share of messages that arrive twice.
        delay_seconds: the longest time on the way; what is sent later may arrive earlier.
        faults: whether any of that happens from the start.
        rules: of the coordinator.
    """

    def __init__(
        self,
        seed: int,
        *,
        agents: int = 2,
        loss: float = 0.1,
        repeat: float = 0.1,
        delay_seconds: float = 0.5,
        faults: bool = True,
        rules: Rules | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.loss = loss
        self.repeat = repeat
        self.delay_seconds = delay_seconds
        self.faults = faults
        self.rules = rules or Rules(lease_seconds=6.0, max_attempts=50)
        self.ended: dict[bytes, list[coordinator_events.Outcome]] = {}
        self.accepted: list[bytes] = []
        self._order = 0
        self._due: list[_Due] = []
        self._retained: dict[str, bytes] = {}
        self._database: dict[bytes, _Stored] = {}
        self._uncommitted: list[coordinator_events.Commit] = []
        self._agent_sessions: dict[str, int] = {}
        self._coordinator_session = 100
        self._pids = 4000
        self._jobs = 0
        self.coordinator = CoordinatorScript(self.clock, rules=self.rules, rng=self.rng)
        self.agents = [AgentScript(self.clock, name=f"agent {number}") for number in range(agents)]
        self._wills: dict[str, bytes] = {}
        self._workers = {agent.id: 0 for agent in self.agents}  # pids
        self._epochs = {agent.id: 0 for agent in self.agents}  # of the agents' processes
        self.connect_coordinator()
        for number in range(agents):
            self.start_agent(number)

    # -- time -----------------------------------------------------------------------------------------------------

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._order += 1
        self._due.append(_Due(self.clock.monotonic + seconds, self._order, act))

    def run(self, seconds: float) -> None:
        """Let time pass; deliver and tick whatever is due on the way."""
        end = self.clock.monotonic + seconds
        while True:
            moments = [due.at for due in self._due]
            cores = [self.coordinator.core, *(agent.core for agent in self.agents)]
            moments += [moment for core in cores if (moment := core.next_deadline()) is not None]
            if not moments or min(moments) > end:
                break
            self.clock.monotonic = max(self.clock.monotonic, min(moments))
            ready = sorted(due for due in self._due if due.at <= self.clock.monotonic)
            self._due = [due for due in self._due if due.at > self.clock.monotonic]
            for due in ready:
                due.act()
            self._tick()
        self.clock.monotonic = end

    def _tick(self) -> None:
        def is_due(moment: float | None) -> bool:
            return moment is not None and moment <= self.clock.monotonic

        if is_due(self.coordinator.core.next_deadline()):
            self._do_coordinator(self.coordinator.tell(coordinator_events.Tick()))
        for agent in self.agents:
            if is_due(agent.core.next_deadline()):
                self._do_agent(agent, agent.tell(agent_events.Tick()))

    # -- the broker -----------------------------------------------------------------------------------------------

    def _send(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if self.faults and self.rng.random() < self.loss:
            return
        copies = 2 if self.faults and self.rng.random() < self.repeat else 1
        for _ in range(copies):
            delay = self.rng.random() * self.delay_seconds if self.faults else 0.001
            self._later(delay, lambda: self._deliver(topic, payload, retain=retain))

    def _deliver(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if retain:
            self._retained[topic] = payload
        _, channel = TOPICS.parse(topic)
        if channel in {"birth", "gone", "offers", "progress", "results"}:
            if self.coordinator.core.connected:
                self._do_coordinator(self.coordinator.tell(coordinator_events.MessageReceived(topic, payload)))
            return
        for agent in self.agents:
            if agent.core.session is not None and topic in {TOPICS.coordinator, *TOPICS.all_channels(agent.id)}:
                self._do_agent(agent, agent.tell(agent_events.MessageReceived(topic, payload)))

    # -- the coordinator ------------------------------------------------------------------------------------------

    def submit(self, deadline: float = 60.0) -> bytes | None:
        """Submit a job that is stored before it is acknowledged; return its id if it was taken on."""
        self._jobs += 1
        identifier, commands = self.coordinator.submit(self._jobs, deadline=deadline, durable=True)
        self._do_coordinator(commands)
        return None if of_type(commands, coordinator_events.SubmitRefused) else identifier

    def connect_coordinator(self) -> None:
        """Reach the broker, and get what it had kept."""
        self._coordinator_session += 1
        self._do_coordinator(self.coordinator.connect(self._coordinator_session))
        for topic, payload in list(self._retained.items()):
            if topic != TOPICS.coordinator:
                self._later(0.0, lambda topic=topic, payload=payload: self._deliver(topic, payload, retain=False))

    def drop_coordinator(self) -> None:
        """Cut the coordinator's connection."""
        if self.coordinator.core.connected:
            self._do_coordinator(self.coordinator.disconnect())

    def crash_coordinator(self) -> None:
        """Kill the coordinator and start another one on the same database; what was not written is lost."""
        self._uncommitted.clear()
        jobs = self.coordinator._jobs
        known = {agent.id: agent for agent in self.coordinator.registry.agents.values()}
        self.coordinator = CoordinatorScript(self.clock, rules=self.rules, rng=self.rng)
        self.coordinator._jobs = jobs
        for identifier, agent in known.items():
            self.coordinator.registry.restore(
                identifier, agent.key, self._agent_sessions[identifier], ("digits",), self.clock.monotonic
            )
        for stored in self._database.values():
            if not stored.ended:
                self.coordinator.core.leasing.add(stored.job(self.clock.monotonic, self.rules.lease_seconds))

    def _do_coordinator(self, commands: Sequence[coordinator_events.Command]) -> None:
        for command in commands:
            match command:
                case coordinator_events.Publish():
                    self._publish_coordinator(command)
                case coordinator_events.Commit():
                    self._uncommitted.append(command)
                    self._later(COMMIT_SECONDS, self._commit)
                case coordinator_events.JobStored():
                    self.accepted.append(command.job_id)
                case coordinator_events.Outcome():
                    self.ended.setdefault(command.job_id, []).append(command)
                case _:
                    pass

    def _commit(self) -> None:
        group, self._uncommitted = self._uncommitted, []
        for commit in group:
            for record in commit.records:
                self._write(record)
        for commit in group:
            self._do_coordinator(commit.then)

    def _publish_coordinator(self, command: coordinator_events.Publish) -> None:
        if self.coordinator.core.connected:
            self._send(command.topic, command.payload, retain=command.retain)

    def _write(self, record: coordinator_events.Record) -> None:
        match record:
            case coordinator_events.InsertJob():
                self._database[record.submit.job_id] = _Stored(record, self.clock.monotonic)
            case coordinator_events.InsertAttempt():
                self._database[record.job_id].attempts[record.epoch] = record
                self._database[record.job_id].epoch = record.epoch
                self._database[record.job_id].state = record.state
            case coordinator_events.EndAttempt():
                del self._database[record.job_id].attempts[record.epoch]
                self._database[record.job_id].state = record.state or self._database[record.job_id].state
            case coordinator_events.EndJob():
                stored = self._database[record.outcome.job_id]
                if stored.ended:
                    raise AssertionError("a job would end twice")
                stored.ended = True
            case coordinator_events.SaveAgent():
                self._agent_sessions[record.agent_id] = record.session

    # -- the agents -----------------------------------------------------------------------------------------------

    def start_agent(self, number: int) -> None:
        """Connect an agent whose core is new, and let it plan."""
        agent = self.agents[number]
        self.connect_agent(number)
        self._do_agent(agent, agent.tell(agent_events.PlanRequested()))

    def connect_agent(self, number: int) -> None:
        """Let an agent reach the broker under a new session."""
        agent = self.agents[number]
        session = self._epochs[agent.id] = self._epochs[agent.id] + 1
        self._do_agent(agent, agent.tell(agent_events.LinkUp(session)))
        self._wills[agent.id] = Presence(agent.key, TOPICS, MACHINE).gone(session, self.clock.now).payload
        hello = self._retained.get(TOPICS.coordinator)
        if hello is not None:
            self._do_agent(agent, agent.tell(agent_events.MessageReceived(TOPICS.coordinator, hello)))

    def drop_agent(self, number: int) -> None:
        """Cut an agent's connection; the broker speaks its will some time later."""
        agent = self.agents[number]
        if agent.core.session is None:
            return
        self._do_agent(agent, agent.tell(agent_events.LinkDown("the cable")))
        self._send(TOPICS.gone(agent.id), self._wills[agent.id], retain=True)

    def crash_agent(self, number: int) -> None:
        """Kill an agent; nothing that it held is left."""
        self.drop_agent(number)
        self._workers[self.agents[number].id] = 0
        self.agents[number] = AgentScript(self.clock, name=f"agent {number}")

    def kill_worker(self, number: int) -> None:
        """Kill an agent's worker, if it has one."""
        agent = self.agents[number]
        pid, self._workers[agent.id] = self._workers[agent.id], 0
        if pid:
            self._do_agent(agent, agent.tell(WorkerDied(pid, "worker-died", "It was killed.", ())))

    def _do_agent(self, agent: AgentScript, commands: Sequence[agent_events.Command]) -> None:
        for command in commands:
            match command:
                case agent_events.Publish() if agent.core.session is not None:
                    self._send(command.topic, command.payload, retain=command.retain)
                case agent_events.StartWorker():
                    self._pids += 1
                    self._workers[agent.id] = self._pids
                    self._from_worker(agent, 0.3, WorkerStarted(self._pids, RUNTIME, (), 300.0))
                case agent_events.StopWorker(hung=True):
                    pid, self._workers[agent.id] = self._workers[agent.id], 0
                    died = WorkerDied(pid, "worker-hung", "It was ended.", ())
                    self._later(0.05, lambda died=died: self._do_agent(agent, agent.tell(died)))
                case agent_events.StopWorker():
                    self._workers[agent.id] = 0
                case agent_events.RunCanary(variant=variant):
                    p50_us = 200 if variant.digest_bytes == chosen_variant() else 5000
                    self._from_worker(agent, 0.05, canary_done(variant.digest_bytes, p50_us=p50_us))
                case agent_events.LoadModel(variant=variant):
                    self._from_worker(agent, 0.05, ModelLoaded(variant.digest_bytes, 5.0, (), (), 1_000_000))
                case agent_events.RunModel():
                    seconds = self.rng.random() * 0.2
                    self._from_worker(agent, seconds, RunDone(command.token, answer_to(command.inputs[0]), 300))
                case _:
                    pass

    def _from_worker(self, agent: AgentScript, seconds: float, event: agent_events.Event) -> None:
        pid = self._workers[agent.id]

        def tell() -> None:
            if agent in self.agents and self._workers[agent.id] == pid != 0:  # the dead say nothing
                self._do_agent(agent, agent.tell(event))

        self._later(seconds, tell)


class _Stored:
    """A row of the table of jobs, with its present attempt."""

    def __init__(self, inserted: coordinator_events.InsertJob, monotonic: float) -> None:
        self.inserted = inserted
        self.deadline = monotonic + inserted.submit.deadline_seconds
        self.attempts: dict[int, coordinator_events.InsertAttempt] = {}
        self.state = JobState.QUEUED
        self.epoch = 0
        self.ended = False

    def job(self, monotonic: float, lease_seconds: float) -> Job:
        """Make the job anew, as the store does."""
        submit = self.inserted.submit
        return Job(
            id=submit.job_id,
            family=submit.family,
            inputs=submit.inputs,
            outputs=submit.outputs,
            salt=submit.salt,
            submitted_ms=self.inserted.submitted_ms,
            deadline=self.deadline,
            max_attempts=self.inserted.max_attempts,
            state=self.state,
            epoch=self.epoch,
            attempts=[
                Attempt(
                    attempt.epoch,
                    attempt.agent_id,
                    attempt.variant,
                    attempt.agent_session,
                    attempt.coordinator_session,
                    lease_until=monotonic + lease_seconds,
                    leased_at=monotonic,
                )
                for attempt in self.attempts.values()
            ],
        )
