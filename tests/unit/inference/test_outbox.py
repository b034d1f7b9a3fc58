from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest

from edge_agent.errors import ResourceError
from edge_agent.inference import frames, outbox

LARGE = os.urandom(3_000_000)


@pytest.fixture
def ends() -> Iterator[tuple[outbox.Outbox, socket.socket]]:
    """An outbox and the other end of its socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        box = outbox.Outbox(ours)
        yield box, theirs
        theirs.close()
        box.abandon()


def numbers(theirs: socket.socket) -> list[object]:
    """Read all frames until the end of the stream and return their numbers."""
    reader = frames.FrameReader(theirs, lambda *_: 1 << 24, takes_fd=True)
    found = []
    while (frame := reader.read()) is not None:
        found.append(frame.header["n"])
        if frame.fd is not None:
            found.append("fd")
            os.close(frame.fd)
    return found


def test_frames_keep_their_order_whatever_their_size(ends: tuple[outbox.Outbox, socket.socket]) -> None:
    """Small frames never overtake large ones that the socket did not take at once, and descriptors stay with theirs."""
    box, theirs = ends
    before = psutil.Process().num_fds()
    for n in range(30):
        fd = os.dup(0) if n % 10 in (0, 1) else None
        box.put(frames.pack({"n": n}, [LARGE] if n % 10 == 0 else []), fd)
    box.close()
    expected: list[object] = []
    for n in range(30):
        expected += [n, "fd"] if n % 10 in (0, 1) else [n]
    assert numbers(theirs) == expected
    assert psutil.Process().num_fds() == before


def test_put_does_not_wait_for_a_worker_that_does_not_read(ends: tuple[outbox.Outbox, socket.socket]) -> None:
    """With nobody reading, large frames are taken until the bound, and then refused with their descriptor closed."""
    box, theirs = ends
    piece = memoryview(bytearray(outbox.MAX_WAITING_BYTES // 4))
    before = psutil.Process().num_fds()
    for n in range(4):
        box.put(frames.pack({"n": n}, [piece]), os.dup(0))
    with pytest.raises(ResourceError) as caught:
        box.put(frames.pack({"n": 4}, [piece]), os.dup(0))
    assert caught.value.error_code == "queue-full"
    theirs.close()
    box.abandon()
    assert psutil.Process().num_fds() == before - 1


def test_the_number_of_waiting_frames_is_bounded(
    ends: tuple[outbox.Outbox, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small frames are bounded as few large ones are."""
    monkeypatch.setattr(outbox, "MAX_WAITING_FRAMES", 5)
    box, _ = ends
    box.put(frames.pack({"n": 0}, [LARGE]))
    for n in range(1, 5):
        box.put(frames.pack({"n": n}))
    with pytest.raises(ResourceError, match="5 commands"):
        box.put(frames.pack({"n": 6}))


def test_a_worker_that_is_gone_is_no_error(ends: tuple[outbox.Outbox, socket.socket]) -> None:
    """Frames to a closed socket are dropped, and descriptors closed: the reader tells of the end."""
    box, theirs = ends
    theirs.close()
    before = psutil.Process().num_fds()
    for n in range(3):
        box.put(frames.pack({"n": n}, [LARGE]), os.dup(0))
    assert psutil.Process().num_fds() == before


def test_a_send_that_waits_ends_when_the_worker_goes(ends: tuple[outbox.Outbox, socket.socket]) -> None:
    """The thread that is stuck in a send is freed by the end of the other side."""
    box, theirs = ends
    box.put(frames.pack({"n": 0}, [LARGE]))
    ended = threading.Event()

    def abandon() -> None:
        theirs.close()
        box.abandon()
        ended.set()

    threading.Thread(target=abandon).start()
    assert ended.wait(10)


def test_nothing_is_sent_after_the_end(ends: tuple[outbox.Outbox, socket.socket]) -> None:
    """What comes after close is dropped."""
    box, theirs = ends
    box.put(frames.pack({"n": 1}))
    box.close()
    box.put(frames.pack({"n": 2}))
    assert numbers(theirs) == [1]
