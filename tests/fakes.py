"""Doubles that drive the sans-IO cores as scripts of events: a clock, and the other side of each core.

Everything they say is signed and encoded as on the real wire.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import struct
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from edge_agent.agent import events as agent_events
from edge_agent.agent.core import Core as AgentCore
from edge_agent.agent.core import Rules as AgentRules
from edge_agent.agent.planner import Planner
from edge_agent.agent.policy import Policy
from edge_agent.agent.presence import Presence
from edge_agent.clock import Now
from edge_agent.coordinator import events as coordinator_events
from edge_agent.coordinator.core import Core as CoordinatorCore
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.requests import request_digest
from edge_agent.coordinator.rules import Rules as CoordinatorRules
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.trust import TrustRules
from edge_agent.inference.events import (
    CanaryDone,
    ModelLoaded,
    RunDone,
    WorkerStarted,
)
from edge_agent.models.catalogue import Catalogue, Family, builtin
from edge_agent.models.fit import MachineFacts
from edge_agent.wire.envelope import Opened, open_envelope, seal
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.messages import (
    PROTOCOL_VERSIONS,
    Birth,
    Control,
    Failure,
    Gone,
    HeldAttempt,
    Hello,
    Job,
    Machine,
    Offer,
    Offers,
    Progress,
    Result,
    Settled,
    SettledAttempt,
    Statement,
    TensorDigest,
    VariantClass,
)
from edge_agent.wire.status import Status
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec
from edge_agent.wire.terms import Terms
from edge_agent.wire.topics import Topics

NETWORK = "home"
TOPICS = Topics(NETWORK)
START_MS = 1_800_000_000_000
MAX_BYTES = 1 << 24
MACHINE = Machine(isa="x86_64+avx2", board=None, cpus=2, memory_mib=4096, labels=())
RUNTIME = "onnxruntime 1.32.0"
BUDGET_BYTES = 4 * 1024**3

S = TypeVar("S", bound=Statement)
T = TypeVar("T")


def key(name: str) -> SigningKey:
    """Return the signing key of this name, the same in every run."""
    return SigningKey.generate(hashlib.sha256(name.encode()).digest())


COORDINATOR_KEY = key("coordinator")


class ManualClock:
    """Both clocks, moved by hand.

    Args:
        monotonic: seconds to start with.
    """

    def __init__(self, monotonic: float = 1000.0) -> None:
        self.monotonic = monotonic
        self.wall_jump_ms = 0

    @property
    def now(self) -> Now:
        """The present moment."""
        return Now(self.monotonic, START_MS + self.wall_jump_ms + int(self.monotonic * 1000))

    def advance(self, seconds: float) -> Now:
        """Let time pass."""
        self.monotonic += seconds
        return self.now


def digits() -> Family:
    """Return the built-in family."""
    return builtin().family("digits")


def two_families() -> Catalogue:
    """Return a catalogue with the built-in family and a copy of it, `letters`, with digests of its own."""
    family = digits()
    variants = tuple(
        variant.model_copy(update={"digest": hashlib.sha256(variant.digest.encode()).hexdigest()})
        for variant in family.variants
    )
    letters = family.model_copy(update={"name": "letters", "variants": variants})
    return Catalogue(version=1, families=(family, letters))


def scan(number: int = 0, batch: int = 1) -> Tensor:
    """Return inputs for `digits`, different for each number."""
    values = [float(number)] * (64 * batch)
    return Tensor(TensorSpec("image", DataType.FP32, (batch, 1, 8, 8)), struct.pack(f"<{64 * batch}f", *values))


def answer_to(image: Tensor) -> tuple[Tensor, ...]:
    """Return outputs that fit `digits`, and are told apart by their inputs."""
    batch = image.spec.shape[0]
    label = int(struct.unpack("<f", image.data[:4])[0])
    logits = struct.pack(f"<{10 * batch}f", *([float(label)] * (10 * batch)))
    return (
        Tensor(TensorSpec("logits", DataType.FP32, (batch, 10)), logits),
        Tensor(TensorSpec("label", DataType.INT64, (batch,)), struct.pack(f"<{batch}q", *([label] * batch))),
    )


def klass(variant: bytes) -> VariantClass:
    """Return the class in which the fakes compute."""
    return VariantClass(variant=variant, runtime=RUNTIME, provider="CPUExecutionProvider", isa=MACHINE.isa)


def of_type(commands: Iterable[object], kind: type[T]) -> list[T]:
    """Return the commands of one kind."""
    return [command for command in commands if isinstance(command, kind)]


def codes(commands: Iterable[object]) -> list[str]:
    """Return the codes of the refusals that were noted."""
    notes = [c for c in commands if isinstance(c, coordinator_events.Note | agent_events.Note)]
    return [str(dict(note.fields)["code"]) for note in notes if note.action == "refused"]


def actions(commands: Iterable[object]) -> list[str]:
    """Return the actions of all notes."""
    return [c.action for c in commands if isinstance(c, coordinator_events.Note | agent_events.Note)]


# -- the agent that a coordinator's core meets ----------------------------------------------------------------------


class FakeAgent:
    """Speaks to a coordinator's core with a real key, and says whatever a test wants it to.

    Args:
        name: of its key.
        clock: for the times in its statements.
    """

    def __init__(self, name: str, clock: ManualClock) -> None:
        self.key = key(name)
        self.id = self.key.public.id
        self.clock = clock
        self.session = 1
        self.sequence = 0
        self.status_sequence = 0
        self.network = NETWORK

    def _said(self, channel: str, statement: Statement, tensors: Sequence[bytes] = ()) -> Any:  # noqa: ANN401 an event of the core
        topic = f"ea1/{NETWORK}/{self.id}/{channel}"
        return coordinator_events.MessageReceived(topic, seal(self.key, statement, tensors))

    @property
    def _base(self) -> dict[str, Any]:
        return {"network": self.network, "issued_ms": self.clock.now.wall_ms}

    def birth(
        self,
        *,
        held: Iterable[tuple[bytes, int]] = (),
        answers: int | None = None,
        state: str = "online",
        session: int | None = None,
        labels: tuple[str, ...] = (),
    ) -> coordinator_events.MessageReceived:
        """Say that we are there, or stopped."""
        statement = Birth(
            **self._base,
            agent_id=self.id,
            public_key=self.key.public.raw,
            sealing_key=hashlib.sha256(self.key.public.raw).digest(),
            hybrid_key=None,
            session=session or self.session,
            state=state,  # type: ignore[arg-type] # checked by the model
            coordinator_session=answers,
            held=tuple(HeldAttempt(job=job, epoch=epoch) for job, epoch in held),
            versions=(1,),
            software="edge-agent/test",
            machine=MACHINE.model_copy(update={"labels": labels}),
        )
        found: coordinator_events.MessageReceived = self._said("birth", statement)
        return found

    def gone(self, session: int | None = None) -> coordinator_events.MessageReceived:
        """Speak the will."""
        statement = Gone(**self._base, agent_id=self.id, session=session or self.session)
        found: coordinator_events.MessageReceived = self._said("gone", statement)
        return found

    def offer(
        self,
        family: Family | None = None,
        *,
        variant: bytes | None = None,
        latency_us: int = 300,
        room: int = 2,
        loaded: bool = True,
    ) -> Offer:
        """Make an offer of the first variant of a family."""
        family = family or digits()
        digest = variant or family.variants[0].digest_bytes
        return Offer(
            family=family.name,
            variant=digest,
            variant_name="some",
            klass=klass(digest),
            latency_us=latency_us,
            max_in_flight=room,
            loaded=loaded,
        )

    def offers(
        self, *offers: Offer, sequence: int | None = None, terms: Terms | None = None
    ) -> coordinator_events.MessageReceived:
        """Say what is offered, by default one variant of `digits`, and for whom."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        statement = Offers(
            **self._base,
            agent_id=self.id,
            session=self.session,
            sequence=self.sequence,
            offers=offers or (self.offer(),),
            **({} if terms is None else {"v": 2, "terms": terms}),
        )
        found: coordinator_events.MessageReceived = self._said("offers", statement)
        return found

    def offers_nothing(self) -> coordinator_events.MessageReceived:
        """Withdraw all offers."""
        self.sequence += 1
        statement = Offers(**self._base, agent_id=self.id, session=self.session, sequence=self.sequence, offers=())
        found: coordinator_events.MessageReceived = self._said("offers", statement)
        return found

    def status(self, **changes: Any) -> coordinator_events.MessageReceived:  # noqa: ANN401 any field
        """Say how it fares: it works, at 50 °C."""
        self.status_sequence += 1
        fields: dict[str, Any] = {
            "mode": "work",
            "reasons": (),
            "celsius": 50,
            "cpu_percent": 25,
            "fits": None,
            **changes,
        }
        statement = Status(
            **self._base, agent_id=self.id, session=self.session, sequence=self.status_sequence, **fields
        )
        found: coordinator_events.MessageReceived = self._said("status", statement)
        return found

    def progress(self, *held: tuple[bytes, int], session: int | None = None) -> coordinator_events.MessageReceived:
        """Renew leases."""
        statement = Progress(
            **self._base,
            agent_id=self.id,
            session=session or self.session,
            held=tuple(HeldAttempt(job=job, epoch=epoch) for job, epoch in held),
        )
        found: coordinator_events.MessageReceived = self._said("progress", statement)
        return found

    def failure(
        self, job: Job, *, code: str = "worker-died", blame: str = "agent", retry: bool = True
    ) -> coordinator_events.MessageReceived:
        """Say that an attempt failed."""
        statement = Failure(
            **self._base,
            job=job.job,
            epoch=job.epoch,
            agent_id=self.id,
            code=code,
            message="The worker was killed.",
            blame=blame,  # type: ignore[arg-type] # checked by the model
            retry=retry,
            retry_after_ms=0,
        )
        found: coordinator_events.MessageReceived = self._said("results", statement)
        return found

    def result_statement(self, opened: Opened[Job], **changes: Any) -> Result:  # noqa: ANN401 any field
        """Make the right statement for a job, but for these changes."""
        job = opened.statement
        outputs = self.outputs(opened)
        fields: dict[str, Any] = {
            **self._base,
            "job": job.job,
            "epoch": job.epoch,
            "agent_id": self.id,
            "family": job.family,
            "variant": job.variant,
            "klass": klass(changes.get("variant", job.variant)),
            "inputs": job.inputs,
            "outputs": tuple(TensorDigest.of(tensor) for tensor in outputs),
            "received_ms": self.clock.now.wall_ms,
            "finished_ms": self.clock.now.wall_ms,
            "run_us": 300,
        }
        return Result(**{**fields, **changes})

    @staticmethod
    def outputs(opened: Opened[Job]) -> tuple[Tensor, ...]:
        """Return what an honest agent computes."""
        image = Tensor(opened.statement.inputs[0].spec, bytes(opened.attachments[0]))
        wanted = opened.statement.outputs
        return tuple(tensor for tensor in answer_to(image) if not wanted or tensor.name in wanted)

    def result(self, opened: Opened[Job], **changes: Any) -> coordinator_events.MessageReceived:  # noqa: ANN401 any field
        """Answer a job as it should be, but for these changes."""
        statement = self.result_statement(opened, **changes)
        found: coordinator_events.MessageReceived = self._said(
            "results", statement, [tensor.data for tensor in self.outputs(opened)]
        )
        return found

    def open(self, command: coordinator_events.Publish, kind: type[S]) -> Opened[S]:
        """Open what the coordinator said to us."""
        return open_envelope(command.payload, COORDINATOR_KEY.public, kind, network=NETWORK, max_bytes=MAX_BYTES)


