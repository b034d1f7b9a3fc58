"""Messages that were accepted and wait to be sent: bounded, for one connection, refused rather than kept."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent.errors import TooLargeError, TransportError
from edge_agent.mqtt.packets import Protocol, publish_packet_bytes

if TYPE_CHECKING:
    from edge_agent.mqtt.options import BrokerAddress, LinkOptions


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that somebody wants to publish; see `Link.publish`."""

    token: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    content_type: str | None = None
    expiry_seconds: int | None = None
    correlation: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()

    def packet_bytes(self, protocol: Protocol) -> int:
        """Return the size of the packet that carries it."""
        return publish_packet_bytes(
            self.topic,
            len(self.payload),
            qos=self.qos,
            protocol=protocol,
            content_type=self.content_type,
            expiry_seconds=self.expiry_seconds,
            correlation=self.correlation,
            user_properties=self.user_properties,
        )


class Outbox:
    """A queue between the threads that publish and the one that sends. It is closed until `open`.

    Args:
        options: for its bounds and for the address in its errors.
    """

    def __init__(self, options: LinkOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Outgoing, int]] = deque()  # with the size of the packet
        self._bytes = 0
        self._protocol: Protocol | None = None
        self._max_packet_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, protocol: Protocol, max_packet_bytes: int) -> None:
        """Accept messages from now on."""
        with self._lock:
            self._protocol = protocol
            self._max_packet_bytes = max_packet_bytes

    def close(self) -> list[Outgoing]:
        """Refuse everything from now on, and give back what waits."""
        with self._lock:
            self._protocol = None
            left = [message for message, _ in self._waiting]
            self._waiting.clear()
            self._bytes = 0
            return left

    def put(self, message: Outgoing) -> None:
        """Queue a message.

        Raises:
            TransportError: not-connected or outbox-full.
            TooLargeError: the packet would be above our or the broker's limit.
        """
        address = self._options.address
        with self._lock:
            if self._protocol is None:
                raise not_connected(address)
            size = message.packet_bytes(self._protocol)
            if size > self._max_packet_bytes:
                raise TooLargeError(
                    f"a packet of {size} bytes to {message.topic} is above the limit of "
                    f"{self._max_packet_bytes} bytes on the link to {address}",
                    hint="Send it by digest, or raise the limits of the broker and broker.max_packet_bytes.",
                )
            # A message that is larger than outbox_bytes may still wait alone.
            too_many = len(self._waiting) >= self._options.outbox_messages
            if too_many or (self._waiting and self._bytes + size > self._options.outbox_bytes):
                raise TransportError(
                    f"the outbox is full: {len(self._waiting)} messages ({self._bytes} bytes) for {address}",
                    code="outbox-full",
                    hint="Publish more slowly, or raise broker.outbox_messages or broker.outbox_bytes.",
                )
            self._waiting.append((message, size))
            self._bytes += size

    def take(self) -> Outgoing | None:
        """Take the oldest message, if there is one."""
        with self._lock:
            if not self._waiting:
                return None
            message, size = self._waiting.popleft()
            self._bytes -= size
            return message


def not_connected(address: BrokerAddress) -> TransportError:
    """Return the error for whoever publishes without a connection."""
    return TransportError(
        f"there is no connection to the broker {address} now",
        code="not-connected",
        hint="The link connects again by itself; publish after the next Connected event.",
    )
