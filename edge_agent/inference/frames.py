"""How the daemon and its worker talk: frames over a pair of connected Unix stream sockets.

A frame is the length of its header (four bytes), two numbers that change from one run to the next, the run's token and
its microseconds (eight bytes each, all little-endian), the header (a map in the project's strict CBOR), and the parts
that the header's entry `parts` gives the lengths of: the raw bytes of tensors or files, copied by nobody but the
kernel. In a command to run, the second number is one more than the place in shared memory where the parts begin
(`shared.py`), which then do not follow; 0 where they do. Since the numbers stand in front, the headers of runs of one
shape are equal byte for byte, and are made and understood once. One file descriptor may travel with a frame's first
byte; such a frame is sent by itself.

Either side may be confused or, once it has run a hostile model, worse. So every length is checked against a
limit before room is made for it, and a frame that is not exactly as described ends the conversation.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from edge_agent.errors import MalformedError, TooLargeError
from edge_agent.wire import strict_cbor

Buffer: TypeAlias = bytes | bytearray | memoryview
Header: TypeAlias = dict[str, strict_cbor.Value]

MAX_HEADER_BYTES = 256 * 1024
MAX_PARTS = 1024
MAX_NUMBER = 2**63 - 1
# The kernel takes at most 1,024 buffers in one call (IOV_MAX).
_BUFFERS_A_CALL = 512

_ALIGNMENT = 64

_PREFIX = struct.Struct("<IQQ")
_FD_BYTES = array.array("i").itemsize
_AHEAD_BYTES = 64 * 1024
"""Read at once, so that small frames that are there already cost one call together."""
_KNOWN_HEADERS = 32
_KNOWN_HEADER_BYTES = 8 * 1024
"""So many headers of runs, none longer than this, are remembered."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it was read. Who takes it owns `fd`, the descriptor that travelled with it.

    From a reader with a buffer of its own, the parts are good until its next read.

    Attributes:
        token: names a run; 0 where there is none.
        run_us: time of a run in microseconds.
        memo: what was made of the header, for the next frame with the same one; by who reads it.
    """

    header: Header
    parts: tuple[bytes | memoryview, ...] = ()
    fd: int | None = None
    token: int = 0
    run_us: int = 0
    memo: dict[str, object] = field(default_factory=dict, compare=False, repr=False)


class _Known(NamedTuple):
    """A header that was understood: frames share it, and nobody changes it."""

    header: Header
    lengths: tuple[int, ...]
    total: int
    memo: dict[str, object]


def pack(
    header: Mapping[str, object], parts: Sequence[Buffer] = (), *, token: int = 0, run_us: int = 0
) -> list[Buffer]:
    """Return the buffers of a frame, to be sent one after the other; the parts are not copied.

    Raises:
        TooLargeError: the header is longer than `MAX_HEADER_BYTES`, or there are more than `MAX_PARTS` parts.
    """
    return with_head(head_of(header, lengths_of(parts)), parts, token=token, run_us=run_us)


def lengths_of(parts: Sequence[Buffer]) -> tuple[int, ...]:
    """Return the bytes of each part."""
    return tuple([part.nbytes if isinstance(part, memoryview) else len(part) for part in parts])


def head_of(header: Mapping[str, object], lengths: Sequence[int]) -> bytes:
    """Return the bytes of a header for parts of these lengths; raises as `pack`."""
    if len(lengths) > MAX_PARTS:
        raise TooLargeError(f"A frame has at most {MAX_PARTS} parts, not {len(lengths)}.")
    head = strict_cbor.encode({**header, "parts": list(lengths)})
    if len(head) > MAX_HEADER_BYTES:
        raise TooLargeError(f"A frame's header has at most {MAX_HEADER_BYTES} bytes, not {len(head)}.")
    return head


def with_head(head: bytes, parts: Sequence[Buffer], *, token: int = 0, run_us: int = 0) -> list[Buffer]:
    """Return the buffers of a frame whose header was made before, for parts of these lengths."""
    buffers: list[Buffer] = [_PREFIX.pack(len(head), token, run_us) + head]
    buffers += [part for part in parts if len(part)]
    return buffers


def pointing(head: bytes, begin: int, *, token: int) -> list[Buffer]:
    """Return the buffers of a command to run whose parts lie in shared memory from `begin` on."""
    return [_PREFIX.pack(len(head), token, begin + 1) + head]


def places(lengths: Sequence[int]) -> tuple[list[int], int]:
    """Return where parts of these lengths lie behind each other, good for numbers of any type, and all their bytes."""
    found = []
    at = 0
    for length in lengths:
        found.append(at)
        at += -(-length // _ALIGNMENT) * _ALIGNMENT
    return found, at


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


class Room:
    """Memory that is used again for the parts of one frame after the other.

    This saves the page faults of fresh memory, which cost more than the copying.

    Args:
        most_bytes: parts of up to so many bytes together are put here.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._buffer = memoryview(bytearray())

    def views(self, lengths: Sequence[int]) -> list[memoryview]:
        """Return a place for each part, good for numbers of any type; those of the frame before are given up."""
        offsets, size = places(lengths)
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        return [self._buffer[at : at + length] for at, length in zip(offsets, lengths, strict=True)]


