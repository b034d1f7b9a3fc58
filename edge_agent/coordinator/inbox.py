"""From the link's network thread to the coordinator's loop: bounded, in order, with one wake-up a batch."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from edge_agent.mqtt import LinkEvent, Message


class Inbox:
    """A queue whose sink is safe on any thread and whose handler runs in the loop.

    Messages above the bound are dropped and counted: their senders repeat them. What the link says of itself is
    never dropped.

    Args:
        loop: where the events are handled.
        handle: called in the loop with each event, in order.
        max_messages: how many events may wait before messages are dropped.
        max_bytes: how many bytes of messages may wait; one that is larger may still wait alone.
        dropped: called, on the network thread, for each message that is dropped.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[LinkEvent], None],
        *,
        max_messages: int,
        max_bytes: int,
        dropped: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0
        self._dropped = dropped
        self._events: deque[LinkEvent] = deque()
        self._lock = threading.Lock()
        self._awake = False

    def put(self, event: LinkEvent) -> None:
        """Enqueue an event; called on the network thread."""
        with self._lock:
            if isinstance(event, Message):
                full = self._bytes + len(event.payload) > self._max_bytes and self._bytes
                if full or len(self._events) >= self._max_messages:
                    self._dropped()
                    return
                self._bytes += len(event.payload)
            self._events.append(event)
            if self._awake:
                return
            self._awake = True
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._events:
                    self._awake = False
                    return
                event = self._events.popleft()
                if isinstance(event, Message):
                    self._bytes -= len(event.payload)
            self._handle(event)
