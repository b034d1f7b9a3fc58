"""A gateway without a coordinator behind it: the service is played by the test, in process or over a real socket."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from fakes import COORDINATOR_KEY, NETWORK, TOPICS, FakeAgent, ManualClock, answer_to, digits, scan

from edge_agent.clock import system_now
from edge_agent.coordinator.core import Core
from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.gateway.app import make_app
from edge_agent.coordinator.gateway.connections import Connection
from edge_agent.coordinator.gateway.server import listen, serve
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.observation import Observation
from edge_agent.coordinator.operations import Operations
from edge_agent.coordinator.registry import Agent, Presence, Registry
from edge_agent.coordinator.requests import check_inputs
from edge_agent.coordinator.rows import StoredAgent, StoredAttempt, StoredJob
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.service import Accepted, AgentView
from edge_agent.coordinator.statements import Statements
from edge_agent.errors import EdgeAgentError
from edge_agent.models.catalogue import Family, builtin
from edge_agent.models.entries import Port
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, unpack_strings

JOB = bytes(range(16))
JOBS = f"/api/v1/jobs/{JOB.hex()}"
INFER = "/v2/models/digits/infer"
MAX_REQUEST_BYTES = 20_000
VARIANT = digits().variants[1]
REQUEST = {
    "id": "mine",
    "inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [3.0] * 64}],
}


Compute = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


STORED = (
    StoredAgent("someone", b"", True, 1, "edge-agent/1", 5, owner="ada"),
    StoredAgent("other", None, True, 0, "", None),
)


class PlayedOperations(Operations):
    """What the operator may see, without a database.

    Attributes:
        tried: attempts of whatever job.
        trusted: who is trusted how far.
    """

    def __init__(self, core: Core, stored: Sequence[StoredAgent]) -> None:
        super().__init__(core, None, system_now, lambda _: None)  # type: ignore[arg-type] # nothing below reads it
        self.stored = stored
        self.tried: list[StoredAttempt] = []
        self.trusted: list[dict[str, Any]] = []

    async def attempts(self, job_id: bytes) -> list[StoredAttempt]:
        """Give what the test says."""
        return self.tried

    async def standings(self) -> list[dict[str, Any]]:
        """Give what the test says."""
        return self.trusted

    async def stored_agents(self) -> Sequence[StoredAgent]:
        """Give what the test says."""
        return self.stored


class FakeService:
    """Stands in for the coordinator: remembers what it was asked and answers what the test says."""

    def __init__(self) -> None:
        self.counters: Mapping[str, int] = {"refused:bad-signature": 3}
        self.catalogue = builtin()
        self.network = NETWORK
        self.public_key = COORDINATOR_KEY.public
        registry, statements = Registry(admit_anyone=True), Statements(COORDINATOR_KEY, TOPICS)
        core = Core(statements=statements, catalogue=self.catalogue, registry=registry, rules=Rules())
        leasing = core.leasing
        self.operations = PlayedOperations(core, STORED)
        self.observed = Observation(system_now, registry, leasing, self.counters, lambda: True)
        self.ready = True
        self.offers = True
        self.submitted: list[dict[str, Any]] = []
        self.cancelled: list[bytes] = []
        self.listed: list[tuple[int, str | None]] = []
        self.refuses: EdgeAgentError | None = None
        self.compute: Compute | None = None
        self._computed: dict[bytes, Outcome] = {}
        self.repeated = False
        self.waits: Outcome | None = Outcome(
            JOB,
            JobState.SUCCEEDED,
            outputs=answer_to(scan(3)),
            receipt=b"receipt",
            agent_id="someone",
            variant=VARIANT.digest_bytes,
            run_us=250,
        )
        self.stored: StoredJob | None = StoredJob(
            id=JOB,
            family="digits",
            state=JobState.SUCCEEDED,
            epoch=1,
            submitted_ms=1000,
            ended_ms=2000,
            agent_id="someone",
            variant=VARIANT.digest_bytes,
            run_us=250,
            outputs=answer_to(scan(3)),
            receipt=b"receipt",
            error=None,
        )

    def serve(self, family: Family, compute: Compute) -> None:
        """Serve this family, too, and compute outputs; each job is then one of its own."""
        families = (*self.catalogue.families, family)
        self.catalogue = self.catalogue.model_copy(update={"families": families})
        self.compute = compute

    def offered(self, family: str, variant: bytes | None = None) -> bool:
        """Whether the test says so; of the variants, only one."""
        return self.offers and variant in {None, VARIANT.digest_bytes}

    async def submit(
        self,
        family: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[str, ...],
        **options: Any,  # noqa: ANN401 as given
    ) -> Accepted:
        """Check as the coordinator does, and keep what came."""
        check_inputs(self.catalogue.family(family), inputs, outputs)
        if self.refuses is not None:
            raise self.refuses
        self.submitted.append({"family": family, "inputs": inputs, "outputs": outputs, **options})
        if self.compute is None:
            return Accepted(JOB, self.repeated)
        job_id = len(self.submitted).to_bytes(16, "big")
        computed = tuple(tensor for tensor in self.compute(inputs) if not outputs or tensor.name in outputs)
        self._computed[job_id] = Outcome(job_id, JobState.SUCCEEDED, outputs=computed, receipt=b"receipt")
        return Accepted(job_id, self.repeated)

    async def outcome(self, job_id: bytes, timeout_seconds: float) -> Outcome | None:
        """Give what the test says."""
        assert job_id == JOB or job_id in self._computed
        return self.waits if job_id == JOB else self._computed[job_id]

    async def job(self, job_id: bytes) -> StoredJob | None:
        """Give what the test says."""
        return self.stored if job_id == JOB else None

    def cancel(self, job_id: bytes) -> None:
        """Remember it."""
        self.cancelled.append(job_id)

    async def jobs(self, limit: int, client: str | None) -> list[StoredJob]:
        """Give what the test says, and remember the question."""
        self.listed.append((limit, client))
        return [self.stored] if self.stored else []

    async def agents(self) -> list[AgentView]:
        """Give one agent that is here and one that is not."""
        here = FakeAgent("someone", ManualClock())
        live = Agent("someone", here.key.public, presence=Presence.ONLINE, offers={"digits": here.offer()})
        live.labels = frozenset({"region=eu", "kitchen"})
        return [
            AgentView(STORED[0], live),
            AgentView(STORED[1], None),
        ]


def family_of(name: str, inputs: dict[str, tuple[str, tuple[int | str, ...]]], outputs: dict[str, Any]) -> Family:
    """Return a family with these ports: data type and shape by name."""

    def ports(described: dict[str, Any]) -> tuple[Port, ...]:
        return tuple(Port(name=port, datatype=kind, shape=shape) for port, (kind, shape) in described.items())

    return digits().model_copy(
        update={"name": name, "metric": None, "inputs": ports(inputs), "outputs": ports(outputs), "usual": ()}
    )


def echo(datatype: DataType) -> Family:
    """Return a family that gives back a vector of this type, named `y`, as it came, named `x`."""
    return family_of(f"echo-{datatype.value.lower()}", {"x": (datatype.value, ("N",))}, {"y": (datatype.value, ("N",))})


def echoed(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Compute what `echo` gives."""
    (given,) = inputs
    return (Tensor(TensorSpec("y", given.spec.datatype, given.spec.shape), given.data),)


