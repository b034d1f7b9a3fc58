from __future__ import annotations

import os
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MalformedError, PeerError, TooLargeError
from edge_agent.inference import frames
from edge_agent.wire import strict_cbor

LIMIT = 1 << 20


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets: the sender's and the reader's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def read_all(data: bytes, *, limit: int = LIMIT, takes_fd: bool = False, reuses: int = 0) -> list[frames.Frame]:
    """Read frames from exactly these bytes, until the end of the stream."""
    ours, theirs = socket.socketpair()

    def feed() -> None:
        with ours:
            try:
                ours.sendall(data)
            except OSError:
                return  # the reader refused and closed

    feeder = threading.Thread(target=feed)
    feeder.start()
    found = []
    try:
        with theirs:
            reader = frames.FrameReader(theirs, lambda *_: limit, takes_fd=takes_fd, reuses_bytes=reuses)
            while (frame := reader.read()) is not None:
                found.append(frames.Frame(frame.header, tuple(bytes(part) for part in frame.parts), frame.fd))
    finally:
        feeder.join()
    return found


def joined(header: dict[str, object], *parts: frames.Buffer) -> bytes:
    """Return a frame's bytes."""
    return b"".join(bytes(buffer) for buffer in frames.pack(header, parts))


def with_header(value: object) -> bytes:
    """Return the bytes of a frame with any header, right or wrong."""
    head = strict_cbor.encode(value)
    return struct.pack("<IQQ", len(head), 0, 0) + head


@given(
    header=st.dictionaries(
        st.text(max_size=8).filter(lambda key: key != "parts"),
        st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=40), st.text(max_size=40), st.booleans()),
        max_size=5,
    ),
    parts=st.lists(st.binary(max_size=2000), max_size=5),
    takes_fd=st.booleans(),
    reuses=st.sampled_from([0, 1000, LIMIT]),
)
def test_what_is_packed_is_read(header: dict[str, object], parts: list[bytes], *, takes_fd: bool, reuses: int) -> None:
    """Any header and any parts, empty ones too, arrive as they were, frame after frame."""
    data = joined(header, *parts)
    found = read_all(data * 3, takes_fd=takes_fd, reuses=reuses)
    assert [(frame.header, list(frame.parts), frame.fd) for frame in found] == [(header, parts, None)] * 3


@given(parts=st.lists(st.binary(max_size=300), max_size=3), reuses=st.sampled_from([0, LIMIT]), data=st.data())
def test_a_cut_frame_is_refused(parts: list[bytes], reuses: int, data: st.DataObject) -> None:
    """A stream that ends anywhere inside a frame is malformed, never a shorter frame."""
    whole = joined({"do": "run"}, *parts)
    at = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(MalformedError, match="middle of a frame"):
        read_all(whole[:at], reuses=reuses)


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_the_end(data: bytes) -> None:
    """Random bytes raise the one kind of error that is the peer's fault, or are no frame at all."""
    try:
        found = read_all(data)
    except PeerError:
        return
    assert all(joined(frame.header, *frame.parts) in data for frame in found)


