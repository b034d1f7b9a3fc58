"""Brokers for tests: a real Mosquitto, the embedded one, a scripted one, and a cable to cut."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import queue
import random
import socket
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Self, TypeVar

import needs
import tied

from edge_agent.coordinator import broker as embedded
from edge_agent.mqtt import BrokerAddress, Link, LinkEvent, LinkOptions, Will

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

E = TypeVar("E", bound=LinkEvent)
PATIENCE_SECONDS = 60.0  # only a failing test waits so long


class MosquittoError(RuntimeError):
    """Mosquitto did not come up; the message is what it said."""


@contextlib.contextmanager
def mosquitto(folder: Path, *lines: str) -> Iterator[int]:
    """Run a Mosquitto with more lines of configuration; yields its port on 127.0.0.1."""
    program = needs.tool("mosquitto")
    for attempt in range(10):
        try:
            process, port = _start_mosquitto(program, folder, lines)
        except MosquittoError as error:
            # It cannot take port 0, so somebody else may have been given the port in between: take another.
            if attempt == 9 or "in use" not in str(error):
                raise
            continue
        try:
            yield port
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)
        return


def _start_mosquitto(program: str, folder: Path, lines: Sequence[str]) -> tuple[subprocess.Popen[str], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = folder / f"mosquitto-{port}.conf"
    user = pwd.getpwuid(os.getuid()).pw_name
    text = [f"user {user}", "log_dest stderr", "connection_messages false", f"listener {port} 127.0.0.1"]
    config.write_text("\n".join([*text, *lines, ""]))
    process = tied.start([program, "-c", str(config)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.rstrip().endswith("running"):
            return process, port
    process.communicate(timeout=PATIENCE_SECONDS)
    raise MosquittoError("".join(said))


@contextlib.contextmanager
def amqtt(max_message_bytes: int = 8 * 2**20) -> Iterator[int]:
    """Run the embedded broker in a thread; yields its port on 127.0.0.1."""
    needs.module("amqtt")
    ready: queue.Queue[tuple[int, Callable[[], object]]] = queue.Queue()

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_ready(_host: str, port: int) -> None:
            ready.put((port, lambda: loop.call_soon_threadsafe(stop.set)))

        await embedded.serve("127.0.0.1", 0, on_ready=on_ready, max_message_bytes=max_message_bytes, stop=stop)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    port, stop = ready.get(timeout=PATIENCE_SECONDS)
    try:
        yield port
    finally:
        stop()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


class Client:
    """A link together with the queue that is its sink."""

    def __init__(
        self,
        options: LinkOptions,
        subscriptions: Sequence[str] = (),
        *,
        will: Callable[[], Will | None] = lambda: None,
    ) -> None:
        self.events: queue.Queue[LinkEvent] = queue.Queue()
        log = logging.getLogger("tests.link")
        self.link = Link(options, subscriptions, self.events.put_nowait, will=will, rng=random.Random(1), log=log)

    def __enter__(self) -> Self:
        self.link.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.link.stop(0.05)

    def next(self, seconds: float = PATIENCE_SECONDS) -> LinkEvent:
        """Return the next event, or fail."""
        return self.events.get(timeout=seconds)

    def expect(self, kind: type[E]) -> E:
        """Return the next event, which must be of that kind."""
        event = self.next()
        assert isinstance(event, kind), event
        return event

    def skip_to(self, kind: type[E], seconds: float = PATIENCE_SECONDS) -> E:
        """Return the next event of that kind."""
        while not isinstance(event := self.next(seconds), kind):
            pass
        return event


def options(port: int, client_id: str = "tester", **changes: object) -> LinkOptions:
    """Return options for a broker on that port, which come back quickly."""
    defaults: dict[str, object] = {"backoff_initial_seconds": 0.001, "backoff_max_seconds": 0.01}
    address = BrokerAddress("127.0.0.1", port)
    return LinkOptions(**({"address": address, "client_id": client_id} | defaults | changes))  # type: ignore[arg-type]


# -- a broker that says what the test wants ------------------------------------------------------------------

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, DISCONNECT = 1, 2, 3, 4, 8, 9, 14


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    """Build an MQTT packet."""
    length, rest = bytearray(), len(body)
    while True:
        rest, digit = divmod(rest, 128)
        length.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes([kind << 4 | flags]) + bytes(length) + body


class Peer:
    """The broker's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE_SECONDS)

    def read(self) -> tuple[int, bytes]:
        """Read a packet; return its kind and what follows the length."""
        first = self._read(1)[0]
        length = shift = 0
        while True:
            digit = self._read(1)[0]
            length |= (digit & 127) << shift
            shift += 7
            if not digit & 128:
                return first >> 4, self._read(length)

    def expect(self, kind: int) -> bytes:
        """Read a packet, which must be of that kind."""
        got, body = self.read()
        assert got == kind, (got, body)
        return body

    def at_end(self) -> bool:
        """Say whether the client closed the connection without another word."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def send(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Send a packet."""
        self.sock.sendall(packet(kind, body, flags))

    def welcome(self, properties: bytes | None = None) -> bytes:
        """Accept the CONNECT; return its body."""
        connect = self.expect(CONNECT)
        v5 = connect[6] == 5
        self.send(CONNACK, b"\0\0" + (packet(0, properties or b"")[1:] if v5 else b""))
        return connect

    def grant(self, *codes: int) -> None:
        """Answer the SUBSCRIBE with these codes."""
        mid = self.expect(SUBSCRIBE)[:2]
        self.send(SUBACK, mid + (b"\0" if self._v5 else b"") + bytes(codes))

    _v5 = True

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            assert more, "the client closed the connection"
            data += more
        return data


class ScriptedBroker:
    """Listens, and leaves every word of the protocol to the test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = [self._listener]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._open:
            sock.close()

    def accept(self, *, v5: bool = True) -> Peer:
        """Wait for the next connection."""
        sock, _ = self._listener.accept()
        self._open.append(sock)
        peer = Peer(sock)
        peer._v5 = v5
        return peer


class Cable:
    """A TCP relay to a broker that can be cut, or clogged so that nothing comes through any more."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._clogged = threading.Event()

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + PATIENCE_SECONDS
        while any(thread.is_alive() for thread in self._threads):
            assert time.monotonic() < end
            self.cut()  # also what was connected meanwhile
            for thread in list(self._threads):
                thread.join(0.1)
        self._listener.close()
        for end in self._ends:
            end.close()

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)

    def clog(self) -> None:
        """Swallow everything from now on."""
        self._clogged.set()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._ends += [near, far]
            self._spawn(self._relay, near, far)
            self._spawn(self._relay, far, near)

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self._clogged.is_set():
                    target.sendall(data)
            if not self._clogged.is_set():  # what swallows everything swallows an end, too
                target.shutdown(socket.SHUT_WR)
