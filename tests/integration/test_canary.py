from __future__ import annotations

import logging
import os
import queue
import signal
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_models
import psutil
import pytest
from onnx import helper, numpy_helper

from edge_agent.inference.canary_run import Canaries, CanaryRun
from edge_agent.inference.events import CANCELLED, CanaryDone, CanaryFailed, ModelLoaded, RunDone, WorkerStarted
from edge_agent.inference.handle import Worker
from edge_agent.inference.launch import Options
from edge_agent.inference.measurements import request, thread_counts
from edge_agent.inference.process import Canary
from edge_agent.models.catalogue import Golden, builtin
from edge_agent.models.golden import Case
from edge_agent.models.store import Store
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

LOG = logging.getLogger("test.canary")
WAIT_SECONDS = 60
MIB = 1 << 20
DIGEST = bytes([7]) * 32
EXACT = Golden(file="x.golden.cbor", digest="0" * 64, size_bytes=1, atol=0.0, rtol=0.0)


def floats(*values: float, name: str = "in0") -> Tensor:
    """Return a row of FP32."""
    return Tensor(TensorSpec(name, DataType.FP32, (len(values),)), struct.pack(f"<{len(values)}f", *values))


def number(value: int) -> Tensor:
    """Return the input of the growing model."""
    return Tensor(TensorSpec("in0", DataType.INT64, (1,)), struct.pack("<q", value))


def ask(model: bytes, *cases: Case, tolerance: Golden = EXACT, threads: tuple[int, ...] = (1,)) -> Canary:
    """Return a request for a model in memory."""
    return Canary(
        DIGEST, onnx_models.file_of(model), threads, cases, tolerance if cases else None, {"n": 4}, seconds=0.01
    )


def measure(
    asked: Canary, *, limit_bytes: int | None = None, limit_seconds: float = WAIT_SECONDS
) -> CanaryDone | CanaryFailed:
    """Make a canary run."""
    return CanaryRun(asked, Options(2, limit_bytes), LOG, limit_seconds=limit_seconds).run()


