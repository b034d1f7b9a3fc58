"""A stand-in for a coordinator's HTTP interface: answers what a test wants, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit


class HttpCoordinator(ThreadingHTTPServer):
    """Answers calls by their method and path.

    Attributes:
        answers: by `METHOD /path`: bytes, something for JSON, or a function of the query that returns either; `{}` for
            calls that are not there.
        asked: method, path with query, and body of each call.
        keys: what each call had in `Authorization`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: HttpCoordinator

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, json.loads(body) if body else {}))
        self.server.keys.append(self.headers.get("Authorization"))
        url = urlsplit(self.path)
        found = self.server.answers.get(f"{self.command} {url.path}", {})
        if callable(found):
            found = found(parse_qs(url.query))
        content = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 names of the base class

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
        """Say nothing."""


@contextmanager
def http_coordinator() -> Iterator[HttpCoordinator]:
    """Run one on a free port."""
    with HttpCoordinator() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
