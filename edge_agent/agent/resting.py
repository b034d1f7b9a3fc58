"""How work is left when the owner's rules want it, and taken up again. Pure.

Offers go first, so that nothing new comes; what waits is handed back; what runs may finish for a while; then the worker
ends and its memory is free. What could not be finished is handed back, too, and goes to another agent.
"""

from __future__ import annotations

import logging

from edge_agent.agent.attempts import Attempts
from edge_agent.agent.delivery import Delivery
from edge_agent.agent.events import Command, RestRequested
from edge_agent.agent.planner import Planner
from edge_agent.clock import Now
from edge_agent.notes import Note

RESTING = "the agent rests: its owner's rules"
"""What the coordinator hears; the reasons are the owner's own business."""


class Resting:
    """Whether the machine rests.

    Args:
        attempts: that are held.
        delivery: hands back.
        planner: has the worker and the canary runs.
    """

    def __init__(self, attempts: Attempts, delivery: Delivery, planner: Planner) -> None:
        self.on = False
        self._attempts = attempts
        self._delivery = delivery
        self._planner = planner
        self._until: float | None = None
        self._over = True

    @property
    def left(self) -> bool:
        """Whether nothing computes any more, and the memory is free."""
        return self.on and self._over

    def begin(self, event: RestRequested, now: Now) -> list[Command]:
        """Take nothing on, and leave what is held; a second request can only hurry a first one."""
        commands: list[Command] = []
        if not self.on:
            commands.append(Note(logging.INFO, f"Resting: {event.why}", "resting"))
            self.on, self._over, self._until = True, False, None
            commands += self._planner.quieten()
        if event.within_seconds is None:
            return commands
        until = now.monotonic + event.within_seconds
        self._until = until if self._until is None else min(self._until, until)
        for held in self._attempts.waiting():
            commands += self._delivery.fail(held, "handed-back", RESTING, "agent", now, retry=True)
        return commands

    def end(self, now: Now) -> list[Command]:
        """Work again: with what was measured, and what is remembered of it."""
        if not self.on:
            return []
        self.on, self._until = False, None
        return [Note(logging.INFO, "Working again", "working"), *self._planner.rise(now)]

    def finish(self, now: Now) -> list[Command]:
        """Free the memory when nothing runs any more, or the time is over."""
        if self._over or not self.on:
            return []
        late = self._until is not None and now.monotonic >= self._until
        busy = self._attempts.active() > 0
        if busy and not late:
            return []
        self._over = True
        commands: list[Command] = []
        for held in self._attempts.renewable():
            commands += self._delivery.fail(held, "handed-back", RESTING, "agent", now, retry=True)
        for token in self._attempts.running_tokens():  # of attempts that were dropped before
            self._attempts.forget_run(token, now)
        return [*commands, *self._planner.rest(at_once=busy)]

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which running attempts are handed back, if any."""
        return None if self._over or not self.on else self._until
