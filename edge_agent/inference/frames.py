"""How the daemon and its worker talk: frames over a pair of connected Unix stream sockets.

A frame is the length of its header (four bytes, little-endian), the header (a map in the project's strict
CBOR), and the parts that the header's entry `parts` gives the lengths of: the raw bytes of tensors or files,
copied by nobody but the kernel. One file descriptor may travel with a frame's first byte.

Either side may be confused or, once it has run a hostile model, worse. So every length is checked against a
limit before room is made for it, and a frame that is not exactly as described ends the conversation.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edge_agent.errors import MalformedError, TooLargeError
from edge_agent.wire import strict_cbor

Buffer: TypeAlias = bytes | bytearray | memoryview
Header: TypeAlias = dict[str, strict_cbor.Value]

MAX_HEADER_BYTES = 256 * 1024
MAX_PARTS = 1024
# The kernel takes at most 1,024 buffers in one call (IOV_MAX).
_BUFFERS_A_CALL = 512

_ALIGNMENT = 64

_PREFIX = struct.Struct("<I")
_FD_BYTES = array.array("i").itemsize


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it was read. Who takes it owns `fd`, the descriptor that travelled with it.

    From a reader with a buffer of its own, the parts are good until its next read.
    """

    header: Header
    parts: tuple[bytes | memoryview, ...] = ()
    fd: int | None = None


def pack(header: Mapping[str, object], parts: Sequence[Buffer] = ()) -> list[Buffer]:
    """Return the buffers of a frame, to be sent one after the other; the parts are not copied.

    Raises:
        TooLargeError: the header is longer than `MAX_HEADER_BYTES`, or there are more than `MAX_PARTS` parts.
    """
    if len(parts) > MAX_PARTS:
        raise TooLargeError(f"A frame has at most {MAX_PARTS} parts, not {len(parts)}.")
    lengths = [part.nbytes if isinstance(part, memoryview) else len(part) for part in parts]
    head = strict_cbor.encode({**header, "parts": lengths})
    if len(head) > MAX_HEADER_BYTES:
        raise TooLargeError(f"A frame's header has at most {MAX_HEADER_BYTES} bytes, not {len(head)}.")
    buffers: list[Buffer] = [_PREFIX.pack(len(head)) + head]
    buffers += [part for part, length in zip(parts, lengths, strict=True) if length]
    return buffers


def send(
    connection: socket.socket, buffers: Sequence[Buffer], fd: int | None = None, *, wait: bool = True
) -> list[Buffer]:
    """Send `buffers`, and `fd` with the first byte; return what is left, which is nothing if `wait`.

    With `wait` false as much is sent as the socket takes at once. If anything was sent, the descriptor went
    too.

    Raises:
        OSError: the other side is gone.
    """
    left = list(buffers)
    ancillary = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    flags = 0 if wait else socket.MSG_DONTWAIT
    while left:
        try:
            sent = connection.sendmsg(left[:_BUFFERS_A_CALL], ancillary, flags)
        except BlockingIOError:
            break
        ancillary = []
        left = _behind(left, sent)
    return left


def _behind(buffers: list[Buffer], sent: int) -> list[Buffer]:
    """Return the buffers without their first `sent` bytes."""
    for index, buffer in enumerate(buffers):
        size = buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)
        if sent < size:
            return [memoryview(buffer)[sent:], *buffers[index + 1 :]] if sent else buffers[index:]
        sent -= size
    return []


