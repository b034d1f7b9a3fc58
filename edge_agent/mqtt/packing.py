"""Small messages for one topic share a packet: a broker's work, and ours, is by the packet.

Whoever reads takes them apart again: each is whole by itself (docs/protocol.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from edge_agent.errors import EdgeAgentError, TooLargeError

MAX_PACKED_BYTES = 32 * 1024
"""Of messages that share a packet; a larger one travels alone. No broker takes offence at the size of such packets."""
MAX_PACKED = 64


class Packable(Protocol):
    """What a message to be published is."""

    @property
    def topic(self) -> str:
        """Where it goes."""

    @property
    def payload(self) -> bytes:
        """What it says."""

    @property
    def retain(self) -> bool:
        """Whether the broker is to keep it: then it is alone."""


M = TypeVar("M", bound=Packable)


def packets(messages: Iterable[M]) -> list[list[M]]:
    """Return the messages of each packet; those of one topic keep their order."""
    found: list[list[M]] = []
    open_packets: dict[str, tuple[list[M], int]] = {}
    for message in messages:
        size = len(message.payload)
        packet, bytes_so_far = open_packets.get(message.topic, ([], 0))
        full = len(packet) >= MAX_PACKED or bytes_so_far + size > MAX_PACKED_BYTES
        if not packet or full or message.retain:
            packet, bytes_so_far = [], 0
            found.append(packet)
        packet.append(message)
        if message.retain:
            open_packets.pop(message.topic, None)
        else:
            open_packets[message.topic] = (packet, bytes_so_far + size)
    return found


def send(messages: Iterable[M], publish: Callable[[Sequence[M], bytes], object]) -> Iterator[tuple[M, EdgeAgentError]]:
    """Publish messages; give back those that were not taken, and why.

    Args:
        messages: in order.
        publish: gets the messages of a packet, all for one topic, and its bytes; raises what `Link.publish` raises.
    """
    for packet in packets(messages):
        try:
            publish(packet, b"".join([message.payload for message in packet]))
        except TooLargeError as error:
            if len(packet) == 1:
                yield packet[0], error
            else:  # each by itself may get through
                for message in packet:
                    try:
                        publish([message], message.payload)
                    except EdgeAgentError as alone:
                        yield message, alone
        except EdgeAgentError as error:
            yield from ((message, error) for message in packet)
