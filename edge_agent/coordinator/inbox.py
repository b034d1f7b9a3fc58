"""From the link's network thread to the coordinator's loop: bounded, in order, with one wake-up a batch.

A batch is small: while messages come faster than they can be handled, clients' requests get their turn in between. And
no topic may fill more than a share of the room, so that who floods one crowds out nobody but itself.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from edge_agent.mqtt import LinkEvent, Message, Published
from edge_agent.wire.envelope import messages_in

BATCH: Final = 64
"""So many events are handled before the loop does something else."""
LAZY: Final = 32
"""So many acknowledgements of the broker may wait for something else to happen."""
TOPIC_SHARE: Final = 0.5
"""Of the room for messages, a single topic may take so much."""


class Inbox:
    """A queue whose sink is safe on any thread and whose handler runs in the loop.

    Messages above the bound are dropped and counted: their senders repeat them. What the link says of itself is
    never dropped.

    Args:
        loop: where the events are handled.
        handle: called in the loop with each event that is no message.
        take: called in the loop with messages; those that came at one moment together, all in order.
        max_messages: how many events may wait before messages are dropped.
        max_bytes: how many bytes of messages may wait; one that is larger may still wait alone.
        dropped: called, on the network thread, for each message that is dropped, with the name of a counter:
            `inbox-full`, or `inbox-crowded` where it is its own topic that has too many.
    """

    def __init__(  # noqa: PLR0913 each is a seam
        self,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[LinkEvent], None],
        take: Callable[[Sequence[Message]], None],
        *,
        max_messages: int,
        max_bytes: int,
        dropped: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._take = take
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0
        self._dropped = dropped
        self._of_topic: Counter[str] = Counter()
        self._events: deque[LinkEvent] = deque()
        self._lock = threading.Lock()
        self._awake = False

    def put(self, event: LinkEvent) -> None:
        """Enqueue an event; called on the network thread. A packet with several messages becomes as many events."""
        events: list[LinkEvent] = [event]
        if isinstance(event, Message) and len(found := messages_in(event.payload)) > 1:
            events = [Message(event.topic, payload, event.retain) for payload in found]
        with self._lock:
            for one in events:
                self._admit(one)
            # That the broker has a message is of use when something else happens: the loop need not wake up for it.
            lazy = isinstance(event, Published) and len(self._events) < LAZY
            if self._awake or lazy or not self._events:
                return
            self._awake = True
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._drain)

    def _admit(self, event: LinkEvent) -> None:
        if isinstance(event, Message):
            full = self._bytes + len(event.payload) > self._max_bytes and self._bytes
            if full or len(self._events) >= self._max_messages:
                self._dropped("inbox-full")
                return
            if self._of_topic[event.topic] >= max(1.0, self._max_messages * TOPIC_SHARE):
                self._dropped("inbox-crowded")
                return
            self._of_topic[event.topic] += 1
            self._bytes += len(event.payload)
        self._events.append(event)

    def _drain(self) -> None:
        events: list[LinkEvent] = []
        with self._lock:
            while self._events and len(events) < BATCH:
                event = self._events.popleft()
                events.append(event)
                if isinstance(event, Message):
                    self._bytes -= len(event.payload)
                    self._of_topic[event.topic] -= 1
                    if not self._of_topic[event.topic]:
                        del self._of_topic[event.topic]
            if self._events:
                self._loop.call_soon(self._drain)
            else:
                self._awake = False
        for are_messages, group in itertools.groupby(events, lambda event: isinstance(event, Message)):
            if are_messages:
                self._take([event for event in group if isinstance(event, Message)])
            else:
                for event in group:
                    self._handle(event)
