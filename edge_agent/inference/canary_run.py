"""A canary run: one model, alone in a worker process of its own that is killed afterwards, whatever became of it.

The worker is started as the serving one is, with the same limits, environment and control group, so that what passes
here passes there. A model that crashes, hangs or takes too much costs its own canary run and nothing else. Imports
neither numpy nor onnxruntime.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeAlias

from edge_agent.errors import EdgeAgentError
from edge_agent.inference.events import (
    CANCELLED,
    CanaryDone,
    CanaryFailed,
    CopyMade,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
)
from edge_agent.inference.launch import Options
from edge_agent.inference.process import Canary, WorkerProcess

START_SECONDS = 60.0
"""How long the process may take to be ready: a board with a slow card takes long to import onnxruntime."""
LIMIT_SECONDS = 20.0
"""How long one canary run may take then; what takes longer to load is no use for jobs either."""

Outcome: TypeAlias = CanaryDone | CanaryFailed


class Run(Protocol):
    """What goes on in a process of its own: `run` waits for its outcome, if it has one, and `cancel` hurries it."""

    def run(self) -> Outcome | CopyMade | None:
        """Do it; no process is left then."""

    def cancel(self) -> None:
        """Call it off, from any thread."""


class CanaryRun:
    """One run, in one worker process.

    Args:
        request: what to measure; its descriptor is taken over by `run`.
        options: how serving workers are started.
        log: for the start and end of the process.
        limit_seconds: the run is killed when it takes longer.
    """

    def __init__(
        self, request: Canary, options: Options, log: logging.Logger, *, limit_seconds: float = LIMIT_SECONDS
    ) -> None:
        self._request = request
        self._limit_seconds = limit_seconds
        self._events: queue.SimpleQueue[WorkerEvent | None] = queue.SimpleQueue()
        self._options = options
        self._log = log

    def run(self) -> Outcome:
        """Measure, and wait for the outcome: in bounded time there is always one, and no process left."""
        request = self._request
        process = WorkerProcess(self._options, self._events.put, self._log)
        try:
            process.start()
        except EdgeAgentError as error:
            os.close(request.fd)
            return CanaryFailed(request.digest, error.error_code, error.message)
        try:
            process.canary(request)
            return self._outcome()
        except EdgeAgentError as error:
            return CanaryFailed(request.digest, error.error_code, error.message)
        finally:
            process.stop(0)

    def cancel(self) -> None:
        """Call the run off, from any thread; `run` then returns with the code `cancelled`."""
        self._events.put(None)

    def _outcome(self) -> Outcome:
        digest = self._request.digest
        runtime = ""
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                event = self._events.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                what = f"did not end its canary run within {self._limit_seconds:g} s"
                if not runtime:
                    what = f"kept its worker from starting within {START_SECONDS:g} s"
                return CanaryFailed(digest, "worker-hung", f"The model {what}.")
            match event:
                case None:
                    return CanaryFailed(digest, CANCELLED, "The canary run was called off.")
                case WorkerStarted():
                    runtime = event.runtime
                    until = time.monotonic() + self._limit_seconds
                case CanaryDone():
                    return replace(event, runtime=runtime)
                case CanaryFailed():
                    return event
                case WorkerDied():
                    return CanaryFailed(digest, event.code, event.message)
                case _:
                    return CanaryFailed(digest, "worker", "The worker answered something that it was not asked.")


class Canaries:
    """Canary runs beside a daemon, at most one at a time, each on a thread of its own.

    Args:
        sink: gets each outcome, on another thread; it must only enqueue.
        log: for the start and end of the processes.
    """

    def __init__(self, sink: Callable[[Outcome | CopyMade], None], log: logging.Logger) -> None:
        self._sink = sink
        self._log = log
        self._run: Run | None = None
        self._thread: threading.Thread | None = None

    def start(self, request: Canary, options: Options) -> None:
        """Begin a run; one that is still going on is called off first."""
        self.begin(CanaryRun(request, options, self._log))

    def begin(self, run: Run) -> None:
        """Begin anything that takes the place of a canary run; what is still going on is called off first."""
        self.cancel()
        self._run = run
        self._thread = threading.Thread(target=self._tell, args=(run,), name="canary", daemon=True)
        self._thread.start()

    def _tell(self, run: Run) -> None:
        if (outcome := run.run()) is not None:
            self._sink(outcome)

    def cancel(self) -> None:
        """Call off what runs, and wait for its end, which takes no longer than to kill a process."""
        if self._run is not None and self._thread is not None:
            self._run.cancel()
            self._thread.join()
        self._run = self._thread = None
