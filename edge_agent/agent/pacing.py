"""How another share of the CPUs takes effect: what runs is finished, and the worker begins anew. Pure."""

from __future__ import annotations

import logging

from edge_agent.agent.attempts import Attempts
from edge_agent.agent.events import Command, PaceChanged, UseThreads
from edge_agent.agent.keeper import WorkerState
from edge_agent.agent.planner import Planner
from edge_agent.clock import Now
from edge_agent.notes import Note


class Pacing:
    """The threads of the worker.

    Args:
        attempts: that are held.
        planner: has the worker.
    """

    def __init__(self, attempts: Attempts, planner: Planner) -> None:
        self.waits = False
        """Whether nothing is begun for now: the worker that runs has another number of threads than it should."""
        self._attempts = attempts
        self._planner = planner

    def begin(self, event: PaceChanged) -> list[Command]:
        """Take another number of threads from the next start of a worker on."""
        self.waits = self._planner.worker in {WorkerState.STARTING, WorkerState.UP}
        self._planner.use_threads(event.threads)
        share = "" if event.cpus is None else f" and {event.cpus:.2g} CPUs"
        text = f"Computing with {event.threads} threads{share} from now on"
        note = Note(logging.INFO, text, "pace", (("threads", event.threads),))
        return [UseThreads(event.threads, event.cpus), note]

    def finish(self, now: Now) -> list[Command]:
        """Begin a worker anew when the old one has nothing more to do."""
        if not self.waits or self._attempts.running_tokens():
            return []
        self.waits = False
        if self._planner.worker not in {WorkerState.STARTING, WorkerState.UP}:
            return []  # it has gone for other reasons meanwhile
        return [*self._planner.rest(at_once=False), *self._planner.rise(now)]