class CoordinatorScript:
    """A coordinator's core with a clock, and words for what tests do to it.

    Args:
        clock: shared with the fake agents.
        rules: limits and times.
        catalogue: what may be asked for.
        admit_anyone: otherwise agents are admitted by `AgentsChanged`.
        rng: of the jitter; without it every wait has its full length.
        check_rules: how often results are checked.
    """

    def __init__(
        self,
        clock: ManualClock | None = None,
        *,
        rules: CoordinatorRules | None = None,
        catalogue: Catalogue | None = None,
        admit_anyone: bool = True,
        session: int = 100,
        max_agents: int = 1000,
        rng: random.Random | None = None,
        check_rules: TrustRules | None = None,
    ) -> None:
        self.clock = clock or ManualClock()
        self.catalogue = catalogue or builtin()
        self.registry = Registry(admit_anyone=admit_anyone, max_agents=max_agents)
        self.session = session
        self.rules = rules or CoordinatorRules()
        self.core = CoordinatorCore(
            statements=Statements(COORDINATOR_KEY, TOPICS),
            catalogue=self.catalogue,
            registry=self.registry,
            rules=self.rules,
            rng=rng,
            check_rules=check_rules,
            check_secret=b"what nobody knows",
        )
        self._jobs = 0

    def tell(self, *events: coordinator_events.Event) -> list[coordinator_events.Command]:
        """Apply events at the present moment; return all commands."""
        return [command for event in events for command in self.core.handle(event, self.clock.now)]

    def connect(self, session: int | None = None) -> list[coordinator_events.Command]:
        """Reach the broker."""
        self.session = session or self.session
        return self.tell(coordinator_events.BrokerConnected(self.session))

    def disconnect(self) -> list[coordinator_events.Command]:
        """Lose the broker."""
        return self.tell(coordinator_events.BrokerDisconnected("the cable"))

    def join(self, agent: FakeAgent, *offers: Offer) -> list[coordinator_events.Command]:
        """Let an agent come and offer."""
        return self.tell(agent.birth(answers=self.session), agent.offers(*offers))

    def submit(
        self,
        number: int | None = None,
        *,
        family: str = "digits",
        deadline: float = 60.0,
        idempotency_key: str | None = None,
        variant: bytes | None = None,
        durable: bool = False,
        **options: Any,  # noqa: ANN401 any field
    ) -> tuple[bytes, list[coordinator_events.Command]]:
        """Submit a job; return its id and the commands."""
        self._jobs += 1
        job_id = hashlib.sha256(b"job %d" % self._jobs).digest()[:16]
        image = scan(self._jobs if number is None else number)
        event = coordinator_events.Submit(
            job_id=job_id,
            salt=hashlib.sha256(b"salt %d" % self._jobs).digest(),
            family=family,
            inputs=(image,),
            outputs=(),
            variant=variant,
            idempotency_key=idempotency_key,
            request_digest=request_digest(family, variant, (image,), ()),
            durable=durable,
            deadline_seconds=deadline,
            **options,
        )
        return job_id, self.tell(event)

    def tick_until(self, seconds: float) -> list[coordinator_events.Command]:
        """Let time pass, with a tick at every deadline that the core asks for."""
        end = self.clock.monotonic + seconds
        commands: list[coordinator_events.Command] = []
        while (due := self.core.next_deadline()) is not None and due <= end:
            self.clock.monotonic = max(self.clock.monotonic, due)
            commands += self.tell(coordinator_events.Tick())
        self.clock.monotonic = end
        return commands


