from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import onnx_models
import psutil
import pytest

from edge_agent.errors import ResourceError, WorkerError
from edge_agent.inference import launch, process
from edge_agent.inference.events import (
    LoadFailed,
    ModelLoaded,
    Port,
    RunDone,
    RunFailed,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
)
from edge_agent.inference.handle import Request, Worker
from edge_agent.inference.shared import FROM_BYTES, SHARED_BYTES, SharedInputs
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings

LOG = logging.getLogger("test.worker")
WAIT_SECONDS = 30
MIB = 1 << 20
PLENTY = 64 * MIB
ONE = bytes(32)
TWO = bytes(31) + b"\x02"
E = TypeVar("E")


class Heard:
    """A worker, and what it has said."""

    def __init__(self, *, threads: int = 1, memory_limit_bytes: int | None = None) -> None:
        self.threads_before = set(threading.enumerate())
        self.events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
        self.worker = Worker(self.events.put, threads=threads, memory_limit_bytes=memory_limit_bytes, log=LOG)

    @property
    def own_threads(self) -> set[threading.Thread]:
        """The threads that came since and still run."""
        return set(threading.enumerate()) - self.threads_before

    def next(self, kind: type[E]) -> E:
        """Return the next event, which must be of this kind."""
        event = self.events.get(timeout=WAIT_SECONDS)
        assert isinstance(event, kind), event
        return event

    def start(self) -> WorkerStarted:
        """Start, and wait until it is ready."""
        self.worker.start()
        return self.next(WorkerStarted)

    def load(self, content: bytes, digest: bytes = ONE) -> ModelLoaded:
        """Load a model that can be loaded."""
        self.worker.load(digest, onnx_models.file_of(content))
        return self.next(ModelLoaded)

    def run(self, *inputs: Tensor, token: int = 1, digest: bytes = ONE, most: int = PLENTY) -> RunDone:
        """Run a model that runs."""
        self.worker.run(token, digest, inputs, (), most)
        return self.next(RunDone)

    def refused(
        self, *inputs: Tensor, digest: bytes = ONE, wanted: tuple[str, ...] = (), most: int = PLENTY
    ) -> RunFailed:
        """Run something that fails."""
        self.worker.run(1, digest, inputs, wanted, most)
        return self.next(RunFailed)


@pytest.fixture
def heard() -> Iterator[Heard]:
    """A worker that is not started yet, and is gone after the test."""
    heard = Heard()
    yield heard
    heard.worker.stop(0)


@pytest.fixture
def ready(heard: Heard) -> Heard:
    """A worker that is ready."""
    heard.start()
    return heard


def floats(*values: float, name: str = "in0") -> Tensor:
    """Return a row of FP32."""
    return Tensor(TensorSpec(name, DataType.FP32, (len(values),)), struct.pack(f"<{len(values)}f", *values))


def length(value: int) -> Tensor:
    """Return the input of the growing model."""
    return Tensor(TensorSpec("in0", DataType.INT64, (1,)), struct.pack("<q", value))


