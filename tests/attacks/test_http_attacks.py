"""What strangers may do to the coordinator's HTTP: each attack by its name, against real sockets where it needs them.

The service behind is played by the test, so that what must not have changed can be seen: nothing was submitted, and
others are still answered.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import select
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fakes import scan
from gateways import INFER, MAX_REQUEST_BYTES, REQUEST, FakeService, call, echo, echoed, refused, served
from needs import absent
from starlette.requests import Request

from edge_agent.coordinator.gateway.connections import Connection
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.errors import InputError, TransportError
from edge_agent.wire.oip_json import MAX_TENSORS, OutputForm, body_of
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

PATIENCE_SECONDS = 30.0
LONG_BYTES = 12 * 1024 * 1024
"""Longer than the kernel keeps for a reader that does not read."""


def connections(**limits: float) -> type[Connection]:
    """Return connections with other limits."""
    return type("Connection", (Connection,), limits)


@contextmanager
def connected(base_url: str, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """Connect without speaking HTTP by itself."""
    address = urlsplit(base_url)
    with socket.socket() as made:
        if receive_bytes is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.settimeout(PATIENCE_SECONDS)
        made.connect((address.hostname, address.port))
        yield made


def until_the_end(connection: socket.socket) -> bytes:
    """Return all that comes until the other side ends the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def still_answers(base_url: str, service: FakeService, *, submitted: int = 0) -> None:
    """Check that somebody else is served, and that nothing of the attack became a job."""
    assert len(service.submitted) == submitted
    answer = httpx.post(f"{base_url}{INFER}", json=REQUEST, trust_env=False, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200
    assert len(service.submitted) == submitted + 1


def head(*lines: str, path: str = INFER) -> bytes:
    """Return the head of a POST."""
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: here", *lines, "", "")).encode()


@pytest.fixture
def service() -> FakeService:
    """Return a service that accepts and succeeds."""
    return FakeService()


# -- bodies -------------------------------------------------------------------------------------------------------


def test_a_body_that_is_cut_becomes_no_job(service: FakeService) -> None:
    """However often: what it took is given back."""
    body = json.dumps(REQUEST).encode()
    with served(service) as base_url:
        for _ in range(20):
            with connected(base_url) as connection:
                connection.sendall(head(f"Content-Length: {MAX_REQUEST_BYTES}") + body[: len(body) // 2])
        still_answers(base_url, service)


def test_a_body_that_is_cut_is_told_as_such() -> None:
    """To whoever may still listen."""

    async def receive() -> Any:  # noqa: ANN401 a message of ASGI
        return {"type": "http.disconnect"}

    async def script() -> int:
        intake = Intake(max_request_bytes=100, max_bytes=150)
        with pytest.raises(InputError, match="is cut"):
            async with intake.body(Request({"type": "http", "method": "POST", "headers": []}, receive)):
                pass
        return intake.held_bytes

    assert asyncio.run(script()) == 0


def test_a_body_without_end_is_refused_and_its_connection_ended(service: FakeService) -> None:
    """Reading stops at the limit; what still comes is passed over for a while, and no longer."""
    with served(service, connection=connections(head_seconds=0.2)) as base_url, connected(base_url) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
        with suppress(ConnectionError):
            while True:
                connection.sendall(chunk)
        still_answers(base_url, service)


def test_a_body_that_is_too_long_is_told_before_the_connection_ends(service: FakeService) -> None:
    """A client that stops in time reads the status and the code."""
    with served(service, connection=connections(head_seconds=0.2)) as base_url, connected(base_url) as connection:
        connection.sendall(head(f"Content-Length: {10 * MAX_REQUEST_BYTES}") + b" " * 100)
        answer = until_the_end(connection)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"code":"too-large"' in answer
        still_answers(base_url, service)


def test_a_body_that_does_not_go_on_is_given_up() -> None:
    """With the code `timeout`, and nothing is held for it any more."""

    async def script() -> tuple[str, int]:
        intake = Intake(max_request_bytes=100, max_bytes=150, grace_seconds=0.01)
        first = [{"type": "http.request", "body": b"some", "more_body": True}]

        async def receive() -> Any:  # noqa: ANN401 a message of ASGI
            return first.pop() if first else await asyncio.Event().wait()

        with pytest.raises(TransportError) as caught:
            async with intake.body(Request({"type": "http", "method": "POST", "headers": []}, receive)):
                pass
        return caught.value.error_code, intake.held_bytes

    assert asyncio.run(script()) == ("timeout", 0)


def test_who_announces_much_and_sends_nothing_locks_nobody_out() -> None:
    """Only what has come counts as taken."""

    async def never() -> Any:  # noqa: ANN401 a message of ASGI
        return await asyncio.Event().wait()

    def request(receive: Any) -> Request:  # noqa: ANN401 as above
        return Request({"type": "http", "method": "POST", "headers": [(b"content-length", b"100")]}, receive)

    async def whole() -> Any:  # noqa: ANN401 as above
        return {"type": "http.request", "body": bytes(100), "more_body": False}

    async def script() -> int:
        intake = Intake(max_request_bytes=100, max_bytes=100)

        async def stall() -> None:
            async with intake.body(request(never)):
                pass

        stalled = [asyncio.create_task(stall()) for _ in range(50)]
        await asyncio.sleep(0)
        async with intake.body(request(whole)) as body:
            length = len(body)
        for task in stalled:
            task.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)
        return length

    assert asyncio.run(script()) == 100


def test_a_bomb_takes_no_more_memory_than_a_request_may(service: FakeService) -> None:
    """A hundred megabytes of zeros in a hundred kilobytes."""
    bomb = gzip.compress(bytes(100 * 1024 * 1024))[: MAX_REQUEST_BYTES - 1]
    headers = {"Content-Encoding": "gzip"}
    call(service, "POST", INFER, content=gzip.compress(b"{}"), headers=headers)  # what is loaded once is not counted
    tracemalloc.start()
    try:
        answer = call(service, "POST", INFER, content=bomb, headers=headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    refused(answer, 413, "too-large")
    assert peak < 4 * 1024 * 1024
    assert service.submitted == []


def test_a_body_that_comes_byte_by_byte_takes_no_more_memory_than_another() -> None:
    """Not forty times its size."""
    size = 50_000

    async def script() -> int:
        sent = 0

        async def receive() -> Any:  # noqa: ANN401 a message of ASGI
            nonlocal sent
            sent += 1
            return {"type": "http.request", "body": b" ", "more_body": sent < size}

        async with Intake(max_request_bytes=size, max_bytes=size).body(
            Request({"type": "http", "method": "POST", "headers": []}, receive)
        ) as body:
            return len(body)

    tracemalloc.start()
    try:
        assert asyncio.run(script()) == size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * size


def test_ten_thousand_outputs_are_refused(service: FakeService) -> None:
    """And so are as many inputs and parameters: before any of them is looked at."""
    many: list[dict[str, Any]] = [
        {"outputs": [{"name": f"y{number}"} for number in range(10_000)]},
        {"inputs": [{"name": f"x{number}"} for number in range(10_000)]},
        {"parameters": {f"p{number}": 1 for number in range(10_000)}},
    ]
    for change in many:
        body = json.dumps({**REQUEST, **change})
        with served(service, max_request_bytes=1024 * 1024) as base_url:
            answer = httpx.post(f"{base_url}{INFER}", content=body, trust_env=False, timeout=PATIENCE_SECONDS)
        assert f"at most {MAX_TENSORS}" in refused(answer, 400, "bad-input")["error"]
    assert service.submitted == []


@pytest.mark.parametrize("header", ["999999", "-1", "9" * 4000, "1", "0", "x", "1.5", "1, 1"])
@pytest.mark.parametrize("encoded", [False, True])
def test_a_header_that_does_not_fit_the_body_is_refused(service: FakeService, header: str, *, encoded: bool) -> None:
    """`Inference-Header-Content-Length` beyond the body, negative, huge, within the text: packed or not."""
    body, length = body_of({}, "inputs", [scan(3)], OutputForm(binary=True))
    headers = {"Inference-Header-Content-Length": header}
    if encoded:
        body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
    assert not refused(call(service, "POST", INFER, content=body, headers=headers), 400, "bad-input")["retry"]
    assert service.submitted == []
    headers["Inference-Header-Content-Length"] = str(length)
    assert call(service, "POST", INFER, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize(("said", "there"), [(255, 256), (257, 256), (2**62, 256), (-1, 256), (256, 255), (256, 257)])
def test_binary_sizes_that_do_not_add_up_are_refused(service: FakeService, said: int, there: int) -> None:
    """More or less than the tensor needs, or than the body has."""
    parameters = {"binary_data_size": said}
    described = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "parameters": parameters}
    text = json.dumps({"inputs": [described]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = call(service, "POST", INFER, content=text + bytes(there), headers=headers)
    assert not refused(answer, 400, "bad-input")["retry"]
    assert service.submitted == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({f"m{number}": 0 for number in range(100_000)}, "at most 32"),
        ({"outputs": [{"name": "y" * 500_000}]}, "at most 256 characters"),
        ({"inputs": [{"name": "x" * 500_000, "shape": [1], "datatype": "INT8", "data": [1]}]}, "256 characters"),
        ({"inputs": [{"name": "x", "shape": [1] * 200_000, "datatype": "INT8", "data": [1]}]}, "32 dimensions"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "I" * 500_000, "data": [1]}]}, "unknown datatype"),
        ({"inputs": [{"name": "x", "shape": [2**19], "datatype": "BYTES", "data": []}]}, "at most 262144 texts"),
        ({"id": "i" * 500_000}, "256 characters"),
        ({"inputs": "x" * 500_000}, "must be a list"),
    ],
    ids=["members", "output's name", "input's name", "dimensions", "datatype", "texts", "id", "inputs"],
)
def test_what_is_long_is_not_worked_on_and_not_said_back(
    service: FakeService, change: dict[str, Any], words: str
) -> None:
    """A comparison for each of 100,000 members would take seconds in which nobody else is answered."""
    body = json.dumps({**REQUEST, **change})
    with served(service, max_request_bytes=4 * 1024 * 1024) as base_url:
        answer = httpx.post(f"{base_url}{INFER}", content=body, trust_env=False, timeout=PATIENCE_SECONDS)
    assert words in refused(answer, 400, "bad-input")["error"]
    assert len(answer.content) < 2000
    assert service.submitted == []


