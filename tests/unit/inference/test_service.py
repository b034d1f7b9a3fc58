from __future__ import annotations

import dataclasses
import os
import socket
import struct
import threading

import onnx_models
import pytest
from worker_commands import CANARY, LOAD, ONE, ROW, RUN, Command, answers

from edge_agent.errors import InputError, MalformedError, PeerError, ResourceError, TooLargeError, WorkerError
from edge_agent.inference import canary, frames, limits, samples
from edge_agent.inference.beside import Beside
from edge_agent.inference.events import Port
from edge_agent.inference.messages import Case
from edge_agent.inference.service import blame
from edge_agent.inference.sessions import Output, Session
from edge_agent.wire.tensors import DataType, TensorSpec


def test_commands_are_answered_in_order() -> None:
    """Load, run, unload, run again: one answer each but for unload."""
    doubling = onnx_models.doubling()
    unload: Command = ({"do": "unload", "digest": ONE}, (), None)
    found = answers((LOAD, (), doubling), (RUN, (ROW,), None), unload, (RUN, (ROW,), None))
    assert [frame.header["say"] for frame in found] == ["loaded", "done", "run-failed"]
    assert found[1].parts == (struct.pack("<2f", 2, 4),)
    assert found[2].header["blame"] == "agent"


def test_runs_of_a_model_with_lanes_are_all_answered_with_their_own_outputs() -> None:
    """Side by side, from buffers of their own; what is no run waits for them."""
    runs: list[Command] = [
        ({**RUN, "token": number}, (struct.pack("<2f", number, 0),), None) for number in range(1, 41)
    ]
    unload: Command = ({"do": "unload", "digest": ONE}, (), None)
    last: Command = ({**RUN, "token": 99}, (ROW,), None)
    lanes: Command = ({**LOAD, "lanes": 2}, (), onnx_models.doubling())
    found = answers(lanes, *runs, unload, last, threads=2)
    assert [frame.header["say"] for frame in found] == ["loaded", *["done"] * 40, "run-failed"]
    outputs = {frame.token: frame.parts for frame in found[1:-1]}
    assert outputs == {number: (struct.pack("<2f", 2 * number, 0),) for number in range(1, 41)}


def test_two_runs_are_computed_at_the_same_time() -> None:
    """Each of two waits for the other before it ends, which it could not if they took turns."""
    meet = threading.Barrier(2, timeout=60)
    beside = Beside(lambda _: meet.wait() and None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for _ in range(4):
            beside.put(frames.Frame({}), frames.Room(0), lanes=2)
        beside.wait()
    assert not meet.broken


def test_a_canary_run_says_how_many_runs_side_by_side_do_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one only where they do clearly more than the best number of threads, and with one thread each."""
    found = []
    for per_second in (10.0, 1e9):
        beside = canary._Beside(2, per_second)
        monkeypatch.setattr(canary, "_side_by_side", lambda *_, beside=beside: beside)
        (frame,) = answers(({**CANARY, "threads": [2, 1]}, (ROW,), onnx_models.doubling()), threads=2)
        found.append((frame.header["lanes"], frame.header["times"][0][0] == 1 or frame.header["lanes"] == 1))  # type: ignore[index]
    assert found == [(1, True), (2, True)]


def test_side_by_side_counts_what_all_callers_did() -> None:
    """Every caller runs at least once; one that fails makes the figure nothing."""
    file = onnx_models.file_of(onnx_models.doubling())
    try:
        session = Session(file, 1)
    finally:
        os.close(file)
    inputs = samples.make(session.inputs, {})
    beside = canary._side_by_side(session, [Case(inputs, ())], 0.0, 3)
    assert beside.lanes == 3
    assert beside.per_second > 0
    assert canary._side_by_side(session, [Case((), ())], 0.0, 3).per_second == 0


def test_a_canary_run_answers_with_figures_and_outputs() -> None:
    """The outputs of each case come back, for the daemon to judge."""
    (found,) = answers((CANARY, (ROW,), onnx_models.doubling()))
    assert found.parts == (struct.pack("<2f", 2, 4),)
    assert found.header["cases"] == [[["out0", "FP32", [2]]]]
    ((threads, p50_us, p95_us, _, runs),) = found.header["times"]  # type: ignore[union-attr,misc]
    assert threads == 1
    assert runs >= 1
    assert 0 <= p50_us <= p95_us


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
    plan = canary.Plan([canary.Case((), ())], {}, (2, 1), seconds=0.0, within_seconds=60, max_output_bytes=100)
    monkeypatch.setattr(canary, "WARM_UP_RUNS", 0)
    monkeypatch.setattr(canary, "_side_by_side", lambda *_: canary._Beside())  # that has a time, and no bound
    try:
        found = canary.measure(fd, dataclasses.replace(plan, seconds=60))
    finally:
        os.close(fd)
    assert [times.runs for times in found.times] == [7, 7]
    assert {times.threads for times in found.times} == {1, 2}
    assert all(times.p50_us <= times.p95_us for times in found.times)
    assert found.steady_bytes <= found.load_peak_bytes


def test_no_further_number_of_threads_is_begun_when_the_time_is_over() -> None:
    """A model that takes long to load is measured once."""
    fd = onnx_models.file_of(onnx_models.doubling())
    try:
        plan = canary.Plan([], {"n": 4}, (2, 1), seconds=0.0, within_seconds=0.0, max_output_bytes=100)
        found = canary.measure(fd, plan)
    finally:
        os.close(fd)
    assert [times.threads for times in found.times] == [2]


@pytest.mark.parametrize("datatype", list(DataType), ids=str)
def test_inputs_are_made_up_for_every_type(datatype: DataType) -> None:
    """Of the usual extents, and such that the model runs; what is not named is 1."""
    fd = onnx_models.file_of(onnx_models.identity(datatype.value, shape=("n", 3, "m")))
    try:
        plan = canary.Plan([], {"n": 2}, (1,), seconds=0.0, within_seconds=5.0, max_output_bytes=0)
        found = canary.measure(fd, plan)
    finally:
        os.close(fd)
    assert found.outputs == []
    assert found.not_finite == ""
    (tensor,) = samples.make([Port("x", datatype, ("n", 3, "m"))], {"n": 2})
    assert tensor.spec.shape == (2, 3, 1)
    assert samples.make([Port("x", datatype, ("n", 3, "m"))], {"n": 2}) == (tensor,)


def test_made_up_inputs_have_a_bound() -> None:
    """Extents that multiply to more than a machine has are refused before room is made for them."""
    with pytest.raises(InputError):
        samples.make([Port("x", DataType.FP32, ("n", "n", "n"))], {"n": 10_000})


def test_outputs_that_are_no_numbers_are_found() -> None:
    """For want of known answers, that much can be said."""
    spec = TensorSpec("y", DataType.FP32, (2,))
    assert samples.not_finite([Output(spec, struct.pack("<2f", 1, 2))]) == ""
    assert "'y' has infinities" in samples.not_finite([Output(spec, struct.pack("<2f", 1, float("nan")))])


def test_sizes_of_this_process() -> None:
    """The memory in use is known, its highest value is not below it, and an unknown field is 0."""
    resident = limits.status_bytes("VmRSS")
    assert resident > 0
    assert limits.status_bytes("VmHWM") > resident // 2
    assert limits.status_bytes("VmNothing") == 0