class FrameReader:
    """Reads frames from a blocking socket.

    Args:
        connection: the socket; the reader does not close it.
        max_parts_bytes: how many bytes the parts of a frame with this header may have together. It sees a
        header
            whose entries nobody has checked yet.
        takes_fd: whether descriptors are accepted. Where they are not, the kernel closes any that come.
        reuses_bytes: parts of up to this many bytes together are read into one buffer that is used again. This saves
            the page faults of fresh memory, which cost more than the copying.
    """

    def __init__(
        self,
        connection: socket.socket,
        max_parts_bytes: Callable[[Header], int],
        *,
        takes_fd: bool = False,
        reuses_bytes: int = 0,
    ) -> None:
        self._connection = connection
        self._max_parts_bytes = max_parts_bytes
        self._takes_fd = takes_fd
        self._reuses_bytes = reuses_bytes
        self._buffer = memoryview(bytearray())

    def read(self) -> Frame | None:
        """Return the next frame, or None if the other side closed the connection between two frames.

        Raises:
            MalformedError: these bytes are not a frame, or they end in the middle of one.
            TooLargeError: a length is above its limit; nothing of that length was read.
        """
        prefix, fd = self._prefix()
        try:
            if not prefix:
                return None
            frame = self._rest(prefix, fd)
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise
        return frame

    def _rest(self, prefix: bytes, fd: int | None) -> Frame:
        (size,) = _PREFIX.unpack(prefix)
        if size > MAX_HEADER_BYTES:
            raise TooLargeError(f"A frame's header of {size} bytes is longer than the limit of {MAX_HEADER_BYTES}.")
        header = strict_cbor.decode(self._exactly(size), max_bytes=MAX_HEADER_BYTES)
        if not isinstance(header, dict):
            raise MalformedError("A frame's header is not a map.")
        named: Header = {key: value for key, value in header.items() if isinstance(key, str)}
        lengths = _lengths(named.pop("parts", None))
        if len(named) + 1 != len(header):
            raise MalformedError("A frame's header has keys that are not text.")
        total = sum(lengths)
        limit = self._max_parts_bytes(named) if total else 0
        if total > limit:
            raise TooLargeError(f"A frame with {total} bytes after its header is above the limit of {limit}.")
        if 0 < total <= self._reuses_bytes:
            return Frame(named, self._into_buffer(lengths, total), fd)
        return Frame(named, tuple(self._exactly(length) for length in lengths), fd)

    def _into_buffer(self, lengths: list[int], total: int) -> tuple[memoryview, ...]:
        """Return the parts as views of the buffer, each at a place that is good for numbers of any type."""
        room = total + len(lengths) * _ALIGNMENT
        if len(self._buffer) < room:
            self._buffer = memoryview(bytearray(room))
        views = []
        at = 0
        for length in lengths:
            view = self._buffer[at : at + length]
            read = 0
            while read < length:
                try:
                    count = self._connection.recv_into(view[read:], 0, socket.MSG_WAITALL)
                except ConnectionResetError:
                    count = 0
                if not count:
                    raise MalformedError("The connection ended in the middle of a frame.")
                read += count
            views.append(view.toreadonly())
            at += -(-length // _ALIGNMENT) * _ALIGNMENT
        return tuple(views)

    def _prefix(self) -> tuple[bytes, int | None]:
        """Return the first four bytes of a frame and its descriptor; no bytes at the end of the stream."""
        if not self._takes_fd:
            first = self._receive(_PREFIX.size)
            return (first and first + self._exactly(_PREFIX.size - len(first))), None
        # Room for one descriptor: the kernel closes what does not fit, as does this for what fits by
        # alignment.
        room = socket.CMSG_SPACE(_FD_BYTES)
        try:
            first, ancillary, _, _ = self._connection.recvmsg(_PREFIX.size, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return b"", None
        fds = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
        for surplus in fds[1:]:
            os.close(surplus)
        fd = fds[0] if fds else None
        try:
            return (first and first + self._exactly(_PREFIX.size - len(first))), fd
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise

    def _exactly(self, size: int) -> bytes:
        """Return the next `size` bytes. As a rule this is one call and no copy."""
        data = self._receive(size) if size else b""
        if len(data) == size:
            return data
        pieces = [data]
        missing = size - len(data)
        while missing:
            # A signal, or the border of a frame that carries a descriptor, may end a read early.
            piece = self._receive(missing)
            if not piece:
                raise MalformedError("The connection ended in the middle of a frame.")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _receive(self, size: int) -> bytes:
        try:
            return self._connection.recv(size, socket.MSG_WAITALL)
        except ConnectionResetError:
            # The other process ended without reading all that we sent: for us, the end of the stream.
            return b""


def _lengths(value: object) -> list[int]:
    if not isinstance(value, list) or len(value) > MAX_PARTS:
        raise MalformedError(f"A frame's `parts` is not a list of at most {MAX_PARTS} lengths.")
    lengths = []
    for length in value:
        if isinstance(length, bool) or not isinstance(length, int) or length < 0:
            raise MalformedError("The length of a frame's part is not a whole number from 0 on.")
        lengths.append(length)
    return lengths