# -- connections --------------------------------------------------------------------------------------------------


def test_a_request_that_only_begins_is_given_up(service: FakeService) -> None:
    """Somebody who sends a line and no more is disconnected; others are answered meanwhile."""
    with served(service, connection=connections(head_seconds=0.2)) as base_url, connected(base_url) as connection:
        connection.sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: he")
        still_answers(base_url, service)
        assert until_the_end(connection) == b""


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01", b"GET /v2\r\n\r\n", b"A" * 100_000 + b"\r\n\r\n"])
def test_what_is_no_http_is_told_as_json(service: FakeService, sent: bytes) -> None:
    """TLS, no version, a line without end: one form of error, and the connection ends."""
    with served(service) as base_url:
        with connected(base_url) as connection:
            connection.sendall(sent)
            answer = until_the_end(connection)
        assert answer == b"" or (answer.startswith(b"HTTP/1.1 400 ") and b'"code": "malformed"' in answer)
        still_answers(base_url, service)


def test_a_chunk_that_is_none_ends_the_request(service: FakeService) -> None:
    """In the middle of a body that is being read."""
    with served(service) as base_url:
        with connected(base_url) as connection:
            connection.sendall(head("Transfer-Encoding: chunked") + b"zz\r\n")
            assert b'"code": "malformed"' in until_the_end(connection)
        still_answers(base_url, service)


