"""Answers that whoever sits at a coordinator's address gives to clients: packed, without end, or both."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from fakes import COORDINATOR_KEY, key

from edge_agent.client import AsyncClient, Client
from edge_agent.client.steps import MAX_ANSWER_BYTES, Incoming, Send
from edge_agent.errors import EdgeAgentError, MalformedError, TooLargeError, TransportError
from edge_agent.wire.receipts import MAX_RECEIPT_FILE_BYTES

MOST_BYTES = 200_000
UNPACKED_BYTES = 64 * 1024 * 1024
SLACK_BYTES = 4 * 1024 * 1024
"""What a call takes besides, the pieces that are read included: far less than what is unpacked."""


@contextmanager
def answering(body: Callable[[], Iterator[bytes]], *, coding: str = "", status: int = 200) -> Iterator[tuple[str, Any]]:
    """Answer each call alike; give the address, and the codings that were asked for."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            asked.append(self.headers["Accept-Encoding"])
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            if coding:
                self.send_header("Content-Encoding", coding)
            self.end_headers()
            try:
                for part in body():
                    self.wfile.write(part)
            except OSError:  # who reads it has gone
                return

        do_GET = do_POST = _answer  # noqa: N815 names of the base class

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def endless() -> Iterator[bytes]:
    """Go on until nobody reads."""
    while True:
        yield bytes(65_536)


def outcome(url: str, send: Send, *, waiting: bool) -> EdgeAgentError | int:
    """Make a call with either client; return the error, or how long the answer was."""

    async def ask() -> int:
        async with AsyncClient(url) as client:
            return len((await client._send(send)).body)

    try:
        if not waiting:
            return asyncio.run(ask())
        with Client(url) as client:
            return len(client._send(send).body)
    except EdgeAgentError as error:
        return error


@pytest.mark.parametrize("waiting", [True, False], ids=["waiting", "asyncio"])
def test_a_packed_answer_is_not_unpacked(waiting: bool) -> None:  # noqa: FBT001 as pytest passes it
    """64 KB that would be 64 MiB: refused as it stands, with no more memory than a short answer takes."""
    bomb = gzip.compress(bytes(UNPACKED_BYTES), mtime=0)
    assert len(bomb) < MOST_BYTES
    with answering(lambda: iter((bomb,)), coding="gzip") as (url, asked):
        tracemalloc.start()
        try:
            found = outcome(url, Send("GET", "/x", seconds=30.0, most_bytes=MOST_BYTES), waiting=waiting)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(found, MalformedError)
    assert "is packed (gzip)" in found.message
    assert peak < SLACK_BYTES
    assert asked == ["identity"]


@pytest.mark.parametrize("waiting", [True, False], ids=["waiting", "asyncio"])
def test_an_answer_is_read_to_its_limit(waiting: bool) -> None:  # noqa: FBT001 as pytest passes it
    """As long as it may be is whole; a byte more, or no end, is refused."""
    for body, taken in (
        (lambda: iter((bytes(MOST_BYTES),)), True),
        (lambda: iter((bytes(MOST_BYTES), b"x")), False),
        (endless, False),
    ):
        with answering(body) as (url, _):
            found = outcome(url, Send("GET", "/x", seconds=30.0, most_bytes=MOST_BYTES), waiting=waiting)
        assert found == MOST_BYTES if taken else isinstance(found, TooLargeError)


def test_receipts_and_certificates_without_end() -> None:
    """Each call has the limit of what it asks for: these were read until the memory was full."""
    with (
        answering(endless) as (url, _),
        Client(url, coordinator_key=COORDINATOR_KEY.public) as client,
        pytest.raises(TooLargeError, match=str(MAX_RECEIPT_FILE_BYTES)),
    ):
        client.receipt("00" * 16)
    with (
        answering(lambda: iter((b'{"network": "home"', b" " * 5_000, b"}"))) as (url, _),
        Client(url, coordinator_key=COORDINATOR_KEY.public, registrar_key=key("registrar").public) as client,
        pytest.raises(TooLargeError, match="/certificate is longer than 1280 bytes"),
    ):
        client.certificate("a" * 32)
    anything = Incoming(Send("GET", "/x"), 200, {})
    assert not anything.add(bytes(MAX_ANSWER_BYTES + 1))
    with pytest.raises(TooLargeError, match=str(MAX_ANSWER_BYTES)):
        anything.reply()


@pytest.mark.parametrize("coding", ["", "gzip"], ids=["endless", "packed"])
def test_a_refusal_without_end(coding: str) -> None:
    """A proxy's page is not read to its end either, nor unpacked; its status counts, so it is tried again."""
    with answering(endless, coding=coding, status=502) as (url, asked):
        retried: list[EdgeAgentError] = []
        with Client(url, deadline_seconds=60.0, on_retry=retried.append) as client:
            send = Send("GET", "/x", most_bytes=MOST_BYTES)
            steps = client._way.call(send, client._way.clock() + 0.01)
            with pytest.raises(TransportError, match="the coordinator answered 502"):
                client._run(steps)
    assert len(asked) == len(retried) + 1
