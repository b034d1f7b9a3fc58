"""One HTTP connection, as uvicorn speaks it over httptools, with the patience that strangers need.

Whoever connects and says nothing, begins a request and does not go on, or does not read its answer costs a file
descriptor and memory. Each has a time; when connections become too many, the one that has been idle the longest goes
first, and when unread answers take too much memory, the one that has waited the longest for its reader.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 4096
HEAD_SECONDS = 15.0
"""The head of a request must have come so long after its first byte; so must the rest of a body that was answered
before its end, which is not read any more."""
READER_SECONDS = 30.0
"""So often it is looked at whether an answer is still being read."""
READER_BYTES = 64 * 1024
"""So much of it must have been taken meanwhile."""
MAX_UNREAD_BYTES = 256 * 1024 * 1024
"""Of all answers that wait to be read."""
MAX_HEAD_BYTES = 64 * 1024
"""Of a request's head; so much may also come beside the bytes of a body: the lengths of its chunks, and trailers."""
FRAMING_PER_BYTE = 16
"""So many bytes of framing more may come for each byte of a body: a chunk of one byte has five."""
MAX_PIPELINED = 16
"""Requests on one connection that wait for the answer to an earlier one."""

NO_HTTP = "Invalid HTTP request received."
_NO_LINGER = struct.pack("ii", 1, 0)


class UnacceptableError(Exception):
    """What comes is more than a request may be; the parser ends on it, and the connection with it."""


class Connection(HttpToolsProtocol):
    """A connection; uvicorn makes them."""

    max_connections = MAX_CONNECTIONS
    head_seconds = HEAD_SECONDS
    reader_seconds = READER_SECONDS
    max_unread_bytes = MAX_UNREAD_BYTES

    _sender: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    _unread_since = 0.0
    _unread = 0
    _in_head = False
    _in_body = False
    _framing = 0  # bytes of this request that are not its body
    _allowed = MAX_HEAD_BYTES

    # -- what asyncio says ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin; uvicorn itself would wait for a first request without end."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        if len(self.connections) > self.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._forget_sender()
        self._forget_reader()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, and be patient for a while if a request has only begun."""
        if self._in_head or self._in_body:
            self._framing += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._framing > self._allowed and (self._in_head or self._in_body):
            self.send_400_response("")
        elif not (self._in_head or self._answered_early()):
            self._forget_sender()
            if self.idle and self.timeout_keep_alive_task is None:  # empty lines, or the rest of what was refused
                wait = self.timeout_keep_alive
                self.timeout_keep_alive_task = self.loop.call_later(wait, self.timeout_keep_alive_handler)
        elif self._sender is None:
            self._sender = self.loop.call_later(self.head_seconds, self._give_up)

    def pause_writing(self) -> None:
        """An answer is longer than the other side has read so far."""
        super().pause_writing()
        self._unread_since = self.loop.time()
        self._watch_reader()
        waiting = [c for c in self._others() if c.flow.write_paused]
        unread = sum(c.transport.get_write_buffer_size() for c in waiting)
        for connection in sorted(waiting, key=lambda c: c._unread_since):  # noqa: SLF001 one of ours
            if unread <= self.max_unread_bytes:
                break
            unread -= connection.transport.get_write_buffer_size()
            connection._reset()  # noqa: SLF001 as above

    def resume_writing(self) -> None:
        """It has been read, but for a little."""
        self._forget_reader()
        super().resume_writing()

    # -- what the parser says ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise UnacceptableError
        self._in_head, self._framing, self._allowed = True, 0, MAX_HEAD_BYTES
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a line of the head; what stands behind a body in chunks is of no use here."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self.parser.get_http_version() not in {"1.0", "1.1"}:
            raise UnacceptableError
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._allowed += (1 + FRAMING_PER_BYTE) * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._in_body = False
        super().on_message_complete()

    # -- what uvicorn says ------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Begin to be idle; what still comes of a body that is refused is passed over for a while."""
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self._answered_early() and self._sender is None:
            self._sender = self.loop.call_later(self.head_seconds, self._give_up)

    def send_400_response(self, msg: str) -> None:
        """Tell of bytes that are not HTTP in the same form as of everything else, if an answer may still begin."""
        del msg
        if self.idle or not (self.cycle.response_started or self.pipeline):
            body = json.dumps({"error": NO_HTTP, "code": "malformed", "hint": "Send HTTP/1.1.", "retry": False})
            head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n{body}".encode())
            if not self.idle:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
        self.transport.close()

    # -- patience ---------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer on it."""
        return self.cycle is None or self.cycle.response_complete

    def _answered_early(self) -> bool:
        return self._in_body and self.cycle.response_complete

    def _give_up(self) -> None:
        self._sender = None
        self.transport.abort()

    def _reset(self) -> None:
        # Without this the kernel would keep what it has of the answer, up to megabytes, and go on trying to deliver it.
        made: socket.socket = self.transport.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _forget_sender(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None

    def _watch_reader(self) -> None:
        self._forget_reader()
        self._unread = self.transport.get_write_buffer_size()
        self._reader = self.loop.call_later(self.reader_seconds, self._look_at_reader)

    def _look_at_reader(self) -> None:
        if self._unread - self.transport.get_write_buffer_size() < READER_BYTES:
            self._reset()
        else:
            self._watch_reader()

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _others(self) -> list[Connection]:
        return [c for c in self.connections if isinstance(c, Connection)]

    def _make_room(self) -> None:
        """Close the connection that has been idle the longest: this one, if all others are at work."""
        idle = [c for c in self._others() if c.idle and not c.transport.is_closing() and c is not self]
        victim = min(idle, key=lambda c: c._idle_since, default=self)  # noqa: SLF001 one of ours
        victim.transport.abort()
