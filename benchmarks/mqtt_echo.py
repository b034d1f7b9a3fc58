"""How long does one MQTT message take there and back, and how many go through?

Two links and a broker, all on this machine: one link publishes, the other sends back what it gets. Prints the median
round trip in a closed loop and the messages per second with eight in flight; medians over the rounds. "bare paho" is
two paho clients with their own threads and TCP_NODELAY, as the yardstick of the same minute.

    python benchmarks/mqtt_echo.py [--seconds 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import queue
import random
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import paho.mqtt.client as paho
from brokers import amqtt, mosquitto
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_agent.mqtt import BrokerAddress, Connected, Link, LinkEvent, LinkOptions, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Event

SIZES = (1024, 600 * 1024)
WINDOW = 8


class End(Protocol):
    """One end of the echo."""

    def publish(self, topic: str, payload: bytes, qos: int) -> object:
        """Send."""

    def stop(self) -> object:
        """Leave."""


class LinkEnd:
    """An end made of our link."""

    def __init__(self, port: int, version: str, topic: str, got: Callable[[bytes], None]) -> None:
        up: queue.Queue[object] = queue.Queue()

        def sink(event: LinkEvent) -> None:
            if isinstance(event, Message):
                got(event.payload)
            elif isinstance(event, Connected):
                up.put(event)

        options = LinkOptions(
            address=BrokerAddress("127.0.0.1", port),
            client_id=f"bench-{topic}",
            protocol="5" if version == "5" else "3.1.1",
        )
        log = logging.getLogger("bench")
        self._link = Link(options, [topic], sink, will=lambda: None, rng=random.Random(), log=log)
        self._link.start()
        up.get(timeout=10)

    def publish(self, topic: str, payload: bytes, qos: int) -> object:
        """Send."""
        return self._link.publish(topic, payload, qos=qos)

    def stop(self) -> object:
        """Leave."""
        return self._link.stop(1.0)


class PahoEnd:
    """An end made of a bare paho client with its own thread."""

    def __init__(self, port: int, version: str, topic: str, got: Callable[[bytes], None]) -> None:
        up: queue.Queue[object] = queue.Queue()
        protocol = MQTTProtocolVersion.MQTTv5 if version == "5" else MQTTProtocolVersion.MQTTv311
        client = paho.Client(CallbackAPIVersion.VERSION2, f"bench-{topic}", protocol=protocol)
        client.on_socket_open = lambda *a: a[2].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.on_connect = lambda *_: client.subscribe(topic, 1)
        client.on_subscribe = lambda *_: up.put(None)
        client.on_message = lambda *a: got(a[2].payload)
        client.connect("127.0.0.1", port)
        client.loop_start()
        up.get(timeout=10)
        self._client = client

    def publish(self, topic: str, payload: bytes, qos: int) -> object:
        """Send."""
        return self._client.publish(topic, payload, qos)

    def stop(self) -> object:
        """Leave."""
        self._client.disconnect()
        return self._client.loop_stop()


ENDS: dict[str, type[LinkEnd | PahoEnd]] = {"link": LinkEnd, "bare paho": PahoEnd}


class Row(NamedTuple):
    """What is measured."""

    port: int
    version: str
    qos: int
    size: int


def echo(kind: str, row: Row, ready: Event, stop: Event) -> None:
    """Send back what comes, in a process of its own, from a thread that is not the network's."""
    got: queue.Queue[bytes] = queue.Queue()
    end = ENDS[kind](row.port, row.version, "ping", got.put)
    ready.set()
    while not stop.is_set():
        with contextlib.suppress(queue.Empty):
            end.publish("pong", got.get(timeout=0.1), row.qos)
    end.stop()


class Figures(NamedTuple):
    """One round of one row."""

    p50_ms: float
    per_second: float


def measure(row: Row, kind: str, seconds: float) -> Figures:
    """Run one round."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=echo, args=(kind, row, ready, stop))
    process.start()
    ready.wait(20)
    got: queue.Queue[bytes] = queue.Queue()
    end = ENDS[kind](row.port, row.version, "pong", got.put)
    payload = bytes(row.size)
    try:
        trips: list[float] = []
        finish = time.perf_counter() + seconds
        while (began := time.perf_counter()) < finish:
            end.publish("ping", payload, row.qos)
            got.get(timeout=20)
            trips.append(time.perf_counter() - began)
        warm = trips[len(trips) // 5 :]
        for _ in range(WINDOW):
            end.publish("ping", payload, row.qos)
        count, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            got.get(timeout=20)
            end.publish("ping", payload, row.qos)
            count += 1
        rate = count / (time.perf_counter() - began)
        for _ in range(WINDOW):
            got.get(timeout=20)
    finally:
        end.stop()
        stop.set()
        process.join(20)
    return Figures(statistics.median(warm) * 1000, rate)


@contextlib.contextmanager
def brokers() -> Iterator[list[tuple[str, int, tuple[str, ...]]]]:
    """Run the brokers: name, port and versions of MQTT."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stock = stack.enter_context(mosquitto(Path(folder), "allow_anonymous true"))
        tuned = stack.enter_context(mosquitto(Path(folder), "allow_anonymous true", "set_tcp_nodelay true"))
        embedded = stack.enter_context(amqtt())
        yield [
            ("mosquitto, stock", stock, ("5", "3.1.1")),
            ("mosquitto, nodelay", tuned, ("5", "3.1.1")),
            ("amqtt", embedded, ("3.1.1",)),
        ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each closed loop")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'broker':20} {'client':10} {'MQTT':6} {'QoS':3} {'bytes':>7} {'p50 ms':>8} {'msg/s':>8}")
    with brokers() as running:
        for name, port, versions in running:
            for version in versions:
                for size, qos in ((SIZES[0], 1), (SIZES[0], 0), (SIZES[1], 1)):
                    row = Row(port, version, qos, size)
                    rounds: dict[str, list[Figures]] = {kind: [] for kind in ENDS}
                    for _ in range(arguments.rounds):  # side by side: machines change their speed
                        for kind, done in rounds.items():
                            done.append(measure(row, kind, arguments.seconds))
                    for kind, done in rounds.items():
                        p50 = statistics.median(f.p50_ms for f in done)
                        rate = statistics.median(f.per_second for f in done)
                        head = f"{name:20} {kind:10} {version:6} {qos:3} {size:7}"
                        print(f"{head} {p50:8.3f} {rate:8.0f}", flush=True)


if __name__ == "__main__":
    main()
