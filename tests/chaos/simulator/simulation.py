"""One run: a script is played, everything heals, time passes until nothing is left to do, then the oracle looks."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from fakes import TOPICS, digits, key

from edge_agent.models.catalogue import Catalogue
from simulator.agent import AgentProcess
from simulator.broker import Broker
from simulator.clients import Request
from simulator.coordinator import CoordinatorProcess
from simulator.script import COORDINATOR, REQUESTS, Kind, Script, Step
from simulator.world import World

FATES = frozenset({Kind.LOSE, Kind.REPEAT, Kind.DELAY})
SETTLE_SECONDS = 1.0
AWHILE_SECONDS = 0.2
"""Whoever has so much time does what is due."""
"""Between the last step and the healing of everything."""
QUIET_SECONDS = 70.0
"""So long everything must stay as it is after it has become quiet: late wills and repeated births come in it."""
LIMIT_SECONDS = 400.0
MAX_JUMP_SECONDS = 42_000.0
"""No wall clock goes further from the true time: two of them stay within the day that signatures allow."""
PROBE = 999
"""The number in the input of the job that must succeed once everything is well again."""


@dataclass(slots=True)
class Fault:
    """A fault that really befell somebody, for the promises that depend on it."""

    at: float
    step: Step
    held: dict[bytes, int] = field(default_factory=dict)
    """The attempts that the coordinator had leased to that agent then."""


@functools.cache
def catalogue() -> Catalogue:
    """Return a catalogue of one family with one variant, a reproducible one: what is measured is not tested here."""
    family = digits()
    variants = tuple(variant for variant in family.variants if variant.name == "int8-static")
    return Catalogue(version=1, families=(family.model_copy(update={"variants": variants}),))


@functools.cache
def _agent_key(number: int):  # noqa: ANN202 SigningKey
    return key(f"agent {number}")


class Simulation:
    """A network in memory and what happens to it.

    Args:
        script: all of it.
        log: keep a record for people.
    """

    def __init__(self, script: Script, *, log: bool = False) -> None:
        self.script = script
        self.world = World(script.seed)
        if log:
            self.world.log = []
        keys = [_agent_key(number) for number in range(script.agents)]
        fates = [step for step in script.steps if step.kind in FATES]
        self.broker = Broker(self.world, TOPICS, script.lease_seconds, fates)
        public = {signing.public.id: signing.public for signing in keys}
        self.coordinator = CoordinatorProcess(self.world, self.broker, script, catalogue(), public)
        self.agents = [
            AgentProcess(self.world, number, signing, self.broker, script, catalogue())
            for number, signing in enumerate(keys)
        ]
        self.coordinator.holds = lambda job_id, epoch: any(
            agent.alive and (job_id, epoch) in agent.core.attempts for agent in self.agents
        )
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.healed_at = 0.0
        self.ended_at = 0.0

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> Simulation:
        """Play the script to its end and to quiescence."""
        for process in (self.coordinator, *self.agents):
            process.boot()
            process.start()
        for step in self.script.steps:
            if step.kind not in FATES:
                self.world.later(step.at, functools.partial(self._do, step))
        end = max((step.at for step in self.script.steps), default=0.0) + SETTLE_SECONDS
        while self.world.step(end):
            pass
        self._heal()
        quiet_since: float | None = None
        limit = self.world.now + LIMIT_SECONDS
        while self.world.now < limit:
            if not self._quiet():
                quiet_since = None
            elif quiet_since is None:
                quiet_since = self.world.now
            elif self.world.now >= quiet_since + QUIET_SECONDS:
                break
            self.world.step(limit)
        self.ended_at = self.world.now
        return self

    def _quiet(self) -> bool:
        return not (
            self.coordinator.core.leasing.jobs
            or any(len(agent.core.attempts) for agent in self.agents)
            or any(request.waits for request in self.requests)
            or not all(agent.alive for agent in self.agents)
            or not self.coordinator.alive
        )

    def _heal(self) -> None:
        """End every fault: from here on the network does what it should, and everybody is there."""
        self.world.say("everything heals")
        self.healed_at = self.world.now
        self.broker.well = True
        self.broker.start()
        for number in self.broker.links:
            self.broker.heal(number)
        for process in (self.coordinator, *self.agents):
            process.disarm()
            process.wake()
            process.start()
        for agent in self.agents:
            agent.resume()
        if self.coordinator.approved != self._everybody():
            self.coordinator.change_approved(self._everybody())
        self._submit(Step(self.world.now, Kind.SUBMIT, seconds=300.0, count=PROBE, text="probe"))

    def _everybody(self) -> frozenset[str]:
        return frozenset(agent.id for agent in self.agents)

    # -- the steps ----------------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:  # noqa: C901, PLR0912, PLR0915 one branch a kind
        self.world.counts[step.kind] += 1
        self.world.say(str(step)[11:])
        if step.kind not in REQUESTS:
            self.faults.append(Fault(self.world.now, step, self._leased_to(step.who)))
        process = self.coordinator if step.who == COORDINATOR else self.agents[step.who]
        agent = None if step.who == COORDINATOR else self.agents[step.who]
        match step.kind:
            case Kind.SUBMIT:
                self._submit(step)
            case Kind.CANCEL:
                for job_id in self._jobs_of(step.count):
                    self.coordinator.cancel(job_id)
            case Kind.CRASH if process.alive:
                process.kill_before(step.count, lambda: process.crash(step.seconds))
            case Kind.POWER_CUT:
                process.crash(step.seconds, power=True)
            case Kind.HANG:
                process.hang(step.seconds)
                self.broker.hung(step.who)
            case Kind.STOP:
                process.stop(step.seconds)
            case Kind.CUT:
                self.broker.cut(step.who)
            case Kind.UNREACHABLE:
                self.broker.unreachable(step.who, step.seconds)
            case Kind.BLACK_HOLE:
                self.broker.black_hole(step.who, step.seconds)
            case Kind.BROKER_RESTART:
                self.broker.crash(step.seconds, keeps_state=bool(step.count))
            case Kind.BROKER_FORGETS:
                self.broker.forget()
            case Kind.BROKER_REMEMBERS:
                self.broker.remember()
            case Kind.LATE_WILL:
                self.broker.will_late(step.who, step.seconds)
            case Kind.NO_WILL:
                self.broker.will_late(step.who, None)
            case Kind.WEATHER:
                self.broker.weather(step.seconds, step.count)
            case Kind.CLOCK:
                process.wall_jump = max(-MAX_JUMP_SECONDS, min(process.wall_jump + step.seconds, MAX_JUMP_SECONDS))
            case Kind.KILL_WORKER if agent is not None:
                agent.before(step.count, agent.kill_worker)
            case Kind.HANG_WORKER if agent is not None:
                agent.hang_worker()
            case Kind.SLOW_DISK:
                self.coordinator.slow_disk_seconds = step.seconds
            case Kind.SPOOL_FAILS if agent is not None:
                agent.spool_fails(step.seconds)
            case Kind.PAUSE if agent is not None:
                agent.pause(step.seconds, step.count)
            case Kind.REVOKE if agent is not None:
                self.coordinator.change_approved(self.coordinator.approved - {agent.id})
            case Kind.APPROVE if agent is not None:
                self.coordinator.change_approved(self.coordinator.approved | {agent.id})
            case _:
                pass

    def _submit(self, step: Step) -> None:
        request = Request(self.world, self.coordinator, len(self.requests), step, self.script.mode)
        self.requests.append(request)
        request.ask()

    def _jobs_of(self, number: int) -> list[bytes]:
        return [job for r in self.requests if r.step.count == number for job in sorted(r.acknowledged)]

    def _leased_to(self, who: int) -> dict[bytes, int]:
        if who == COORDINATOR:
            return {}
        known = self.coordinator.core.registry.agents.get(self.agents[who].id)
        jobs = self.coordinator.core.leasing.jobs
        live = [jobs[job_id] for job_id in known.in_flight if job_id in jobs] if known else []
        attempts = {job.id: job.attempt_on(self.agents[who].id) for job in live}
        return {job_id: attempt.epoch for job_id, attempt in attempts.items() if attempt is not None}

    # -- for the oracle -----------------------------------------------------------------------------------------------

    def submitted_at(self, job_id: bytes) -> float:
        """Return when the coordinator took a job on, in true seconds."""
        return self.coordinator.submitted_at[job_id]

    def next_up(self, moment: float) -> float:
        """Return when the coordinator had a while to do something at this moment or after it, up and not hanging."""
        for started, ended in self.coordinator.ups:
            free = max(started, moment)
            end = self.ended_at if ended is None else ended
            for hung_from, hung_until in self.coordinator.hangs():
                if started <= hung_from < min(end, free + AWHILE_SECONDS) and hung_until > free:
                    free = hung_until
            if end > free + AWHILE_SECONDS:
                return free
        return self.ended_at

    def next_end(self, moment: float) -> float:
        """Return when the coordinator's process that was up at this moment ended."""
        ends = [ended for started, ended in self.coordinator.ups if ended is not None and started <= moment <= ended]
        return ends[0] if ends else self.ended_at

    def last_reboot(self) -> float:
        """Return when the coordinator's machine was last started: it does not know for how long it was off."""
        cuts = [f.at for f in self.faults if f.step.kind is Kind.POWER_CUT and f.step.who == COORDINATOR]
        return max((started for started, _ in self.coordinator.ups if cuts and started >= max(cuts)), default=0.0)
