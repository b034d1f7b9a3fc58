"""What a job would cost if it were nothing but what libraries do for it: a reference for how much of its cost is ours.

    python benchmarks/floor.py [--only tiny,vision-int8] [--seconds 2] [--rounds 5] [--cache FOLDER]

For each of the workloads of `peers.py`, medians of rounds that take turns:

- client: what sends the requests and reads the answers, on the same machine (that of `peers.py`);
- HTTP: uvicorn over httptools and uvloop, an application that reads the body and answers as many bytes as ours does;
- MQTT: a job to the agent and its result back, QoS 1, through Mosquitto between two paho clients in one process;
- digests: the inputs' by the coordinator and by the agent, the outputs' by both (SHA-256);
- signatures: job, result and receipt signed, result and job checked (Ed25519 of `cryptography`);
- CBOR: job, result and receipt written, job and result read (`cbor2`);
- SQLite: three rows and their commit, `synchronous=NORMAL`;
- worker: a run of the model in another process, one at a time, with our own way there and back.

`CPU` is processor time a job in milliseconds, all processes together, with eight requests and messages under way.
`together` divides by four what jobs of one moment can share: messages that are small, signatures, the transaction. Two
cores do 2000 / sum jobs a second, if nothing ever waits, and a share is of one bare session with one thread. `one` is
how long one job alone waits for each part, p50. None of it is a bound: other libraries, or other ways to share, may
cost less; a job that does the same with the same libraries has little reason to.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import queue
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import cbor2
import paho.mqtt.client as paho
import psutil
import uvicorn
from brokers import mosquitto
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from peerlab import own
from peerlab.load import Call, drive
from peerlab.workloads import CACHE, DATATYPES, Bare, Workload, workloads
from worker import Piped

from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

JOB_BYTES, RESULT_BYTES, ANSWER_BYTES = 650, 850, 650
"""Of a job, a result and an answer, as they are on the way, beside the tensors in them."""
CLIENTS = 8
TOGETHER = 4
SMALL_BYTES = 64 * 1024
"""Messages up to this length share packets."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a part of a job's way, in milliseconds: processor time with many under way, and the wait of one alone."""

    cpu_ms: float
    one_ms: float


Measure = Callable[[float], Cost]
"""Measures for about so many seconds."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of one job's tensors."""

    inputs: int
    outputs: int


def cpu_ms(processes: Sequence[psutil.Process]) -> float:
    """Return the processor time that these have taken."""
    return sum(sum(p.cpu_times()[:2]) for p in processes) * 1000


def serve(port: int, answer_bytes: int) -> None:
    """Answer every request with so many bytes."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401 ASGI's
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        head = [(b"content-type", b"application/json"), (b"content-length", str(answer_bytes).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": bytes(answer_bytes)})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", http="httptools", lifespan="off")


@contextmanager
def http(sizes: Sizes) -> Iterator[dict[str, Measure]]:
    """Give what measures the server of HTTP, and its client."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = get_context("spawn").Process(target=serve, args=(port, ANSWER_BYTES + sizes.outputs), daemon=True)
    process.start()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    server, url = [psutil.Process(process.pid)], f"http://127.0.0.1:{port}"
    call = Call("/", {"Content-Type": "application/json"}, [bytes(JOB_BYTES + sizes.inputs)])
    clients: list[float] = []

    def of_server(seconds: float) -> Cost:
        before, mine = cpu_ms(server), time.process_time()
        many = drive(url, call, clients=CLIENTS, seconds=seconds, warm_up_seconds=0.0)
        done = len(many.latencies_ms) + CLIENTS  # what was under way at the end was let end
        clients.append((time.process_time() - mine) * 1000 / done)
        cpu = (cpu_ms(server) - before) / done
        one = drive(url, call, clients=1, seconds=seconds / 3, warm_up_seconds=0.0)
        return Cost(cpu, statistics.median(one.latencies_ms))

    # The client's own waiting is part of what HTTP takes.
    yield {"HTTP": of_server, "client": lambda _: Cost(clients[-1], 0.0)}
    process.terminate()
    process.join()


