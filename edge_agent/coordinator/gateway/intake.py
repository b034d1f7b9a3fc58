"""Reads request bodies: each is bounded, in bytes and in time, and so is what all of them take until they are jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.requests import ClientDisconnect, Request

from edge_agent.coordinator.gateway.reading import Reader
from edge_agent.errors import InputError, ResourceError, TooLargeError, TransportError
from edge_agent.wire.unpacking import Unpacker

GRACE_SECONDS = 20.0
"""A body may take so long, and a second more for each `SLOWEST_BYTES_PER_SECOND` of it that have come."""
SLOWEST_BYTES_PER_SECOND = 16 * 1024


class Intake:
    """The memory for bodies that are being read or turned into jobs.

    Args:
        max_request_bytes: longer bodies are refused while they arrive, also if they are long only when unpacked.
        max_bytes: of all bodies together; a single one may always be read.
        grace_seconds: see `GRACE_SECONDS`.
    """

    def __init__(self, *, max_request_bytes: int, max_bytes: int, grace_seconds: float = GRACE_SECONDS) -> None:
        self.max_request_bytes = max_request_bytes
        self.reader = Reader(max_request_bytes=max_request_bytes)
        self.held_bytes = 0
        self._max_bytes = max_bytes
        self._grace_seconds = grace_seconds

    @property
    def patience_seconds(self) -> float:
        """How long the longest request may take, where it is not seen how much of one has come."""
        return self._grace_seconds + self.max_request_bytes / SLOWEST_BYTES_PER_SECOND

    @asynccontextmanager
    async def body(self, request: Request, max_bytes: int | None = None) -> AsyncIterator[bytearray]:
        """Give a request's body, unpacked; its memory counts as taken until the block ends.

        Args:
            request: whose body it is.
            max_bytes: where less is taken than of any request.

        Raises:
            TooLargeError: the body is too long.
            InputError: it is cut, not in the coding that was announced, or `unsupported-encoding`.
            TransportError: `timeout`: it comes too slowly.
            ResourceError: `queue-full`: too many are being read at once.
        """
        announced = request.headers.get("Content-Length", "0")
        expected = int(announced[:20]) if announced.isascii() and announced.isdigit() else 0
        limit = min(self.max_request_bytes, max_bytes or self.max_request_bytes)
        if expected > limit:
            raise self.too_long(limit)
        self.refuse_unless_room(expected)
        # One buffer, not a list of pieces: a body that comes byte by byte would be a list of forty times its size.
        body = bytearray()
        try:
            await self._read(request, body, limit)
            yield body
        finally:
            self.held_bytes -= len(body)

    async def _read(self, request: Request, body: bytearray, limit: int) -> None:
        coding = request.headers.get("Content-Encoding", "identity")
        unpacker = None if coding == "identity" else Unpacker(coding)
        came = looked_at = 0
        try:
            started = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(started + self._grace_seconds) as patience:
                async for chunk in request.stream():
                    came += len(chunk)
                    if came - looked_at >= SLOWEST_BYTES_PER_SECOND:  # not for each of many small pieces
                        looked_at = came
                        patience.reschedule(started + self._grace_seconds + came / SLOWEST_BYTES_PER_SECOND)
                    if came > limit:
                        raise self.too_long(limit)
                    for part in unpacker.feed(chunk) if unpacker else (chunk,):
                        if len(body) + len(part) > limit:
                            raise self.too_long(limit)
                        self.refuse_unless_room(len(part))
                        self.held_bytes += len(part)
                        body += part
                        if unpacker:  # a small piece may be a large one when unpacked
                            await asyncio.sleep(0)
        except TimeoutError:
            raise TransportError(
                f"the request's body came too slowly: {came} bytes so far",
                code="timeout",
                hint="Send it again; look at the way there if it happens often.",
            ) from None
        except ClientDisconnect:
            raise InputError("the request's body is cut: the connection ended in it") from None
        if unpacker is not None:
            unpacker.end()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count a request that came in another way than as a body of HTTP, until the block ends.

        Raises:
            ResourceError: `queue-full`.
        """
        self.refuse_unless_room(size)
        self.held_bytes += size
        try:
            yield
        finally:
            self.held_bytes -= size

    def refuse_unless_room(self, more: int) -> None:
        """Return if there is room for so many bytes more.

        Raises:
            ResourceError: `queue-full`.
        """
        # What is only announced takes no room: else a few who announce much and send nothing would lock out all others.
        if self.held_bytes and self.held_bytes + more > self._max_bytes:
            raise ResourceError(
                f"requests of {self.held_bytes} bytes are being read, as many as may be at once",
                code="queue-full",
                hint="Send it again in a second; nothing of it is kept.",
            )

    def too_long(self, limit: int | None = None) -> TooLargeError:
        """Make the error for a request that is too long, as it came or as tensors."""
        if limit is not None and limit < self.max_request_bytes:
            return TooLargeError(f"the request is longer than {limit} bytes, the most that this call takes")
        return TooLargeError(
            f"the request is longer than {self.max_request_bytes} bytes",
            hint="Send a smaller input; the operator sets the limit with coordinator.max_request_bytes.",
        )
