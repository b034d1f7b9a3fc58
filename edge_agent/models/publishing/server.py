"""A small HTTP server for what a repository publishes: plain files, ranges, nothing else.

For tests and for a home. Any static server or object store does the same; the signatures, not the server, are what
agents trust.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, TYPE_CHECKING, Any

from edge_agent._version import __version__
from edge_agent.errors import TransportError

if TYPE_CHECKING:
    import logging
    from pathlib import Path

MAX_CONNECTIONS = 64
"""Served at once; further ones wait for a free place in the operating system's queue."""
IDLE_SECONDS = 30.0
"""A connection that says nothing, or takes nothing, for so long is closed."""

# Exactly what `layout` writes: one of three folders, a plain name, no leading dot (those are half-written files).
_PATH = re.compile(r"/(metadata|targets|sha256)/([A-Za-z0-9_-][A-Za-z0-9._-]{0,250})")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CHANGING = "timestamp.json"


class Server(ThreadingHTTPServer):
    """Serves one folder until `shutdown`.

    Args:
        address: host and port; port 0 takes a free one.
        public: the folder, `Layout.public`.
        log: a line for each request.

    Raises:
        TransportError: the address cannot be listened on.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], public: Path, log: logging.Logger) -> None:
        self.public = public
        self.log = log
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise TransportError(
                f"{address[0]} port {address[1]} cannot be listened on: {error.strerror or error}.",
                hint="Choose another address with --http HOST:PORT; port 0 takes a free one.",
            ) from error

    @property
    def url(self) -> str:
        """The catalogue's address."""
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:  # noqa: ANN401 as the base has it
        """Wait for a place, then serve in a thread."""
        self._places.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(
        self,
        request: socket.socket | tuple[bytes, socket.socket],
        client_address: Any,  # noqa: ANN401 as the base has it
    ) -> None:
        """Serve, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:  # noqa: ANN401 as the base has it
        """Say at debug level that a client went away; nothing else can go wrong while serving files."""
        error = sys.exception()
        self.log.debug("%s went away: %s", client_address[0], error, extra={"action": "client-gone"})


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"edge-agent/{__version__}"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        opened = self._open()
        if opened is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with opened as stream:
            size = os.fstat(stream.fileno()).st_size
            try:
                span = self._span(size)
            except ValueError:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, ("Content-Range", f"bytes */{size}"))
                return
            first, length = span or (0, size)
            self.send_response(HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK)
            self.send_header("Content-Length", str(length))
            if span:
                self.send_header("Content-Range", f"bytes {first}-{first + length - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", _content_type(self.path))
            self.send_header("ETag", self._etag())
            changing = self.path.endswith(_CHANGING)
            self.send_header("Cache-Control", "no-cache" if changing else "public, max-age=31536000, immutable")
            self.end_headers()
            if body and length:
                self.wfile.flush()
                self.connection.sendfile(stream, first, length)

    def _open(self) -> IO[bytes] | None:
        """Open the file that is asked for, if it is one that the repository publishes."""
        match = _PATH.fullmatch(self.path.split("?", 1)[0])
        if match is None:
            return None
        path = self.server.public / match[1] / match[2]
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return os.fdopen(descriptor, "rb")

    def _etag(self) -> str:
        """Name what never changes by its path; the timestamp has no tag that could be trusted."""
        return f'"{self.path.rsplit("/", 1)[-1]}"' if not self.path.endswith(_CHANGING) else 'W/"timestamp"'

    def _span(self, size: int) -> tuple[int, int] | None:
        """Return first byte and length of the range that is asked for; None for the whole file.

        Several ranges, and units that we do not know, are ignored, as RFC 9110 allows.

        Raises:
            ValueError: the range lies outside of the file.
        """
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if asked is None or not (asked[1] or asked[2]) or (condition is not None and condition != self._etag()):
            return None
        if not asked[1]:
            first, last = max(0, size - int(asked[2])), size - 1
        else:
            first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
        if first > last:
            raise ValueError
        return first, last - first + 1

    def _refuse(self, status: HTTPStatus, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 http.server's name
        """Log at info level, with the time and form of our own log."""
        self.server.log.info("%s %s", self.client_address[0], format % args, extra={"action": "served"})


def _content_type(path: str) -> str:
    return "application/json" if path.endswith(".json") else "application/octet-stream"
