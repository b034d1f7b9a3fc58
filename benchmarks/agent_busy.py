"""What one job costs the agent and its worker: jobs a second, and processor time of each by thread.

    python benchmarks/agent_busy.py [--jobs 1500] [--rounds 3] [--shapes 1x1,8x1,8x8,32x8]

A real agent process on Mosquitto serves the built-in digits; the coordinator is played by this script, which has
signed all that it says beforehand, so that the agent has the machine nearly to itself. A shape `WxK` means that at most
W jobs are under way and that K of them are signed together and share a packet, as a coordinator with many clients does.
Each K results are settled, together. When the clock has stopped, every result is opened, verified and compared with
what a bare session says. Figures are medians of the rounds; `woken` is how often a thread slept and was woken, for each
job.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Self

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import onnxruntime as ort
import psutil
from agents import Agent, Coordinator, running_agent
from brokers import Client, mosquitto, options
from fakes import COORDINATOR_KEY, NETWORK, TOPICS, digits, job_id

from edge_agent.inference.sessions import session_options
from edge_agent.models.catalogue import BUILTIN_DIR
from edge_agent.mqtt import Connected, LinkEvent, Message
from edge_agent.wire.envelope import attach, messages_in, open_envelope, seal_together
from edge_agent.wire.messages import Birth, Job, Result, Settled, SettledAttempt, TensorDigest
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

PATIENCE_SECONDS = 120.0
LEASE_MS = 120_000
SALT = bytes(32)
INPUTS = 16
"""So many different ones take turns."""


def images() -> list[Tensor]:
    """Return inputs for digits."""
    random = np.random.default_rng(0)
    spec = TensorSpec("image", DataType.FP32, (1, 1, 8, 8))
    return [Tensor(spec, (16 * random.random(spec.shape, np.float32)).astype("<f4").tobytes()) for _ in range(INPUTS)]


class Script:
    """What the coordinator is going to say: packets of jobs, and for each the packet that settles them."""

    def __init__(self, agent: Agent, birth: Birth, variant: bytes, inputs: Sequence[Tensor]) -> None:
        self._base = {"network": NETWORK, "issued_ms": 1_800_000_000_000, "agent_id": agent.key.id}
        self._session = birth.session
        self._variant = variant
        self._inputs = inputs
        self._number = 0

    def packet(self, count: int) -> tuple[bytes, bytes]:
        """Return a packet of jobs, and what settles them."""
        jobs, settled = [], []
        for _ in range(count):
            self._number += 1
            image = self._inputs[self._number % len(self._inputs)]
            fields = {"family": "digits", "variant": self._variant, "salt": SALT, "outputs": (), "epoch": 1}
            job = Job(
                **self._base,
                **fields,
                job=job_id(self._number),
                session=self._session,
                inputs=(TensorDigest.of(image, SALT),),
                lease_ms=LEASE_MS,
                max_output_bytes=1 << 20,
            )
            jobs.append((job, [image.data]))
            settled.append(SettledAttempt(job=job.job, epoch=1, outcome="accepted", code=None))
        said = Settled(**self._base, settled=tuple(settled))
        return b"".join(seal_together(COORDINATOR_KEY, jobs)), seal_together(COORDINATOR_KEY, [(said, ())])[0]


class Player:
    """Says a script as fast as the window allows. Its sink runs on the link's thread."""

    def __init__(self, agent: Agent, port: int) -> None:
        self._jobs, self._settled = TOPICS.jobs(agent.key.id), TOPICS.settled(agent.key.id)
        self._results = TOPICS.results(agent.key.id)
        self._client = Client(options(port, "player"), [self._results])
        self.packets: list[bytes] = []
        self._client.link._sink = self._sink  # noqa: SLF001 - without a queue and a thread in between
        self._script: deque[tuple[bytes, bytes]] = deque()
        self._under_way: deque[bytes] = deque()
        self._together, self._came, self._left = 1, 0, 0
        self._done, self._connected = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        self._client.__enter__()
        assert self._connected.wait(PATIENCE_SECONDS)
        return self

    def __exit__(self, *details: object) -> None:
        self._client.__exit__(*details)

    def play(self, script: Sequence[tuple[bytes, bytes]], window: int, together: int) -> float:
        """Say it all; return the seconds until everything was answered."""
        self._script, self._together = deque(script), together
        self._came, self._left = 0, len(script) * together
        self._done.clear()
        started = time.perf_counter()
        for _ in range(max(1, window // together)):
            self._next()
        if not self._done.wait(PATIENCE_SECONDS):
            raise SystemExit(f"{self._left} jobs were not answered")
        return time.perf_counter() - started

    def _next(self) -> None:
        if self._script:
            jobs, settled = self._script.popleft()
            self._under_way.append(settled)
            self._client.link.publish(self._jobs, jobs)

    def _sink(self, event: LinkEvent) -> None:
        if isinstance(event, Connected):
            self._connected.set()
        if not isinstance(event, Message) or event.topic != self._results:
            return
        self.packets.append(event.payload)
        count = len(messages_in(event.payload))
        self._came += count
        self._left -= count
        while self._came >= self._together and self._under_way:
            self._came -= self._together
            self._client.link.publish(self._settled, self._under_way.popleft())
            self._next()
        if not self._left:
            self._done.set()


def check(packets: Sequence[bytes], agent: Agent, variant: bytes, inputs: Sequence[Tensor]) -> int:
    """Fail unless every result is signed and right; return their number."""
    (file,) = [BUILTIN_DIR / entry.file for entry in digits().variants if entry.digest_bytes == variant]
    session = ort.InferenceSession(str(file), session_options(1), providers=["CPUExecutionProvider"])
    expected = {}
    for image in inputs:
        array = np.frombuffer(image.data, "<f4").reshape(image.spec.shape)
        expected[TensorDigest.of(image, SALT).digest] = [out.tobytes() for out in session.run(None, {"image": array})]
    count = 0
    for said in (message for packet in packets for message in messages_in(packet)):
        opened = open_envelope(said, agent.key, Result, network=NETWORK, max_bytes=1 << 20)
        outputs = attach(opened.statement.outputs, opened.attachments)
        assert [tensor.data for tensor in outputs] == expected[opened.statement.inputs[0].digest], "a wrong answer"
        count += 1
    return count


def threads(process: psutil.Process) -> dict[str, tuple[float, int]]:
    """Return the milliseconds of processor time, and how often it was woken, of each thread, by its place."""
    found = {}
    for number, folder in enumerate(
        sorted(Path(f"/proc/{process.pid}/task").iterdir(), key=lambda path: int(path.name))
    ):
        ran_ns = int((folder / "schedstat").read_text().split()[0])
        text = (folder / "status").read_text()
        found[f"{number}"] = (ran_ns / 1e6, int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]))
    return found