@contextmanager
def mqtt(folder: Path, sizes: Sizes) -> Iterator[Measure]:
    """Give what measures two messages, one each way."""
    job, result = bytes(JOB_BYTES + sizes.inputs), bytes(RESULT_BYTES + sizes.outputs)
    with mosquitto(folder, "allow_anonymous true", "set_tcp_nodelay true", "persistence false") as port:
        answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        up = threading.Barrier(3)
        ends = []
        for here, there in (("a", "b"), ("b", "a")):
            end = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
            end.on_connect = lambda client, *_, here=here: client.subscribe(here, 1)
            end.on_subscribe = lambda *_: up.wait()
            if here == "b":
                end.on_message = lambda client, _, __, there=there: client.publish(there, result, 1)
            else:
                end.on_message = lambda _, __, message: answers.put(message.payload)
            end.connect("127.0.0.1", port)
            end.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.loop_start()
            ends.append(end)
        up.wait()
        broker = next(process for process in psutil.Process().children() if _listens(process, port))
        seen = [psutil.Process(), broker]

        def passing(seconds: float, at_once: int) -> list[float]:
            times, until = [], time.perf_counter() + seconds
            for _ in range(at_once):
                ends[0].publish("b", job, 1)
            while (now := time.perf_counter()) < until:
                answers.get()
                times.append((time.perf_counter() - now) * 1000)
                ends[0].publish("b", job, 1)
            for _ in range(at_once):
                answers.get()
            return times

        def measure(seconds: float) -> Cost:
            before = cpu_ms(seen)
            done = len(passing(seconds, CLIENTS)) + CLIENTS
            cpu = (cpu_ms(seen) - before) / done
            return Cost(cpu, statistics.median(passing(seconds / 3, 1)))

        yield measure
        for end in ends:
            end.disconnect()
            end.loop_stop()


def _listens(process: psutil.Process, port: int) -> bool:
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp"))


def timed(work: Callable[[], object]) -> Measure:
    """Return what measures work of this process."""

    def measure(seconds: float) -> Cost:
        before, done, until = time.process_time(), 0, time.perf_counter() + seconds / 3
        while time.perf_counter() < until:
            work()
            done += 1
        ms = (time.process_time() - before) * 1000 / done
        return Cost(ms, ms)

    return measure


def digests(sizes: Sizes) -> Callable[[], object]:
    """Return what both ends hash."""
    tensors = bytes(sizes.inputs), bytes(sizes.outputs)
    return lambda: [hashlib.sha256(tensor).digest() for tensor in tensors * 2]


def signatures() -> Callable[[], object]:
    """Return what signs three statements and checks two."""
    key, text = Ed25519PrivateKey.generate(), bytes(RESULT_BYTES)
    public, signature = key.public_key(), key.sign(text)

    def work() -> None:
        for _ in range(3):
            key.sign(text)
        for _ in range(2):
            public.verify(signature, text)

    return work


def cbor() -> Callable[[], object]:
    """Return what writes the statements of a job, its result and its receipt, and reads the first two."""
    statement = {f"field{n}": bytes(32) for n in range(12)} | {"inputs": [["image", "FP32", [1, 1, 8, 8], bytes(32)]]}

    def work() -> None:
        written = [cbor2.dumps(statement) for _ in range(3)]
        for data in written[:2]:
            cbor2.loads(data)

    return work


