"""Memory for inputs that the daemon writes and its worker reads: what is written is read, and nobody else writes it."""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
import socket
from collections.abc import Callable, Iterator

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MalformedError
from edge_agent.inference import frames, shared
from edge_agent.inference.shared import FROM_BYTES, SHARED_BYTES, Inputs, SharedInputs

LOG = logging.getLogger("test.shared")
FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE = 2, 1
ADD_SEALS = 1033


@pytest.fixture
def inputs() -> Iterator[SharedInputs]:
    """The daemon's end."""
    made = SharedInputs(LOG)
    yield made
    made.close()


def read_end(inputs: SharedInputs) -> Inputs:
    """Return the worker's end."""
    assert inputs.fd is not None
    return Inputs(os.dup(inputs.fd))


@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(0, SHARED_BYTES // 3), min_size=1, max_size=3)), max_size=12
    )
)
def test_what_is_written_is_read_and_nothing_overlaps(steps: list[tuple[bool, list[int]]]) -> None:
    """Whatever is put and freed in whatever order, all that is not freed reads as it was written."""
    inputs = SharedInputs(LOG)
    there = read_end(inputs)
    held: dict[int, tuple[int, list[bytes]]] = {}
    for token, (frees, lengths) in enumerate(steps, 1):
        if frees and held:
            inputs.free(oldest := next(iter(held)))
            del held[oldest]
        parts = [bytes([token]) * length for length in lengths]
        begin = inputs.put(token, parts)
        if begin is not None:
            held[token] = begin, parts
        elif not held:
            assert not FROM_BYTES <= frames.places(lengths)[1] <= SHARED_BYTES
        for at, written in held.values():
            assert [bytes(view) for view in there.parts(at, [len(part) for part in written])] == written
    inputs.close()


def test_room_is_used_again_from_the_lowest_on(inputs: SharedInputs) -> None:
    """So that no more memory is touched than runs are there at once."""
    part = bytes(FROM_BYTES)
    assert [inputs.put(token, [part]) for token in (1, 2, 3)] == [0, FROM_BYTES, 2 * FROM_BYTES]
    inputs.free(2)
    inputs.free(1)
    assert inputs.put(4, [part + part]) == 0
    assert inputs.put(5, [part]) == 3 * FROM_BYTES
    inputs.free(77)  # one that went through the socket


def test_what_finds_no_room_is_not_taken(inputs: SharedInputs) -> None:
    """Few bytes, too many, and any once it is full or closed; what lies there stays."""
    assert inputs.put(1, [bytes(FROM_BYTES - 64)]) is None
    assert inputs.put(2, [bytes(SHARED_BYTES + 1)]) is None
    assert inputs.put(3, [b"\1" * SHARED_BYTES]) == 0
    assert inputs.put(4, [bytes(FROM_BYTES)]) is None
    assert bytes(read_end(inputs).parts(0, [SHARED_BYTES])[0]) == b"\1" * SHARED_BYTES
    inputs.close()
    assert inputs.put(5, [bytes(FROM_BYTES)]) is None


def test_a_kernel_without_it_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs go through the socket then; no descriptor is left."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "no such seal")

    before = psutil.Process().num_fds()
    monkeypatch.setattr(shared.fcntl, "fcntl", refuse)
    inputs = SharedInputs(LOG)
    assert inputs.fd is None
    assert inputs.put(1, [bytes(FROM_BYTES)]) is None
    inputs.close()
    assert psutil.Process().num_fds() == before


def test_where_there_is_no_memory_inputs_find_no_room(inputs: SharedInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to a page that the kernel has no memory for would end the agent; what is there already is used."""
    assert inputs.put(1, [b"\1" * FROM_BYTES]) == 0

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no memory")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert inputs.put(2, [bytes(FROM_BYTES)]) is None
    assert bytes(read_end(inputs).parts(0, [FROM_BYTES])[0]) == b"\1" * FROM_BYTES
    inputs.free(1)
    assert inputs.put(3, [b"\3" * FROM_BYTES]) == 0


def _write(fd: int) -> None:
    os.write(fd, b"broken")


def _write_again_opened(fd: int) -> None:
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        os.pwrite(again, b"broken", 0)
    finally:
        os.close(again)


def _map_again_opened(fd: int) -> None:
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        mmap.mmap(again, SHARED_BYTES)[:6] = b"broken"
    finally:
        os.close(again)


def _protect(fd: int) -> None:
    """Make one's own mapping one that can be written."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_size_t(SHARED_BYTES), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    found = libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(SHARED_BYTES), mmap.PROT_READ | mmap.PROT_WRITE)
    if found:
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.memmove(address, b"broken", 6)


def _punch(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        if libc.fallocate(again, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(4096)):
            raise OSError(ctypes.get_errno(), "fallocate")
    finally:
        os.close(again)


def _shorten(fd: int) -> None:
    os.truncate(f"/proc/self/fd/{fd}", 1)


@pytest.mark.parametrize("way", [_write, _write_again_opened, _map_again_opened, _protect, _punch, _shorten])
def test_the_other_end_cannot_write(inputs: SharedInputs, way: Callable[[int], None]) -> None:
    """Not even without any containment, by any way; and the daemon still can."""
    inputs.put(1, [b"\1" * FROM_BYTES])
    assert inputs.fd is not None
    fd = os.dup(inputs.fd)
    refused = "Operation not permitted|Permission denied|Bad file descriptor|mprotect|fallocate"
    with pytest.raises(OSError, match=refused):
        way(fd)
    there = Inputs(fd)
    assert bytes(there.parts(0, [FROM_BYTES])[0]) == b"\1" * FROM_BYTES
    inputs.free(1)
    inputs.put(2, [b"\2" * FROM_BYTES])
    assert bytes(there.parts(0, [FROM_BYTES])[0]) == b"\2" * FROM_BYTES


@pytest.mark.parametrize(("begin", "length"), [(SHARED_BYTES - 64, 65), (SHARED_BYTES, 1), (2**62, 8), (0, 2**40)])
def test_places_outside_are_refused(inputs: SharedInputs, begin: int, length: int) -> None:
    """A frame that says so ends the conversation."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frames.send(ours, frames.pointing(frames.head_of({"do": "run"}, [length]), begin, token=1))
        reader = frames.FrameReader(theirs, lambda *_: 2**41, shared=read_end(inputs).parts)
        with pytest.raises(MalformedError, match="outside"):
            reader.read()


def test_frames_of_both_kinds_are_read_in_turn(inputs: SharedInputs) -> None:
    """One whose parts lie there, one whose parts follow, of the same header; their microseconds are none."""
    parts = [b"\1" * FROM_BYTES, b"\2\2"]
    head = frames.head_of({"do": "run"}, frames.lengths_of(parts))
    begin = inputs.put(1, parts)
    assert begin is not None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frames.send(ours, frames.pointing(head, begin, token=1))
        frames.send(ours, frames.with_head(head, parts, token=2))
        frames.send(ours, frames.pointing(head, begin, token=3))
        reader = frames.FrameReader(theirs, lambda *_: SHARED_BYTES, shared=read_end(inputs).parts)
        for token in (1, 2, 3):
            frame = reader.read()
            assert frame is not None
            assert (frame.token, frame.run_us, [bytes(part) for part in frame.parts]) == (token, 0, parts)
            assert all(memoryview(part).readonly for part in frame.parts)
