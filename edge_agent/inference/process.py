"""One life of a worker process: started, listened to, and its end told in plain words."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Literal, NamedTuple

from edge_agent.errors import MalformedError, PeerError, ResourceError, WorkerError
from edge_agent.inference import frames, launch, obituary
from edge_agent.inference.bounds import Bounds
from edge_agent.inference.containment import Containment
from edge_agent.inference.events import (
    CanaryDone,
    CanaryFailed,
    LoadFailed,
    ModelLoaded,
    RunDone,
    RunFailed,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
)
from edge_agent.inference.messages import (
    containment_of,
    event_of,
    names_of,
    plain,
    spec_entries,
    text_of,
)
from edge_agent.inference.outbox import Outbox
from edge_agent.inference.owed import Expected, Owed
from edge_agent.inference.shared import SharedInputs
from edge_agent.models.catalogue import MAX_GOLDEN_BYTES, Golden
from edge_agent.models.golden import Case, difference
from edge_agent.wire.tensors import Tensor

MAX_COMMANDS = 256
"""Commands that one worker may hold, waiting ones included."""
_SOCKET_BYTES = 1024 * 1024
_STDERR_LINES = 40
_STDERR_LINE_BYTES = 1_000
# How long a worker that closed its socket may take to end by itself.
_END_SECONDS = 2.0
_STDERR_SECONDS = 0.5
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Verdict = Literal["hung", "stop", "memory"]


@dataclass(frozen=True, slots=True)
class Canary:
    """What to measure of a model, alone in a worker.

    Attributes:
        digest: names the model in the answer.
        fd: the verified file; whoever sends this hands it over.
        threads: numbers of threads to try; memory is measured with the first.
        cases: known answers; without any, inputs are made up, and the outputs only have to be finite.
        tolerance: how far outputs may be from the known ones; goes with `cases`.
        extents: of the symbols in the shapes of made-up inputs.
        seconds: how long runs are repeated with each number of threads; there is at least one.
        within_seconds: no further number of threads is begun later than this.
    """

    digest: bytes
    fd: int
    threads: tuple[int, ...]
    cases: tuple[Case, ...] = ()
    tolerance: Golden | None = None
    extents: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.3
    within_seconds: float = 4.0


class Command(NamedTuple):
    """A run to be sent.

    Attributes:
        token: names it in its answer.
        head: its header, made for these parts.
        parts: the bytes of its inputs.
        most_bytes: of its outputs together.
    """

    token: int
    head: bytes
    parts: Sequence[frames.Buffer]
    most_bytes: int


class WorkerProcess:
    """A worker process from its start to its end, for `Worker`, which has one after the other.

    One thread starts the process, listens to it and reaps it. That thread lives exactly as long as the
    process, as the kernel's parent-death signal asks for.

    Attributes:
        containment: what holds for the process; None until it has said so.
    """

    def __init__(self, options: launch.Options, sink: Callable[[WorkerEvent], None], log: logging.Logger) -> None:
        self._options = options
        self._sink = sink
        self._log = log
        self._lock = threading.Lock()
        self._owed = Owed()
        self.containment: Containment | None = None
        self._ready = False
        self._verdict: Verdict | None = None
        self._killed_at: float | None = None
        self._stopping = False
        self._ended = False
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (self._ours, self._theirs):
            # The kernel grants what the system allows. What fits is sent without another thread's help.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        self._outbox = Outbox(self._ours)
        self._popen: subprocess.Popen[bytes] | None = None
        self._too_much = ""
        limits = (options.delegated, options.memory_limit_bytes, options.threads)
        self._bounds = Bounds(*limits, self._end_for_memory, options.cpus)
        self._inputs = SharedInputs(log)
        self._failure: Exception | None = None
        self._is_started = threading.Event()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._oom_kills = obituary.oom_kills()
        self._asked_at = time.perf_counter()
        self._thread = threading.Thread(target=self._live, name="worker-reader", daemon=True)

    # -- from the daemon's threads ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process; that it can work is told by `WorkerStarted`.

        Raises:
            WorkerError: "worker-start": the process could not be made.
        """
        self._started_at = time.monotonic()
        self._thread.start()
        self._is_started.wait()
        if self._failure is not None:
            raise WorkerError(f"The worker process could not be started: {self._failure}.", code="worker-start")

    @property
    def pid(self) -> int:
        """The process id, also after the end; 0 before the start."""
        return 0 if self._popen is None else self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it takes commands: not ended, not killed, not stopping."""
        return self._popen is not None and self._verdict is None and not (self._stopping or self._ended)

    @property
    def owes_since(self) -> float | None:
        """The monotonic second since which its end is due: it was killed, or nobody listens to it any more."""
        if self._ended or self._popen is None:
            return None
        return self._killed_at if self._thread.is_alive() else self._started_at

    def load(self, header: Mapping[str, object], digest: bytes, fd: int) -> None:
        """Send a command to load, taking over `fd`. Raises as `send` does."""
        self.send(header, fd=fd, expected=Expected((ModelLoaded, LoadFailed), digest))

    def canary(self, request: Canary) -> None:
        """Send a command to measure, taking over its descriptor. Raises as `send` does."""
        cases = request.cases

        def judge(answers: Sequence[Sequence[Tensor]]) -> str:
            if len(answers) != len(cases):
                return f"{len(answers)} cases were answered instead of {len(cases)}"
            for number, (case, outputs) in enumerate(zip(cases, answers, strict=True), 1):
                if request.tolerance is not None and (wrong := difference(request.tolerance, case, outputs)):
                    return f"case {number}: {wrong}"
            return ""

        header: dict[str, object] = {
            "do": "canary",
            "digest": request.digest,
            "threads": list(request.threads),
            "seconds": float(request.seconds),
            "within_seconds": float(request.within_seconds),
            "cases": [spec_entries([tensor.spec for tensor in case.inputs]) for case in cases],
            "wanted": [[tensor.name for tensor in case.outputs] for case in cases],
            "extents": [[symbol, extent] for symbol, extent in request.extents.items()],
            "max_output_bytes": MAX_GOLDEN_BYTES,
        }
        parts = [tensor.data for case in cases for tensor in case.inputs]
        expected = Expected((CanaryDone, CanaryFailed), request.digest, MAX_GOLDEN_BYTES, judge)
        self.send(header, parts, request.fd, expected)

    def run(self, runs: Sequence[Command]) -> list[Command]:
        """Send runs, together and without waiting; dropped if the process has ended.

        Returns:
            Those that are refused, because the worker holds `MAX_COMMANDS` already or too many bytes wait.
        """
        with self._lock:
            if self._ended or self._verdict is not None or self._stopping:
                return []
            room = max(0, MAX_COMMANDS - len(self._owed))
            taken, refused = runs[:room], list(runs[room:])
            buffers: list[frames.Buffer] = []
            for run in taken:
                begin = self._inputs.put(run.token, run.parts)
                if begin is None:
                    buffers += frames.with_head(run.head, run.parts, token=run.token)
                else:
                    buffers += frames.pointing(run.head, begin, token=run.token)
                self._owed.run(run.token, run.most_bytes)
            if buffers:
                try:
                    self._outbox.put(buffers)
                except ResourceError:
                    for run in taken:
                        self._owed.take_run_back(run.token)
                        self._inputs.free(run.token)
                    return list(runs)
            return refused

    def send(
        self,
        header: Mapping[str, object],
        parts: Sequence[frames.Buffer] = (),
        fd: int | None = None,
        expected: Expected | None = None,
    ) -> None:
        """Send a command, without waiting; takes `fd` over in every case. Dropped if the process has ended.

        Raises:
            ResourceError: "queue-full": the worker holds `MAX_COMMANDS` already, or too many bytes wait.
            TooLargeError: a header beyond the limits of a frame.
        """
        # The lock keeps commands and expected answers in the same order. Nothing inside it blocks.
        with self._lock:
            try:
                if self._ended or self._verdict is not None or self._stopping:
                    return
                if len(self._owed) >= MAX_COMMANDS:
                    text = f"The worker holds {MAX_COMMANDS} commands already."
                    raise ResourceError(text, code="queue-full")
                buffers = frames.pack(header, parts)
                if expected is not None:
                    self._owed.command(expected)
                try:
                    self._outbox.put(buffers, fd)
                except ResourceError:
                    if expected is not None:
                        self._owed.take_command_back()
                    raise
                finally:
                    fd = None
            finally:
                if fd is not None:
                    os.close(fd)

    def kill(self, verdict: Verdict) -> None:
        """End the process now."""
        with self._lock:
            if self._ended or self._verdict is not None:
                return
            self._verdict = verdict
            self._killed_at = time.monotonic()
        if self._popen is not None:
            self._popen.kill()
        # If a child of the worker holds its end open, this is what wakes our threads.
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)

    def stop(self, timeout: float) -> None:
        """Let the process finish what it holds, for at most `timeout` seconds, and end it."""
        with self._lock:
            self._stopping = True
        self._outbox.close()
        self._thread.join(timeout)
        self.kill("stop")
        self._thread.join()

    # -- the thread ------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            popen = self._popen = launch.spawn(self._options, self._theirs, self._inputs.fd)
            self._bounds.hold(popen.pid)
        except (OSError, subprocess.SubprocessError) as error:
            self._failure = error
            self._ended = True
            self._bounds.let_go()
            self._close()
            return
        finally:
            self._theirs.close()
            self._inputs.passed_on()
            self._is_started.set()
        assert popen.stderr is not None  # noqa: S101 - a pipe was asked for
        drain = threading.Thread(target=self._drain, args=(popen.stderr,), name="worker-stderr", daemon=True)
        drain.start()
        garbled = self._listen()
        if garbled:
            popen.kill()
        try:
            status = popen.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            popen.kill()
            status = popen.wait()
        self._close()
        drain.join(_STDERR_SECONDS)
        oom_killed = self._bounds.oom_killed() if self._bounds.in_group else obituary.oom_kills() > self._oom_kills
        self._bounds.let_go()
        self._tell_end(popen.pid, status, garbled, oom_killed=oom_killed)

    def _listen(self) -> str:
        """Give events to the sink until the worker closes its end; return what it said wrong, if anything."""
        reader = frames.FrameReader(self._ours, self._most_bytes)
        try:
            while (frame := reader.read()) is not None and self._verdict is None:
                self._sink(self._event(frame))
        except PeerError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 - the reason is the next line
            # Whatever this is, the daemon must hear that the worker is gone, and not wait for it for ever.
            self._log.exception("The worker cannot be listened to", extra={"action": "worker-unheard"})
            return f"{type(error).__name__} in the agent: {error}"
        return ""

    def _most_bytes(self, header: frames.Header, token: int) -> int:
        with self._lock:
            return self._owed.most_bytes(header, token)

    def _event(self, frame: frames.Frame) -> WorkerEvent:
        header = frame.header
        if header.get("say") == "ready" and not self._ready:
            self._ready = True
            elapsed_ms = (time.perf_counter() - self._asked_at) * 1e3
            self.containment = containment_of(header)
            runtime, providers = text_of(header, "runtime"), names_of(header, "providers")
            return WorkerStarted(self.pid, runtime, providers, elapsed_ms, self.containment)
        with self._lock:
            judge = self._owed.judge
        event = event_of(frame, judge)
        with self._lock:
            asked = self._owed.is_paid_by(event)
            if asked and isinstance(event, (RunDone, RunFailed)):
                self._inputs.free(event.token)
        if not asked:
            raise MalformedError("It answered something that it was not asked.")
        return event

    def _drain(self, stream: IO[bytes]) -> None:
        """Keep the end of what the process and its libraries print; a line that does not end is cut."""
        with stream:
            while line := stream.readline(_STDERR_LINE_BYTES):
                text = plain(_COLOUR.sub("", line.decode(errors="replace")))
                if text:
                    self._stderr.append(text)
                    self._log.debug("The worker printed: %s", text, extra={"action": "worker-stderr"})

    # -- the end ---------------------------------------------------------------------------------------------

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._outbox.abandon()
        self._ours.close()
        with self._lock:
            self._inputs.close()

    def _end_for_memory(self, reason: str) -> None:
        self._too_much = reason
        self.kill("memory")

    def _tell_end(self, pid: int, status: int, garbled: str, *, oom_killed: bool) -> None:
        with self._lock:
            self._ended = True
            tokens = self._owed.runs
            self._owed.clear()
            verdict = self._verdict
        if self._stopping or verdict == "stop":
            self._log.info("The worker has stopped", extra={"action": "worker-stopped", "pid": pid})
            return
        hung = verdict == "hung"
        end = obituary.End(hung=hung, garbled=garbled, oom_killed=oom_killed, too_much=self._too_much)
        message = obituary.write(status, tuple(self._stderr), end)
        self._log.warning("%s", message, extra={"action": "worker-died", "pid": pid, "held_runs": len(tokens)})
        self._sink(WorkerDied(pid, "worker-hung" if hung else "worker-died", message, tokens))
