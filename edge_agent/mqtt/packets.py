"""What MQTT allows in a packet, and how large it becomes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from edge_agent.errors import UsageError

Protocol: TypeAlias = Literal["5", "3.1.1"]

MAX_REMAINING_BYTES: Final = 268_435_455
"""What may follow a packet's first bytes: the largest Variable Byte Integer (MQTT 5, 1.5.5)."""

_MAX_TEXT_BYTES = 65_535  # every MQTT string has a two-byte length


def check_topic(topic: str) -> None:
    """Refuse a topic that nobody can publish to, in the caller's thread, where it can be repaired.

    Raises:
        UsageError: empty, with a wildcard or NUL, or longer than 65535 bytes.
    """
    if not topic or "+" in topic or "#" in topic or not is_mqtt_text(topic):
        raise UsageError(
            f"{topic[:100]!r} is no topic to publish to: it is empty, too long or has a wildcard or NUL in it"
        )


def publish_packet_bytes(  # noqa: PLR0913 (a packet has that many parts)
    topic: str,
    payload_bytes: int,
    *,
    qos: int,
    protocol: Protocol,
    content_type: str | None = None,
    expiry_seconds: int | None = None,
    correlation: bytes | None = None,
    user_properties: Sequence[tuple[str, str]] = (),
) -> int:
    """Return the size in bytes of the PUBLISH packet that carries a payload of that size (MQTT 5, 3.3)."""
    rest = 2 + len(topic.encode()) + (2 if qos else 0) + payload_bytes
    if protocol == "5":
        properties = 3 + len(content_type.encode()) if content_type is not None else 0
        properties += 5 if expiry_seconds is not None else 0
        properties += 3 + len(correlation) if correlation is not None else 0
        properties += sum(5 + len(name.encode()) + len(value.encode()) for name, value in user_properties)
        rest += _varint_bytes(properties) + properties
    return 1 + _varint_bytes(rest) + rest


def _varint_bytes(value: int) -> int:
    return 1 if value < 128 else 2 if value < 16_384 else 3 if value < 2_097_152 else 4


def is_mqtt_text(text: str) -> bool:
    """Say whether a text can stand in an MQTT packet: no NUL, no lone surrogate, at most 65535 bytes."""
    try:
        return "\0" not in text and len(text.encode()) <= _MAX_TEXT_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False
