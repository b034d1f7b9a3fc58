"""A worker that a model has taken over tries to get out: each way fails, nothing has changed, and it still works.

The worker is a real one (`escapes` says what is added to it), with a real state directory beside its models. What the
kernel of this machine lacks is skipped, with the reason.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import needs
import onnx_models
import psutil
import pytest

from edge_agent.inference import containment, frames, launch
from edge_agent.inference.events import WorkerStarted
from edge_agent.inference.messages import containment_of, spec_entries, tensors_of, text_of
from edge_agent.inference.sessions import Session
from edge_agent.inference.shared import FROM_BYTES, SharedInputs
from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.models.content import Content
from edge_agent.models.store import Store
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings

ESCAPES = Path(__file__).parents[1] / "escapes.py"
MIB = 1 << 20
LIMIT_BYTES = 192 * MIB
WAIT_SECONDS = 60
REFUSED = {"EPERM", "EACCES"}
DOUBLING, DIGITS, STRAY = (bytes([number]) * 32 for number in (1, 2, 3))
OFFERED = containment.offered()
INPUT = Tensor(TensorSpec("in0", DataType.FP32, (4,)), bytes(range(16)))
(FAMILY,) = builtin().families
VARIANT = FAMILY.variants[0]
IMAGE = Tensor(TensorSpec("image", DataType.FP32, (2, 1, 8, 8)), bytes(range(128)) * 4)


def asks_for(*measures: str) -> None:
    """Skip where the kernel lacks one of these."""
    for name, why in OFFERED.missing:
        if name in measures:
            needs.absent(f"{name}: {why}")


def bare(content: bytes, tensor: Tensor) -> list[bytes]:
    """Return what a session in this process, which is not contained, gives."""
    fd = onnx_models.file_of(content)
    try:
        return [bytes(output.data) for output in Session(fd, 1).run([tensor], (), MIB)]
    finally:
        os.close(fd)


class Home:
    """An agent's state directory, and what a worker might be after.

    Attributes:
        key: the agent's key.
        content: where fetched models are.
        outside: a file of the owner's.
        daemon: a process of the same user that stands for the agent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "agent.key"
        SigningKey.generate().write(self.key)
        self.outside = folder / "notes.txt"
        self.outside.write_text("mine")
        self.content = Content(folder / "models")
        self.content.prepare()
        self.model = self.content.path(VARIANT.digest)
        self.model.parent.mkdir()
        shutil.copy(BUILTIN_DIR / VARIANT.file, self.model)
        self.daemon = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        self._before = self._all()

    def _all(self) -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(self.folder.rglob("*"))
        }

    def is_as_before(self) -> None:
        """No file is changed, gone, or new, and the process lives."""
        assert self._all() == self._before
        assert self.daemon.poll() is None

    def close(self) -> None:
        """End the process."""
        self.daemon.kill()
        self.daemon.communicate()