@given(st.integers(frames.MAX_HEADER_BYTES + 1, 2**32 - 1))
def test_a_huge_header_is_not_waited_for(size: int) -> None:
    """A header length above the limit is refused before a byte of it is read or room is made."""
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="header"):
            read_all(struct.pack("<IQQ", size, 0, 0) + b"\x00" * 64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("lengths", [[LIMIT + 1], [2**63], [LIMIT // 2] * 3, [1] * (frames.MAX_PARTS + 1)])
def test_huge_parts_are_not_waited_for(lengths: list[int]) -> None:
    """Parts that are too long, alone or together, or too many are refused before room is made for them."""
    tracemalloc.start()
    try:
        with pytest.raises(PeerError):
            read_all(with_header({"parts": lengths}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LIMIT


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"parts": 5},
        {"parts": [-1]},
        {"parts": [True]},
        {"parts": ["1"]},
        {"parts": [None]},
        {"parts": [], 7: 8},
        ["parts", []],
        7,
    ],
    ids=str,
)
def test_a_header_of_another_form_is_refused(header: object) -> None:
    """Only a map of texts with a list of lengths is a header."""
    with pytest.raises(MalformedError):
        read_all(with_header(header))


def test_the_limit_may_depend_on_the_header() -> None:
    """Who reads decides by the header how much may follow it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frames.send(ours, frames.pack({"say": "done"}, [b"12345"]))
        frames.send(ours, frames.pack({"say": "failed"}, [b"12345"]))
        reader = frames.FrameReader(theirs, lambda header, _: 5 if header["say"] == "done" else 4)
        assert reader.read() == frames.Frame({"say": "done"}, (b"12345",))
        with pytest.raises(TooLargeError, match="5 bytes"):
            reader.read()


def test_a_descriptor_travels_with_its_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    """The frame that a descriptor was sent with, and no other, brings it: the same open file."""
    ours, theirs = pair
    fd = os.memfd_create("file")
    os.write(fd, b"content")
    frames.send(ours, frames.pack({"n": 1}, [b"a"]))
    frames.send(ours, frames.pack({"n": 2}, [b"b"]), fd)
    frames.send(ours, frames.pack({"n": 3}, [b"c"]))
    os.close(fd)
    reader = frames.FrameReader(theirs, lambda *_: LIMIT, takes_fd=True)
    first, second, third = reader.read(), reader.read(), reader.read()
    assert first == frames.Frame({"n": 1}, (b"a",))
    assert third == frames.Frame({"n": 3}, (b"c",))
    assert second is not None
    assert second.fd is not None
    assert os.pread(second.fd, 100, 0) == b"content"
    assert not os.get_inheritable(second.fd)
    os.close(second.fd)


def test_descriptors_that_nobody_asked_for_are_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    """The daemon's side takes no descriptors; a worker cannot fill its table with them."""
    ours, theirs = pair
    before = psutil.Process().num_fds()
    for _ in range(8):
        frames.send(ours, frames.pack({}), 0)
    reader = frames.FrameReader(theirs, lambda *_: 0)
    assert [reader.read() for _ in range(8)] == [frames.Frame({})] * 8
    assert psutil.Process().num_fds() == before


def test_surplus_and_orphaned_descriptors_are_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    """Of several descriptors one is taken; that of a frame which turns out malformed is closed."""
    ours, theirs = pair
    before = psutil.Process().num_fds()
    socket.send_fds(ours, [joined({"n": 1})], [0, 1, 2])
    socket.send_fds(ours, [with_header([])], [0])
    reader = frames.FrameReader(theirs, lambda *_: 0, takes_fd=True)
    frame = reader.read()
    assert frame is not None
    assert frame.fd is not None
    os.close(frame.fd)
    with pytest.raises(MalformedError):
        reader.read()
    assert psutil.Process().num_fds() == before


def test_sending_without_waiting_gives_back_the_rest(pair: tuple[socket.socket, socket.socket]) -> None:
    """What the socket does not take at once is returned, and continues where it stopped."""
    ours, theirs = pair
    parts = [os.urandom(700_000), b"", os.urandom(500_000)]
    left = frames.send(ours, frames.pack({"n": 1}, parts), wait=False)
    assert left
    assert frames.send(ours, left, wait=False) == left
    sender = threading.Thread(target=frames.send, args=(ours, left))
    sender.start()
    frame = frames.FrameReader(theirs, lambda *_: 2 * LIMIT).read()
    sender.join()
    assert frame == frames.Frame({"n": 1}, tuple(parts))


def test_a_buffer_is_used_again_and_is_aligned(pair: tuple[socket.socket, socket.socket]) -> None:
    """Parts share memory with those of the frame before, start where any number may start, and cannot be written."""
    ours, theirs = pair
    reader = frames.FrameReader(theirs, lambda *_: LIMIT, reuses_bytes=100)
    addresses = []
    for parts in ([b"abc", b"", b"defgh"], [b"123", b"4"], [b"x" * 101]):
        frames.send(ours, frames.pack({}, parts))
        frame = reader.read()
        assert frame is not None
        assert [bytes(part) for part in frame.parts] == parts
        views = [part for part in frame.parts if isinstance(part, memoryview)]
        assert all(view.readonly for view in views)
        addresses.append([np.frombuffer(view, np.uint8).ctypes.data for view in views if len(view)])
    assert addresses[0] == addresses[1]
    assert addresses[0][1] - addresses[0][0] == 64
    assert addresses[2] == []


def test_a_peer_that_died_with_unread_bytes_is_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """A reset between two frames is the end of the stream; what was sent before it still arrives."""
    ours, theirs = pair
    frames.send(theirs, frames.pack({"never": "read"}))
    frames.send(ours, frames.pack({"n": 1}))
    ours.close()
    for takes_fd in (False, True):
        reader = frames.FrameReader(theirs, lambda *_: 0, takes_fd=takes_fd)
        assert reader.read() == (None if takes_fd else frames.Frame({"n": 1}))
        assert reader.read() is None


def test_too_much_is_not_packed() -> None:
    """The sender keeps to the limits that the reader has."""
    with pytest.raises(TooLargeError, match="parts"):
        frames.pack({}, [b""] * (frames.MAX_PARTS + 1))
    with pytest.raises(TooLargeError, match="header"):
        frames.pack({"text": "x" * frames.MAX_HEADER_BYTES})


def test_the_header_of_a_run_is_understood_once(pair: tuple[socket.socket, socket.socket]) -> None:
    """Frames of runs with equal headers share what was made of it, and have numbers and parts of their own."""
    ours, theirs = pair
    reader = frames.FrameReader(theirs, lambda *_: LIMIT)
    found = []
    for token in (1, 2, 0, 0):
        frames.send(ours, frames.pack({"do": "run"}, [bytes([token])], token=token, run_us=10 * token))
        frame = reader.read()
        assert frame is not None
        found.append(frame)
    assert [(frame.token, frame.run_us, frame.parts) for frame in found[:2]] == [(1, 10, (b"\1",)), (2, 20, (b"\2",))]
    assert found[0].memo is found[1].memo
    assert found[2].memo is found[0].memo, "it is known by then"


def test_no_more_headers_are_remembered_than_there_is_room_for(pair: tuple[socket.socket, socket.socket]) -> None:
    """Whoever sends another one each time, or long ones, or such as are of no run, fills nothing."""
    ours, theirs = pair
    reader = frames.FrameReader(theirs, lambda *_: LIMIT)
    for token in range(1, 200):
        frames.send(ours, frames.pack({"n": token}, token=token))
        reader.read()
        assert len(reader._known) <= frames._KNOWN_HEADERS
    before = len(reader._known)
    frames.send(ours, frames.pack({"n": "x" * frames._KNOWN_HEADER_BYTES}, token=1))
    frames.send(ours, frames.pack({"say": "ready"}))
    reader.read()
    reader.read()
    assert len(reader._known) == before


@pytest.mark.parametrize("numbers", [(2**63, 0), (0, 2**63)])
def test_numbers_in_front_have_a_bound(numbers: tuple[int, int]) -> None:
    """They are such as every side holds."""
    head = strict_cbor.encode({"parts": []})
    with pytest.raises(MalformedError, match="2\\*\\*63"):
        read_all(struct.pack("<IQQ", len(head), *numbers) + head)


def test_a_descriptor_is_found_among_frames_that_are_read_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    """Wherever it stands among small frames, and however long its own frame is."""
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with_fd = {3, 4, 9}
    for n in range(12):
        frames.send(ours, frames.pack({"n": n}, [bytes(200_000 if n == 9 else n)]), 0 if n in with_fd else None)
    ours.shutdown(socket.SHUT_WR)
    reader = frames.FrameReader(theirs, lambda *_: LIMIT, takes_fd=True)
    found = []
    while (frame := reader.read()) is not None:
        found.append(frame.header["n"] if frame.fd is not None else None)
        if frame.fd is not None:
            os.close(frame.fd)
    assert [n for n in found if n is not None] == sorted(with_fd)
