"""Takes MQTT packets out of a stream: many small ones with one reading, a large one's payload where it stays. No I/O.

Nothing in a packet is believed but its length, and that one only up to a limit. What a PUBLISH says in front of its
payload is kept apart from it, so that a payload is bytes of their own without having been copied.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final, NamedTuple

from edge_agent.errors import MalformedError

PUBLISH: Final = 3
PUBACK: Final = 4

_AHEAD_BYTES: Final = 16 * 1024
_READINGS: Final = 64
"""Of a large packet at a time, so that a fast peer leaves room for everything else."""
_MAX_LENGTH_DIGITS: Final = 4  # MQTT 5, 1.5.5

Receive = Callable[[memoryview], "int | None"]
"""Puts what is there into the view; returns how much, 0 at the end of the stream, None if there is nothing now."""


class Packet(NamedTuple):
    """A whole packet.

    Attributes:
        first: its first byte, kind and flags.
        head: of a PUBLISH topic, id and properties (MQTT 5, 3.3.2); of every other kind, all that follows the length.
        payload: of a PUBLISH.
    """

    first: int
    head: bytes
    payload: bytes = b""

    @property
    def kind(self) -> int:
        """Which of MQTT's control packets it is (MQTT 5, 2.1.2)."""
        return self.first >> 4


class _Large:
    """A packet that is being put together: the rest of it comes straight into its place.

    The place is one of `bytes` from the start, which nobody else knows until it is full.
    """

    def __init__(self, first: int, head: bytes | None, size: int, begun: memoryview) -> None:
        self.first = first
        self.head = head  # None: it is not known yet how far it goes
        self._bytes = io.BytesIO(bytes(size))
        self._view = self._bytes.getbuffer()
        self._view[: len(begun)] = begun
        self._at = len(begun)

    @property
    def whole(self) -> bool:
        return self._at == len(self._view)

    def fill(self, receive: Receive) -> int | None:
        came = receive(self._view[self._at :])
        self._at += came or 0
        return came

    def take(self) -> bytes:
        self._view.release()
        return self._bytes.getvalue()


class PacketReader:
    """Reads one stream from its start.

    Args:
        most_bytes: behind a packet's length; what is longer is not read.
        v5: whether packets are of MQTT 5.

    Attributes:
        coming_bytes: what follows the length of the packet that is being read, when that is a long one; else 0.
    """

    def __init__(self, most_bytes: int, *, v5: bool) -> None:
        self.coming_bytes = 0
        self._most_bytes = most_bytes
        self._v5 = v5
        self._ahead = memoryview(bytearray(_AHEAD_BYTES))
        self._at = self._end = 0  # what was read and not taken lies between them
        self._large: _Large | None = None

    def fill(self, receive: Receive) -> int | None:
        """Read what is there, or much of it. Whoever calls takes every packet before he calls again.

        Returns:
            What `receive` returned first.
        """
        if self.coming_bytes > self._most_bytes:
            return None
        if self._large is None:
            if self._at == self._end:
                self._at = self._end = 0
            elif self._end == _AHEAD_BYTES:
                left = self._end - self._at
                self._ahead[:left] = self._ahead[self._at : self._end]
                self._at, self._end = 0, left
            came = receive(self._ahead[self._end :])
            self._end += came or 0
            return came
        came = more = self._large.fill(receive)
        for _ in range(_READINGS):
            if not more or self._large.whole:
                break
            more = self._large.fill(receive)
        return came

    def take(self) -> Packet | None:
        """Return the next packet, or None until more of it has come.

        Raises:
            MalformedError: these bytes are no packet.
        """
        if self._large is not None:
            return self._take_large(self._large) if self._large.whole else None
        there = self._ahead[self._at : self._end]
        found = _length(there)
        if found is None:
            return None
        begin, length = found
        if length > self._most_bytes:
            self.coming_bytes = length
            return None
        body = there[begin : begin + length]
        if len(body) == length:
            self._at += begin + length
            return self._split(there[0], bytes(body))
        if begin + length > _AHEAD_BYTES:
            self._begin_large(there[0], body, length)
        return None

    def _begin_large(self, first: int, body: memoryview, length: int) -> None:
        head: bytes | None = None
        if first >> 4 == PUBLISH:
            size = head_bytes(first, body, v5=self._v5)
            if size is not None and size > length:
                raise MalformedError("What a PUBLISH says in front of its payload is longer than the packet.")
            if size is not None and size <= len(body):
                head = bytes(body[:size])
            elif self._end - self._at < _AHEAD_BYTES // 2:
                return  # a little more, and it is there
        begun = len(head) if head is not None else 0
        self._large = _Large(first, head, length - begun, body[begun:])
        self._at = self._end = 0
        self.coming_bytes = length

    def _take_large(self, large: _Large) -> Packet:
        self._large = None
        self.coming_bytes = 0
        if large.head is not None:
            return Packet(large.first, large.head, large.take())
        return self._split(large.first, large.take())

    def _split(self, first: int, body: bytes) -> Packet:
        if first >> 4 != PUBLISH:
            return Packet(first, body)
        size = head_bytes(first, body, v5=self._v5)
        if size is None or size > len(body):
            raise MalformedError("A PUBLISH ends before its payload begins.")
        return Packet(first, body[:size], body[size:])


def _length(there: memoryview) -> tuple[int, int] | None:
    """Return where a packet's body begins and how long it is; None if that has not come yet."""
    return _variable(there, 1, len(there))


def head_bytes(first: int, body: bytes | memoryview, *, v5: bool) -> int | None:
    """Return how long that is which stands in front of the payload of a PUBLISH; None if too little of it is there.

    Raises:
        MalformedError: the length of its properties is no number.
    """
    if len(body) < 2:
        return None
    at = 2 + (body[0] << 8 | body[1]) + (2 if first & 0b110 else 0)
    if not v5:
        return at
    found = _variable(body, at, len(body))
    return None if found is None else sum(found)


def _variable(data: bytes | memoryview, at: int, end: int) -> tuple[int, int] | None:
    """Read a Variable Byte Integer; return where it ends and its value, or None if it has not come whole."""
    value = 0
    for digit in range(_MAX_LENGTH_DIGITS):
        if at + digit >= end:
            return None
        byte = data[at + digit]
        value |= (byte & 127) << 7 * digit
        if byte < 128:
            return at + digit + 1, value
    raise MalformedError("A length in a packet has more than four digits.")
