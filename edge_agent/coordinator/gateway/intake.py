"""Reads request bodies: each is bounded, and so is what all of them take together until they are jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from edge_agent.errors import ResourceError, TooLargeError


class Intake:
    """The memory for bodies that are being read or turned into jobs.

    Args:
        max_request_bytes: longer bodies are refused while they arrive.
        max_bytes: of all bodies together; a single one may always be read.
    """

    def __init__(self, *, max_request_bytes: int, max_bytes: int) -> None:
        self.max_request_bytes = max_request_bytes
        self.held_bytes = 0
        self._max_bytes = max_bytes

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Give a request's body; its memory counts as taken until the block ends.

        Raises:
            TooLargeError: the body is too long.
            ResourceError: `queue-full`: too many are being read at once.
        """
        taken = 0
        try:
            announced = request.headers.get("Content-Length", "0")
            expected = int(announced[:20]) if announced.isascii() and announced.isdigit() else 0
            if expected > self.max_request_bytes:
                raise self.too_long()
            taken += self._take(expected)
            chunks: list[bytes] = []
            length = 0
            async for chunk in request.stream():
                length += len(chunk)
                if length > self.max_request_bytes:
                    raise self.too_long()
                taken += self._take(max(0, length - taken))
                chunks.append(chunk)
            yield b"".join(chunks)
        finally:
            self.held_bytes -= taken

    def _take(self, more: int) -> int:
        if self.held_bytes and self.held_bytes + more > self._max_bytes:
            raise ResourceError(
                f"requests of {self.held_bytes} bytes are being read, as many as may be at once",
                code="queue-full",
                hint="Send it again in a second; nothing of it is kept.",
            )
        self.held_bytes += more
        return more

    def too_long(self) -> TooLargeError:
        """Make the error for a request that is too long, as it came or as tensors."""
        return TooLargeError(
            f"the request is longer than {self.max_request_bytes} bytes",
            hint="Send a smaller input; the operator sets the limit with coordinator.max_request_bytes.",
        )