def jobs_for(agent: FakeAgent, commands: Iterable[object]) -> list[Opened[Job]]:
    """Return the jobs that were sent to an agent."""
    topic = TOPICS.jobs(agent.id)
    return [agent.open(c, Job) for c in published(commands) if c.topic == topic]


def published(commands: Iterable[object]) -> list[coordinator_events.Publish]:
    """Return all that is published, what waits for a commit included."""
    found: list[coordinator_events.Publish] = []
    for command in commands:
        if isinstance(command, coordinator_events.Publish):
            found.append(command)
        elif isinstance(command, coordinator_events.Commit):
            found += of_type(command.then, coordinator_events.Publish)
    return found


def settled_for(agent: FakeAgent, commands: Iterable[object]) -> list[SettledAttempt]:
    """Return what an agent was told of its answers."""
    topic = TOPICS.settled(agent.id)
    told = [agent.open(c, Settled).statement for c in published(commands) if c.topic == topic]
    return [attempt for statement in told for attempt in statement.settled]


def controls_for(agent: FakeAgent, commands: Iterable[object]) -> list[str]:
    """Return the commands that an agent was given."""
    topic = TOPICS.control(agent.id)
    return [agent.open(c, Control).statement.command for c in published(commands) if c.topic == topic]


def outcomes(commands: Iterable[object]) -> list[coordinator_events.Outcome]:
    """Return the outcomes that follow the commits."""
    commits = of_type(commands, coordinator_events.Commit)
    return [outcome for commit in commits for outcome in of_type(commit.then, coordinator_events.Outcome)]


