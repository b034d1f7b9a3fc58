"""Bodies that are wrong, of every kind and as long as they may be: each is told so, and nobody else pays for it.

What others pay is what the loop's thread computes in one step, in which nobody is answered. It is compared with the
step that it takes to read the worst of the texts that are read in the loop at all: a busy machine slows both. And what
this process keeps for a body must be a small multiple of what one may be.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import pytest
from fakes import scan
from gateways import INFER, REQUEST, VECTORS, FakeService, embedded, refused, served

from edge_agent.coordinator.gateway.reading import LONG_BYTES, Reader
from edge_agent.errors import InputError
from edge_agent.wire.oip_binary import LENGTH_HEADER
from edge_agent.wire.oip_json import OutputForm, body_of, request_from_json

PATIENCE_SECONDS = 60.0
LENGTH = 16 * LONG_BYTES
"""Of bodies, and the most that may come: in one step they would take 16 times as long as what is read in the loop."""
STEPS = 6
"""So many times as long as the worst short text one step may take."""
COPIES = 6
"""So many bodies are kept for one: what came, what is read of it, what it becomes."""
REPEATED = 2


class Bad(NamedTuple):
    """A body that must be refused.

    Attributes:
        make: the body.
        status, code: how it is refused.
        path: where it is sent to.
        headers: with it.
    """

    make: Callable[[], bytes]
    status: int
    code: str
    path: str = INFER
    headers: dict[str, str] | None = None


def filled(before: str, item: str, behind: str, *, separator: str = ",") -> Callable[[], bytes]:
    """Return what makes a body of almost `LENGTH` bytes of one item, again and again."""
    count = (LENGTH - len(before) - len(behind) - 1024) // len(item + separator)
    return (before + separator.join([item] * count) + behind).encode


def data_of(item: str, datatype: str = "FP32", end: str = "]}]}") -> Callable[[], bytes]:
    """Return what makes a request whose one input has nothing but this item."""
    return filled(f'{{"inputs":[{{"name":"image","shape":[1,1,8,8],"datatype":"{datatype}","data":[', item, end)


def numbered(before: str, item: str, behind: str) -> Callable[[], bytes]:
    """Return what makes a body with a number in each item."""
    return (before + ",".join(item % n for n in range(LENGTH // (len(item) + 8))) + behind).encode


BINARY, BINARY_LENGTH = body_of({}, "inputs", [scan(3)], OutputForm(binary=True))
KINDS = {
    "too many numbers": Bad(data_of("1.5"), 400, "bad-input"),
    "too many integers": Bad(data_of("1"), 400, "bad-input"),
    "empty lists": Bad(data_of("[]"), 400, "bad-input"),
    "empty objects": Bad(data_of("{}"), 400, "bad-input"),
    "texts for numbers": Bad(data_of('"a"'), 400, "bad-input"),
    "truths for numbers": Bad(data_of("true"), 400, "bad-input"),
    "one NaN": Bad(data_of("1.5", end=",NaN]}]}"), 400, "bad-input"),
    "one infinity": Bad(data_of("1.5", end=",1e999]}]}"), 400, "bad-input"),
    "cut": Bad(data_of("1.5", end=","), 400, "bad-input"),
    "one number": Bad(filled('{"inputs":[', "9", "]}", separator=""), 400, "bad-input"),
    "one text": Bad(filled('{"inputs":"', "x", '"}', separator=""), 400, "bad-input"),
    "deep lists": Bad(filled("", "[", "", separator=""), 400, "bad-input"),
    "deep objects": Bad(filled("", '{"a":', "", separator=""), 400, "bad-input"),
    "blanks": Bad(filled("", " ", "", separator=""), 400, "bad-input"),
    "not UTF-8": Bad(lambda: b"\xff" * (LENGTH - 1), 400, "bad-input"),
    "members": Bad(numbered("{", '"m%d":1', "}"), 400, "bad-input"),
    "outputs": Bad(numbered('{"inputs":[],"outputs":[', '{"name":"y%d"}', "]}"), 400, "bad-input"),
    "inputs": Bad(numbered('{"inputs":[', '{"name":"x%d"}', "]}"), 400, "bad-input"),
    "parameters": Bad(numbered('{"inputs":[],"parameters":{', '"p%d":1', "}}"), 400, "bad-input"),
    "a parameter of lists": Bad(filled('{"parameters":{"a":[', "[]", "]}}"), 400, "bad-input"),
    "an unknown model": Bad(data_of("1.5"), 404, "unknown-family", "/v2/models/digitz/infer"),
    "a header beyond the body": Bad(lambda: BINARY, 400, "bad-input", headers={LENGTH_HEADER: str(LENGTH)}),
    "a header within the text": Bad(data_of("1.5"), 400, "bad-input", headers={LENGTH_HEADER: str(LENGTH // 2)}),
    "more binary data": Bad(
        lambda: BINARY + bytes(LENGTH // 2), 400, "bad-input", headers={LENGTH_HEADER: str(BINARY_LENGTH)}
    ),
    "a bomb": Bad(lambda: gzip.compress(bytes(20 * LENGTH)), 413, "too-large", headers={"Content-Encoding": "gzip"}),
    "a bomb that fits": Bad(
        lambda: gzip.compress(data_of("[]")()), 400, "bad-input", headers={"Content-Encoding": "gzip"}
    ),
    "not packed": Bad(data_of("1.5"), 400, "bad-input", headers={"Content-Encoding": "gzip"}),
    "packed otherwise": Bad(data_of("1.5"), 415, "unsupported-encoding", headers={"Content-Encoding": "br"}),
    "too long": Bad(lambda: b" " * (LENGTH + 1), 413, "too-large"),
    "embeddings of numbers": Bad(filled('{"model":"vectors","input":[', "1", "]}"), 400, "bad-input", "/v1/embeddings"),
    "embeddings of lists": Bad(filled('{"model":"vectors","input":[', "[]", "]}"), 400, "bad-input", "/v1/embeddings"),
    "an index": Bad(filled("[", "[]", "]"), 413, "too-large", "/v2/repository/index"),
    "a job for later": Bad(data_of("[]"), 400, "bad-input", "/api/v1/models/digits/jobs"),
}


class MeasuredLoop(asyncio.SelectorEventLoop):
    """A loop that knows the longest time that its thread computed in one step."""

    longest_seconds = 0.0

    def _run_once(self) -> None:
        began = time.thread_time()
        super()._run_once()  # type: ignore[misc] # asyncio's own, and the one place where all steps pass
        self.longest_seconds = max(self.longest_seconds, time.thread_time() - began)


class Place(NamedTuple):
    """A gateway that is served."""

    base_url: str
    service: FakeService
    loop: MeasuredLoop
    client: httpx.Client


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Serve, and let both ways of reading be used once."""
    service = FakeService()
    service.serve(VECTORS, embedded)
    service.compute = None
    loops: list[MeasuredLoop] = []

    def make() -> MeasuredLoop:
        loops.append(MeasuredLoop())
        return loops[0]

    with (
        served(service, max_request_bytes=LENGTH, loop=make) as base_url,
        httpx.Client(base_url=base_url, trust_env=False, timeout=PATIENCE_SECONDS) as client,
    ):
        for padding in ("", " " * LONG_BYTES):
            assert client.post(INFER, content=json.dumps(REQUEST) + padding).status_code == 200
        gc.collect()
        gc.freeze()  # to look through all that the tests around have made takes a step of its own
        yield Place(base_url, service, loops[0], client)
        gc.unfreeze()


