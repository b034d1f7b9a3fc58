"""Enrolments that come over the broker: decided beside the loop, few at a time, answered on the agent's topic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from edge_agent.clock import system_now
from edge_agent.coordinator.admissions import Admissions
from edge_agent.coordinator.events import Command, Publish
from edge_agent.coordinator.options import Options
from edge_agent.coordinator.store import Store
from edge_agent.errors import EdgeAgentError
from edge_agent.mqtt import Message
from edge_agent.notes import Note
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.topics import Topics

MAX_AT_ONCE = 8
"""Further ones are dropped, and come again."""


class Enrolling:
    """Hands messages to `Admissions` on a thread.

    Args:
        store: the open database.
        key: the coordinator's.
        options: that it runs with.
        execute: called in the loop with each answer, and with what goes wrong.
        execute_soon: the same, called on any thread.

    Attributes:
        admissions: decides.
    """

    def __init__(
        self,
        store: Store,
        key: SigningKey,
        options: Options,
        execute: Callable[[Sequence[Command]], None],
        execute_soon: Callable[[Sequence[Command]], None],
    ) -> None:
        self.admissions = Admissions(
            store,
            key,
            options.network,
            registrar=options.registrar,
            terms=options.terms,
            clock=system_now,
            tell=lambda note: execute_soon((note,)),
        )
        self._topics = Topics(options.network)
        self._execute = execute
        self._tasks: set[asyncio.Future[None]] = set()

    def takes(self, message: Message) -> bool:
        """Take a message if it is an enrolment; to be called in the loop."""
        if not message.topic.endswith("/enrol"):
            return False
        if len(self._tasks) < MAX_AT_ONCE:
            task = asyncio.ensure_future(self._answer(message.topic, bytes(message.payload)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._execute((Note(logging.DEBUG, "Dropped an enrolment, since many come at once", "enrolments-full"),))
        return True

    async def _answer(self, topic: str, payload: bytes) -> None:
        try:
            agent_id, _ = self._topics.parse(topic)
            _, answer = await asyncio.to_thread(self.admissions.answer, payload, topic, agent_id)
            self._execute((Publish(self._topics.enrolled(agent_id or ""), answer),))
        except EdgeAgentError as error:
            text = f"Refused a message on {topic[:200]}: {error.message}"
            self._execute((Note(logging.WARNING, text, "refused", (("code", error.error_code),)),))