def call(service: FakeService, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 httpx's own
    """Call the application in this process."""

    async def answer() -> httpx.Response:
        app = make_app(service, max_request_bytes=MAX_REQUEST_BYTES, wait_seconds=1.0)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, **options)

    return asyncio.run(answer())


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that a call was refused so; return the body."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(body["error"], str)
    return body


@contextmanager
def served(
    service: FakeService,
    *,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    connection: type[Connection] = Connection,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Iterator[str]:
    """Serve the application on a free port, in a thread and a loop of its own; give its base URL."""
    ready: list[str] = []
    up, stop = threading.Event(), threading.Event()

    async def run() -> None:
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_ready(base_url: str) -> None:
            ready.append(base_url)
            up.set()

        def end() -> None:
            stop.wait()
            loop.call_soon_threadsafe(ending.set)

        app = make_app(service, max_request_bytes=max_request_bytes, wait_seconds=5.0)
        waiting = threading.Thread(target=end)
        waiting.start()
        try:
            await serve(app, listen("127.0.0.1", 0), ending, on_ready, connection=connection)
        finally:
            up.set()
            stop.set()
            waiting.join()

    def serve_all() -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=serve_all)
    thread.start()
    try:
        assert up.wait(30)
        yield ready[0]
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


VECTOR_SIZE = 3
VECTORS = family_of("vectors", {"text": ("BYTES", ("N",))}, {"embedding": ("FP32", ("N", VECTOR_SIZE))})
"""A family that turns texts into vectors."""


def embedded(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give each text the vector (its length, 2, 1)."""
    (texts,) = inputs
    (count,) = texts.spec.shape
    rows = [struct.pack("<3f", len(text), 2.0, 1.0) for text in unpack_strings(texts.data, count)]
    return (Tensor(TensorSpec("embedding", DataType.FP32, (count, VECTOR_SIZE)), b"".join(rows)),)