def children() -> set[int]:
    """Return the processes that this one has started and that still run."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> object:
    """Whatever becomes of a canary run: no process, no thread and no descriptor stays behind."""
    before = (children(), set(threading.enumerate()), psutil.Process().num_fds())
    yield
    assert children() == before[0]
    assert set(threading.enumerate()) == before[1]
    assert psutil.Process().num_fds() == before[2]


DOUBLE = Case((floats(1, 2),), (floats(2, 4, name="out0"),))


# -- what is measured ---------------------------------------------------------------------------------------------


def test_the_built_in_models_pass_their_canary_run() -> None:
    """Every variant that ships is right on this machine, and its figures make sense."""
    (family,) = builtin().families
    for variant in family.variants:
        done = measure(request(family, variant, Store(), threads=2, seconds=0.05))
        assert isinstance(done, CanaryDone), done
        assert (done.digest, done.golden_ok, done.why, done.checked) == (variant.digest_bytes, True, "", True)
        assert done.runs > 1
        assert 0 < done.p50_us <= done.p95_us
        assert done.load_ms > 0
        assert 0 <= done.steady_bytes <= done.load_peak_bytes <= done.peak_bytes < 100 * MIB
        assert {threads for threads, _ in done.tried} == {1, 2}
        assert done.threads in {1, 2}
        assert done.cpu_us > 0
        assert done.runtime.startswith("onnxruntime 1.")


def test_numbers_of_threads_are_tried_as_far_as_there_are_so_many() -> None:
    """All, one and two; memory is measured with all of them."""
    assert [thread_counts(threads) for threads in (1, 2, 4)] == [(1,), (2, 1), (4, 1, 2)]


def test_a_variant_that_computes_wrongly_is_found() -> None:
    """One element outside the tolerance in the second case is enough; inside the tolerance it passes."""
    off = Case((floats(1, 2),), (floats(2, 4.5, name="out0"),))
    for allowed, ok in ((0.4, False), (0.6, True)):
        tolerance = EXACT.model_copy(update={"atol": allowed})
        done = measure(ask(onnx_models.doubling(), DOUBLE, off, tolerance=tolerance))
        assert isinstance(done, CanaryDone)
        assert done.golden_ok is ok
        assert done.why == ("" if ok else "case 2: element 1 of the output 'out0' is 4 instead of 4.5")


def broken_eight_bit_model() -> bytes:
    """Return a model as tools write them that go wrong: its zero point is off, so that everything saturates."""
    constants = [
        numpy_helper.from_array(np.array(0.01, np.float32), "scale"),
        numpy_helper.from_array(np.array(250, np.uint8), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["in0", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
        helper.make_node("Add", ["x", "x"], ["out0"]),
    ]
    shape = ("n",)
    ports = [onnx_models.value("in0", "FP32", shape)], [onnx_models.value("out0", "FP32", shape)]
    return onnx_models.model(nodes, *ports, constants).SerializeToString()


def test_a_broken_8_bit_model_is_found_by_its_answers() -> None:
    """It loads, runs fast, and gives finite numbers; only known answers show it."""
    unchecked = measure(ask(broken_eight_bit_model()))
    assert isinstance(unchecked, CanaryDone)
    assert (unchecked.golden_ok, unchecked.checked) == (True, False)
    tolerance = EXACT.model_copy(update={"rtol": 0.05})
    checked = measure(ask(broken_eight_bit_model(), DOUBLE, tolerance=tolerance))
    assert isinstance(checked, CanaryDone)
    assert not checked.golden_ok
    assert "instead of 2" in checked.why


def nan_model() -> bytes:
    """Return a model whose output is no number, whatever its input."""
    node = helper.make_node("Div", ["x", "x"], ["out0"])
    zero = helper.make_node("Sub", ["in0", "in0"], ["x"])
    shape = ("n",)
    return onnx_models.model(
        [zero, node], [onnx_models.value("in0", "FP32", shape)], [onnx_models.value("out0", "FP32", shape)]
    ).SerializeToString()


def test_without_known_answers_outputs_have_to_be_finite() -> None:
    """That much can be said of any model."""
    done = measure(ask(nan_model()))
    assert isinstance(done, CanaryDone)
    assert not done.golden_ok
    assert "no number" in done.why


def test_a_canary_sees_the_memory_of_a_run() -> None:
    """The peak holds what a run takes, although it is given back after it."""
    peaks = []
    for elements in (8, MIB):
        wanted = Tensor(TensorSpec("out0", DataType.FP32, (elements,)), bytes(4 * elements))
        done = measure(ask(onnx_models.growing(), Case((number(elements),), (wanted,))))
        assert isinstance(done, CanaryDone)
        peaks.append(done.run_peak_bytes)
    assert peaks[1] - peaks[0] > 3 * MIB


# -- what goes wrong costs one canary run -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "cases", "code"),
    [
        (b"garbage", (DOUBLE,), "model-load"),
        (onnx_models.failing(), (DOUBLE,), "model-run"),
        (onnx_models.doubling(), (Case((floats(1, name="x"),), DOUBLE.outputs),), "bad-input"),
        (onnx_models.doubling(), (Case((floats(1),), (floats(2, name="y"),)),), "bad-input"),
    ],
    ids=["no model", "fails", "other input", "other output"],
)
def test_a_canary_run_that_cannot_be_made_says_why(model: bytes, cases: Sequence[Case], code: str) -> None:
    """A model that does not load, run or fit its known answers fails its canary run, and only that."""
    failed = measure(ask(model, *cases))
    assert isinstance(failed, CanaryFailed)
    assert (failed.digest, failed.code) == (DIGEST, code)
    assert failed.message


def test_a_model_that_takes_more_than_its_limit_fails_cleanly() -> None:
    """The limit is that of real work; nothing is killed, and nothing else is short of memory for it."""
    wanted = Tensor(TensorSpec("out0", DataType.FP32, (1,)), bytes(4))
    failed = measure(ask(onnx_models.growing(), Case((number(100 * MIB),), (wanted,))), limit_bytes=64 * MIB)
    assert isinstance(failed, CanaryFailed)
    assert failed.code == "resource-exhausted"


def test_a_model_that_never_ends_is_killed_in_time() -> None:
    """An endless loop costs the time of one canary run."""
    started = time.monotonic()
    failed = measure(ask(onnx_models.endless(), DOUBLE), limit_seconds=0.5)
    assert isinstance(failed, CanaryFailed)
    assert failed.code == "worker-hung"
    assert "0.5 s" in failed.message
    assert time.monotonic() - started < WAIT_SECONDS


def _one_child() -> psutil.Process:
    """Wait until the canary's worker has begun its run, and return it."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        for child in psutil.Process().children():
            # Only the running model takes that much CPU time after the import.
            if child.cpu_times().user > 1.0:
                return child
        threading.Event().wait(0.02)
    raise AssertionError("no worker came up")


