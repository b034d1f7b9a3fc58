"""Memory for the inputs of runs, written by the daemon and read by its worker where it lies.

A memory file whose only writable mapping is the daemon's: it is sealed against every other one before the worker maps
it (`F_SEAL_FUTURE_WRITE`, Linux 5.1), so that a worker that ran a hostile model cannot change what the daemon wrote.
What a worker writes can't go this way: it could change outputs while they are checked.

Source: fcntl(2) and memfd_create(2) of the Linux man-pages.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
from collections.abc import Sequence

from edge_agent.errors import MalformedError
from edge_agent.inference.frames import Buffer, lengths_of, places

SHARED_BYTES = 4 * 1024 * 1024
"""Of inputs that wait or are computed; what has no room goes through the socket."""
FROM_BYTES = 32 * 1024
"""Inputs of fewer bytes together go through the socket, with the frame that tells of them."""
_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x10  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE


class SharedInputs:
    """The daemon's end. Not locked: whoever holds it does that.

    Attributes:
        fd: of the file, for the worker, until `passed_on`; None where the kernel has no such memory. All inputs go
            through the socket then.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.fd: int | None = None
        self._memory: mmap.mmap | None = None
        self._file = -1
        self._there = 0  # bytes whose pages are there
        self._taken: dict[int, tuple[int, int]] = {}  # by token, from where to where; in no order
        try:
            self._make()
        except OSError as error:
            log.debug("Inputs go through the socket: %s", error, extra={"action": "worker-inputs"})
            self.close()

    def _make(self) -> None:
        self._file = os.memfd_create("inputs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._file, SHARED_BYTES)
        memory = mmap.mmap(self._file, SHARED_BYTES)
        fcntl.fcntl(self._file, _ADD_SEALS, _SEALS)
        # Python keeps a descriptor as long as its mapping, in the worker, too: there one to read alone.
        self.fd = os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY | os.O_CLOEXEC)
        self._memory = memory

    def passed_on(self) -> None:
        """Close the descriptor: the worker has its own, or there will be none."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def put(self, token: int, parts: Sequence[Buffer]) -> int | None:
        """Write the inputs of a run; return where they begin, or None if they are few bytes or find no room.

        The lowest gap is taken, so that what was touched once is used again.
        """
        offsets, size = places(lengths_of(parts))
        if self._memory is None or not FROM_BYTES <= size <= SHARED_BYTES:
            return None
        begin = 0
        for first, end in sorted(self._taken.values()):
            if begin + size <= first:
                break
            begin = end
        if begin + size > SHARED_BYTES or not self._pages(begin + size):
            return None
        self._taken[token] = (begin, begin + size)
        for offset, part in zip(offsets, parts, strict=True):
            view = memoryview(part).cast("B")
            self._memory[begin + offset : begin + offset + len(view)] = view
        return begin

    def _pages(self, end: int) -> bool:
        """Have all pages up to there; a write to one that the kernel then had none for would end this process."""
        if end > self._there:
            try:
                os.posix_fallocate(self._file, 0, end)
            except OSError:
                return False
            self._there = end
        return True

    def free(self, token: int) -> None:
        """Give up what was written for a run, if anything was: it is answered, or was not sent."""
        self._taken.pop(token, None)

    def close(self) -> None:
        """Give the memory back; nothing finds room from here on."""
        self.passed_on()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Inputs:
    """The worker's end: what it can read, and nothing else.

    Args:
        fd: of the file; closed here.
    """

    def __init__(self, fd: int) -> None:
        try:
            size = os.fstat(fd).st_size
            self._memory = memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ))
        finally:
            os.close(fd)

    def parts(self, begin: int, lengths: Sequence[int]) -> tuple[memoryview, ...]:
        """Return the inputs that begin there.

        Raises:
            MalformedError: they would lie outside.
        """
        offsets, size = places(lengths)
        if begin + size > len(self._memory):
            raise MalformedError(f"Inputs of {size} bytes at {begin} lie outside of the memory for them.")
        return tuple([self._memory[begin + at : begin + at + n] for at, n in zip(offsets, lengths, strict=True)])
