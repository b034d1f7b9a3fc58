from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

import onnx_models
import pytest

from edge_agent.errors import InputError, MalformedError, PeerError, ResourceError, TooLargeError, WorkerError
from edge_agent.inference import canary, frames, limits
from edge_agent.inference.service import Service, blame
from edge_agent.inference.sessions import Session

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
    "cases": [[["in0", "FP32", [2]]]],
    "wanted": [["out0"]],
    "max_output_bytes": 100,
}
LOAD: dict[str, object] = {"do": "load", "digest": ONE}
Command = tuple[dict[str, object], Sequence[bytes], bytes | None]


def answers(*commands: Command) -> list[frames.Frame]:
    """Let a service carry out these commands, in this thread, and return what it says."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for header, parts, file in commands:
            fd = None if file is None else onnx_models.file_of(file)
            frames.send(ours, frames.pack(header, parts), fd)
            if fd is not None:
                os.close(fd)
        ours.shutdown(socket.SHUT_WR)
        Service(theirs, 1).serve()
        theirs.shutdown(socket.SHUT_WR)
        reader = frames.FrameReader(ours, lambda _: 1 << 20)
        found = []
        while (frame := reader.read()) is not None:
            found.append(frame)
        return found


def test_commands_are_answered_in_order() -> None:
    """Load, run, unload, run again: one answer each but for unload."""
    doubling = onnx_models.doubling()
    unload: Command = ({"do": "unload", "digest": ONE}, (), None)
    found = answers((LOAD, (), doubling), (RUN, (ROW,), None), unload, (RUN, (ROW,), None))
    assert [frame.header["say"] for frame in found] == ["loaded", "done", "run-failed"]
    assert found[1].parts == (struct.pack("<2f", 2, 4),)
    assert found[2].header["blame"] == "agent"


def test_a_canary_run_answers_with_figures_and_outputs() -> None:
    """The outputs of each case come back, for the daemon to judge."""
    (found,) = answers((CANARY, (ROW,), onnx_models.doubling()))
    assert found.parts == (struct.pack("<2f", 2, 4),)
    assert found.header["cases"] == [[["out0", "FP32", [2]]]]
    assert isinstance(found.header["runs"], int)
    assert found.header["runs"] > 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ((LOAD, (), None), "worker"),
        ((LOAD, (), b"garbage"), "model-load"),
        ((CANARY, (ROW,), None), "worker"),
        ((CANARY, (), b"x"), "malformed"),
        (({**CANARY, "max_output_bytes": 7}, (ROW,), onnx_models.doubling()), "too-large"),
        ((RUN, (), None), "worker"),
    ],
)
def test_what_cannot_be_done_is_answered_too(command: Command, code: str) -> None:
    """A failed command has its answer, with a code, and the service goes on."""
    found = answers(command, (LOAD, (), onnx_models.doubling()))
    assert found[0].header["code"] == code
    assert found[1].header["say"] == "loaded"


@pytest.mark.parametrize(
    "header", [{}, {"do": "dance"}, {"do": 7}, {"do": "load"}, {"do": "run", "digest": ONE}], ids=str
)
def test_what_is_no_command_ends_the_service(header: dict[str, object]) -> None:
    """The daemon does not say such things; whoever does is not served."""
    with pytest.raises(MalformedError):
        answers((header, (), None))


def test_memory_that_runs_out_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever Python finds no memory, the command fails as a lack of this machine."""

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    doubling = onnx_models.doubling()
    monkeypatch.setattr(Session, "run", no_memory)
    monkeypatch.setattr(canary, "measure", no_memory)
    found = answers((LOAD, (), doubling), (RUN, (ROW,), None), (CANARY, (ROW,), doubling))
    assert [frame.header.get("code") for frame in found] == [None, "resource-exhausted", "resource-exhausted"]
    assert found[1].header["blame"] == "agent"


def test_blame() -> None:
    """Each kind of failure has one to blame."""
    assert blame(InputError("x")) == blame(TooLargeError("x")) == blame(MalformedError("x")) == "requester"
    assert blame(WorkerError("x", code="model-run")) == "model"
    assert (
        blame(WorkerError("x")) == blame(ResourceError("x")) == blame(MemoryError()) == blame(PeerError("x")) == "agent"
    )


def test_times_are_sorted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of timed runs has a bound, and the quantiles are in order."""
    monkeypatch.setattr(canary, "MAX_RUNS", 7)
    fd = onnx_models.file_of(onnx_models.constant_text(b"fine"))
    try:
        found = canary.measure(fd, [canary.Case((), ())], 100, 60, 1)
    finally:
        os.close(fd)
    assert found.runs == 7
    assert found.p50_us <= found.p95_us


def test_sizes_of_this_process() -> None:
    """The memory in use is known, its highest value is not below it, and an unknown field is 0."""
    resident = limits.status_bytes("VmRSS")
    assert resident > 0
    assert limits.status_bytes("VmHWM") > resident // 2
    assert limits.status_bytes("VmNothing") == 0