def wait_for_end(pid: int) -> None:
    """Wait until the process `pid` is gone, by its pidfd; it may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            ready_fds, _, _ = select.select([fd], [], [], WAIT_SECONDS)
        finally:
            os.close(fd)
        assert ready_fds, f"the process {pid} is still there"


# -- the way of a run
# -------------------------------------------------------------------------------------------


def test_from_start_to_stop(heard: Heard) -> None:
    """A worker starts, loads, runs, and stops; every step says what it found."""
    started = heard.start()
    assert started.pid == heard.worker.pid
    assert started.runtime.startswith("onnxruntime 1.")
    assert started.providers == ("CPUExecutionProvider",)
    assert started.start_ms > 0
    loaded = heard.load(onnx_models.doubling())
    assert loaded.digest == ONE
    assert loaded.inputs == (Port("in0", DataType.FP32, ("n",)),)
    assert loaded.outputs == (Port("out0", DataType.FP32, ("n",)),)
    done = heard.run(floats(1.5, -2), token=42)
    assert done.token == 42
    assert done.outputs == (floats(3, -4, name="out0"),)
    heard.worker.stop(WAIT_SECONDS)
    assert not heard.worker.alive
    assert heard.worker.pid is None
    wait_for_end(started.pid)
    assert heard.events.empty()
    assert not heard.own_threads


@pytest.mark.parametrize("datatype", list(DataType), ids=str)
def test_every_type_makes_the_way(shared: Heard, datatype: DataType) -> None:
    """Two elements of each type come back with the same bits."""
    data = (
        pack_strings(["ü".encode(), b""]) if datatype is DataType.BYTES else bytes([1]) * 2 * (datatype.item_bytes or 0)
    )
    shared.load(onnx_models.identity(datatype.value))
    done = shared.run(Tensor(TensorSpec("in0", datatype, (2,)), data))
    assert done.outputs == (Tensor(TensorSpec("out0", datatype, (2,)), data),)


@pytest.fixture(scope="module")
def shared() -> Iterator[Heard]:
    """One ready worker for tests that leave it as it was."""
    heard = Heard()
    heard.start()
    yield heard
    heard.worker.stop(0)


def test_scalars_and_empty_tensors_make_the_way(shared: Heard) -> None:
    """No dimension, and a dimension of zero, are shapes like any other."""
    shared.load(onnx_models.identity("FP32", shape=()))
    scalar = Tensor(TensorSpec("in0", DataType.FP32, ()), b"\x00\x00\xc0\x7f")
    assert shared.run(scalar).outputs == (Tensor(TensorSpec("out0", DataType.FP32, ()), scalar.data),)
    shared.load(onnx_models.identity("FP32", shape=("n", 3)))
    empty = Tensor(TensorSpec("in0", DataType.FP32, (0, 3)), b"")
    assert shared.run(empty).outputs == (Tensor(TensorSpec("out0", DataType.FP32, (0, 3)), b""),)


def test_large_tensors_both_ways_at_once_do_not_deadlock(shared: Heard) -> None:
    """Many inputs and results far larger than a socket's buffer, given without reading a single result between."""
    shared.load(onnx_models.identity("UINT8"))
    data = os.urandom(8 * MIB)
    for token in range(8):
        tensor = Tensor(TensorSpec("in0", DataType.UINT8, (len(data),)), data[token:] + data[:token])
        shared.worker.run(token, ONE, [tensor], (), len(data))
    for token in range(8):
        done = shared.next(RunDone)
        assert done.token == token
        assert done.outputs[0].data == data[token:] + data[:token]


