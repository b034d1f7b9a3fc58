"""Keeps the serving worker up while there is something to serve, with longer and longer pauses when it dies. Pure."""

from __future__ import annotations

import logging
from enum import StrEnum

from edge_agent.agent.events import Command, StartWorker, StopWorker
from edge_agent.clock import Now
from edge_agent.inference.events import WorkerDied, WorkerStarted
from edge_agent.notes import Note

RESTART_FIRST_SECONDS = 0.1
RESTART_MAX_SECONDS = 60.0
STABLE_SECONDS = 30.0
PATIENCE_SECONDS = 60.0
"""A worker that takes longer to start or to load is ended."""


class WorkerState(StrEnum):
    """What is known of the worker."""

    OFF = "off"
    STARTING = "starting"
    UP = "up"
    ASLEEP = "asleep"


class Keeper:
    """The life of the serving worker.

    Args:
        threads: that it is started with.
    """

    def __init__(self, threads: int) -> None:
        self.state = WorkerState.OFF
        self.limit_bytes: int | None = None
        """What its models may take together; holds from its next start on."""
        self.asked: bytes | None = None
        """The variant that it was asked to load and has not answered for."""
        self.resting = False
        """Whether it is to stay away until `rise`."""
        self.threads = threads
        self._pid = 0
        self._patience_until: float | None = None
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._deaths = 0

    @property
    def idle(self) -> bool:
        """Whether it is up and owes no answer to the planner."""
        return self.state is WorkerState.UP and self.asked is None

    def start(self, now: Now) -> list[Command]:
        """Start it, unless it rests, runs, is being started, or has to wait for its turn after dying."""
        if self.resting or self.state in {WorkerState.STARTING, WorkerState.UP} or self._restart_at is not None:
            return []
        self.state = WorkerState.STARTING
        self._started_at = now.monotonic
        self._patience_until = now.monotonic + PATIENCE_SECONDS
        return [StartWorker(self.threads, self.limit_bytes)]

    def started(self, event: WorkerStarted) -> None:
        """Take note that it is ready."""
        self.state = WorkerState.UP
        self._pid = event.pid
        self.answered()

    def ask(self, variant: bytes, now: Now) -> None:
        """Take note that it was asked to load a variant."""
        self.asked = variant
        self._patience_until = now.monotonic + PATIENCE_SECONDS

    def answered(self) -> None:
        """Take note that it owes nothing."""
        self.asked = self._patience_until = None

    def died(self, event: WorkerDied, now: Now) -> Note | None:
        """Take note of its death; None if that was heard already, or it was asked to stop meanwhile."""
        if self.resting or (self.state in {WorkerState.ASLEEP, WorkerState.STARTING} and event.pid == self._pid):
            return None  # not the one that we start, or need, now
        self.state = WorkerState.OFF
        self.answered()
        lived = now.monotonic - self._started_at
        self._deaths = 1 if lived >= STABLE_SECONDS else self._deaths + 1
        wait = min(RESTART_FIRST_SECONDS * 2 ** (self._deaths - 1), RESTART_MAX_SECONDS) if self._deaths > 1 else 0.0
        self._restart_at = now.monotonic + wait
        text = f"The worker ended: {event.message}"
        return Note(logging.WARNING, text, event.code, (("pid", event.pid), ("restart_ms", int(wait * 1000))))

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which it is to be started again or has hung, if any."""
        due = [moment for moment in (self._restart_at, self._patience_until) if moment is not None]
        return min(due, default=None)

    def on_tick(self, now: Now, *, wanted: bool) -> list[Command]:
        """Start it again when it is time and it is wanted; end one that does not come back from what it was asked."""
        if self._patience_until is not None and self._patience_until <= now.monotonic:
            self._patience_until = now.monotonic + PATIENCE_SECONDS
            text = f"The worker has not answered for {PATIENCE_SECONDS:g} s; ending it"
            return [Note(logging.WARNING, text, "worker-hung"), StopWorker(hung=True)]
        if self._restart_at is None or self._restart_at > now.monotonic:
            return []
        self._restart_at = None
        return self.start(now) if wanted else []

    def sleep(self) -> list[Command]:
        """End it, to free its memory."""
        if self.state is not WorkerState.UP:
            return []
        self.state = WorkerState.ASLEEP
        self.answered()
        return [StopWorker()]

    def rest(self, *, at_once: bool) -> list[Command]:
        """End it, whatever it does, and keep it away until `rise`; what it said before counts no more."""
        runs = self.state in {WorkerState.STARTING, WorkerState.UP}
        self.resting = True
        self.state = WorkerState.ASLEEP
        self._restart_at = None
        self.answered()
        return [StopWorker(at_once=at_once)] if runs else []

    def rise(self) -> None:
        """Let it be started again."""
        if self.resting:
            self.resting = False
            self.state = WorkerState.OFF
