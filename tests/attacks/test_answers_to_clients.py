"""Answers that whoever sits at a coordinator's address gives to clients: packed, without end, or both."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from fakes import COORDINATOR_KEY, key, scan
from gateways import FakeService, served

from edge_agent.client import AsyncClient, Client, JobOptions
from edge_agent.client.steps import MAX_ANSWER_BYTES, Incoming, Send
from edge_agent.coordinator.gateway import inference
from edge_agent.errors import EdgeAgentError, MalformedError, TooLargeError, TransportError
from edge_agent.wire.oip_json import tensor_to_json
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


def outcome(url: str, send: Send, *, waiting: bool, far: bool = False) -> EdgeAgentError | int:
    """Make a call with either client, as if from afar; return the error, or how long the answer was."""

    async def ask() -> int:
        async with AsyncClient(url) as client:
            client._way.packs |= far
            return len((await client._send(send)).body)

    try:
        if not waiting:
            return asyncio.run(ask())
        with Client(url) as client:
            client._way.packs |= far
            return len(client._send(send).body)
    except EdgeAgentError as error:
        return error


@pytest.mark.parametrize("waiting", [True, False], ids=["waiting", "asyncio"])
def test_a_packed_answer_is_not_unpacked(waiting: bool) -> None:  # noqa: FBT001 as pytest passes it
    """64 KB that would be 64 MiB, and were not asked for: refused as they stand, without more memory."""
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


def test_an_answer_that_packing_makes_longer_may_have_its_whole_length() -> None:
    """Random bytes, exactly as many as may come: their packed form is longer than they are. One more is too many."""
    data = random.Random(1).randbytes(MOST_BYTES)
    packed = gzip.compress(data, mtime=0)
    assert len(packed) > MOST_BYTES
    with answering(lambda: iter((packed,)), coding="gzip") as (url, _):
        send = Send("GET", "/x", seconds=30.0, most_bytes=MOST_BYTES, packed=True)
        assert outcome(url, send, waiting=True, far=True) == MOST_BYTES
        one_less = Send("GET", "/x", seconds=30.0, most_bytes=MOST_BYTES - 1, packed=True)
        assert isinstance(outcome(url, one_less, waiting=True, far=True), TooLargeError)


@pytest.mark.parametrize("waiting", [True, False], ids=["waiting", "asyncio"])
def test_a_packed_answer_is_unpacked_to_its_limit(waiting: bool) -> None:  # noqa: FBT001 as pytest passes it
    """The same bomb, where it may come packed: no more of it comes to be than an answer may be long."""
    for unpacked_bytes, taken in ((MOST_BYTES, True), (MOST_BYTES + 1, False), (UNPACKED_BYTES, False)):
        body = gzip.compress(bytes(unpacked_bytes), mtime=0)
        with answering(lambda body=body: iter((body,)), coding="gzip") as (url, asked):  # type: ignore[misc] # bound now
            tracemalloc.start()
            try:
                send = Send("GET", "/x", seconds=30.0, most_bytes=MOST_BYTES, packed=True)
                found = outcome(url, send, waiting=waiting, far=True)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert found == MOST_BYTES if taken else isinstance(found, TooLargeError)
        assert peak < SLACK_BYTES
        assert asked == ["gzip"]


def endless_nothing() -> Iterator[bytes]:
    """Go on, in blocks that unpack to no byte at all."""
    yield gzip.compress(b"", mtime=0)[:10]
    while True:
        yield b"\0\0\0\xff\xff" * 10_000


GOOD = gzip.compress(b"[" * 10_000, mtime=0)


@pytest.mark.parametrize(
    ("body", "coding", "error", "why"),
    [
        (endless_nothing, "gzip", TooLargeError, "longer than"),
        (lambda: iter((GOOD[:-1],)), "gzip", MalformedError, "cannot be unpacked: the packed body is cut"),
        (lambda: iter((GOOD + GOOD,)), "gzip", MalformedError, "bytes follow"),
        (lambda: iter((b"no gzip",)), "gzip", MalformedError, "not in the coding"),
        (lambda: iter((GOOD,)), "gzip, gzip", MalformedError, "is packed"),
        (lambda: iter((GOOD,)), "br", MalformedError, "is packed"),
        (lambda: iter(()), "gzip", MalformedError, "is cut"),
    ],
    ids=["endless", "cut", "followed", "no-gzip", "twice", "brotli", "empty"],
)
def test_a_packed_answer_that_is_none(
    body: Callable[[], Iterator[bytes]], coding: str, error: type[EdgeAgentError], why: str
) -> None:
    """It is refused, and read no further than a whole one."""
    with answering(body, coding=coding) as (url, _):
        send = Send("GET", "/x", seconds=30.0, most_bytes=MOST_BYTES, packed=True)
        found = outcome(url, send, waiting=True, far=True)
    assert isinstance(found, error)
    assert why in found.message


@pytest.mark.parametrize(
    ("address", "packs"),
    [
        ("http://localhost:8420", False),
        ("http://127.0.0.1:8420", False),
        ("https://[::1]", False),
        ("https://club.example", True),
        ("http://localhost.example", True),
        ("http://192.168.0.7:8420", True),
    ],
)
def test_long_text_is_asked_for_packed_from_afar(address: str, packs: bool) -> None:  # noqa: FBT001 as above
    """On the same machine that would cost time and save none; binary answers, and what is short, come as they are."""
    with Client(address) as client:
        wanted = {"Accept-Encoding": "gzip" if packs else "identity"}
        assert client._way.accepted(Send("GET", "/x", packed=True)) == wanted
        assert client._way.accepted(Send("GET", "/x")) == {"Accept-Encoding": "identity"}


def test_json_comes_packed_from_the_gateway_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """From afar; the bytes beside the receipt are those of the answer, not of its packing."""
    monkeypatch.setattr(inference, "PACKED_FROM_BYTES", 10)
    request = json.dumps({"inputs": [tensor_to_json(scan(3))]}).encode()
    codings: list[str | None] = []
    with served(FakeService()) as url, Client(url) as client:
        client._http.event_hooks = {"response": [lambda answer: codings.append(answer.headers.get("Content-Encoding"))]}
        bodies = []
        for client._way.packs in (False, True):
            bodies.append(client.infer_json("digits", request, options=JobOptions(idempotency_key="one")).body)
    assert bodies[0] == bodies[1]
    assert json.loads(bodies[0])["outputs"]
    assert codings == [None, "gzip"]


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
