"""A closed loop of HTTP clients on plain sockets in one thread: as little of the machine as a client can take."""

from __future__ import annotations

import selectors
import socket
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Call:
    """One request, again and again.

    Attributes:
        path: of the URL.
        headers: beside Host and Content-Length.
        bodies: sent in turn.
    """

    path: str
    headers: dict[str, str]
    bodies: Sequence[bytes]

    def packets(self, host: str) -> list[bytes]:
        """Return each request as it goes over the wire."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"POST {self.path} HTTP/1.1\r\nHost: {host}\r\n{lines}"
        return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in self.bodies]


@dataclass(slots=True)
class Load:
    """What came of a load; times in milliseconds, of answers after the warm-up alone."""

    seconds: float
    latencies_ms: list[float]
    last_answer: bytes

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds


class _Client:
    def __init__(self, host: str, port: int) -> None:
        self.connection = socket.create_connection((host, port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self.answer = bytearray()
        self.expected = -1
        self.started = 0.0

    def send(self, packet: bytes) -> None:
        self.answer.clear()
        self.expected = -1
        self.started = time.perf_counter()
        self.connection.sendall(packet)

    def receive(self) -> bool:
        """Take in what there is; return whether the answer is whole."""
        data = self.connection.recv(BUFFER_BYTES)
        if not data:
            raise ConnectionError(f"the server closed the connection after {bytes(self.answer[:200])!r}")
        self.answer += data
        if self.expected < 0:
            end = self.answer.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self.answer[:end]).lower()
            if not head.startswith(b"http/1.1 200"):
                raise ConnectionError(f"the server answered {bytes(self.answer[:600])!r}")
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            if not length:
                raise ConnectionError("the server answered without a Content-Length")
            self.expected = end + 4 + int(length)
        return len(self.answer) >= self.expected


def drive(url: str, call: Call, *, clients: int, seconds: float, warm_up_seconds: float) -> Load:
    """Keep `clients` requests under way for so long, each on a connection of its own.

    Raises:
        ConnectionError: the server gave up, or gave no 200.
    """
    address = urllib.parse.urlsplit(url)
    packets = call.packets(address.netloc)
    latencies: list[float] = []
    answer = b""
    counted_from = time.perf_counter() + warm_up_seconds
    until = counted_from + seconds
    number = 0
    with selectors.DefaultSelector() as selector:
        people = [_Client(address.hostname or "", address.port or 80) for _ in range(clients)]
        try:
            for person in people:
                selector.register(person.connection, selectors.EVENT_READ, person)
                person.send(packets[number % len(packets)])
                number += 1
            while (now := time.perf_counter()) < until:
                for key, _ in selector.select(until - now):
                    person = key.data
                    if not person.receive():
                        continue
                    ended = time.perf_counter()
                    if counted_from <= ended < until:
                        latencies.append((ended - person.started) * 1000)
                    answer = bytes(person.answer)
                    person.send(packets[number % len(packets)])
                    number += 1
            for person in people:  # what is still under way is let end
                while not person.receive():
                    pass
                answer = bytes(person.answer)
        finally:
            for person in people:
                person.connection.close()
    return Load(seconds, latencies, answer)
