"""The daemon's handle on its worker process. Imports neither numpy nor onnxruntime."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from edge_agent.errors import ResourceError, WorkerError
from edge_agent.inference.containment import Containment
from edge_agent.inference.control_group import Delegated
from edge_agent.inference.events import (
    CanaryDone,
    CanaryFailed,
    LoadFailed,
    ModelLoaded,
    Port,
    RunDone,
    RunFailed,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
)
from edge_agent.inference.launch import Options
from edge_agent.inference.messages import Run, run_head
from edge_agent.inference.process import Command, Verdict, WorkerProcess
from edge_agent.wire.tensors import Tensor

__all__ = [
    "CanaryDone",
    "CanaryFailed",
    "LoadFailed",
    "ModelLoaded",
    "Port",
    "Request",
    "RunDone",
    "RunFailed",
    "Worker",
    "WorkerDied",
    "WorkerEvent",
    "WorkerStarted",
]


class Request(NamedTuple):
    """A run that is wanted: see `Worker.run`."""

    token: int
    digest: bytes
    inputs: Sequence[Tensor]
    outputs: Sequence[str]
    max_output_bytes: int


class Worker:
    """Starts the worker process, gives it commands, and tells the sink what comes of them.

    No call waits for the worker, but for `stop`. Commands are answered in their order, one at a time, but for runs of
    a model with several lanes, which are computed side by side, or that was loaded to have waiting runs made
    one: each is answered when it is done. A
    command to a worker that has died on its own is dropped: the `WorkerDied` that says so is on its way or
    was given before. A worker that was stopped or killed with "stop" says nothing more, and what it still
    held is forgotten.

    Args:
        sink: called with each event on a thread of this handle; it must only enqueue.
        threads: inside an operator.
        memory_limit_bytes: what models and runs may take, above the idle worker's memory; None for no limit.
        readable: folders and files of models, as `Options` has them.
        delegated: where a control group is made for it, if anywhere.
        log: for the start and end of the process, and at debug level for what it prints.
    """

    def __init__(  # noqa: PLR0913 each is a seam
        self,
        sink: Callable[[WorkerEvent], None],
        *,
        threads: int,
        memory_limit_bytes: int | None,
        readable: tuple[str, ...] = (),
        delegated: Delegated | None = None,
        log: logging.Logger,
    ) -> None:
        self._sink = sink
        self._options = Options(threads, memory_limit_bytes, readable, delegated)
        self._log = log
        self._process: WorkerProcess | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the worker; None if there is none."""
        return self._process.pid if self._process is not None and self._process.alive else None

    @property
    def alive(self) -> bool:
        """Whether the worker takes commands."""
        return self._process is not None and self._process.alive

    @property
    def containment(self) -> Containment | None:
        """What holds for the worker; None if there is none, or it has not said so yet."""
        return self._process.containment if self._process is not None and self._process.alive else None

    @property
    def owes_since(self) -> float | None:
        """The monotonic second since which the end of the worker is due; None if it is not."""
        return self._process.owes_since if self._process is not None else None

    def start(
        self, memory_limit_bytes: int | None = None, threads: int | None = None, cpus: float | None = None
    ) -> None:
        """Start a worker. `WorkerStarted` follows when it is ready; commands may be given before.

        Args:
            memory_limit_bytes: for this one and those after it, if it is another than before.
            threads: likewise.
            cpus: that this one may keep busy, where it has a control group; None for no limit.

        Raises:
            WorkerError: "worker-start": one is running already, or the process could not be made.
        """
        if self.alive:
            raise WorkerError("The worker is running already.", code="worker-start")
        if memory_limit_bytes is not None:
            self._options = replace(self._options, memory_limit_bytes=memory_limit_bytes)
        if threads is not None:
            self._options = replace(self._options, threads=threads)
        self._options = replace(self._options, cpus=cpus)
        process = WorkerProcess(self._options, self._sink, self._log)
        process.start()
        self._process = process

    def load(  # noqa: PLR0913 all that is known of how it is served
        self, digest: bytes, fd: int, threads: int = 0, *, lanes: int = 1, together: int = 1, optimised: str = ""
    ) -> None:
        """Load the model in the file `fd`, which this call takes over. Answer: `ModelLoaded` or `LoadFailed`.

        Args:
            digest: names the model.
            fd: the verified file.
            threads: for this model, at most the worker's; 0 for the worker's.
            lanes: how many runs of it are computed side by side, at most the worker's threads.
            together: how many waiting runs of it are made one.
            optimised: empty for the model's own file; else it is a copy, whose weights are "in-place" or "copied".

        Raises:
            WorkerError: no worker was started.
            ResourceError: "queue-full".
        """
        header: dict[str, object] = {"do": "load", "digest": digest}
        if threads:
            header["threads"] = threads
        if lanes > 1:
            header["lanes"] = lanes
        if together > 1:
            header["together"] = together
        if optimised:
            header["optimised"] = optimised
        self._running(fd).load(header, digest, fd)

    def unload(self, digest: bytes) -> None:
        """Forget a model and give its memory back, after the commands before. There is no answer.

        Raises:
            WorkerError: no worker was started.
            ResourceError: "queue-full".
        """
        self._running().send({"do": "unload", "digest": digest})

    def run(
        self,
        token: int,
        digest: bytes,
        inputs: Sequence[Tensor],
        outputs: Sequence[str],
        max_output_bytes: int,
    ) -> None:
        """Run a loaded model; `outputs` empty for all. Answer: `RunDone` or `RunFailed` with this `token`.

        Raises:
            WorkerError: no worker was started.
            TooLargeError: a header beyond the limits of a frame.
            ResourceError: "queue-full": too many runs, or too many bytes, wait already.
        """
        if self.run_all([Request(token, digest, inputs, outputs, max_output_bytes)]):
            raise self.full()

    def run_all(self, requests: Sequence[Request]) -> list[Request]:
        """Run loaded models, sent together; each is answered as by `run`.

        Returns:
            Those for which there is no room; see `full`.

        Raises:
            WorkerError, TooLargeError: as `run`; nothing was sent then.
        """
        process = self._running()
        commands = [_command(request) for request in requests]
        refused = {command.token for command in process.run(commands)}
        return [request for request in requests if request.token in refused]

    @staticmethod
    def full() -> ResourceError:
        """Return the error for whoever asks for more than there is room for."""
        return ResourceError("Too many runs, or too many bytes, wait for the worker already.", code="queue-full")

    def kill(self, reason: Verdict) -> None:
        """End the worker at once. "hung": `WorkerDied` follows. "stop": nothing, but what was on its way."""
        if self._process is not None:
            self._process.kill(reason)

    def stop(self, timeout: float) -> None:
        """Let the worker finish what it holds, up to `timeout` seconds, and end. No `WorkerDied` follows."""
        if self._process is not None:
            self._process.stop(timeout)

    def _running(self, fd: int | None = None) -> WorkerProcess:
        if self._process is None:
            if fd is not None:
                os.close(fd)
            raise WorkerError("No worker was started.", code="worker-start")
        return self._process


def _command(request: Request) -> Command:
    parts = [tensor.data for tensor in request.inputs]
    specs = tuple([tensor.spec for tensor in request.inputs])
    run = Run(request.digest, tuple(request.outputs), request.max_output_bytes)
    return Command(request.token, run_head(run, specs, tuple(map(len, parts))), parts, request.max_output_bytes)
