"""Optimised copies for real: made by a contained process, loaded by a worker, and no bit of an answer is another."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import needs
import numpy as np
import onnx_models
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.inference import containment, launch, optimising, samples, sessions
from edge_agent.inference.events import LoadFailed, ModelLoaded, RunDone, WorkerEvent, WorkerStarted
from edge_agent.inference.handle import Worker
from edge_agent.inference.launch import Options
from edge_agent.inference.optimising import Failed, Optimising, Report, Request
from edge_agent.models import custom_ops
from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.models.content import Content
from edge_agent.models.optimised import OptimisedFiles, Scratch
from edge_agent.models.store import Store
from edge_agent.wire.tensors import Tensor

LOG = logging.getLogger("test.optimised")
VARIANT = "cd" * 32
MIB = 1 << 20
WAIT_SECONDS = 60

pytestmark = pytest.mark.skipif(bool(containment.no_copies()), reason=f"no copies are made: {containment.no_copies()}")


def halves() -> bytes:
    """Return a matrix product in 16-bit floats, large enough for its weights to lie outside the graph."""
    weights = numpy_helper.from_array(np.linspace(-1, 1, 256 * 256, dtype=np.float16).reshape(256, 256), "w")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", 256]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "h", value[:1], value[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def convolution() -> bytes:
    """Return a convolution whose weights the optimiser lays out for this processor."""
    weights = np.random.default_rng(3).standard_normal((32, 16, 3, 3), np.float32)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None, 24, 24]) for name in ("x", "y")]
    value[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16, 24, 24])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "c", value[:1], value[1:], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def models() -> dict[str, bytes]:
    """Return models by name: every built-in form, and some that are hard to keep."""
    (family,) = builtin().families
    found = {variant.name: (BUILTIN_DIR / variant.file).read_bytes() for variant in family.variants}
    found["strings"] = onnx_models.identity("BYTES")
    found["two-types"] = onnx_models.identity("INT64", "BOOL")
    return {**found, "bfloat16": onnx_models.identity("BF16"), "float16": halves(), "convolution": convolution()}


MODELS = models()


class Kitchen:
    """A store, and what makes copies in it."""

    def __init__(self, folder: Path) -> None:
        self.content = Content(folder)
        self.content.prepare()
        self.files = OptimisedFiles(self.content, "here", 10**12, 0)
        self.readable = Store(content=self.content).readable

    def copy(
        self, model: bytes, *, most_bytes: int | None = None, limit_bytes: int | None = None, seconds: float = 60.0
    ) -> Report | Failed:
        """Have a copy made, and kept if there is a report."""
        scratch = self.files.scratch(len(model))
        assert scratch is not None
        if most_bytes is not None:
            scratch = Scratch(scratch.fd, most_bytes, scratch.path)
        asked = Request(onnx_models.file_of(model), scratch, b"", {"n": 4, "N": 2})
        found = Optimising(asked, Options(1, limit_bytes, self.readable), limit_seconds=seconds).run()
        if isinstance(found, Report):
            assert self.files.keep(VARIANT, scratch, in_place=True)
        self.files.discard(scratch)
        scratch.close()
        return found


@pytest.fixture
def kitchen(tmp_path: Path) -> Iterator[Kitchen]:
    """Return one; whatever becomes of its processes, none is left, and no descriptor."""
    before = (psutil.Process().children(recursive=True), psutil.Process().num_fds())
    yield Kitchen(tmp_path)
    assert (psutil.Process().children(recursive=True), psutil.Process().num_fds()) == before


def outputs(fd: int, optimised: sessions.Weights | None, inputs: tuple[Tensor, ...] = ()) -> tuple[object, object]:
    """Return the inputs and the outputs of a session."""
    session = sessions.Session(fd, 1, optimised=optimised)
    inputs = inputs or samples.make(session.inputs, {"n": 4, "N": 2})
    return inputs, [(out.spec, bytes(out.data)) for out in session.run(inputs, (), MIB)]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_copy_answers_as_its_model_does_to_the_bit(kitchen: Kitchen, name: str) -> None:
    """Whether its weights are used in place or copied, and its own process says so, too."""
    report = kitchen.copy(MODELS[name])
    assert isinstance(report, Report), report
    assert report.model.same
    assert report.in_place.same
    assert report.copied.same
    model = onnx_models.file_of(MODELS[name])
    inputs, expected = outputs(model, None)
    os.close(model)
    for weights in sessions.Weights:
        found = kitchen.files.open(VARIANT)
        assert found is not None
        assert outputs(found[0], weights, inputs) == (inputs, expected)  # type: ignore[arg-type] # as they came
        os.close(found[0])


@pytest.mark.parametrize("how", [weights.value for weights in sessions.Weights])
def test_a_worker_serves_from_a_copy(kitchen: Kitchen, how: str) -> None:
    """Contained as it is, from the very file that was hashed."""
    model = MODELS["convolution"]
    assert isinstance(kitchen.copy(model), Report)
    found = kitchen.files.open(VARIANT)
    assert found is not None
    fd = onnx_models.file_of(model)
    inputs, expected = outputs(fd, None)
    os.close(fd)
    events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
    worker = Worker(events.put, threads=1, memory_limit_bytes=256 * MIB, readable=kitchen.readable, log=LOG)
    worker.start()
    try:
        worker.load(bytes(32), found[0], optimised=how)
        worker.run(5, bytes(32), inputs, (), MIB)  # type: ignore[arg-type] # tensors
        assert isinstance(events.get(timeout=WAIT_SECONDS), WorkerStarted)
        assert isinstance(loaded := events.get(timeout=WAIT_SECONDS), ModelLoaded), loaded
        done = events.get(timeout=WAIT_SECONDS)
        assert isinstance(done, RunDone)
        assert [(tensor.spec, tensor.data) for tensor in done.outputs] == expected
    finally:
        worker.stop(5)


def test_bytes_that_are_no_copy_are_refused_by_the_worker(kitchen: Kitchen) -> None:
    """It says so, and serves on."""
    events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
    worker = Worker(events.put, threads=1, memory_limit_bytes=256 * MIB, readable=kitchen.readable, log=LOG)
    worker.start()
    try:
        for content in (b"", b"garbage" * 100, MODELS["convolution"]):
            path = kitchen.content.optimised_folder / "garbage"
            path.write_bytes(content)
            worker.load(bytes(32), os.open(path, os.O_RDONLY | os.O_CLOEXEC), optimised="in-place")
        assert isinstance(events.get(timeout=WAIT_SECONDS), WorkerStarted)
        for _ in range(3):
            assert isinstance(event := events.get(timeout=WAIT_SECONDS), LoadFailed), event
        assert worker.alive
    finally:
        worker.stop(5)


def test_models_with_custom_operators_have_no_copy(kitchen: Kitchen) -> None:
    """The library with them would have to be there before the copy is read."""
    if custom_ops.library() is None:
        needs.absent("onnxruntime-extensions is not installed")
    assert "custom operators" in str(kitchen.copy(onnx_models.upper_case()))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (b"no model", "no ONNX file"),
        (onnx_models.external("../../etc/passwd"), "outside its own file"),
        (onnx_models.crashing(), "ended with"),
    ],
    ids=["garbage", "external", "crash"],
)
def test_a_hostile_model_costs_its_own_copy(kitchen: Kitchen, model: bytes, why: str) -> None:
    """And nothing is kept; another try would end no better."""
    found = kitchen.copy(model)
    assert isinstance(found, Failed)
    assert why in found.why
    assert not found.passing
    assert kitchen.content.optimised() == {}


def test_an_endless_model_is_given_up(kitchen: Kitchen) -> None:
    """Its process is ended, and would be the next time."""
    found = kitchen.copy(onnx_models.endless(), seconds=3.0)
    assert found == Failed("it took longer than 3 s")


def test_a_copy_that_there_is_no_memory_for_may_be_had_later(kitchen: Kitchen) -> None:
    """Other models may have had it."""
    found = kitchen.copy(MODELS["convolution"], limit_bytes=1)
    assert isinstance(found, Failed)
    assert "memory" in found.why
    assert found.passing


@pytest.mark.parametrize(
    ("number", "passing"),
    [(signal.SIGKILL, True), (signal.SIGTERM, True), (signal.SIGSEGV, False)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_copy_whose_process_is_ended_from_outside_may_be_had_later(
    kitchen: Kitchen,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    passing: bool,  # noqa: FBT001 what is expected
) -> None:
    """By people, with the machine, or for memory; a crash is the model's own."""
    spawn = launch.spawn_optimiser

    def ended(*asked: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 as it is
        process = spawn(*asked)
        process.send_signal(number)
        return process

    monkeypatch.setattr(launch, "spawn_optimiser", ended)
    found = kitchen.copy(onnx_models.endless())
    assert found == Failed(f"the process that made it ended with -{number.value}", passing)


def test_a_copy_may_not_grow_beyond_its_bound(kitchen: Kitchen) -> None:
    """The kernel refuses the byte that is one too many; what was written is thrown away."""
    report = kitchen.copy(MODELS["float16"], most_bytes=10_000)
    assert isinstance(report, Failed)
    assert kitchen.content.optimised() == {}


def test_a_copy_that_is_called_off_leaves_nothing(kitchen: Kitchen) -> None:
    """Before it has begun, too."""
    scratch = kitchen.files.scratch(1000)
    assert scratch is not None
    asked = Request(onnx_models.file_of(onnx_models.endless()), scratch, b"", {})
    run = Optimising(asked, Options(1, None, kitchen.readable))
    run.cancel()
    assert run.run() == optimising.CALLED_OFF
    scratch.close()


def test_the_process_may_write_that_one_file_and_no_other(kitchen: Kitchen, tmp_path: Path) -> None:
    """Opened anew by its descriptor, up to its bound; nothing else is made, changed, renamed or removed."""
    if containment.CALLS not in containment.offered().in_force:
        needs.absent("this kernel has no filters")
    scratch = kitchen.files.scratch(1000)
    assert scratch is not None
    other = tmp_path / "other"
    other.write_bytes(b"as it was")
    program = f"""
import os
from edge_agent.inference import containment
containment.enter([{str(tmp_path)!r}], ({scratch.fd}, 100))
def attempt(name, what):
    try:
        what()
        print(name, "done")
    except OSError as error:
        print(name, error.strerror)
flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
opened = []
attempt("scratch", lambda: opened.append(os.open("/proc/self/fd/{scratch.fd}", flags)))
os.write(opened[0], bytes(100))
attempt("more", lambda: os.write(opened[0], b"x"))
attempt("append", lambda: os.open("/proc/self/fd/{scratch.fd}", os.O_WRONLY | os.O_APPEND))
attempt("other", lambda: os.open({str(other)!r}, os.O_WRONLY))
attempt("truncate", lambda: os.open({str(other)!r}, os.O_WRONLY | os.O_TRUNC))
attempt("new", lambda: os.open({str(tmp_path / "new")!r}, flags))
attempt("remove", lambda: os.unlink({str(other)!r}))
attempt("rename", lambda: os.rename({str(other)!r}, {str(tmp_path / "new")!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, pass_fds=(scratch.fd,)
    )
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    scratch.close()
    assert said.pop("scratch") == "done"
    assert said.pop("more") == "File too large"
    assert set(said.values()) <= {"Permission denied", "Operation not permitted"}
    assert len(said) == 6
    assert other.read_bytes() == b"as it was"


def test_a_mapped_copy_takes_nothing_from_what_runs_may_have(tmp_path: Path) -> None:
    """The limit rises by the copy while it is loaded in place, and is what it was when that is gone."""
    path = tmp_path / "model.onnx"
    path.write_bytes(MODELS["convolution"])
    program = f"""
import gc, os, resource
from edge_agent.inference import limits, sessions
limits.limit_memory(200 << 20)
soft = lambda: resource.getrlimit(resource.RLIMIT_DATA)
model, copy = os.open({str(path)!r}, os.O_RDONLY), os.open({str(tmp_path / "copy")!r}, os.O_RDWR | os.O_CREAT)
before = soft()
sessions.save_optimised(model, copy, 1)
size = os.fstat(copy).st_size
for weights, more in ((sessions.Weights.IN_PLACE, size), (sessions.Weights.COPIED, 0)):
    session = sessions.Session(copy, 1, optimised=weights)
    assert soft() == (before[0] + more + limits.THREAD_STACK_BYTES, before[1]), (weights, before, soft())
    del session
    gc.collect()
    assert soft() == before
os.truncate(copy, 100)
try:
    sessions.Session(copy, 1, optimised=sessions.Weights.IN_PLACE)
except sessions.WorkerError:
    pass
gc.collect()
assert soft() == before
print("as it was")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[0] == "as it was", done.stderr
