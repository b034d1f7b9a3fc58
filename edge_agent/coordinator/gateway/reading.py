"""Reads requests: short ones here, long ones in a process of its own.

A text of 16 MB can hold five million empty lists: to read it takes two seconds and 400 MB, in one step during which
nothing else in a Python process goes on, whatever thread it is in. So whatever is long is read by a process that may
take so much memory and no more; it gives back the same request in binary form, which takes no time to read here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from typing import Any, Final

from edge_agent.errors import InputError, TooLargeError
from edge_agent.inference.launch import environment
from edge_agent.wire import strict_json
from edge_agent.wire.oip_binary import Tail, split
from edge_agent.wire.oip_grpc import infer_request
from edge_agent.wire.oip_json import Request, request_from_json

log = logging.getLogger("edge_agent.coordinator")

LONG_BYTES: Final = 64 * 1024
"""Shorter texts take at most some 10 ms, and are read here."""
MEMORY_PER_BYTE: Final = 20
"""Memory that a text may take when it is read, for each byte that one may have: a picture takes 12."""
MEMORY_BYTES: Final = 64 * 1024 * 1024
"""Besides."""
IDLE_SECONDS: Final = 300.0
PATIENCE_SECONDS: Final = 60.0
"""For one text; the longest that is usual takes a twentieth of that on a slow machine."""
MAX_PACKET_BYTES: Final = 64 * 1024

KEPT_BYTES: Final = 8 * 1024 * 1024
"""So much of the file between the processes is kept for the next text: new memory costs more than to write into it."""
_KEEP_BUFFERS: Final = {"MALLOC_MMAP_THRESHOLD_": "67108864", "MALLOC_TRIM_THRESHOLD_": "67108864"}

REQUEST: Final = "request"
BESIDE: Final = ("model_name", "model_version")
"""Members that a request may have where no address says them."""
EMBEDDINGS: Final = "embeddings"
TOO_MUCH: Final = "too much"


class Reader:
    """Reads requests.

    Args:
        max_request_bytes: no text is longer.
    """

    def __init__(self, *, max_request_bytes: int) -> None:
        self._limit_bytes = MEMORY_PER_BYTE * max_request_bytes + MEMORY_BYTES
        self._turn, self._thread = asyncio.Lock(), asyncio.Lock()
        self._helper: _Helper | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def request(self, body: bytearray, json_length: str | None) -> Request:
        """Read an inference request; see `oip_json.request_from_body`.

        Raises:
            InputError: it is not one; the message says where.
            TooLargeError: it takes too much memory.
        """
        text, tail = split(body, json_length)
        if len(text) < LONG_BYTES:
            return request_from_json(text, tail)
        return request_from_json(*await self._split(body, json_length))

    async def message(self, body: bytes) -> tuple[object, Tail | None]:
        """Read a request that names its family itself; `oip_json.request_from_json` takes it from there.

        Raises:
            InputError: it is not JSON, or, if it is long, no such request.
            TooLargeError: it takes too much memory.
        """
        return (strict_json.read(body), None) if len(body) < LONG_BYTES else await self._split(body, None)

    async def embeddings(self, body: bytearray) -> object:
        """Read a request of OpenAI's interface for embeddings: the JSON of it, or of nothing but what counts in it.

        Raises:
            InputError: it is not JSON, or, if it is long, not such a request.
            TooLargeError: it takes too much memory.
        """
        if len(body) < LONG_BYTES:
            return strict_json.read(body)
        return strict_json.read((await self._asked(EMBEDDINGS, body, None))[0])

    async def protobuf(self, message: bytes) -> tuple[str, str, Request]:
        """Read a request of gRPC; see `oip_grpc.infer_request`.

        Raises:
            InputError: it is not one; the message says where.
        """
        if len(message) < LONG_BYTES:
            return infer_request(message)
        async with self._thread:  # it is read in many steps of Python, between which the loop has its turns
            return await asyncio.to_thread(infer_request, message)

    async def _split(self, body: bytes | bytearray, json_length: str | None) -> tuple[object, Tail | None]:
        binary, length = await self._asked(REQUEST, body, json_length)
        text, tail = split(binary, None if length is None else str(length))
        return strict_json.read(text), tail

    def close(self) -> None:
        """End the process; the next long text starts another one."""
        if self._idle is not None:
            self._idle.cancel()
        if self._helper is not None:
            self._helper.close()
        self._helper = self._idle = None

    async def _asked(self, kind: str, body: bytes | bytearray, json_length: str | None) -> tuple[bytes, int | None]:
        loop = asyncio.get_running_loop()
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            if self._helper is None:
                self._helper = _Helper(self._limit_bytes)
            try:
                said = await self._helper.ask({"kind": kind, "json_length": json_length}, body)
            except BaseException:
                self.close()  # whatever it still says belongs to nobody
                raise
            if said is None:
                self.close()
            else:
                self._idle = loop.call_later(IDLE_SECONDS, self.close)
                if "error" not in said:
                    return self._helper.body(said["bytes"]), said["json_length"]
        if said is None or said["error"] == TOO_MUCH:
            raise TooLargeError(
                "the request takes too much memory to read",
                hint="Send less at once, or its tensors as binary data, which are not read at all.",
            )
        raise InputError(said["error"], code=said["code"], hint=said["hint"])


class _Helper:
    """The process, and what it has in common with this one: a socket and a file in memory.

    Raises:
        OSError: it could not be made.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._file = os.memfd_create("request")
        fds = (theirs.fileno(), self._file)
        program = "edge_agent.coordinator.gateway.reading_process"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", program, *map(str, fds), str(limit_bytes)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=fds,
                env=environment(os.environ) | _KEEP_BUFFERS,
                cwd="/",
                process_group=0,
            )

    async def ask(self, question: dict[str, Any], body: bytes | bytearray) -> dict[str, Any] | None:
        """Ask; None if there is no answer, since it had not the memory for one or takes too long."""
        write(self._file, body)
        try:
            self._socket.send(json.dumps({**question, "bytes": len(body)}).encode())
            async with asyncio.timeout(PATIENCE_SECONDS):
                packet = await asyncio.get_running_loop().sock_recv(self._socket, MAX_PACKET_BYTES)
        except (OSError, TimeoutError):
            return None
        # Some libraries end the process that has no memory for them.
        return json.loads(packet) if packet else None

    def body(self, size: int) -> bytes:
        """Return what was written into the file."""
        found = os.pread(self._file, size, 0)
        if os.fstat(self._file).st_size > KEPT_BYTES:
            os.ftruncate(self._file, KEPT_BYTES)
        return found

    def close(self) -> None:
        """End it, if it has not ended by itself, which is said."""
        self._socket.close()
        os.close(self._file)
        status = self._process.poll()
        if status is not None:
            text = "The process that reads long requests has ended with status %d: the request that it read is refused"
            log.warning(text, status, extra={"action": "reader-ended", "status": status})
            return
        self._process.kill()
        self._process.wait()


def write(file: int, data: bytes | bytearray) -> None:
    """Write from the beginning of a file on.

    Raises:
        OSError: there is no room.
    """
    at = 0
    while at < len(data):
        at += os.pwrite(file, memoryview(data)[at:], at)