def test_inputs_lie_in_memory_that_both_see(ready: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """From some size on, as long as there is room, until they are answered; whatever they are answered with."""
    found: list[int | None] = []
    put = SharedInputs.put
    monkeypatch.setattr(SharedInputs, "put", lambda *given: found.append(put(*given)) or found[-1])
    ready.load(onnx_models.doubling())
    row, long = floats(*[1.5] * (FROM_BYTES // 4)), floats(*[2.5] * (SHARED_BYTES // 4 + 1))
    doubled = floats(*[3.0] * (FROM_BYTES // 4), name="out0")
    assert ready.run(floats(1)).outputs == (floats(2, name="out0"),)
    assert ready.run(row).outputs == (doubled,)
    assert ready.refused(row, most=FROM_BYTES - 1).code == "too-large"
    assert ready.refused(row, digest=TWO).blame == "agent"
    assert len(ready.run(long).outputs[0].data) == len(long.data)
    assert ready.run(row).outputs == (doubled,)
    assert found == [None, 0, 0, 0, None, 0]


def test_a_new_worker_has_memory_of_its_own_for_inputs(ready: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed one has not answered takes no room of the next one's, and nothing of it is left."""
    row = floats(*[1.5] * (FROM_BYTES // 4))
    ready.load(onnx_models.endless())
    before = psutil.Process().num_fds()
    ready.worker.run(1, ONE, [length(1)], (), PLENTY)
    ready.worker.run(2, ONE, [row], (), PLENTY)
    ready.worker.kill("hung")
    assert ready.next(WorkerDied).tokens == (1, 2)
    ready.start()
    assert psutil.Process().num_fds() == before
    ready.load(onnx_models.doubling())
    found: list[int | None] = []
    put = SharedInputs.put
    monkeypatch.setattr(SharedInputs, "put", lambda *given: found.append(put(*given)) or found[-1])
    assert ready.run(row).outputs == (floats(*[3.0] * (FROM_BYTES // 4), name="out0"),)
    assert found == [0]


def test_models_are_kept_and_forgotten_by_digest(shared: Heard) -> None:
    """Two models are told apart; one that was unloaded is gone, the other stays."""
    shared.load(onnx_models.doubling(), ONE)
    shared.load(onnx_models.identity("FP32"), TWO)
    assert shared.run(floats(1), digest=ONE).outputs == (floats(2, name="out0"),)
    assert shared.run(floats(1), digest=TWO).outputs == (floats(1, name="out0"),)
    shared.worker.unload(ONE)
    failed = shared.refused(floats(1), digest=ONE)
    assert (failed.code, failed.blame) == ("worker", "agent")
    assert shared.run(floats(1), digest=TWO).outputs == (floats(1, name="out0"),)


def test_no_descriptor_is_left_behind(shared: Heard) -> None:
    """Loading takes a descriptor over on both sides, whether it works or not."""
    worker = psutil.Process(shared.worker.pid)

    def count() -> tuple[int, int]:
        # The worker closes a command's descriptor after its answer, and before it reads the next command.
        shared.refused(digest=TWO)
        return psutil.Process().num_fds(), worker.num_fds()

    shared.load(onnx_models.doubling())
    before = count()
    for _ in range(3):
        shared.load(onnx_models.doubling())
        shared.worker.load(TWO, onnx_models.file_of(b"garbage"))
        shared.next(LoadFailed)
    assert count() == before


# -- what goes wrong, and who is to blame
# ---------------------------------------------------------------------------


def test_failures_name_the_one_to_blame(shared: Heard) -> None:
    """Wrong inputs and too large outputs are the requester's, a failure inside is the model's; the worker lives on."""
    shared.load(onnx_models.failing())
    failed = shared.refused(floats(1, 2))
    assert (failed.code, failed.blame) == ("model-run", "model")
    failed = shared.refused(floats(1, 2, 3, name="input"))
    assert (failed.code, failed.blame) == ("bad-input", "requester")
    assert "'in0' (FP32, shape [n])" in failed.message
    failed = shared.refused(floats(1, 2, 3), wanted=("logits",))
    assert (failed.code, failed.blame) == ("bad-input", "requester")
    failed = shared.refused(floats(1, 2, 3), most=11)
    assert (failed.code, failed.blame) == ("too-large", "requester")
    assert shared.run(floats(1, 2, 3), most=12).outputs[0].spec.shape == (3,)


@pytest.mark.parametrize("content", [b"", b"garbage", onnx_models.identity("FP32")[:-9]], ids=["empty", "text", "cut"])
def test_a_model_that_is_garbage_is_refused(shared: Heard, content: bytes) -> None:
    """The load fails with a reason, and the worker serves the next one."""
    shared.worker.load(TWO, onnx_models.file_of(content))
    failed = shared.next(LoadFailed)
    assert (failed.digest, failed.code) == (TWO, "model-load")
    assert failed.message
    shared.load(onnx_models.doubling())


def test_a_file_that_cannot_be_read_is_refused(shared: Heard) -> None:
    """A descriptor of something that is no regular file is a failed load like any other."""
    shared.worker.load(TWO, os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    assert shared.next(LoadFailed).code == "model-load"
    reading, writing = os.pipe()
    os.close(writing)
    shared.worker.load(TWO, reading)
    assert shared.next(LoadFailed).code == "model-load"


def test_memory_above_the_limit_costs_one_run() -> None:
    """A run that asks for more than the limit fails as this machine's lack, and the worker lives on."""
    heard = Heard(memory_limit_bytes=64 * MIB)
    try:
        heard.start()
        heard.load(onnx_models.growing())
        assert heard.run(length(4 * MIB)).outputs[0].spec.shape == (4 * MIB,)
        failed = heard.refused(length(100 * MIB), most=1 << 40)
        assert (failed.code, failed.blame) == ("resource-exhausted", "agent")
        assert heard.run(length(3)).outputs[0].data == bytes(12)
    finally:
        heard.worker.stop(0)


def test_the_stacks_of_many_models_do_not_use_up_the_memory_of_models() -> None:
    """Every model brings threads, whose stacks count whole against the limit and are hardly touched."""
    heard = Heard(threads=4, memory_limit_bytes=64 * MIB)
    try:
        heard.start()
        for number in range(12):
            heard.load(onnx_models.doubling(), bytes([number]) * 32)
        limit = psutil.Process(heard.worker.pid).rlimit(psutil.RLIMIT_DATA)[0]
        for number in range(12):
            heard.worker.unload(bytes([number]) * 32)
        heard.load(onnx_models.growing())
        failed = heard.refused(length(100 * MIB), most=1 << 40)
        assert (failed.code, failed.blame) == ("resource-exhausted", "agent")
        assert psutil.Process(heard.worker.pid).rlimit(psutil.RLIMIT_DATA)[0] < limit
    finally:
        heard.worker.stop(0)


# -- how a worker ends
# ----------------------------------------------------------------------------------------------


def test_a_killed_worker_names_its_runs_and_can_be_started_again(ready: Heard) -> None:
    """SIGKILL while runs wait: their tokens are told in order, and the next worker runs as if nothing had been."""
    pid = ready.worker.pid
    assert pid is not None
    ready.load(onnx_models.endless())
    for token in (7, 3, 5):
        ready.worker.run(token, ONE, [floats(1)], (), PLENTY)
    os.kill(pid, signal.SIGKILL)
    died = ready.next(WorkerDied)
    assert (died.pid, died.code, died.tokens) == (pid, "worker-died", (7, 3, 5))
    assert "SIGKILL" in died.message
    assert not ready.worker.alive
    ready.worker.run(9, ONE, [floats(1)], (), PLENTY)
    ready.worker.load(ONE, onnx_models.file_of(b""))
    assert ready.start().pid != pid
    ready.load(onnx_models.doubling())
    assert ready.run(floats(2)).outputs == (floats(4, name="out0"),)
    assert ready.events.empty()


def test_a_crash_is_told_as_one(ready: Heard) -> None:
    """A signal of the kind that native code dies of is named."""
    pid = ready.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSEGV)
    assert "crashed (SIGSEGV)" in ready.next(WorkerDied).message


def test_a_hung_worker_is_killed(ready: Heard) -> None:
    """An endless model ends with its worker: the run is named, and what waited behind it too."""
    pid = ready.worker.pid
    ready.load(onnx_models.endless())
    ready.worker.run(1, ONE, [floats(1)], (), PLENTY)
    ready.worker.run(2, ONE, [floats(1)], (), PLENTY)
    ready.worker.kill("hung")
    died = ready.next(WorkerDied)
    assert (died.pid, died.code, died.tokens) == (pid, "worker-hung", (1, 2))
    ready.start()


def test_a_stop_does_not_wait_for_ever(ready: Heard) -> None:
    """A worker that does not finish in time is killed, and nothing is said about it."""
    pid = ready.worker.pid
    assert pid is not None
    ready.load(onnx_models.endless())
    ready.worker.run(1, ONE, [floats(1)], (), PLENTY)
    ready.worker.stop(0.05)
    wait_for_end(pid)
    assert ready.events.empty()
    assert not ready.own_threads


def test_a_stop_lets_waiting_runs_finish(ready: Heard) -> None:
    """Everything given before the stop is answered, large inputs that still wait in the daemon too."""
    ready.load(onnx_models.identity("UINT8"))
    data = bytes(4 * MIB)
    for token in range(4):
        ready.worker.run(token, ONE, [Tensor(TensorSpec("in0", DataType.UINT8, (len(data),)), data)], (), PLENTY)
    ready.worker.stop(WAIT_SECONDS)
    assert [ready.next(RunDone).token for _ in range(4)] == [0, 1, 2, 3]
    assert ready.events.empty()


def test_killed_to_stop_it_says_nothing(ready: Heard) -> None:
    """A worker that was told to stop at once takes no more commands, and a new one can start right away."""
    ready.load(onnx_models.endless())
    ready.worker.run(1, ONE, [floats(1)], (), PLENTY)
    ready.worker.kill("stop")
    assert not ready.worker.alive
    ready.worker.run(2, ONE, [floats(1)], (), PLENTY)
    ready.start()
    ready.load(onnx_models.doubling())
    assert ready.run(floats(1)).outputs == (floats(2, name="out0"),)
    assert ready.events.empty()


def test_signals_for_the_daemon_do_not_end_the_worker(ready: Heard) -> None:
    """Ctrl-C and SIGTERM are the daemon's to act on; the worker is not in its process group either."""
    pid = ready.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    ready.load(onnx_models.doubling())
    assert ready.run(floats(1)).outputs == (floats(2, name="out0"),)
    assert os.getpgid(pid) == pid


PARENT = """
import logging, queue, sys, threading
from edge_agent.inference.handle import Request, Worker
from edge_agent.inference.shared import FROM_BYTES, SHARED_BYTES, SharedInputs
events = queue.SimpleQueue()
worker = Worker(events.put, threads=1, memory_limit_bytes=None, log=logging.getLogger())
worker.start()
print(events.get().pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_ends_with_its_daemon(sent: signal.Signals) -> None:
    """However the daemon ends, its worker goes too."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.send_signal(sent)
    wait_for_end(pid)


def test_a_worker_ends_when_its_socket_does(heard: Heard) -> None:
    """The end of the socket alone ends a worker, with status 0."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = launch.spawn(launch.Options(1), theirs)
        with child:
            assert ours.recv(4)
            ours.shutdown(socket.SHUT_WR)
            while ours.recv(4096):
                pass
            assert child.wait(WAIT_SECONDS) == 0


def test_a_worker_that_hears_nonsense_ends(heard: Heard) -> None:
    """What is not a frame is not guessed at: the worker says so and ends."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = launch.spawn(launch.Options(1), theirs)
        assert child.stderr is not None
        with child:
            ours.sendall(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n")
            assert b"not a command" in child.stderr.read()
            assert child.wait(WAIT_SECONDS) == 76


def test_a_worker_without_its_parent_does_not_stay(heard: Heard) -> None:
    """A worker that finds another parent than it was told of ends at once: its own is gone already."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = theirs.fileno()
        command = [sys.executable, "-m", "edge_agent.inference.worker", "--fd", str(fd), "--threads", "1"]
        child = subprocess.run([*command, "--parent", "1"], pass_fds=(fd,), check=False, timeout=WAIT_SECONDS)
        assert child.returncode == 0
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)


def test_a_worker_that_cannot_be_started_is_an_error(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that is not there is reported by start itself, and leaves nothing open."""
    before = psutil.Process().num_fds()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(WorkerError, match="could not be started") as caught:
        heard.worker.start()
    assert caught.value.error_code == "worker-start"
    assert not heard.worker.alive
    assert psutil.Process().num_fds() == before
    assert not heard.own_threads


def test_a_worker_that_fails_while_starting_is_told_with_its_words(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the process prints before it ends is quoted."""
    wrong = launch.Options(threads="many")  # type: ignore[arg-type] # on purpose
    monkeypatch.setattr(heard.worker, "_options", wrong)
    heard.worker.start()
    died = heard.next(WorkerDied)
    assert died.code == "worker-died"
    assert "ended by itself with status 2" in died.message
    assert "invalid int value: 'many'" in died.message


def test_commands_need_a_worker(heard: Heard) -> None:
    """Without a start there is nobody to command; the descriptor is closed all the same."""
    before = psutil.Process().num_fds()
    with pytest.raises(WorkerError, match="No worker was started"):
        heard.worker.load(ONE, os.dup(0))
    with pytest.raises(WorkerError, match="No worker was started"):
        heard.worker.run(1, ONE, [], (), 1)
    assert psutil.Process().num_fds() == before
    heard.worker.kill("stop")


def test_a_running_worker_is_not_started_twice(ready: Heard) -> None:
    """A second start is refused, and the first worker stays."""
    pid = ready.worker.pid
    with pytest.raises(WorkerError, match="running already"):
        ready.worker.start()
    assert ready.worker.pid == pid


def test_the_number_of_commands_is_bounded(ready: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """More runs than the bound are refused at once; those before keep their places."""
    monkeypatch.setattr(process, "MAX_COMMANDS", 3)
    ready.load(onnx_models.endless())
    for token in range(3):
        ready.worker.run(token, ONE, [floats(1)], (), PLENTY)
    with pytest.raises(ResourceError) as caught:
        ready.worker.run(3, ONE, [floats(1)], (), PLENTY)
    assert caught.value.error_code == "queue-full"
    asked = Request(4, ONE, [floats(1)], (), PLENTY)
    assert ready.worker.run_all([asked]) == [asked]
    ready.worker.kill("hung")
    assert ready.next(WorkerDied).tokens == (0, 1, 2)


def test_runs_that_are_sent_together_are_answered_one_by_one(ready: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order; those for which there is no room are given back, and the others do not suffer."""
    ready.load(onnx_models.doubling())
    monkeypatch.setattr(process, "MAX_COMMANDS", 5)
    asked = [Request(token, ONE, [floats(token, 1)], (), PLENTY) for token in range(1, 8)]
    asked[1] = Request(2, TWO, [floats(1)], (), PLENTY)
    assert ready.worker.run_all(asked) == asked[5:]
    told = [ready.events.get(timeout=WAIT_SECONDS) for _ in range(5)]
    assert [type(event) for event in told] == [RunDone, RunFailed, RunDone, RunDone, RunDone]
    outputs = {event.token: event.outputs[0].data for event in told if isinstance(event, RunDone)}
    assert outputs == {token: floats(2 * token, 2).data for token in (1, 3, 4, 5)}


# -- a worker that was taken over by its model
# ------------------------------------------------------------------------

HIJACKED = """
import os, socket, struct, sys, time
from edge_agent.inference import frames
connection = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
reader = frames.FrameReader(connection, lambda *_: 1 << 20, takes_fd=True)
say = lambda header, *parts, token=0: frames.send(connection, frames.pack(header, parts, token=token, run_us=1))
say({"say": "ready", "runtime": "onnxruntime 1.0", "providers": [], "contained": [], "missing": []})
"""


def lie(say: str) -> str:
    """Return a program that waits for a command and then says this."""
    return HIJACKED + "reader.read()\n" + say + "\nreader.read()\n"


@pytest.mark.parametrize(
    "program",
    [
        lie('say({"say": "done", "outputs": []}, token=2)'),
        lie('say({"say": "done", "outputs": [["y", "UINT8", [101]]]}, bytes(101), token=1)'),
        lie('say({"say": "done", "outputs": [["y", "UINT8", [2**41]]]}, token=1)'),
        lie('say({"say": "run-failed", "code": "x", "message": "x", "blame": "owner"}, token=1)'),
        lie(
            'say({"say": "loaded", "digest": bytes(32), "load_us": 1, "memory_bytes": 1, "inputs": [], "outputs": []})'
        ),
        lie('say({"say": "ready", "runtime": "again", "providers": []})'),
        lie('connection.sendall(struct.pack("<IQQ", 2**31, 0, 0))'),
        lie('connection.sendall(b"\\xff" * 100000)'),
    ],
    ids=["other run", "too large", "huge", "blame", "other kind", "twice", "header", "noise"],
)
def test_a_worker_that_lies_is_killed(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    """Anything but the answer to what was asked ends the worker, and the run it held is told as lost."""
    script = tmp_path / "hijacked.py"
    script.write_text(program)
    spawn = subprocess.Popen

    def hijack(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return spawn([sys.executable, str(script), *command[4:]], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(launch.subprocess, "Popen", hijack)
    heard.worker.start()
    heard.worker.run(1, ONE, [], (), 100)
    heard.next(WorkerStarted)
    died = heard.next(WorkerDied)
    assert (died.code, died.tokens) == ("worker-died", (1,))
    assert "not an answer" in died.message


def test_a_sink_that_fails_is_heard_of(ready: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the daemon's own sink does not leave it waiting for a worker that nobody listens to."""
    process_of = ready.worker._process
    assert process_of is not None
    calls: list[WorkerEvent] = []

    def full(event: WorkerEvent) -> None:
        calls.append(event)
        if not isinstance(event, WorkerDied):
            raise queue.Full
        ready.events.put(event)

    monkeypatch.setattr(process_of, "_sink", full)
    ready.worker.load(ONE, onnx_models.file_of(onnx_models.doubling()))
    died = ready.next(WorkerDied)
    assert "Full" in died.message
    assert len(calls) == 2


# -- nothing phones home, nothing is shared that need not be
# ----------------------------------------------------------


def test_nothing_phones_home(heard: Heard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker that runs models opens no file to write, no socket but its own, and leaves nothing in any home."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    # A home that is there, unlike the worker's own: what onnxruntime would write could be seen.
    monkeypatch.setattr(launch, "_PASSED_ON", (*launch._PASSED_ON, "HOME", "XDG_CACHE_HOME", "TMPDIR"))
    heard.start()
    child = psutil.Process(heard.worker.pid)
    assert child.environ()["HOME"] == str(tmp_path)
    assert child.environ()["ORT_DISABLE_TELEMETRY"] == "1"
    heard.load(onnx_models.doubling())
    heard.run(floats(1))
    assert child.net_connections("inet") == []
    links = [link.readlink() for link in Path(f"/proc/{child.pid}/fd").iterdir()]
    kinds = sorted(str(link).partition(":")[0] for link in links)
    own = f"/proc/{child.pid}"  # what it needs of itself, opened before it was contained
    assert kinds == ["/dev/null", "/dev/null", "/memfd", own, f"{own}/clear_refs", "pipe", "socket"]
    assert [file.path for file in child.open_files()] == [f"{own}/clear_refs"]
    heard.worker.stop(WAIT_SECONDS)
    assert list(tmp_path.rglob("*")) == []


def test_the_worker_knows_nothing_of_the_daemon(ready: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in the root folder with a small environment, goes first when memory runs out, leaves no core file."""
    child = psutil.Process(ready.worker.pid)
    assert child.cwd() == "/"
    assert set(child.environ()) <= {*launch._ENVIRONMENT, *launch._PASSED_ON, "PYTHONUSERBASE"}
    assert int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()) == 800
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)


def imported_with(module: str) -> set[str]:
    """Return the names of all packages that a fresh Python has after importing this module."""
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_daemons_side_imports_nothing_native() -> None:
    """Neither numpy nor onnxruntime nor the coordinator comes with the handle."""
    loaded = imported_with("edge_agent.inference.handle")
    assert "edge_agent" in loaded
    assert not {"numpy", "onnxruntime", "onnx", "fastapi", "sqlalchemy"} & loaded


def test_the_worker_imports_nothing_of_the_daemons() -> None:
    """What only the daemon needs is not paid for in memory a second time."""
    loaded = imported_with("edge_agent.inference.service")
    assert "onnxruntime" in loaded
    assert not {"pydantic", "psutil", "cryptography", "paho", "asyncio", "onnx"} & loaded


@pytest.mark.parametrize("numbers", [2, 10_000, 200_000])
@pytest.mark.parametrize("ways", [{"lanes": 2}, {"together": 8}], ids=["side by side", "made one"])
def test_runs_at_once_in_a_contained_worker_each_give_their_own_answer(ways: dict[str, int], numbers: int) -> None:
    """Its threads come to be behind the containment; each input has a place of its own until its answer; bounds hold.

    Of the longest ones some lie in shared memory, and some find no room there and come through the socket.
    """
    heard = Heard(threads=2, memory_limit_bytes=PLENTY)
    try:
        heard.start()
        heard.worker.load(ONE, onnx_models.file_of(onnx_models.doubling()), 1, **ways)
        heard.next(ModelLoaded)
        found: dict[int, bytes] = {}
        sent = 0
        while len(found) < 60:
            while sent < 60 and sent - len(found) < 16:
                heard.worker.run(sent, ONE, [floats(*[sent, -sent] * (numbers // 2))], (), PLENTY)
                sent += 1
            done = heard.next(RunDone)
            found[done.token] = done.outputs[0].data
        expected = {n: struct.pack("<2f", 2 * n, -2 * n) * (numbers // 2) for n in range(60)}
        assert [n for n in range(60) if found[n] != expected[n]] == []
        heard.worker.run(99, ONE, [floats(1, 2)], (), 4)
        assert heard.next(RunFailed).code == "too-large"
    finally:
        heard.worker.stop(5)
