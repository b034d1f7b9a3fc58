"""Jobs on their way to the broker: what did not get there is known at once, not when a lease runs out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edge_agent.coordinator.events import Publish, SendFailed
from edge_agent.errors import EdgeAgentError
from edge_agent.mqtt import Disconnected, Link, Published, PublishRefused
from edge_agent.mqtt.packing import send

TOO_LARGE_REASON = "Packet too large"
"""How MQTT 5 names it (2.4, reason code 149)."""

SUSPECT_BYTES = 64 * 1024
"""No broker breaks a connection off over a smaller packet because of its size."""

BROKEN_CODES = frozenset({"transport", "unreachable", "broker-refused"})
"""How a connection ends that the other side ended, in the link's words."""

SUSPECT_TIMES = 3
"""MQTT 3.1.1 cannot say that a packet is too large: the connection ends. So often in a row over the same job, while
nothing as large gets through, it is no chance."""


class Sending:
    """Publishes, and remembers which of the messages on the way are jobs.

    Args:
        link: to the broker.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._on_the_way: dict[int, list[tuple[Publish, tuple[bytes, int]]]] = {}
        self._suspect: bytes | None = None  # the job that was the largest on the way when the connection ended
        self._suspect_bytes = SUSPECT_BYTES
        self._times = 0

    def send(self, messages: Iterable[Publish]) -> Iterator[tuple[Publish, EdgeAgentError]]:
        """Hand messages to the link, small ones for one topic in one packet; give back what it does not take."""
        return send(messages, self._publish)

    def publish(self, message: Publish) -> None:
        """Hand one message to the link.

        Raises:
            EdgeAgentError: what `Link.publish` raises; nothing is on the way then.
        """
        self._publish([message], message.payload)

    def _publish(self, messages: Sequence[Publish], payload: bytes) -> None:
        token = self._link.publish(messages[0].topic, payload, retain=messages[0].retain)
        jobs = [(message, message.attempt) for message in messages if message.attempt is not None]
        if jobs:
            self._on_the_way[token] = jobs

    def acknowledged(self, event: Published) -> None:
        """Take note that the broker has a message."""
        for message, _ in self._on_the_way.pop(event.token, ()):
            if len(message.payload) >= self._suspect_bytes:
                self._suspect, self._times, self._suspect_bytes = None, 0, SUSPECT_BYTES

    def refused(self, event: PublishRefused) -> Iterable[SendFailed]:
        """Say which jobs the broker refused, if any."""
        code = "too-large" if event.reason.startswith(TOO_LARGE_REASON) else "broker-refused"
        found = self._on_the_way.pop(event.token, ())
        return [SendFailed(*attempt, code, f"the broker refused it: {event.reason}") for _, attempt in found]

    def disconnected(self, event: Disconnected) -> Iterable[SendFailed]:
        """Say which job is to blame when connections end over it again and again; the others are found by births."""
        lost = [job for token in event.lost for job in self._on_the_way.get(token, ())]
        self._on_the_way.clear()
        if event.code not in BROKEN_CODES or not lost:
            return ()
        message, attempt = max(lost, key=lambda pair: len(pair[0].payload))
        if len(message.payload) < SUSPECT_BYTES:
            return ()
        self._times = self._times + 1 if self._suspect == attempt[0] else 1
        self._suspect, self._suspect_bytes = attempt[0], len(message.payload)
        if self._times < SUSPECT_TIMES:
            return ()
        text = f"the broker ended the connection {self._times} times over its {len(message.payload)} bytes"
        self._suspect, self._times, self._suspect_bytes = None, 0, SUSPECT_BYTES
        return (SendFailed(*attempt, "too-large", text),)