def measured(
    player: Player, agent: Agent, script: Sequence[tuple[bytes, bytes]], window: int, together: int
) -> dict[str, float]:
    """Play a script; return the figures of it."""
    assert agent.process is not None
    daemon = psutil.Process(agent.process.pid)
    (worker,) = daemon.children()
    before = {"agent": threads(daemon), "worker": threads(worker)}
    seconds = player.play(script, window, together)
    after = {"agent": threads(daemon), "worker": threads(worker)}
    jobs = len(script) * together
    figures = {"jobs/s": jobs / seconds}
    for name, found in after.items():
        spent = {thread: ms - before[name].get(thread, (0.0, 0))[0] for thread, (ms, _) in found.items()}
        woken = sum(count - before[name].get(thread, (0.0, 0))[1] for thread, (_, count) in found.items())
        figures[f"{name} ms"] = sum(spent.values()) / jobs
        figures[f"{name} woken"] = woken / jobs
        if name == "agent":
            figures["loop ms"] = spent["0"] / jobs
            others = sorted((ms for thread, ms in spent.items() if thread != "0"), reverse=True)
            figures["others ms"] = sum(others) / jobs
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1500, help="of each round (default 1500)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", default="1x1,8x1,8x8,32x8", help="window x jobs in a packet (default %(default)s)")
    args = parser.parse_args()
    shapes = [tuple(int(number) for number in shape.split("x")) for shape in args.shapes.split(",")]
    with (
        tempfile.TemporaryDirectory() as name,
        mosquitto(Path(name), "allow_anonymous true", "set_tcp_nodelay true") as port,
        running_agent(Path(name), port, LOG_LEVEL="warning", AGENT_MAX_IN_FLIGHT="64") as agent,
    ):
        with Coordinator(agent, port) as coordinator:
            birth = coordinator.wait_for_offers()
            coordinator.job(0, birth)  # so that the model is loaded
            coordinator.hear(Result)
            coordinator.settled(0)
            variant = coordinator._variant  # noqa: SLF001 - tests' own
        inputs = images()
        script = Script(agent, birth, variant, inputs)
        with Player(agent, port) as player:
            for window, together in shapes:
                player.play([script.packet(together) for _ in range(max(1, 200 // together))], window, together)
                rounds = []
                for _ in range(args.rounds):
                    said = [script.packet(together) for _ in range(max(1, args.jobs // together))]
                    rounds.append(measured(player, agent, said, window, together))
                figures = {key: statistics.median(entry[key] for entry in rounds) for key in rounds[0]}
                print(f"{window:3}x{together:<3}" + "  ".join(f"{key} {value:8.3f}" for key, value in figures.items()))
            checked = check(player.packets, agent, variant, inputs)
    print(f"{checked} results verified; load of the machine {os.getloadavg()[0]:.1f}; {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
