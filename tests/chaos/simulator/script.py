"""A script: what is asked of a network of one coordinator and a few agents, and what befalls it, as plain values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

COORDINATOR = -1
"""Stands in `Step.who` for the coordinator; agents are counted from 0."""


class Kind(StrEnum):
    """What a step does. The words in braces in `SENTENCES` are fields of the step."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    CRASH = "crash"
    POWER_CUT = "power-cut"
    HANG = "hang"
    STOP = "stop"
    CUT = "cut"
    BLACK_HOLE = "black-hole"
    UNREACHABLE = "unreachable"
    BROKER_RESTART = "broker-restart"
    BROKER_FORGETS = "broker-forgets"
    BROKER_REMEMBERS = "broker-remembers"
    LATE_WILL = "late-will"
    NO_WILL = "no-will"
    WEATHER = "weather"
    LOSE = "lose"
    REPEAT = "repeat"
    DELAY = "delay"
    CLOCK = "clock"
    KILL_WORKER = "kill-worker"
    HANG_WORKER = "hang-worker"
    SLOW_DISK = "slow-disk"
    SPOOL_FAILS = "spool-fails"
    REVOKE = "revoke"
    APPROVE = "approve"
    PAUSE = "pause"


REQUESTS = frozenset({Kind.SUBMIT, Kind.CANCEL})

SENTENCES = {
    Kind.SUBMIT: "a client submits number {count}{how}, deadline {seconds:g} s",
    Kind.CANCEL: "a client cancels its job with number {count}",
    Kind.CRASH: "{who} is killed before its command {count} from here, and starts again after {seconds:g} s",
    Kind.POWER_CUT: "{who} loses power (what is not on the disk is lost), and starts again after {seconds:g} s",
    Kind.HANG: "{who} hangs for {seconds:g} s",
    Kind.STOP: "{who} is asked to stop, and starts again after {seconds:g} s",
    Kind.CUT: "the connection of {who} is reset",
    Kind.BLACK_HOLE: "nothing passes between {who} and the broker for {seconds:g} s",
    Kind.UNREACHABLE: "the connection of {who} is reset, and there is no other for {seconds:g} s",
    Kind.BROKER_RESTART: "the broker is killed, and starts again after {seconds:g} s {state} its state",
    Kind.BROKER_FORGETS: "the broker forgets all retained messages",
    Kind.BROKER_REMEMBERS: "the broker goes back to the first retained message of every topic",
    Kind.LATE_WILL: "the broker publishes the next will of {who} {seconds:g} s late",
    Kind.NO_WILL: "the broker never publishes the next will of {who}",
    Kind.WEATHER: "for {seconds:g} s the network loses, repeats and delays {count} % of all messages",
    Kind.LOSE: "message {count} on {text} of {who} is lost",
    Kind.REPEAT: "message {count} on {text} of {who} arrives again {seconds:g} s later",
    Kind.DELAY: "message {count} on {text} of {who} arrives {seconds:g} s late",
    Kind.CLOCK: "the wall clock of {who} jumps by {seconds:+g} s",
    Kind.KILL_WORKER: "the worker of {who} is killed before command {count} of {who} from here",
    Kind.HANG_WORKER: "the worker of {who} hangs",
    Kind.SLOW_DISK: "the coordinator's disk takes {seconds:g} s for the next transaction",
    Kind.SPOOL_FAILS: "the disk of {who} takes nothing for {seconds:g} s",
    Kind.REVOKE: "the operator takes back the admission of {who}",
    Kind.APPROVE: "the operator admits {who}",
    Kind.PAUSE: "the owner of {who} pauses it for {seconds:g} s, and what runs may go on for {count} s",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens.

    Attributes:
        at: seconds from the start.
        who: `COORDINATOR` or the number of an agent.
        seconds: how long, how late, or how far a clock jumps.
        count: which command, message or number; a share in per cent; 1 for "with its state".
        text: a channel, or the idempotency key of a submission.
        sync: the client of a submission waits for the result.
    """

    at: float
    kind: Kind
    who: int = COORDINATOR
    seconds: float = 0.0
    count: int = 0
    text: str = ""
    sync: bool = False

    def __str__(self) -> str:
        who = "the coordinator" if self.who == COORDINATOR else f"agent {self.who}"
        how = " and waits" if self.sync else ""
        how += f" under the key {self.text}" if self.text else ""
        state = "with" if self.count else "without"
        sentence = SENTENCES[self.kind].format(
            who=who, count=self.count, seconds=self.seconds, text=self.text, how=how, state=state
        )
        return f"{self.at:7.3f} s  {sentence}"


@dataclass(frozen=True, slots=True)
class Script:
    """All of one run. Equal scripts run equally.

    Attributes:
        seed: of the chance that is left: how long each message and transaction takes, and each run in a worker.
        profile: which faults may befall it, for the promises that hold only where others do not interfere.
        agents: how many.
        steps: in the order of their times.
        spool: every result counts as expensive, so that it is kept on disk.
        hedge_share: of the synchronous jobs that may have a second attempt when they are late.
        poison: the number in an input over which every worker dies; 0 for none.
        bad: the number in an input that every worker refuses; 0 for none.
        owners: whose machines the agents are, in turn: none of them is trusted; 0 for the operator's own.
        mode: how results are verified before they are given out.
    """

    seed: int
    profile: str
    agents: int
    steps: tuple[Step, ...]
    lease_seconds: float = 6.0
    max_attempts: int = 50
    max_queued_jobs: int = 100
    agent_room: int = 4
    worker_idle_seconds: float = 0.0
    spool: bool = False
    hedge_share: float = 0.02
    poison: int = 0
    bad: int = 0
    owners: int = 0
    mode: str = "signed"

    def without(self, dropped: frozenset[int]) -> Script:
        """Return the script without the steps of these positions."""
        return replace(self, steps=tuple(step for i, step in enumerate(self.steps) if i not in dropped))

    @property
    def faults(self) -> tuple[Step, ...]:
        """The steps that are no requests of clients."""
        return tuple(step for step in self.steps if step.kind not in REQUESTS)

    def to_json(self) -> str:
        """Write it on one line, for `benchmarks/simulator.py --script`."""
        fields = {name: value for name, value in asdict(self).items() if name != "steps"}
        steps = []
        for step in self.steps:
            entry = {name: value for name, value in asdict(step).items() if value not in ("", 0, 0.0, False)}
            steps.append({"at": step.at, "kind": step.kind.value, "who": step.who, **entry})
        return json.dumps({**fields, "steps": steps})

    @classmethod
    def from_json(cls, text: str) -> Script:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        steps = tuple(Step(**{**step, "kind": Kind(step["kind"])}) for step in fields.pop("steps"))
        return cls(**fields, steps=steps)

    def __str__(self) -> str:
        head = (
            f"seed {self.seed}, {self.profile}: {self.agents} agents with room for {self.agent_room}, "
            f"lease {self.lease_seconds:g} s, at most {self.max_attempts} attempts, "
            f"queue of {self.max_queued_jobs}, workers sleep after {self.worker_idle_seconds:g} s, "
            f"{'every result is' if self.spool else 'no result is'} kept on disk, "
            f"{self.hedge_share:.0%} of the synchronous jobs may be hedged, "
            f"poison is number {self.poison or 'none'}, refused is number {self.bad or 'none'}, "
            f"results are {self.mode}, machines of {self.owners or 'no'} owners beside the operator"
        )
        return "\n".join([head, *map(str, self.steps)])