def test_a_request_that_is_refused_early_does_not_break_its_connection(service: FakeService) -> None:
    """What still comes of its body is passed over, and the next request is answered."""
    body = json.dumps(REQUEST).encode()
    with served(service) as base_url, connected(base_url) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}", path="/v2/models/none/infer"))
        first = connection.recv(65536)
        assert first.startswith(b"HTTP/1.1 404 ")
        connection.sendall(body + head(f"Content-Length: {len(body)}", "Connection: close") + body)
        answers = first + until_the_end(connection)
        assert answers.count(b"HTTP/1.1 404 ") == answers.count(b"HTTP/1.1 200 ") == 1


def test_a_thousand_idle_connections_hold_up_nobody(service: FakeService) -> None:
    """Half of them silent, half of them in the middle of a head."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        absent("this process may not have 3000 files open")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    with served(service) as base_url, ExitStack() as stack:
        for number in range(1000):
            connection = stack.enter_context(connected(base_url))
            if number % 2:
                connection.sendall(b"POST /v2")
        still_answers(base_url, service)


def test_above_the_limit_the_connection_that_is_idle_the_longest_goes(service: FakeService) -> None:
    """So that many idle ones lock nobody out."""
    with served(service, connection=connections(max_connections=5)) as base_url, ExitStack() as stack:
        first = stack.enter_context(connected(base_url))
        for _ in range(5):
            stack.enter_context(connected(base_url))
        assert until_the_end(first) == b""
        still_answers(base_url, service)


# -- readers ------------------------------------------------------------------------------------------------------


def long_request() -> bytes:
    """Return a request whose answer is long."""
    given = Tensor(TensorSpec("x", DataType.UINT8, (LONG_BYTES,)), bytes(LONG_BYTES))
    body, length = body_of({"parameters": {"binary_data_output": True}}, "inputs", [given], OutputForm(binary=True))
    lines = (f"Content-Length: {len(body)}", f"Inference-Header-Content-Length: {length}", "Connection: close")
    return head(*lines, path="/v2/models/echo-uint8/infer") + body


def test_a_reader_that_does_not_read_is_disconnected(service: FakeService) -> None:
    """Its answer is not kept for ever, and others are answered meanwhile."""
    service.serve(echo(DataType.UINT8), echoed)
    with ExitStack() as stack:
        limits = connections(reader_seconds=0.2)
        base_url = stack.enter_context(served(service, max_request_bytes=2 * LONG_BYTES, connection=limits))
        connection = stack.enter_context(connected(base_url, receive_bytes=4096))
        connection.sendall(long_request())
        connection.recv(1)
        still_answers(base_url, service, submitted=1)
        ended = select.poll()
        ended.register(connection, select.POLLHUP)
        assert ended.poll(PATIENCE_SECONDS * 1000)


def test_unread_answers_are_bounded_together(service: FakeService) -> None:
    """The one that has waited the longest for its reader goes first."""
    service.serve(echo(DataType.UINT8), echoed)
    limits = connections(max_unread_bytes=LONG_BYTES)
    with served(service, max_request_bytes=2 * LONG_BYTES, connection=limits) as base_url, ExitStack() as stack:
        readers = [stack.enter_context(connected(base_url, receive_bytes=4096)) for _ in range(3)]
        for reader in readers:
            reader.sendall(long_request())
            reader.recv(1)
        assert len(until_the_end(readers[0])) < LONG_BYTES
        assert len(until_the_end(readers[-1])) > LONG_BYTES
