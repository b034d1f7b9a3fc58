"""A real HTTP server on loopback that misbehaves as it is told, one behaviour after another."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Behaviour = Callable[["Request"], None]


@dataclass
class Request:
    """One request, and the socket to answer on."""

    path: str
    headers: dict[str, str]
    connection: socket.socket
    data: bytes

    @property
    def start(self) -> int:
        """Where the asked range begins."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def head(self, status: str, **headers: str) -> None:
        """Send a status line and headers; underscores become hyphens."""
        lines = [f"HTTP/1.1 {status}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def good(self, data: bytes | None = None, until: int | None = None) -> None:
        """Answer as the protocol says, ranges included, but break off after `until` bytes of the file."""
        data = self.data if data is None else data
        start = self.start
        length = str(len(data) - start)
        if start:
            total = len(data)
            self.head("206 Partial", Content_Length=length, Content_Range=f"bytes {start}-{total - 1}/{total}")
        else:
            self.head("200 OK", Content_Length=length)
        self.connection.sendall(data[start:until])


def good(request: Request) -> None:
    """Answer as the protocol says."""
    request.good()


def lie(request: Request) -> None:
    """Send other bytes, as many as there should be."""
    request.good(bytes(byte ^ 1 for byte in request.data))


def without_ranges(request: Request) -> None:
    """Send the whole file whatever is asked."""
    request.head("200 OK", Content_Length=str(len(request.data)))
    request.connection.sendall(request.data)


def other_range(request: Request) -> None:
    """Send another part than was asked for."""
    request.head("206 Partial", Content_Length="4", Content_Range=f"bytes 0-3/{len(request.data)}")
    request.connection.sendall(request.data[:4])


def endless(request: Request) -> None:
    """Send bytes until the other side hangs up."""
    request.head("200 OK")
    try:
        request.connection.sendall(request.data)
        while True:
            request.connection.sendall(bytes(65536))
    except OSError:
        pass


def wrong_length(request: Request) -> None:
    """Announce more than there is."""
    request.head("200 OK", Content_Length=str(10**12))
    request.connection.sendall(request.data)


def packed(request: Request) -> None:
    """Say that the body is packed."""
    request.head("200 OK", Content_Encoding="gzip", Content_Length=str(len(request.data)))
    request.connection.sendall(request.data)


def reset(request: Request) -> None:
    """Cut the connection with a TCP reset."""
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def not_http(request: Request) -> None:
    """Say something else."""
    request.connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)


def cut_after(count: int) -> Behaviour:
    """Return a behaviour that breaks off before the byte `count` of the file."""
    return lambda request: request.good(until=count)


def status(line: str, **headers: str) -> Behaviour:
    """Return a behaviour that answers with this status line and no body."""
    return lambda request: request.head(line, Content_Length="0", **headers)


def redirect(where: str) -> Behaviour:
    """Return a behaviour that redirects."""
    return status("302 Found", Location=where)


def silent(request: Request) -> None:
    """Announce the file, send one byte, then nothing until the other side hangs up."""
    request.head("200 OK", Content_Length=str(len(request.data)))
    request.connection.sendall(request.data[:1])
    request.connection.recv(1)


@dataclass
class Mirror:
    """The server: what it has been asked, and what it will do next; the last behaviour is repeated."""

    port: int
    data: bytes
    behaviours: list[Behaviour]
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0

    @property
    def url(self) -> str:
        """Return an address of the file."""
        return f"http://127.0.0.1:{self.port}/model.onnx"

    def next(self) -> Behaviour:
        """Return the next behaviour."""
        return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]


@contextmanager
def mirror(data: bytes, *behaviours: Behaviour) -> Iterator[Mirror]:
    """Run a server on a free port; each request gets the next behaviour."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection: socket.socket = self.request
            raw = b""
            while b"\r\n\r\n" not in raw:
                part = connection.recv(65536)
                if not part:
                    return
                raw += part
            first, *lines = raw.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            server.requests.append((first.split(" ")[1], headers))
            server.next()(Request(first.split(" ")[1], headers, connection, server.data))

        def finish(self) -> None:
            """Leave the socket to the server."""

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:  # type: ignore[override] # the other side may hang up
            """Stay silent."""

    with Server(("127.0.0.1", 0), Handler) as tcp:
        server = Mirror(tcp.server_address[1], data, list(behaviours) or [good])
        thread = threading.Thread(target=tcp.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            tcp.shutdown()
            thread.join()
