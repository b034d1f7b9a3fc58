"""From the threads of link, worker and spool to the agent's loop: one queue, in order, bounded for foreign messages."""

from __future__ import annotations

import queue
import threading

from edge_agent.agent.asked import HomeSaid, HomeUp, OwnerAsked, ReloadRequested
from edge_agent.agent.events import Event, JobTurnedAway, MessageReceived
from edge_agent.errors import PeerError
from edge_agent.inference.events import RunDone
from edge_agent.wire.envelope import messages_in, signed_part
from edge_agent.wire.messages import Job

TOGETHER = 63
"""So many events are handled together with one before them, so that whatever else comes need not wait for long."""
TURNED_AWAY_SHARE = 0.25
"""Above the bounds, signed parts of jobs may take up this share more, so that their sender is answered."""


Inside = Event | OwnerAsked | ReloadRequested | HomeSaid | HomeUp
"""What the daemon's loop is told: of the core's business, and of its own."""


class Inbox:
    """The queue. What our own threads say is never refused; it is bounded by what they were asked.

    A message from the broker above the bounds is a job, of which only the signed part is kept so that it can be
    answered with `queue-full`, or something that its sender repeats, which is dropped and counted.

    Args:
        max_messages: from the broker that may wait.
        max_bytes: of their payloads together; a single larger one is taken when nothing waits.
        jobs_topic: where our jobs come.
    """

    def __init__(self, max_messages: int, max_bytes: int, jobs_topic: str) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._jobs_topic = jobs_topic
        self._events: queue.SimpleQueue[Inside] = queue.SimpleQueue()  # put is safe in a signal handler
        self._lock = threading.Lock()  # of the numbers below
        self._messages = 0
        self._bytes = 0
        self._dropped = 0
        self._kept: Inside | None = None  # taken, and to be handled by itself

    def put(self, event: Inside) -> None:
        """Enqueue what one of our own threads, or a signal handler, says."""
        self._events.put(event)

    def put_message(self, topic: str, payload: bytes) -> None:
        """Enqueue foreign bytes, or as much of them as there is room for; a packet may carry several messages."""
        for message in messages_in(payload):
            self._put_message(topic, message)

    def _put_message(self, topic: str, payload: bytes) -> None:
        if self._admit(len(payload), 1.0):
            self._events.put(MessageReceived(topic, payload))
            return
        if topic == self._jobs_topic:
            try:
                signed = signed_part(payload, Job.max_statement_bytes)
            except PeerError:
                signed = b""
            if signed and self._admit(len(signed), 1.0 + TURNED_AWAY_SHARE):
                self._events.put(JobTurnedAway(topic, signed))
                return
        with self._lock:
            self._dropped += 1

    def get(self, timeout_seconds: float | None) -> Inside | None:
        """Take the next event, or None if there is none within this time; None waits for ever."""
        event, self._kept = self._kept, None
        if event is not None:
            return event
        try:
            event = self._events.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        self._taken(event)
        return event

    def more(self) -> list[MessageReceived | RunDone]:
        """Take messages and results that are there already, up to something else: they are handled together."""
        found: list[MessageReceived | RunDone] = []
        while self._kept is None and len(found) < TOGETHER:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                break
            self._taken(event)
            if isinstance(event, (MessageReceived, RunDone)):
                found.append(event)
            else:
                self._kept = event
        return found

    def _taken(self, event: Inside) -> None:
        match event:
            case MessageReceived():
                self._give_back(len(event.payload))
            case JobTurnedAway():
                self._give_back(len(event.signed))

    def take_dropped(self) -> int:
        """Return how many messages were dropped since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            return dropped

    def _admit(self, size: int, share: float) -> bool:
        with self._lock:
            full = self._messages >= share * self._max_messages or self._bytes + size > share * self._max_bytes
            if full and self._messages:
                return False
            self._messages += 1
            self._bytes += size
            return True

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._messages -= 1
            self._bytes -= size
