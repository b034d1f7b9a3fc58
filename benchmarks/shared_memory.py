"""What the way of a job's inputs to the worker costs: the socket pair, and shared memory of three kinds.

    python benchmarks/shared_memory.py [--seconds 1.5]

A child takes frames with the reader and the buffers of the worker, reads every byte once, as a model does, and answers
with a few bytes. *socket*: the bytes follow the header, as those of small inputs do. *sealed*: they are written to a
new memory file, which is sealed (what is checked cannot change any more), passed by its descriptor, and mapped by the
child, all pages at once with *ahead*. *kept*: one memory file stays mapped by both, sealed against being written by
anybody but the parent (F_SEAL_FUTURE_WRITE); the bytes are copied there, and only the header travels, as in the agent.
The ways take turns in short blocks, so that all see the same machine. Printed: median of the whole round trip, and
processor time of both sides.
"""

from __future__ import annotations

import argparse
import fcntl
import mmap
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from edge_agent.inference import frames

SIZES = (64 * 1024, 602_112, 4 * 1024 * 1024, 16 * 1024 * 1024)
BLOCKS = 12
REUSED_BYTES = 4 * 1024 * 1024
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE
KEPT_SEALS = 0x1 | 0x2 | 0x4 | 0x10  # F_SEAL_FUTURE_WRITE instead: what was mapped before may write
F_ADD_SEALS, F_GET_SEALS = 1033, 1034


def serve(connection: socket.socket) -> None:
    """Answer until the other side is gone."""
    reader = frames.FrameReader(connection, lambda *_: 2**31, takes_fd=True)
    room = frames.Room(REUSED_BYTES)
    kept = mmap.mmap(-1, 1)
    while (frame := reader.read(room)) is not None:
        if frame.header["do"] == "keep":
            assert frame.fd is not None
            kept = mmap.mmap(frame.fd, os.fstat(frame.fd).st_size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
            os.close(frame.fd)
            found = 0
        elif frame.header["do"] == "kept":
            found = int(np.frombuffer(kept, np.uint64, int(str(frame.header["bytes"])) // 8).sum())
        elif frame.fd is None:
            (data,) = frame.parts
            found = int(np.frombuffer(data, np.uint64).sum())
        else:
            assert fcntl.fcntl(frame.fd, F_GET_SEALS) == SEALS
            flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if frame.header["ahead"] else 0)
            mapped = mmap.mmap(frame.fd, os.fstat(frame.fd).st_size, flags=flags, prot=mmap.PROT_READ)
            array = np.frombuffer(mapped, np.uint64)
            found = int(array.sum())
            del array
            mapped.close()
            os.close(frame.fd)
        cpu = time.process_time_ns()
        frames.send(connection, frames.pack({"found": found.to_bytes(8, "little"), "cpu": cpu}))


class Ways:
    """The parent's end.

    Args:
        connection: to the child.
        data: the inputs of a job.
    """

    def __init__(self, connection: socket.socket, data: bytes) -> None:
        self._connection = connection
        self._data = data
        self._reader = frames.FrameReader(connection, lambda *_: 2**20)
        self.expected = int(np.frombuffer(data, np.uint64).sum()).to_bytes(8, "little")

    def socket(self) -> int:
        """Send the bytes through the socket; return the child's processor time so far in nanoseconds."""
        frames.send(self._connection, frames.pack({"do": "run"}, [self._data]))
        return self._answer()

    def sealed(self, *, ahead: bool = False) -> int:
        """Send them in sealed memory; likewise."""
        fd = os.memfd_create("inputs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(fd, self._data)
        fcntl.fcntl(fd, F_ADD_SEALS, SEALS)
        frames.send(self._connection, frames.pack({"do": "run", "ahead": ahead}), fd)
        os.close(fd)
        return self._answer()

    def keep(self) -> None:
        """Share a memory file that only this side can write."""
        fd = os.memfd_create("kept", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, len(self._data))
        self._kept = mmap.mmap(fd, len(self._data))
        fcntl.fcntl(fd, F_ADD_SEALS, KEPT_SEALS)
        frames.send(self._connection, frames.pack({"do": "keep"}), fd)
        os.close(fd)
        self._answer(b"\0" * 8)

    def kept(self) -> int:
        """Copy the bytes there; likewise."""
        self._kept[:] = self._data
        frames.send(self._connection, frames.pack({"do": "kept", "bytes": len(self._data)}))
        return self._answer()

    def _answer(self, expected: bytes = b"") -> int:
        frame = self._reader.read()
        assert frame is not None
        assert frame.header["found"] == (expected or self.expected)
        return int(frame.header["cpu"])  # type: ignore[arg-type]


def measure(way: Callable[[], int], seconds: float) -> tuple[list[float], float]:
    """Return the times of round trips, and the processor time of both sides for one, in microseconds."""
    times: list[float] = []
    child = way()
    own = time.process_time_ns()
    until = time.perf_counter() + seconds
    first, last = child, child
    while (started := time.perf_counter()) < until:
        last = way()
        times.append((time.perf_counter() - started) * 1e6)
    return times, (time.process_time_ns() - own + last - first) / len(times) / 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each way and size (default 1.5)")
    options = parser.parse_args()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024 * 1024)
    if os.fork() == 0:
        ours.close()
        serve(theirs)
        sys.stdout.flush()
        os._exit(0)
    theirs.close()
    print(f"load {os.getloadavg()[0]:.1f}; median µs of a round trip, processor time of both sides in µs")
    for size in SIZES:
        ways = Ways(ours, np.random.default_rng(size).bytes(size))
        ways.keep()
        named: dict[str, Callable[[], int]] = {
            "socket": ways.socket,
            "sealed": ways.sealed,
            "ahead": lambda: ways.sealed(ahead=True),  # noqa: B023 - called within this round
            "kept": ways.kept,
        }
        times: dict[str, list[float]] = {name: [] for name in named}
        cpu: dict[str, list[float]] = {name: [] for name in named}
        for _ in range(BLOCKS):
            for name, way in named.items():
                more, used = measure(way, options.seconds / BLOCKS)
                times[name] += more
                cpu[name].append(used)
        line = "   ".join(f"{n} {statistics.median(times[n]):8.0f} {statistics.median(cpu[n]):8.0f}" for n in named)
        print(f"{size / 1024:8.0f} KiB   {line}", flush=True)
    ours.close()
    os.wait()


if __name__ == "__main__":
    main()
