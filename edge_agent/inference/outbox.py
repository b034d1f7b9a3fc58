"""The daemon's sending side: it never makes the caller wait, and never deadlocks with an answer."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Sequence

from edge_agent.errors import ResourceError
from edge_agent.inference import frames

MAX_WAITING_FRAMES = 1_024
MAX_WAITING_BYTES = 512 * 1024 * 1024
"""Above one of these, a frame is refused. A single frame is always taken when nothing waits."""


class Outbox:
    """Sends frames in order; what the socket does not take at once is sent by a thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # The first one is being sent by the thread.
        self._waiting: deque[tuple[list[frames.Buffer], int | None, int]] = deque()
        self._waiting_bytes = 0
        self._closing = False
        self._gone = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._send_waiting, name="worker-outbox", daemon=True)
        self._thread.start()

    def put(self, buffers: Sequence[frames.Buffer], fd: int | None = None) -> None:
        """Send a frame or keep it until it can be sent; takes `fd` over in every case, errors included.

        To a worker that is gone, nothing is sent and nothing is raised: how it ended is told elsewhere.

        Raises:
            ResourceError: "queue-full": too much waits already.
        """
        try:
            with self._change:
                if self._gone or self._closing:
                    return
                left = list(buffers)
                if not self._waiting:
                    left = frames.send(self._connection, left, fd, wait=False)
                    if not left:
                        return
                    if len(left) < len(buffers) or left[0] is not buffers[0]:
                        _closed(fd)  # it went with the first byte
                        fd = None
                self._keep(left, fd)
                fd = None  # the thread closes it
                self._change.notify_all()
        except OSError:
            self._give_up()
        finally:
            _closed(fd)

    def close(self) -> None:
        """Tell the worker, behind everything that waits, that nothing more will come."""
        with self._change:
            self._closing = True
            self._change.notify_all()

    def abandon(self) -> None:
        """Drop what waits and end the thread. The socket must have been shut down, so that no send blocks."""
        self._give_up()
        self._thread.join()

    def _keep(self, buffers: list[frames.Buffer], fd: int | None) -> None:
        size = sum(buffer.nbytes if isinstance(buffer, memoryview) else len(buffer) for buffer in buffers)
        if self._waiting and (
            len(self._waiting) >= MAX_WAITING_FRAMES or self._waiting_bytes + size > MAX_WAITING_BYTES
        ):
            raise ResourceError(
                f"{len(self._waiting)} commands ({self._waiting_bytes} bytes) wait for the worker already.",
                code="queue-full",
            )
        self._waiting.append((buffers, fd, size))
        self._waiting_bytes += size

    def _send_waiting(self) -> None:
        while True:
            with self._change:
                while not (self._waiting or self._closing or self._gone):
                    self._change.wait()
                if self._gone:
                    return
                if not self._waiting:
                    self._shut()
                    return
                buffers, fd, size = self._waiting[0]
                self._waiting[0] = (buffers, None, size)  # this thread closes the descriptor
            try:
                frames.send(self._connection, buffers, fd)
            except OSError:
                self._give_up()
                return
            finally:
                _closed(fd)
            with self._change:
                if self._waiting:
                    self._waiting.popleft()
                    self._waiting_bytes -= size

    def _shut(self) -> None:
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            self._gone = True

    def _give_up(self) -> None:
        with self._change:
            self._gone = True
            while self._waiting:
                _closed(self._waiting.popleft()[1])
            self._change.notify_all()


def _closed(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
