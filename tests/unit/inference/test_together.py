"""Waiting runs that are made one: each is answered as if it were alone, or they are not made one."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx_models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from worker_commands import CANARY, LOAD, ONE, ROW, RUN, Command, answers

from edge_agent.errors import WorkerError
from edge_agent.inference import canary, frames, samples, together
from edge_agent.inference.sessions import Session
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

WIDTH = 4
SHAPE = ("n", WIDTH)


def _model(*nodes: object, inputs: str = "FP32", initializers: tuple[object, ...] = ()) -> bytes:
    made = onnx_models.model(
        nodes,  # type: ignore[arg-type] # nodes of onnx
        [onnx_models.value("x", inputs, SHAPE)],
        [onnx_models.value("y", "FP32", SHAPE)],
        initializers,  # type: ignore[arg-type] # tensors of onnx
    )
    return made.SerializeToString()


def row_by_row() -> bytes:
    """Return a model whose rows know nothing of each other."""
    weights = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32) * 3, "w")
    return _model(helper.make_node("MatMul", ["x", "w"], ["y"]), initializers=(weights,))


def by_the_largest() -> bytes:
    """Return a model that takes the largest number of all rows from each."""
    axes = numpy_helper.from_array(np.array([0, 1]), "axes")
    most = helper.make_node("ReduceMax", ["x", "axes"], ["m"], keepdims=1)
    return _model(most, helper.make_node("Sub", ["x", "m"], ["y"]), initializers=(axes,))


def quantized_by_all() -> bytes:
    """Return a model that quantizes all rows by one scale."""
    one = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    return _model(one, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]))


def of_whole_numbers() -> bytes:
    """Return a model that takes tokens."""
    return _model(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), inputs="INT64")


@contextmanager
def opened(model: bytes) -> Iterator[tuple[Session, int]]:
    """Load a model; give it with its file."""
    fd = onnx_models.file_of(model)
    try:
        yield Session(fd, 1), fd
    finally:
        os.close(fd)


def _run(rows: Sequence[Sequence[float]]) -> tuple[Tensor, ...]:
    numbers = [number for row in rows for number in row]
    return (Tensor(TensorSpec("x", DataType.FP32, (len(rows), WIDTH)), struct.pack(f"<{len(numbers)}f", *numbers)),)


ROW_OF_NUMBERS = st.lists(st.floats(width=32, allow_nan=False), min_size=WIDTH, max_size=WIDTH)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_several_runs_as_one_give_each_its_own(data: st.DataObject, rows: int) -> None:
    """Whatever the numbers are, and however many rows each run has."""
    one = st.lists(ROW_OF_NUMBERS, min_size=rows, max_size=rows)
    runs = [_run(given) for given in data.draw(st.lists(one, min_size=2, max_size=8))]
    with opened(row_by_row()) as (session, _):
        alone = [bytes(session.run(run, (), 1000)[0].data) for run in runs]
        several = [bytes(outputs[0].data) for outputs in session.run_several(runs, (), 1000)]
    assert several == alone


@pytest.mark.parametrize(
    ("model", "pays"),
    [(row_by_row(), True), (by_the_largest(), False), (quantized_by_all(), False), (of_whole_numbers(), False)],
    ids=["each row for itself", "by the largest of all", "quantized by all", "whole numbers, one known"],
)
def test_only_where_each_run_is_answered_as_if_it_were_alone(model: bytes, *, pays: bool) -> None:
    """A model that looks at its neighbours is not given any."""
    with opened(model) as (session, fd):
        found = together.measured(session, fd, [samples.make(session.inputs, {})], 0.0, 0)
    assert together.take_several(session.inputs + session.outputs)
    assert found.runs == (together.MOST if pays else 1)


def test_whole_numbers_are_made_one_if_two_runs_are_known() -> None:
    """Names of things cannot be made up, but two that are known show what a model does with neighbours."""
    with opened(of_whole_numbers()) as (session, fd):
        spec = TensorSpec("x", DataType.INT64, (1, WIDTH))
        known = [(Tensor(spec, struct.pack("<4q", *numbers)),) for numbers in ((1, 2, 3, 4), (9, 7, 8, 5))]
        assert together.measured(session, fd, known, 0.0, 0).runs == together.MOST
        assert together.measured(session, fd, known[:1] * 2, 0.0, 0).runs == 1


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (onnx_models.identity("FP32", shape=(1, 2)), "its first extent is fixed"),
        (onnx_models.identity("FP32", "FP32"), "its inputs have first extents of their own"),
        (onnx_models.identity("BYTES"), "strings"),
        (onnx_models.identity("BF16"), "numbers that numpy does not know"),
        (onnx_models.identity("FP32", shape=("n", "n")), "the same name stands elsewhere"),
        (onnx_models.identity("FP32", shape=(None, 2)), "its first extent has no name"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_model_whose_form_does_not_allow_it_takes_one_run_at_a_time(model: bytes, why: str) -> None:
    """Nothing is tried."""
    with opened(model) as (session, fd):
        assert not together.take_several(session.inputs + session.outputs), why
        assert together.measured(session, fd, [samples.make(session.inputs, {})], 0.0, 0) == together.AsOne()


def test_more_memory_than_was_planned_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured for one run is what there is room for."""
    monkeypatch.setattr(together.limits, "status_bytes", lambda name: 10**9 if name == "VmHWM" else 0)
    with opened(row_by_row()) as (session, fd):
        assert together.measured(session, fd, [samples.make(session.inputs, {})], 0.0, 10**8).runs == 1
        assert together.measured(session, fd, [samples.make(session.inputs, {})], 0.0, 10**9).runs == together.MOST


