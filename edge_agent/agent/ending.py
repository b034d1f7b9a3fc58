"""How the agent stops on purpose: nothing new, what is held is finished or handed back, a last birth. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_agent.agent.attempts import Attempts
from edge_agent.agent.delivery import Delivery
from edge_agent.agent.events import Command, Exit, StopRequested, StopWorker
from edge_agent.agent.presence import Presence
from edge_agent.clock import Now
from edge_agent.notes import Note


class Ending:
    """Whether the agent is stopping, and until when.

    Args:
        attempts: that are held.
        delivery: hands back.
        presence: says the last birth.

    Attributes:
        on: whether it is.
    """

    def __init__(self, attempts: Attempts, delivery: Delivery, presence: Presence) -> None:
        self.on = False
        self._until = 0.0
        self._attempts = attempts
        self._delivery = delivery
        self._presence = presence

    def begin(self, event: StopRequested, offer: Callable[[Now], list[Command]], now: Now) -> list[Command]:
        """Take nothing on any more, and hand back what has not begun; a second request can only hurry the first.

        Args:
            event: says how long it may take.
            offer: takes the offers back, which goes first: nothing more comes then.
            now: the moment.
        """
        until = now.monotonic + event.within_seconds
        if self.on:
            self._until = min(self._until, until)
            return []
        self.on, self._until = True, until
        commands: list[Command] = [Note(logging.INFO, "Stopping: no new work is taken on", "stopping"), *offer(now)]
        for held in self._attempts.waiting():
            commands += self._delivery.fail(held, "handed-back", "the agent is stopping", "agent", now, retry=True)
        return commands

    def finish(self, session: int | None, coordinator_session: int | None, now: Now) -> list[Command]:
        """Leave when nothing is held, or the time is over: what is not listed in the last birth is handed back.

        Without a broker, what is on disk need not be waited for; the rest may still get through if the broker
        comes back in time.
        """
        on_disk = self._delivery.on_disk()
        wait_for = len(self._attempts) - (len(on_disk) if session is None else 0)
        if wait_for and now.monotonic < self._until:
            return []
        commands: list[Command] = []
        if session is not None:
            commands.append(self._presence.birth("stopped", session, coordinator_session, on_disk, now))
        self.on = False
        return [*commands, StopWorker(), Exit(0)]

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which it leaves whatever is held, if it does."""
        return self._until if self.on else None