class Contained:
    """A worker with the command to escape, talked to frame by frame."""

    def __init__(self, home: Home, without: str = "", limit_bytes: int = LIMIT_BYTES) -> None:
        spawn = subprocess.Popen

        def instead(command: list[str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - those of Popen
            options["env"] |= {"EDGE_AGENT_WITHOUT": without}
            return spawn([command[0], "-P", str(ESCAPES), *command[4:]], **options)

        self._connection, theirs = socket.socketpair()
        self._connection.settimeout(WAIT_SECONDS)
        self.inputs = SharedInputs(logging.getLogger("test.escapes"))
        readable = Store(content=home.content).readable
        with theirs, mock.patch.object(launch.subprocess, "Popen", instead):
            self.process = launch.spawn(launch.Options(2, limit_bytes, readable), theirs, self.inputs.fd)
        self._home = home
        self._reader = frames.FrameReader(self._connection, lambda *_: MIB)
        ready = self._reader.read()
        assert ready is not None, self.process.communicate()[1]
        self.containment = containment_of(ready.header)

    def _ask(self, header: dict[str, object], parts: tuple[bytes, ...] = (), fd: int | None = None) -> frames.Frame:
        frames.send(self._connection, frames.pack(header, parts), fd)
        if fd is not None:
            os.close(fd)
        answer = self._reader.read()
        assert answer is not None, self.process.communicate()[1]
        return answer

    def attempts(self, name: str, argument: object = "") -> str:
        """Have it try to escape; return what came of it."""
        return text_of(self._ask({"do": "escape", "name": name, "argument": str(argument)}).header, "outcome")

    def runs(self, digest: bytes, fd: int, tensor: Tensor) -> list[bytes]:
        """Load and run a model, and return its outputs."""
        loaded = self._ask({"do": "load", "digest": digest}, fd=fd)
        assert text_of(loaded.header, "say") == "loaded", loaded.header
        header: dict[str, object] = {"do": "run", "digest": digest, "outputs": [], "max_output_bytes": MIB}
        done = self._ask({**header, "inputs": spec_entries([tensor.spec])}, (bytes(tensor.data),))
        assert text_of(done.header, "say") == "done", done.header
        return [bytes(output.data) for output in tensors_of(done, "outputs")]

    def is_refused(self, digest: bytes, fd: int) -> str:
        """Have it load a model that it may not read; return the code."""
        answer = self._ask({"do": "load", "digest": digest}, fd=fd)
        assert text_of(answer.header, "say") == "load-failed", answer.header
        return text_of(answer.header, "code")

    def works(self) -> None:
        """It runs models, from memory and from the store, and gives what a bare session gives, bit for bit."""
        doubled = self.runs(DOUBLING, onnx_models.file_of(onnx_models.doubling()), INPUT)
        assert doubled == bare(onnx_models.doubling(), INPUT)
        digits = self.runs(DIGITS, os.open(self._home.model, os.O_RDONLY), IMAGE)
        assert digits == bare(self._home.model.read_bytes(), IMAGE)

    def close(self) -> None:
        """End it."""
        self.inputs.close()
        self._connection.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A state directory that has to be as before at the end."""
    (tmp_path / "state").mkdir(mode=0o700)
    home = Home(tmp_path / "state")
    yield home
    home.is_as_before()
    home.close()


@pytest.fixture
def contained(home: Home) -> Iterator[Contained]:
    """A worker that has to work at the end, whatever it tried."""
    worker = Contained(home)
    yield worker
    worker.works()
    worker.close()


def test_everything_that_this_kernel_offers_is_in_force(contained: Contained) -> None:
    """As the kernel sees it, too: no new privileges, no capabilities, a filter, and few descriptors."""
    assert contained.containment == OFFERED
    status = Path(f"/proc/{contained.process.pid}/status").read_text()
    found = dict(line.split(":\t", 1) for line in status.splitlines())
    assert found["NoNewPrivs"] == "1"
    assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0
    assert ("system-calls" in OFFERED.in_force) == (found["Seccomp"] == "2")
    process = psutil.Process(contained.process.pid)
    assert process.rlimit(psutil.RLIMIT_NOFILE)[1] <= 64
    assert process.rlimit(psutil.RLIMIT_FSIZE)[1] == 0
    assert process.rlimit(psutil.RLIMIT_CORE)[1] == 0


def test_operators_of_the_extensions_work(contained: Contained) -> None:
    """Their library is loaded after the worker was contained, when the first model asks for it."""
    needs.module("onnxruntime_extensions")
    text = Tensor(TensorSpec("in0", DataType.BYTES, (1,)), pack_strings([b"abc"]))
    assert contained.runs(STRAY, onnx_models.file_of(onnx_models.upper_case()), text) == [pack_strings([b"ABC"])]


# -- the network --------------------------------------------------------------------------------------------------


def test_connect(home: Home, contained: Contained, tmp_path: Path) -> None:
    """TCP, UDP, Unix sockets by path and by abstract name, to listeners that are there; and to listen itself."""
    asks_for("system-calls")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        abstract.bind(f"\0edge-agent-test-{os.getpid()}")
        abstract.listen()
        udp.bind(("127.0.0.1", 0))
        for name, argument in [
            ("tcp", tcp.getsockname()[1]),
            ("unix", tmp_path / "s"),
            ("abstract", f"edge-agent-test-{os.getpid()}"),
            ("udp", udp.getsockname()[1]),
            ("listen", ""),
            ("thread", ""),
        ]:
            assert contained.attempts(name, argument) in REFUSED, name
        for listener in (tcp, unix, abstract, udp):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.recv(1) if listener is udp else listener.accept()


def test_connect_with_landlock_alone(home: Home) -> None:
    """Without the filter, TCP and abstract sockets are refused all the same, and signals."""
    asks_for("files", "tcp", "signals")
    worker = Contained(home, without="system-calls")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0edge-agent-test-{os.getpid()}")
        abstract.listen()
        assert worker.attempts("tcp", tcp.getsockname()[1]) in REFUSED
        assert worker.attempts("listen") in REFUSED
        assert worker.attempts("abstract", f"edge-agent-test-{os.getpid()}") in REFUSED
        assert worker.attempts("signal", home.daemon.pid) in REFUSED
        assert worker.attempts("ptrace", home.daemon.pid) in REFUSED
    worker.works()
    worker.close()


# -- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("without", ["", "system-calls"])
def test_read_the_agents_key(home: Home, without: str) -> None:
    """Nor anything else that is not code or a model: the owner's files, the passwords' file, another program."""
    asks_for("files")
    worker = Contained(home, without=without)
    for path in (home.key, home.outside, "/etc/passwd", "/etc/hostname", f"/proc/{os.getpid()}/environ", "/bin/true"):
        assert worker.attempts("read", path) in REFUSED, path
    for folder in (home.folder, "/", "/home", "/etc", "/proc", f"/proc/{os.getpid()}/fd"):
        assert worker.attempts("list", folder) in REFUSED, folder
    for way_round in (
        f"/proc/self/root{home.key}",
        f"/proc/self/cwd{home.key}",
        f"{home.content.folder}/../../agent.key",
    ):
        assert worker.attempts("read", way_round) in REFUSED, way_round
    assert worker.attempts("read", home.model) == "escaped"  # as it has to
    worker.works()
    worker.close()


def test_load_a_file_that_is_no_model_of_the_store(home: Home, contained: Contained) -> None:
    """A descriptor of a file elsewhere, which only a confused daemon would send, is not opened again."""
    asks_for("files")
    stray = home.folder.parent / "stray.onnx"
    shutil.copy(home.model, stray)
    assert contained.is_refused(STRAY, os.open(stray, os.O_RDONLY)) == "state"


@pytest.mark.parametrize("without", ["", "system-calls", "files"])
def test_write_outside(home: Home, without: str) -> None:
    """It writes, makes, changes and removes nothing anywhere, by Landlock alone and by the filter alone, too."""
    asks_for(*{"files", "system-calls"} - {without})
    worker = Contained(home, without=without)
    new = home.folder / "new"
    attempts = [("write", new), ("write", home.outside), ("append", home.outside), ("write", home.model)]
    attempts += [("truncate", home.outside), ("remove", home.outside), ("rename", home.outside), ("remove", home.model)]
    attempts += [("mkdir", new), ("symlink", new), ("no-file", home.folder), ("write", "/dev/shm/edge-agent-test")]  # noqa: S108 - it must not come to be there
    attempts += [("write", f"{home.content.folder}/planted"), ("write", "/proc/self/comm")]
    if without != "system-calls":
        attempts.append(("chmod", home.key))  # Landlock does not look at modes
    for name, path in attempts:
        # A folder that the write is refused in may be on a file system that is read-only anyway.
        assert worker.attempts(name, path) in REFUSED | {"EROFS"}, (name, path)
    home.is_as_before()
    worker.works()
    worker.close()


@pytest.mark.parametrize("without", ["", "system-calls", "files"])
def test_change_inputs_that_were_checked(home: Home, without: str) -> None:
    """They lie in memory that both see; the kernel lets the agent alone write it, whatever else holds."""
    worker = Contained(home, without=without)
    written = b"\1" * FROM_BYTES
    assert worker.inputs.put(1, [written]) == 0
    for way in ("write", "open", "protect"):
        assert worker.attempts("inputs", way) in REFUSED | {"EBADF"}, way
    assert worker.inputs.fd is not None
    assert os.pread(worker.inputs.fd, FROM_BYTES, 0) == written
    worker.works()
    worker.close()


_OPTIMISER = """
import errno, os, sys
from edge_agent.inference import containment, landlock, seccomp
how, scratch, folder, *victims = sys.argv[1:]
if how == "abi-2":  # the kernel looks at what it is asked to look at, as the older one does
    found = landlock.abi()
    landlock.abi = lambda: min(2, found)
elif how == "filter-alone":
    landlock.restrict = lambda *_: None
elif how == "landlock-alone":
    seccomp.install = lambda *_, **__: None
containment.enter([folder], (int(scratch), 1000))
for flags in (os.O_TRUNC, os.O_TRUNC | os.O_RDWR, os.O_TRUNC | os.O_CREAT, os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC):
    for victim in victims:
        try:
            print(os.close(os.open(victim, flags)))
        except OSError as error:
            print(errno.errorcode[error.errno])
for victim in victims:
    try:
        print(os.truncate(victim, 0))
    except OSError as error:
        print(errno.errorcode[error.errno])
print(os.read(os.open(victims[0], os.O_RDONLY), 1))
"""


@pytest.mark.parametrize("how", ["as-it-is", "abi-2", "filter-alone", "landlock-alone"])
def test_empty_a_file_from_where_models_are_optimised(home: Home, tmp_path: Path, how: str) -> None:
    """By opening it to be read, and emptied: Landlock before ABI 3 does not look at that."""
    asks_for("files", *(["system-calls"] if how != "landlock-alone" else []))
    if how == "landlock-alone" and containment.no_copies():
        needs.absent(containment.no_copies())
    victims = [home.content.make_optimised() / "other.ort", tmp_path / "package.py"]
    for victim in victims:
        victim.write_bytes(b"as it was")
    with (tmp_path / "scratch").open("wb") as scratch:
        command = [sys.executable, "-c", _OPTIMISER, how, str(scratch.fileno()), str(tmp_path), *map(str, victims)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, pass_fds=[scratch.fileno()])
    *outcomes, read = done.stdout.splitlines()
    assert [victim.read_bytes() for victim in victims] == [b"as it was"] * 2
    assert set(outcomes) <= REFUSED
    assert (len(outcomes), read) == (10, "b'a'")
    victims[0].unlink()


# -- processes ----------------------------------------------------------------------------------------------------


def test_fork_without_end(contained: Contained) -> None:
    """Not even once, whatever the call."""
    asks_for("system-calls")
    for name in ("fork", "spawn", "clone"):
        for _ in range(3):
            assert contained.attempts(name) in REFUSED, name
    assert psutil.Process(contained.process.pid).children() == []


def test_exec(contained: Contained) -> None:
    """It stays the program that it is."""
    asks_for("system-calls")
    assert contained.attempts("exec") in REFUSED


def test_exec_with_landlock_alone(home: Home) -> None:
    """No file may be executed."""
    asks_for("files")
    worker = Contained(home, without="system-calls")
    assert worker.attempts("exec") in REFUSED
    worker.works()
    worker.close()


def test_signal_and_trace_the_daemon(home: Home, contained: Contained) -> None:
    """By kill, by the kernel on its behalf, by ptrace, by reading its memory."""
    asks_for("system-calls")
    for pid in (home.daemon.pid, os.getpid()):
        for name in ("ptrace", "mem", "mem-call", *(("signal", "signal-of-kernel") if pid != os.getpid() else ())):
            assert contained.attempts(name, pid) in REFUSED, (name, pid)
    assert psutil.Process(home.daemon.pid).status() != psutil.STATUS_TRACING_STOP


def test_reach_into_the_kernel(contained: Contained) -> None:
    """Namespaces, io_uring and bpf, where most of the kernel's holes of late were."""
    asks_for("system-calls")
    for name in ("namespace", "ring", "bpf"):
        assert contained.attempts(name) in REFUSED, name


# -- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["memory", "memory-private", "memory-shared", "memory-file"])
def test_allocate_without_end(contained: Contained, way: str) -> None:
    """Memory ends at the limit, as an error where it is asked for; that which no limit counts is not to be had."""
    asks_for("system-calls")
    assert contained.attempts(way) in {"MemoryError", "ENOMEM", "EPERM"}
    status = Path(f"/proc/{contained.process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak * 1024 < LIMIT_BYTES + 160 * MIB
    assert contained.attempts("limits") in {*REFUSED, "ValueError"}


# -- what is missing is said --------------------------------------------------------------------------------------


def test_a_worker_says_what_it_lacks(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is offered here is what the worker reports; what fails although it is offered ends it."""
    worker = Contained(home)
    assert set(worker.containment.in_force) | {name for name, _ in worker.containment.missing} == set(
        containment.MEASURES
    )
    worker.close()
    assert WorkerStarted(1, "", (), 0.0).containment.in_force == ()
