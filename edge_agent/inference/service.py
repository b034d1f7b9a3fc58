"""What the worker does between its start and its end: read commands, carry them out, answer each."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence

from edge_agent.errors import EdgeAgentError, InputError, MalformedError, ResourceError, TooLargeError, WorkerError
from edge_agent.inference import canary, frames, limits, together
from edge_agent.inference.beside import Beside
from edge_agent.inference.containment import NOTHING, Containment
from edge_agent.inference.events import Blame
from edge_agent.inference.messages import (
    cases_of,
    counts_of,
    digest_of,
    done_head,
    extents_of,
    integer_of,
    number_of,
    plain,
    run_of,
    spec_entries,
    tensors_of,
    text_of,
)
from edge_agent.inference.sessions import PROVIDERS, Session, Weights, runtime_name
from edge_agent.inference.shared import Inputs

MAX_COMMAND_BYTES = 2**31
"""The parts of one command together. The daemon's own limits are far lower; this one bounds a mistake."""
REUSED_BYTES = 4 * 1024 * 1024
"""Inputs of up to this size are read into memory that is kept."""


class Service:
    """Carries out commands and answers them on `connection`, with `threads` inside an operator.

    One command at a time, but for runs of models that were loaded with several lanes: these are computed side by side,
    each on a thread, while this one reads the next command. Whatever is no run waits until they are done. Runs of
    models that were loaded to have them made one are, as far as they have the same shapes and are there already.
    """

    def __init__(
        self, connection: socket.socket, threads: int, contained: Containment = NOTHING, inputs: Inputs | None = None
    ) -> None:
        self._connection = connection
        self._inputs = inputs
        self._contained = contained
        self._threads = threads
        self._sessions: dict[bytes, Session] = {}
        self._lanes: dict[bytes, int] = {}
        self._together: dict[bytes, int] = {}
        self._beside = Beside(self._run)
        self._rooms = [frames.Room(REUSED_BYTES) for _ in range(together.MOST - 1)]  # of runs that are made one
        self._sending = threading.Lock()
        self._commands: dict[str, Callable[[frames.Frame], None]] = {
            "run": self._run,
            "load": self._load,
            "unload": self._unload,
            "canary": self._canary,
        }

    def ready(self) -> None:
        """Say that commands are welcome, and what holds for whoever carries them out."""
        contained = self._contained
        answer = {"contained": list(contained.in_force), "missing": [list(entry) for entry in contained.missing]}
        self._say({"say": "ready", "runtime": runtime_name(), "providers": list(PROVIDERS), **answer})

    def serve(self) -> None:
        """Answer commands until the daemon closes the connection.

        Raises:
            MalformedError, TooLargeError: what came is not a frame or not a command.
            OSError: the daemon is gone.
        """
        shared = self._inputs.parts if self._inputs is not None else None
        reader = frames.FrameReader(self._connection, lambda *_: MAX_COMMAND_BYTES, takes_fd=True, shared=shared)
        rooms = [frames.Room(REUSED_BYTES)]  # each holds the inputs of a frame until it is done with
        while (frame := reader.read(rooms[-1])) is not None:
            try:
                name = text_of(frame.header, "do")
                lanes = self._lanes.get(digest_of(frame.header), 1) if name == "run" else 1
                several = self._together.get(digest_of(frame.header), 1) if name == "run" else 1
                if several > 1:
                    self._beside.wait()
                    self._run_several(self._gathered(frame, several, reader))
                    continue
                if lanes > 1:
                    rooms += self._beside.put(frame, rooms.pop(), lanes)
                    if not rooms:
                        rooms.append(frames.Room(REUSED_BYTES))
                    continue
                if name != "run":
                    self._beside.wait()
                command = self._commands.get(name)
                if command is None:
                    raise MalformedError("The command is unknown.")
                command(frame)
            finally:
                if frame.fd is not None:
                    os.close(frame.fd)
                # The tensors of a large job are not kept until the next one comes.
                del frame
        self._beside.wait()

    def _say(self, header: dict[str, object], parts: Sequence[frames.Buffer] = (), *, token: int = 0) -> None:
        self._send(frames.pack(header, parts, token=token))

    def _send(self, buffers: Sequence[frames.Buffer]) -> None:
        with self._sending:
            frames.send(self._connection, buffers)

    def _load(self, frame: frames.Frame) -> None:
        digest = digest_of(frame.header)
        self._sessions.pop(digest, None)
        lanes = integer_of(frame.header, "lanes") if "lanes" in frame.header else 1
        self._lanes[digest] = min(max(1, lanes), self._threads)
        several = integer_of(frame.header, "together") if "together" in frame.header else 1
        self._together[digest] = min(max(1, several), together.MOST)
        try:
            threads = integer_of(frame.header, "threads") if "threads" in frame.header else self._threads
            threads = min(max(1, threads), self._threads)
            weights = Weights(text_of(frame.header, "optimised")) if "optimised" in frame.header else None
            session = self._sessions[digest] = Session(_fd(frame), threads, optimised=weights)
        except (EdgeAgentError, MemoryError) as error:
            limits.trim()
            self._say({"say": "load-failed", "digest": digest, **_failure(error)})
            return
        answer = {"inputs": spec_entries(session.inputs), "outputs": spec_entries(session.outputs)}
        sizes = {"load_us": session.load_us, "memory_bytes": session.memory_bytes}
        self._say({"say": "loaded", "digest": digest, **answer, **sizes})

    def _unload(self, frame: frames.Frame) -> None:
        self._sessions.pop(digest_of(frame.header), None)
        self._lanes.pop(digest_of(frame.header), None)
        self._together.pop(digest_of(frame.header), None)
        gc.collect()
        limits.trim()

    def _run(self, frame: frames.Frame) -> None:
        started = time.perf_counter_ns()
        token, run = frame.token, run_of(frame)
        try:
            session = self._sessions.get(run.digest)
            if session is None:
                raise WorkerError("The model is not loaded in the worker.")
            outputs = session.run(tensors_of(frame, "inputs"), run.outputs, run.max_output_bytes)
        except (EdgeAgentError, MemoryError) as error:
            self._say({"say": "run-failed", **_failure(error), "blame": blame(error)}, token=token)
            return
        run_us = (time.perf_counter_ns() - started) // 1000
        parts = [output.data for output in outputs]
        head = done_head(tuple([output.spec for output in outputs]), frames.lengths_of(parts))
        self._send(frames.with_head(head, parts, token=token, run_us=run_us))

    def _gathered(self, frame: frames.Frame, most: int, reader: frames.FrameReader) -> list[frames.Frame]:
        """Return a run with those behind it that have its shapes and are there already: nobody is waited for."""
        found, rooms = [frame], iter(self._rooms)
        while len(found) < most and reader.alike_there(frame):
            another = reader.read(next(rooms))
            if another is None:
                break
            found.append(another)
        return found

    def _run_several(self, several: Sequence[frames.Frame]) -> None:
        """Compute runs of the same shapes as one; if that fails, each by itself, so that each has its own answer."""
        if len(several) == 1:
            self._run(several[0])
            return
        started = time.perf_counter_ns()
        run = run_of(several[0])
        session = self._sessions.get(run.digest)
        try:
            if session is None:
                raise WorkerError("The model is not loaded in the worker.")
            inputs = [tensors_of(frame, "inputs") for frame in several]
            answers = session.run_several(inputs, run.outputs, run.max_output_bytes)
        except (EdgeAgentError, MemoryError):
            for frame in several:
                self._run(frame)
            return
        run_us = (time.perf_counter_ns() - started) // 1000 // len(several)
        buffers: list[frames.Buffer] = []
        for frame, outputs in zip(several, answers, strict=True):
            parts = [output.data for output in outputs]
            head = done_head(tuple([output.spec for output in outputs]), frames.lengths_of(parts))
            buffers += frames.with_head(head, parts, token=frame.token, run_us=run_us)
        self._send(buffers)

    def _canary(self, frame: frames.Frame) -> None:
        header = frame.header
        digest = digest_of(header)
        try:
            plan = canary.Plan(
                cases=cases_of(header, frame.parts),
                extents=extents_of(header),
                threads=counts_of(header, "threads"),
                seconds=number_of(header, "seconds"),
                within_seconds=number_of(header, "within_seconds"),
                max_output_bytes=integer_of(header, "max_output_bytes"),
            )
            found = canary.measure(_fd(frame), plan)
        except (EdgeAgentError, MemoryError) as error:
            self._say({"say": "canary-failed", "digest": digest, **_failure(error)})
        else:
            answer: dict[str, object] = {"say": "canary-done", "digest": digest, "load_us": found.load_us}
            answer |= {"times": [list(times) for times in found.times], "not_finite": plain(found.not_finite)}
            answer |= {"load_peak_bytes": found.load_peak_bytes, "steady_bytes": found.steady_bytes}
            answer |= {"run_peak_bytes": found.run_peak_bytes, "lanes": found.lanes, "together": found.together}
            specs = [spec_entries([output.spec for output in outputs]) for outputs in found.outputs]
            parts = [output.data for outputs in found.outputs for output in outputs]
            self._say({**answer, "cases": specs}, parts)
        gc.collect()
        limits.trim()


def blame(error: EdgeAgentError | MemoryError) -> Blame:
    """Return whose fault it is that a run failed."""
    if isinstance(error, (InputError, TooLargeError, MalformedError)):
        return "requester"
    if isinstance(error, WorkerError) and error.error_code == "model-run":
        return "model"
    return "agent"


def _failure(error: EdgeAgentError | MemoryError) -> dict[str, object]:
    if isinstance(error, MemoryError):
        error = ResourceError("There is not enough memory.")
    return {"code": error.error_code, "message": plain(error.message)}


def _fd(frame: frames.Frame) -> int:
    if frame.fd is None:
        raise WorkerError("The command came without the model's file.")
    return frame.fd
