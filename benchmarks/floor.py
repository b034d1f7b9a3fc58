"""What a job of `tiny` would cost if nothing of it were ours: the same libraries, each doing its part and nothing else.

    python benchmarks/floor.py [--seconds 2] [--rounds 5]

Processor time a job, all processes together, in milliseconds; medians of rounds that take turns:

- HTTP: uvicorn over httptools and uvloop, an application that reads the body and answers as many bytes as ours does;
- MQTT: a job to the agent and its result back, QoS 1, through Mosquitto between two paho clients;
- signatures: job, result and receipt signed, result and job checked (Ed25519 of `cryptography`);
- CBOR: these statements written and read (`cbor2`);
- SQLite: three rows and their commit, `synchronous=NORMAL`;
- worker: a frame to another process and back around a run of the built-in model.

With `--together N` what jobs of one moment can share is divided by N: messages, signatures, the transaction. The sum is
what no program in Python with these libraries is below; two cores do 2000 / sum jobs a second, if nothing ever waits.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from peerlab.load import Call, drive
from worker import Piped

from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.models.scans import load_scans
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

JOB_BYTES, RESULT_BYTES, ANSWER_BYTES = 900, 900, 700
"""As they are on the way of a job of digits."""
CLIENTS = 8
SHARED = ("MQTT", "signatures", "SQLite")


def cpu_ms(processes: list[psutil.Process]) -> float:
    """Return the processor time that these have taken."""
    return sum(sum(p.cpu_times()[:2]) for p in processes) * 1000


def serve(port: int) -> None:
    """Answer every request with so many bytes."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401 ASGI's
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        head = [(b"content-type", b"application/json"), (b"content-length", str(ANSWER_BYTES).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": bytes(ANSWER_BYTES)})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", http="httptools", lifespan="off")


@contextmanager
def http() -> Iterator[Callable[[float], float]]:
    """Give what measures HTTP for so many seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    process.start()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    seen = [psutil.Process(process.pid)]
    call = Call("/", {"Content-Type": "application/json"}, [bytes(JOB_BYTES)])

    def measure(seconds: float) -> float:
        before = cpu_ms(seen)
        load = drive(f"http://127.0.0.1:{port}", call, clients=CLIENTS, seconds=seconds, warm_up_seconds=0.0)
        return (cpu_ms(seen) - before) / len(load.latencies_ms)

    yield measure
    process.terminate()
    process.join()


@contextmanager
def mqtt(folder: Path) -> Iterator[Callable[[float], float]]:
    """Give what measures two messages, one each way."""
    with mosquitto(folder, "allow_anonymous true", "set_tcp_nodelay true", "persistence false") as port:
        answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        up = threading.Barrier(3)
        ends = []
        for here, there in (("a", "b"), ("b", "a")):
            end = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
            end.on_connect = lambda client, *_, here=here: client.subscribe(here, 1)
            end.on_subscribe = lambda *_: up.wait()
            if here == "b":
                end.on_message = lambda client, _, __, there=there: client.publish(there, bytes(RESULT_BYTES), 1)
            else:
                end.on_message = lambda _, __, message: answers.put(message.payload)
            end.connect("127.0.0.1", port)
            end.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.loop_start()
            ends.append(end)
        up.wait()
        broker = next(p for p in psutil.process_iter(["name"]) if p.info["name"] == "mosquitto" and _listens(p, port))
        seen = [psutil.Process(), broker]

        def measure(seconds: float) -> float:
            before, done, until = cpu_ms(seen), 0, time.perf_counter() + seconds
            for _ in range(CLIENTS):
                ends[0].publish("b", bytes(JOB_BYTES), 1)
            while time.perf_counter() < until:
                answers.get()
                done += 1
                ends[0].publish("b", bytes(JOB_BYTES), 1)
            for _ in range(CLIENTS):
                answers.get()
            return (cpu_ms(seen) - before) / (done + CLIENTS)

        yield measure
        for end in ends:
            end.disconnect()
            end.loop_stop()


def _listens(process: psutil.Process, port: int) -> bool:
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp"))


def timed(work: Callable[[], object]) -> Callable[[float], float]:
    """Return what measures work of this process."""

    def measure(seconds: float) -> float:
        before, done, until = time.process_time(), 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            work()
            done += 1
        return (time.process_time() - before) * 1000 / done

    return measure


def signatures() -> Callable[[], object]:
    """Return what signs three statements and checks two."""
    key, text = Ed25519PrivateKey.generate(), bytes(JOB_BYTES)
    public, signature = key.public_key(), key.sign(text)

    def work() -> None:
        for _ in range(3):
            key.sign(text)
        for _ in range(2):
            public.verify(signature, text)

    return work


def cbor() -> Callable[[], object]:
    """Return what writes and reads the statements of a job, its result and its receipt."""
    statement = {f"field{n}": bytes(32) for n in range(12)} | {"inputs": [["image", "FP32", [1, 1, 8, 8], bytes(32)]]}
    return lambda: [cbor2.loads(cbor2.dumps(statement)) for _ in range(3)]


def rows(folder: Path) -> Callable[[], object]:
    """Return what writes a job, its attempt and its result."""
    base = sqlite3.connect(folder / "floor.db", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=NORMAL")
    base.execute("CREATE TABLE jobs (id BLOB PRIMARY KEY, said BLOB)")

    def work() -> None:
        base.execute("BEGIN")
        base.executemany("INSERT INTO jobs VALUES (?, ?)", [(os.urandom(16), bytes(JOB_BYTES)) for _ in range(3)])
        base.execute("COMMIT")

    return work


@contextmanager
def worker() -> Iterator[Callable[[float], float]]:
    """Give what measures a run in another process."""
    logging.disable(logging.CRITICAL)
    variant = builtin().family("digits").variant_named("int8-static")
    assert variant is not None
    piped, scan = Piped(1), load_scans()[0]
    piped.start()
    piped.load(bytes(32), (BUILTIN_DIR / variant.file).read_bytes())
    image = Tensor(TensorSpec("image", DataType.FP32, (1, 1, 8, 8)), bytes(scan.image))
    seen = [psutil.Process(), psutil.Process(piped.worker.pid)]

    def measure(seconds: float) -> float:
        before, done, until = cpu_ms(seen), 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            piped.run(bytes(32), image)
            done += 1
        return (cpu_ms(seen) - before) / done

    yield measure
    piped.worker.stop(10)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--together", type=int, default=4, help="so many jobs share what can be shared (default 4)")
    options = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as name, http() as over_http, mqtt(Path(name)) as over_mqtt, worker() as a_run:
        parts = {
            "HTTP": over_http,
            "MQTT": over_mqtt,
            "signatures": timed(signatures()),
            "CBOR": timed(cbor()),
            "SQLite": timed(rows(Path(name))),
            "worker": a_run,
        }
        found: dict[str, list[float]] = {part: [] for part in parts}
        for _ in range(options.rounds):
            for part, measure in parts.items():
                found[part].append(measure(options.seconds))
    print(f"| part | ms a job, alone | {options.together} together |\n|---|---|---|")
    sums = [0.0, 0.0]
    for part, figures in found.items():
        alone = statistics.median(figures)
        shared = alone / options.together if part in SHARED else alone
        sums = [sums[0] + alone, sums[1] + shared]
        print(f"| {part} | {alone:.3f} | {shared:.3f} |")
    print(f"| sum | {sums[0]:.2f} | {sums[1]:.2f} |")
    print(f"| jobs a second on two cores, at most | {2000 / sums[0]:.0f} | {2000 / sums[1]:.0f} |")


if __name__ == "__main__":
    main()