class FrameReader:
    """Reads frames from a blocking socket, and whatever small ones are there already with one call.

    Args:
        connection: the socket; the reader does not close it.
        max_parts_bytes: how many bytes the parts of a frame with this header and token may have together. It sees a
            header whose entries nobody has checked yet.
        takes_fd: whether descriptors are accepted. Where they are not, the kernel closes any that come.
        reuses_bytes: parts of up to this many bytes together are read into a `Room` of the reader's own.
        shared: finds parts in shared memory, by where they begin and their lengths; None where no frame may say so.
    """

    def __init__(
        self,
        connection: socket.socket,
        max_parts_bytes: Callable[[Header, int], int],
        *,
        takes_fd: bool = False,
        reuses_bytes: int = 0,
        shared: Callable[[int, Sequence[int]], tuple[memoryview, ...]] | None = None,
    ) -> None:
        self._connection = connection
        self._shared = shared
        self._max_parts_bytes = max_parts_bytes
        self._takes_fd = takes_fd
        self._room = Room(reuses_bytes)
        self._ahead = memoryview(bytearray(_AHEAD_BYTES))
        self._at = self._end = 0  # what was read and not taken yet lies between them
        self._taken = 0  # bytes of the stream, in all
        self._fd: int | None = None
        self._fd_before = 0  # the frame that it came with is the last one that begins before this byte of the stream
        self._known: dict[bytes, _Known] = {}

    def read(self, room: Room | None = None) -> Frame | None:
        """Return the next frame, or None if the other side closed the connection between two frames.

        Args:
            room: where its parts are put if they fit; the reader's own by default.

        Raises:
            MalformedError: these bytes are not a frame, or they end in the middle of one.
            TooLargeError: a length is above its limit; nothing of that length was waited for.
        """
        try:
            if not self._wait_for(_PREFIX.size):
                return None
            return self._frame(self._room if room is None else room)
        except BaseException:
            self.close()
            raise

    def alike_there(self, frame: Frame) -> bool:
        """Whether another frame has begun that has the very header of one that was read: a run of the same shapes.

        Raises:
            MalformedError: the stream ends in the middle of its header.
        """
        if self._at == self._end and not select.select([self._connection], [], [], 0)[0]:
            return False
        if not self._wait_for(_PREFIX.size):
            return False
        size = _PREFIX.unpack_from(self._ahead, self._at)[0]
        if size > _KNOWN_HEADER_BYTES or not self._wait_for(_PREFIX.size + size):
            return False
        begins = self._at + _PREFIX.size
        known = self._known.get(bytes(self._ahead[begins : begins + size]))
        return known is not None and known.header is frame.header

    def close(self) -> None:
        """Close a descriptor that belongs to no frame that was read."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _frame(self, room: Room) -> Frame:
        began = self._taken
        size, token, run_us = _PREFIX.unpack(self._exactly(_PREFIX.size))
        if size > MAX_HEADER_BYTES:
            raise TooLargeError(f"A frame's header of {size} bytes is longer than the limit of {MAX_HEADER_BYTES}.")
        if token > MAX_NUMBER or run_us > MAX_NUMBER:
            raise MalformedError("A number in front of a frame's header is above 2**63-1.")
        known = self._understood(self._exactly(size), token)
        limit = self._max_parts_bytes(known.header, token) if known.total else 0
        if known.total > limit:
            raise TooLargeError(f"A frame with {known.total} bytes after its header is above the limit of {limit}.")
        if self._shared is not None and run_us:
            parts: tuple[bytes | memoryview, ...] = self._shared(run_us - 1, known.lengths)
            run_us = 0
        elif 0 < known.total <= room.most_bytes:
            views = room.views(known.lengths)
            for view in views:
                self._fill(view)
            parts = tuple([view.toreadonly() for view in views])
        else:
            parts = tuple([self._exactly(length) for length in known.lengths])
        fd = None
        if self._fd is not None and began < self._fd_before <= self._taken:
            fd, self._fd = self._fd, None
        return Frame(known.header, parts, fd, token, run_us, known.memo)

    def _understood(self, head: bytes, token: int) -> _Known:
        known = self._known.get(head)
        if known is not None:
            return known
        header = strict_cbor.decode(head, max_bytes=MAX_HEADER_BYTES)
        if not isinstance(header, dict):
            raise MalformedError("A frame's header is not a map.")
        named: Header = {key: value for key, value in header.items() if isinstance(key, str)}
        lengths = _lengths(named.pop("parts", None))
        if len(named) + 1 != len(header):
            raise MalformedError("A frame's header has keys that are not text.")
        known = _Known(named, lengths, sum(lengths), {})
        if token and len(head) <= _KNOWN_HEADER_BYTES:
            if len(self._known) >= _KNOWN_HEADERS:
                self._known.clear()
            self._known[head] = known
        return known

    # -- bytes -----------------------------------------------------------------------------------------------

    def _wait_for(self, count: int) -> bool:
        """Have at least so many bytes, few, read ahead; say whether there are any before the stream ends.

        Raises:
            MalformedError: it ends behind some.
        """
        while self._end - self._at < count:
            if self._at == self._end:
                self._at = self._end = 0
            elif self._at + count > _AHEAD_BYTES:
                left = self._end - self._at
                self._ahead[:left] = self._ahead[self._at : self._end]
                self._at, self._end = 0, left
            came = self._receive(self._ahead[self._end :])
            if not came:
                if self._at == self._end:
                    return False
                raise MalformedError("The connection ended in the middle of a frame.")
            self._end += came
        return True

    def _exactly(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if not size:
            return b""
        if size <= _AHEAD_BYTES // 4 and not self._wait_for(size):
            raise MalformedError("The connection ended in the middle of a frame.")
        there = min(size, self._end - self._at)
        data = bytes(self._ahead[self._at : self._at + there])
        self._at += there
        self._taken += there
        if there == size:
            return data
        pieces = [data]
        missing = size - there
        while missing:
            # As a rule this is one call. A signal, or the border of a frame with a descriptor, may end it early.
            try:
                piece = self._connection.recv(missing, socket.MSG_WAITALL)
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise MalformedError("The connection ended in the middle of a frame.")
            pieces.append(piece)
            missing -= len(piece)
            self._taken += len(piece)
        return b"".join(pieces)

    def _fill(self, view: memoryview) -> None:
        """Read as many bytes as the view has, into it."""
        there = min(len(view), self._end - self._at)
        view[:there] = self._ahead[self._at : self._at + there]
        self._at += there
        while there < len(view):
            try:
                count = self._connection.recv_into(view[there:], 0, socket.MSG_WAITALL)
            except ConnectionResetError:
                count = 0
            if not count:
                raise MalformedError("The connection ended in the middle of a frame.")
            there += count
        self._taken += there

    def _receive(self, view: memoryview) -> int:
        """Read what is there into the view, and a descriptor; return the number of bytes, 0 at the end of the stream.

        The other process may have ended without reading all that we sent: for us, the end of the stream too.
        """
        try:
            if not self._takes_fd:
                return self._connection.recv_into(view)
            # Room for one descriptor: the kernel closes what does not fit, as does this for what fits by alignment.
            room = socket.CMSG_SPACE(_FD_BYTES)
            came, ancillary, _, _ = self._connection.recvmsg_into([view], room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return 0
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._keep(array.array("i", data[: len(data) - len(data) % _FD_BYTES]), came)
        return came

    def _keep(self, fds: array.array[int], came: int) -> None:
        # A read ends behind the bytes of the one sending that brought a descriptor, and that begins with its frame.
        self.close()
        for surplus in fds[1:]:
            os.close(surplus)
        if fds:
            self._fd, self._fd_before = fds[0], self._taken + (self._end - self._at) + came


def _lengths(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_PARTS:
        raise MalformedError(f"A frame's `parts` is not a list of at most {MAX_PARTS} lengths.")
    lengths = []
    for length in value:
        if isinstance(length, bool) or not isinstance(length, int) or length < 0:
            raise MalformedError("The length of a frame's part is not a whole number from 0 on.")
        lengths.append(length)
    return tuple(lengths)