@pytest.mark.parametrize("end", ["SIGSEGV", "SIGKILL"])
def test_a_crash_is_told_as_one(end: str) -> None:
    """As a crash of native code, or a kill for memory, would end it."""
    outcomes: queue.SimpleQueue[CanaryDone | CanaryFailed] = queue.SimpleQueue()
    canaries = Canaries(outcomes.put, LOG)
    canaries.start(ask(onnx_models.endless(), DOUBLE), Options(1, None))
    _one_child().send_signal(signal.Signals[end])
    failed = outcomes.get(timeout=WAIT_SECONDS)
    assert isinstance(failed, CanaryFailed)
    assert failed.code == "worker-died"
    assert end in failed.message
    canaries.cancel()


def test_a_run_that_is_called_off_ends_at_once_and_says_so() -> None:
    """The daemon that stops, or needs the memory, does not wait for it."""
    outcomes: queue.SimpleQueue[CanaryDone | CanaryFailed] = queue.SimpleQueue()
    canaries = Canaries(outcomes.put, LOG)
    canaries.start(ask(onnx_models.endless(), DOUBLE), Options(1, None))
    _one_child()
    canaries.cancel()
    failed = outcomes.get_nowait()
    assert isinstance(failed, CanaryFailed)
    assert failed.code == CANCELLED
    canaries.cancel()


def test_the_next_run_calls_the_one_before_it_off() -> None:
    """At most one goes on at a time."""
    outcomes: queue.SimpleQueue[CanaryDone | CanaryFailed] = queue.SimpleQueue()
    canaries = Canaries(outcomes.put, LOG)
    canaries.start(ask(onnx_models.endless(), DOUBLE), Options(1, None))
    canaries.start(ask(onnx_models.doubling(), DOUBLE), Options(1, None))
    first, second = (outcomes.get(timeout=WAIT_SECONDS) for _ in range(2))
    assert isinstance(first, CanaryFailed)
    assert first.code == CANCELLED
    assert isinstance(second, CanaryDone)
    canaries.cancel()


def test_serving_goes_on_while_a_model_crashes_hangs_or_takes_too_much() -> None:
    """The worker that serves is the same process, with the same model, and answers as before."""
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    worker = Worker(events.put, threads=1, memory_limit_bytes=None, log=LOG)
    worker.start()
    try:
        started = events.get(timeout=WAIT_SECONDS)
        assert isinstance(started, WorkerStarted)
        worker.load(DIGEST, onnx_models.file_of(onnx_models.doubling()), threads=1)
        assert isinstance(events.get(timeout=WAIT_SECONDS), ModelLoaded)
        assert isinstance(measure(ask(onnx_models.endless(), DOUBLE), limit_seconds=0.3), CanaryFailed)
        assert isinstance(measure(ask(onnx_models.growing(), DOUBLE), limit_bytes=MIB), CanaryFailed)
        assert isinstance(measure(ask(b"garbage", DOUBLE)), CanaryFailed)
        assert worker.pid == started.pid
        worker.run(1, DIGEST, [floats(3)], (), 100)
        done = events.get(timeout=WAIT_SECONDS)
        assert isinstance(done, RunDone)
        assert done.outputs == (floats(6, name="out0"),)
        assert events.empty()
    finally:
        worker.stop(WAIT_SECONDS)


def test_a_canary_runs_under_the_conditions_of_real_work() -> None:
    """The same environment, control group, first to go when memory runs out, and the limit that was asked for."""
    outcomes: queue.SimpleQueue[CanaryDone | CanaryFailed] = queue.SimpleQueue()
    canaries = Canaries(outcomes.put, LOG)
    canaries.start(ask(onnx_models.endless(), DOUBLE), Options(2, 300 * MIB))
    child = _one_child()
    assert child.environ()["MALLOC_ARENA_MAX"] == "2"
    assert child.environ()["ORT_DISABLE_TELEMETRY"] == "1"
    assert int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()) == 800
    assert 300 * MIB < child.rlimit(psutil.RLIMIT_DATA)[0] < 500 * MIB
    ours, theirs = (Path(f"/proc/{pid}/cgroup").read_text() for pid in (os.getpid(), child.pid))
    assert ours == theirs
    canaries.cancel()