def records(commands: Iterable[object], kind: type[T]) -> list[T]:
    """Return what is to be written, of one kind."""
    commits = of_type(commands, coordinator_events.Commit)
    return [record for commit in commits for record in of_type(commit.records, kind)]


# -- the coordinator that an agent's core meets ---------------------------------------------------------------------


class FakeCoordinator:
    """Speaks to an agent's core with a real key.

    Args:
        agent: whom it speaks to.
        clock: for the times in its statements.
        signing_key: another one to be an impostor.
    """

    def __init__(self, agent: PublicKey, clock: ManualClock, signing_key: SigningKey = COORDINATOR_KEY) -> None:
        self.agent = agent
        self.clock = clock
        self.key = signing_key
        self.network = NETWORK
        self.session = 100

    @property
    def _base(self) -> dict[str, Any]:
        return {"network": self.network, "issued_ms": self.clock.now.wall_ms}

    def hello(
        self, session: int | None = None, versions: tuple[int, ...] = PROTOCOL_VERSIONS
    ) -> agent_events.MessageReceived:
        """Announce a session."""
        statement = Hello(
            **self._base,
            coordinator_key=self.key.public.raw,
            session=session or self.session,
            software="edge-agent/test",
            versions=versions,
        )
        return agent_events.MessageReceived(TOPICS.coordinator, seal(self.key, statement))

    def job(
        self,
        number: int = 1,
        *,
        epoch: int = 1,
        session: int = 1,
        lease_ms: int = 30_000,
        data: bytes | None = None,
        **changes: Any,  # noqa: ANN401 any field
    ) -> agent_events.MessageReceived:
        """Lease an attempt; `data` replaces the input's bytes, but not what is signed."""
        image = scan(number)
        salt = hashlib.sha256(b"salt %d" % number).digest()
        fields: dict[str, Any] = {
            **self._base,
            "job": job_id(number),
            "epoch": epoch,
            "agent_id": self.agent.id,
            "session": session,
            "family": "digits",
            "variant": chosen_variant(),
            "inputs": (TensorDigest.of(image, salt),),
            "salt": salt,
            "outputs": (),
            "lease_ms": lease_ms,
            "max_output_bytes": 1 << 20,
        }
        payload = seal(self.key, Job(**{**fields, **changes}), [image.data if data is None else data])
        return agent_events.MessageReceived(TOPICS.jobs(self.agent.id), payload)

    def settled(
        self, number: int = 1, *, epoch: int = 1, outcome: str = "accepted", code: str | None = None
    ) -> agent_events.MessageReceived:
        """Settle an answer."""
        attempt = SettledAttempt(job=job_id(number), epoch=epoch, outcome=outcome, code=code)  # type: ignore[arg-type]
        statement = Settled(**self._base, agent_id=self.agent.id, settled=(attempt,))
        return agent_events.MessageReceived(TOPICS.settled(self.agent.id), seal(self.key, statement))

    def control(
        self, command: str, number: int | None = None, epoch: int | None = None
    ) -> agent_events.MessageReceived:
        """Command something."""
        statement = Control(
            **self._base,
            agent_id=self.agent.id,
            command=command,  # type: ignore[arg-type] # checked by the model
            job=None if number is None else job_id(number),
            epoch=epoch,
        )
        return agent_events.MessageReceived(TOPICS.control(self.agent.id), seal(self.key, statement))


