"""A coordinator's core with a pool of agents of several owners that answer at once, honestly or not."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fakes import CoordinatorScript, FakeAgent, ManualClock, answer_to, digits

from edge_agent.coordinator.events import AgentsChanged, Command, Commit, Outcome, Publish, Verified
from edge_agent.wire.envelope import Opened, seal
from edge_agent.wire.messages import Control, Job, Offer, Settled, TensorDigest
from edge_agent.wire.tensors import Tensor

REPRODUCIBLE = digits().variant_named("int8-static")
assert REPRODUCIBLE is not None
VARIANT = REPRODUCIBLE.digest_bytes
Behaviour = Callable[[Tensor], tuple[Tensor, ...]]


def lie(image: Tensor, salt: bytes = b"") -> tuple[Tensor, ...]:
    """Give outputs of the right shape that are not the answer; the same for the same input and salt."""
    scores, label = answer_to(image)
    noise = hashlib.sha256(bytes(image.data) + salt).digest()
    false = struct.pack("<10f", *(byte / 10 for byte in noise[:10]))
    return Tensor(scores.spec, false), Tensor(label.spec, struct.pack("<q", noise[11]))


@dataclass
class Member:
    """An agent of the pool.

    Attributes:
        behave: what it answers.
        seen: inputs that it was given, and under which job's id.
        given: the jobs themselves.
    """

    agent: FakeAgent
    behave: Behaviour = answer_to
    silent: bool = False
    seen: list[tuple[bytes, bytes]] = field(default_factory=list)
    given: list[Opened[Job]] = field(default_factory=list)
    told: list[tuple[str, str | None]] = field(default_factory=list)
    waiting: list[Opened[Job]] = field(default_factory=list)


class Pool:
    """Agents with owners; whoever is asked answers at once.

    Args:
        owners: owner of each agent by its name; None is one of the operator's own.
        quick: agents that say they are quicker than the others, and so are given jobs first.
        script: passed on to `CoordinatorScript`.
    """

    def __init__(self, owners: dict[str, str | None], quick: Iterable[str] = (), **script: object) -> None:
        self.quick = {FakeAgent(name, ManualClock()).id for name in quick}
        self.clock = ManualClock()
        self.script = CoordinatorScript(self.clock, admit_anyone=False, **script)  # type: ignore[arg-type] # passed
        self.members = {name: Member(FakeAgent(name, self.clock)) for name in owners}
        self.by_id = {member.agent.id: member for member in self.members.values()}
        self.records: list[object] = []
        self.notes: list[object] = []
        named = {self.members[name].agent.id: owner for name, owner in owners.items() if owner is not None}
        self.script.connect()
        self.carry_out(self.script.tell(AgentsChanged(frozenset(self.by_id), named)))
        for member in self.members.values():
            self.come(member)

    def come(self, member: Member) -> None:
        """Let an agent come and offer the reproducible variant."""
        offer = self.offer_of(member)
        self.carry_out(self.script.tell(member.agent.birth(answers=self.script.session), member.agent.offers(offer)))

    def offer_of(self, member: Member) -> Offer:
        """Make what a member offers."""
        latency = 100 if member.agent.id in self.quick else 300
        return member.agent.offer(variant=VARIANT, room=8, latency_us=latency)

    def carry_out(self, commands: Iterable[Command]) -> list[Outcome]:
        """Do what the core wants, and what follows, until nothing does; return how jobs ended."""
        left, outcomes = list(commands), []
        while left:
            command = left.pop(0)
            match command:
                case Commit():
                    self.records += command.records
                    left = [*command.then, *left]
                case Outcome():
                    outcomes.append(command)
                case Publish():
                    left += self._hear(command)
                case _:
                    self.notes.append(command)
        return outcomes

    def _hear(self, command: Publish) -> list[Command]:
        parts = command.topic.split("/")
        member = self.by_id.get(parts[2])
        if member is None:
            return []
        if parts[3] == "jobs":
            opened = member.agent.open(command, Job)
            member.seen.append((bytes(opened.attachments[0]), opened.statement.job))
            member.given.append(opened)
            if member.silent:
                member.waiting.append(opened)
                return []
            return self.answer(member, opened)
        if parts[3] == "settled":
            settled = member.agent.open(command, Settled).statement
            member.told += [(attempt.outcome, attempt.code) for attempt in settled.settled]
        elif parts[3] == "control":
            member.agent.open(command, Control)
        return []

    def answer(self, member: Member, opened: Opened[Job]) -> list[Command]:
        """Let a member answer a job as it does."""
        image = Tensor(opened.statement.inputs[0].spec, bytes(opened.attachments[0]))
        outputs = member.behave(image)
        statement = member.agent.result_statement(opened, outputs=tuple(TensorDigest.of(tensor) for tensor in outputs))
        topic = f"ea1/home/{member.agent.id}/results"
        from edge_agent.coordinator.events import MessageReceived  # noqa: PLC0415 beside what it is used for

        payload = seal(member.agent.key, statement, [tensor.data for tensor in outputs])
        return self.script.tell(MessageReceived(topic, payload))

    def ask(self, number: int | None = None, **options: object) -> Outcome | None:
        """Submit a job and return how it ended, or None while it has not."""
        job_id, commands = self.script.submit(number, **options)  # type: ignore[arg-type] # passed through
        return next((outcome for outcome in self.carry_out(commands) if outcome.job_id == job_id), None)

    def only(self, *names: str) -> None:
        """Let only these agents offer from now on; the others withdraw what they offer."""
        for name, member in self.members.items():
            if name in names:
                offer = self.offer_of(member)
                self.carry_out(self.script.tell(member.agent.offers(offer)))
            else:
                self.carry_out(self.script.tell(member.agent.offers_nothing()))

    def failures(self, name: str) -> int:
        """Return how many results of an agent were proven wrong."""
        standings = self.script.core.checking.trust.standings
        return sum(s.failures for subject, s in standings.items() if subject.name == self.members[name].agent.id)

    def verified(self) -> list[Verified]:
        """Return what was found of results that had been given out before."""
        return [record for record in self.records if isinstance(record, Verified)]

    def true(self, outcome: Outcome | None, number: int) -> bool:
        """Whether a job succeeded with the right outputs."""
        from fakes import scan  # noqa: PLC0415 beside what it is used for

        return outcome is not None and outcome.outputs == answer_to(scan(number))