def test_no_rows_are_no_several_runs() -> None:
    """Nor do they end the worker."""
    empty = (Tensor(TensorSpec("x", DataType.FP32, (0, WIDTH)), b""),)
    with opened(row_by_row()) as (session, _), pytest.raises(WorkerError, match="several"):
        session.run_several([empty, empty], (), 100)


# -- the worker ----------------------------------------------------------------------------------------------------


def _runs(numbers: range) -> list[Command]:
    return [({**RUN, "token": number}, (struct.pack("<2f", number, 0),), None) for number in numbers]


SEVERAL: Command = ({**LOAD, "together": 8}, (), onnx_models.doubling())


def test_runs_that_wait_are_made_one_and_each_has_its_own_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are, up to eight at a time; what comes between them has its turn in order."""
    sizes = []
    run_several = Session.run_several

    def watched(self: Session, runs: list[object], *rest: object) -> object:
        sizes.append(len(runs))
        return run_several(self, runs, *rest)  # type: ignore[arg-type] # as it came

    monkeypatch.setattr(Session, "run_several", watched)
    other: Command = ({**RUN, "token": 90, "inputs": [["in0", "FP32", [1]]]}, (struct.pack("<f", 90),), None)
    unload: Command = ({"do": "unload", "digest": ONE}, (), None)
    found = answers(
        SEVERAL, *_runs(range(1, 21)), other, *_runs(range(21, 24)), unload, ({**RUN, "token": 99}, (ROW,), None)
    )
    assert sizes == [8, 8, 4, 3]
    assert [frame.token for frame in found] == [0, *range(1, 21), 90, *range(21, 24), 99]
    assert [frame.header["say"] for frame in found] == ["loaded", *["done"] * 24, "run-failed"]
    assert [frame.parts for frame in found[1:21]] == [(struct.pack("<2f", 2 * n, 0),) for n in range(1, 21)]
    assert found[21].parts == (struct.pack("<f", 180),)


def test_if_several_runs_fail_as_one_each_is_computed_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that only whose fault it is has none."""

    def fails(*_: object) -> None:
        raise WorkerError("one of them is bad", code="model-run")

    monkeypatch.setattr(Session, "run_several", fails)
    found = answers(SEVERAL, *_runs(range(1, 6)))
    assert [frame.parts for frame in found[1:]] == [(struct.pack("<2f", 2 * n, 0),) for n in range(1, 6)]


def test_outputs_above_the_limit_are_refused_one_by_one() -> None:
    """As those of a single run are."""
    small = [({**command[0], "max_output_bytes": 7}, command[1], None) for command in _runs(range(1, 4))]
    found = answers(SEVERAL, *small)
    assert [frame.header.get("code") for frame in found[1:]] == ["too-large"] * 3


def test_a_canary_run_says_whether_to_make_waiting_runs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they do clearly more than single runs, side by side or not."""
    found = []
    for per_second in (10.0, 1e9):
        monkeypatch.setattr(together, "measured", lambda *_, rate=per_second: together.AsOne(8, rate))
        monkeypatch.setattr(canary, "_side_by_side", lambda *_: canary._Beside(2, 1e8))
        (frame,) = answers(({**CANARY, "threads": [2, 1]}, (ROW,), onnx_models.doubling()), threads=2)
        found.append((frame.header["together"], frame.header["lanes"]))
    assert found == [(1, 2), (8, 1)]


def test_a_run_that_takes_long_is_not_made_one_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes next would wait for all of them."""
    monkeypatch.setattr(together, "MOST_RUN_US", -1)
    (frame,) = answers((CANARY, (ROW,), onnx_models.doubling()))
    assert frame.header["together"] == 1


def test_a_frame_that_has_only_begun_is_waited_for_and_another_one_is_not_alike() -> None:
    """By its header, byte for byte."""
    ours, theirs = frames.socket.socketpair()
    with ours, theirs:
        reader = frames.FrameReader(theirs, lambda *_: 100)
        run = b"".join(bytes(part) for part in frames.pack({"do": "run"}, (b"ab",), token=1))
        other = b"".join(bytes(part) for part in frames.pack({"do": "walk"}, (b"ab",), token=3))
        ours.sendall(run)
        first = reader.read()
        assert first is not None
        assert not reader.alike_there(first)  # nothing is there
        ours.sendall(run[:-1])
        assert reader.alike_there(first)
        ours.sendall(run[-1:] + other)
        assert reader.read() == first
        assert not reader.alike_there(first)
        assert reader.read() is not None
        ours.close()
        assert not reader.alike_there(first)