def job_id(number: int) -> bytes:
    """Return the id of the fake coordinator's job of this number."""
    return hashlib.sha256(b"job %d" % number).digest()[:16]


def chosen_variant() -> bytes:
    """Return the digest of the variant that an `AgentScript` serves once it is `ready`."""
    return digits().variants[0].digest_bytes


class AgentScript:
    """An agent's core with a clock, a worker that is played by the test, and words for what tests do to it.

    Args:
        clock: shared with the fake coordinator.
        rules: limits and times.
        policy: the owner's.
        catalogue: what may be served.
        budget_bytes: memory for models.
    """

    def __init__(
        self,
        clock: ManualClock | None = None,
        *,
        name: str = "agent",
        rules: AgentRules | None = None,
        policy: Policy | None = None,
        catalogue: Catalogue | None = None,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self.clock = clock or ManualClock()
        self.key = key(name)
        self.id = self.key.public.id
        self.planner = Planner(
            catalogue or builtin(),
            policy or Policy(),
            MachineFacts(cpus=2.0),
            isa=MACHINE.isa,
            budget_bytes=budget_bytes,
            threads=2,
        )
        self.core = AgentCore(
            presence=Presence(self.key, TOPICS, MACHINE),
            coordinator_key=COORDINATOR_KEY.public,
            planner=self.planner,
            rules=rules or AgentRules(),
        )
        self.coordinator = FakeCoordinator(self.key.public, self.clock)

    def tell(self, *events: agent_events.Event) -> list[agent_events.Command]:
        """Apply events at the present moment; return all commands."""
        return [command for event in events for command in self.core.handle(event, self.clock.now)]

    def ready(self, session: int = 1) -> list[agent_events.Command]:
        """Connect, hear the hello, plan, and have the first variant chosen and loaded."""
        commands = self.tell(agent_events.LinkUp(session), self.coordinator.hello())
        commands += self.tell(agent_events.PlanRequested())
        commands += self.play_worker(commands)
        return [*commands, *self.worker_up()]

    def measured(self, **figures: int) -> None:
        """Have its variant's canary run found out something else."""
        (plan,) = self.planner.plans
        assert plan.chosen is not None
        plan.chosen = dataclasses.replace(plan.chosen, **figures)  # type: ignore[arg-type] # names of whole numbers

    def failures(self, commands: Sequence[agent_events.Command]) -> list[tuple[bytes, str, bool]]:
        """Return which attempts it says have failed, with their code and whether others may try."""
        said = [opened.statement for opened in self.said(commands, Failure)]
        return [(failure.job, failure.code, failure.retry) for failure in said]

    def worker_up(self, pid: int = 4000) -> list[agent_events.Command]:
        """Play a worker that starts, and loads whatever it is asked to."""
        commands = self.tell(WorkerStarted(pid, RUNTIME, ("CPUExecutionProvider",), 400.0))
        return [*commands, *self.play_worker(commands)]

    def play_worker(self, commands: Sequence[agent_events.Command]) -> list[agent_events.Command]:
        """Answer canary runs and loads until nothing more is asked; the first variant is the fastest.

        Starts of the worker and runs of jobs are left to the test.
        """
        said: list[agent_events.Command] = []
        waiting = list(commands)
        while waiting:
            command = waiting.pop(0)
            match command:
                case agent_events.RunCanary(variant=variant):
                    fastest = variant.digest_bytes == chosen_variant()
                    event: agent_events.Event = canary_done(variant.digest_bytes, p50_us=2000 if fastest else 5000)
                case agent_events.LoadModel(variant=variant):
                    event = ModelLoaded(variant.digest_bytes, 5.0, (), (), 1_000_000)
                case _:
                    continue
            more = self.tell(event)
            said += more
            waiting += more
        return said

    def run_done(self, run: agent_events.RunModel) -> list[agent_events.Command]:
        """Let the worker finish a run."""
        return self.tell(RunDone(run.token, answer_to(run.inputs[0]), 250))

    def tick_until(self, seconds: float) -> list[agent_events.Command]:
        """Let time pass, with a tick at every deadline that the core asks for."""
        end = self.clock.monotonic + seconds
        commands: list[agent_events.Command] = []
        while (due := self.core.next_deadline()) is not None and due <= end:
            self.clock.monotonic = max(self.clock.monotonic, due)
            commands += self.tell(agent_events.Tick())
        self.clock.monotonic = end
        return commands

    def said(self, commands: Iterable[object], kind: type[S]) -> list[Opened[S]]:
        """Return the agent's statements of one kind among what is published."""
        channel = {
            Birth: "birth",
            Offers: "offers",
            Progress: "progress",
            Result: "results",
            Failure: "results",
        }[kind]  # type: ignore[index] # the kinds that agents say
        found = []
        for command in of_type(commands, agent_events.Publish):
            if command.topic != f"ea1/{NETWORK}/{self.id}/{channel}":
                continue
            opened = open_envelope(
                command.payload, self.key.public, (Birth, Offers, Progress, Result, Failure), network=NETWORK,
                max_bytes=MAX_BYTES,
            )  # fmt: skip
            if isinstance(opened.statement, kind):
                found.append(opened)
        return found  # type: ignore[return-value] # filtered above


def canary_done(digest: bytes, *, p50_us: int = 300, golden_ok: bool = True, why: str = "") -> CanaryDone:
    """Make the outcome of a canary run."""
    return CanaryDone(
        digest=digest,
        p50_us=p50_us,
        p95_us=p50_us,
        runs=10,
        load_ms=5.0,
        peak_bytes=20_000_000,
        golden_ok=golden_ok,
        why=why,
        threads=2,
    )