def worst_short_seconds() -> float:
    """Time the worst of what is read in the loop."""
    text = b"[" + b",".join([b"[]"] * (LONG_BYTES // 3)) + b"]"

    def once() -> float:
        began = time.thread_time()
        with suppress(InputError):
            request_from_json(text)
        return time.thread_time() - began

    return statistics.median(once() for _ in range(7))


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile: what the tests before have left would be counted to whoever allocates next."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_body_is_told_so_and_slows_nobody(place: Place, kind: str) -> None:
    """While it is sent again and again, others are answered, and no step takes longer than a short text may."""
    bad = KINDS[kind]
    body = bad.make()
    answers: list[httpx.Response] = []

    def send() -> None:
        with httpx.Client(base_url=place.base_url, trust_env=False, timeout=PATIENCE_SECONDS) as client:
            answers.extend(client.post(bad.path, content=body, headers=bad.headers) for _ in range(REPEATED))

    sender = threading.Thread(target=send)
    before, place.loop.longest_seconds = len(place.service.submitted), 0.0
    sender.start()
    good = 0
    while sender.is_alive() or good < REPEATED:
        assert place.client.post(INFER, json=REQUEST).status_code == 200
        good += 1
    sender.join()
    longest = place.loop.longest_seconds
    assert len(answers) == REPEATED
    for answer in answers:
        if bad.path.startswith("/v1/"):
            assert (answer.status_code, answer.json()["error"]["code"]) == (bad.status, bad.code)
        else:
            refused(answer, bad.status, bad.code)
        assert len(answer.content) < 2000
    assert len(place.service.submitted) == before + good
    assert longest < STEPS * worst_short_seconds()


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_body_takes_memory_as_a_good_one(place: Place, kind: str) -> None:
    """A few times its length, or the length that it may have when it is unpacked; and nothing of it is kept."""
    bad = KINDS[kind]
    body = bad.make()
    tracemalloc.start()
    try:
        with suppress(httpx.TransportError):  # the answer came before the body was sent
            place.client.post(bad.path, content=body, headers=bad.headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < COPIES * LENGTH


def field(number: int, data: bytes) -> bytes:
    """Return a field of protobuf with bytes in it."""
    size, length = len(data), b""
    while size > 127:
        size, length = size >> 7, length + bytes([size & 127 | 128])
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


@pytest.mark.parametrize("item", [b"\x10\x01", b"\x42\x00"], ids=["integers one by one", "empty texts"])
def test_a_bad_message_of_grpc_holds_up_nobody(item: bytes) -> None:
    """What is read in many small steps is read beside the loop."""
    tensor = field(1, b"x") + field(2, b"INT32") + field(3, b"\x01") + field(5, item * (LENGTH // 4))
    message = field(1, b"digits") + field(5, tensor)

    async def read() -> None:
        with pytest.raises(InputError):
            await Reader(max_request_bytes=LENGTH).protobuf(message)

    with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
        runner.run(read())
        loop = runner.get_loop()
    assert isinstance(loop, MeasuredLoop)
    assert loop.longest_seconds < STEPS * worst_short_seconds()


def test_the_step_would_be_seen(place: Place) -> None:
    """The measure itself: what is read in the loop shows."""
    place.loop.longest_seconds = 0.0
    text: list[Any] = [[]] * (8 * LONG_BYTES // 3)
    done = threading.Event()

    def work() -> None:
        with suppress(InputError):
            request_from_json(json.dumps(text, separators=(",", ":")))
        done.set()

    place.loop.call_soon_threadsafe(work)
    assert done.wait(PATIENCE_SECONDS)
    assert place.client.post(INFER, json=REQUEST).status_code == 200
    assert place.loop.longest_seconds > 4 * worst_short_seconds()
