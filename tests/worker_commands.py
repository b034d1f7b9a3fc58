"""What the daemon says to its worker, and a worker's service that answers it in this process."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

import onnx_models

from edge_agent.inference import frames
from edge_agent.inference.service import Service

ONE, TWO = bytes(32), bytes([2]) * 32
ROW = struct.pack("<2f", 1, 2)
RUN: dict[str, object] = {
    "do": "run",
    "token": 1,
    "digest": ONE,
    "inputs": [["in0", "FP32", [2]]],
    "outputs": [],
    "max_output_bytes": 100,
}
CANARY: dict[str, object] = {
    "do": "canary",
    "digest": TWO,
    "seconds": 0.01,
    "within_seconds": 5.0,
    "threads": [1],
    "extents": [],
    "cases": [[["in0", "FP32", [2]]]],
    "wanted": [["out0"]],
    "max_output_bytes": 100,
}
LOAD: dict[str, object] = {"do": "load", "digest": ONE}
Command = tuple[dict[str, object], Sequence[bytes], bytes | None]


def answers(*commands: Command, threads: int = 1) -> list[frames.Frame]:
    """Let a service carry out these commands, in this thread, and return what it says."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for header, parts, file in commands:
            fd = None if file is None else onnx_models.file_of(file)
            named = {key: value for key, value in header.items() if key != "token"}
            frames.send(ours, frames.pack(named, parts, token=int(str(header.get("token", 0)))), fd)
            if fd is not None:
                os.close(fd)
        ours.shutdown(socket.SHUT_WR)
        Service(theirs, threads).serve()
        theirs.shutdown(socket.SHUT_WR)
        reader = frames.FrameReader(ours, lambda *_: 1 << 20)
        found = []
        while (frame := reader.read()) is not None:
            found.append(frame)
        return found