def rows(folder: Path) -> Callable[[], object]:
    """Return what writes a job, its attempt and its result."""
    base = sqlite3.connect(folder / "floor.db", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=NORMAL")
    base.execute("CREATE TABLE jobs (id BLOB PRIMARY KEY, said BLOB)")

    def work() -> None:
        base.execute("BEGIN")
        base.executemany("INSERT INTO jobs VALUES (?, ?)", [(os.urandom(16), bytes(RESULT_BYTES)) for _ in range(3)])
        base.execute("COMMIT")

    return work


@contextmanager
def worker(model: bytes, workload: Workload) -> Iterator[Measure]:
    """Give what measures a run in another process."""
    logging.disable(logging.CRITICAL)
    piped = Piped(1)
    piped.start()
    piped.load(bytes(32), model)
    (name, array), *_ = workload.inputs.items()
    tensor = Tensor(TensorSpec(name, DataType(DATATYPES[array.dtype.name]), array.shape), array.tobytes())
    seen = [psutil.Process(), psutil.Process(piped.worker.pid)]

    def measure(seconds: float) -> Cost:
        before, times, until = cpu_ms(seen), [], time.perf_counter() + seconds
        while (now := time.perf_counter()) < until:
            piped.run(bytes(32), tensor)
            times.append((time.perf_counter() - now) * 1000)
        return Cost((cpu_ms(seen) - before) / len(times), statistics.median(times))

    yield measure
    piped.worker.stop(10)


def table_of(workload: Workload, options: argparse.Namespace) -> list[str]:
    """Measure a workload; return the lines of its table."""
    repository = own.published(workloads(), options.cache) if workload.form is not None else None
    path = own.file_of(repository, workload.family, workload.form or "int8-static")
    bare = Bare(path, workload.inputs)
    sizes = Sizes(sum(array.nbytes for array in workload.inputs.values()), sum(map(len, bare.outputs())))
    found: dict[str, list[Cost]] = {}
    bare_ms: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        parts = {
            **stack.enter_context(http(sizes)),
            "MQTT": stack.enter_context(mqtt(folder, sizes)),
            "digests": timed(digests(sizes)),
            "signatures": timed(signatures()),
            "CBOR": timed(cbor()),
            "SQLite": timed(rows(folder)),
            "worker": stack.enter_context(worker(path.read_bytes(), workload)),
        }
        for _ in range(options.rounds):
            bare_ms.append(bare.ms(options.seconds / 3)[0])
            for part, measure in parts.items():
                found.setdefault(part, []).append(measure(options.seconds))
    run = statistics.median(bare_ms)
    shared = {"signatures", "SQLite"} | ({"MQTT"} if sizes.inputs <= SMALL_BYTES else set())
    lines = ["| part | CPU, ms a job | together | one, ms |", "|---|---|---|---|"]
    sums = [0.0, 0.0, 0.0]
    for part, costs in found.items():
        cpu, one = (statistics.median(values) for values in zip(*((c.cpu_ms, c.one_ms) for c in costs), strict=True))
        # Nothing is written before the answer: SQLite is behind it.
        figures = [cpu, cpu / TOGETHER if part in shared else cpu, 0.0 if part == "SQLite" else one]
        sums = [total + figure for total, figure in zip(sums, figures, strict=True)]
        lines.append(f"| {part} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |")
    lines.append("| sum | " + " | ".join(f"{total:.2f}" for total in sums) + " |")
    best = [2000 / sums[0], 2000 / sums[1]]
    lines.append(f"| jobs a second on two cores | {best[0]:.0f} | {best[1]:.0f} | |")
    lines.append(f"| share of a bare session of {run:.3f} ms | {best[0] * run / 1000:.2f} | "
                 f"{best[1] * run / 1000:.2f} | bare + {sums[2] - run:.2f} ms |")  # fmt: skip
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="tiny", help="workloads of peers.py (default tiny)")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"for models (default {CACHE})")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - {workload.name for workload in workloads()}:
        known = ", ".join(workload.name for workload in workloads())
        parser.error(f"no workload is called {', '.join(sorted(unknown))}; there are {known}")
    for workload in workloads():
        if workload.name in names:
            print(f"{workload.name}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n", flush=True)
            print("\n".join(table_of(workload, options)) + "\n", flush=True)


if __name__ == "__main__":
    main()
