from __future__ import annotations

import pytest
from brokers import options
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.errors import TooLargeError, TransportError, UsageError
from edge_agent.mqtt.outbox import Outbox, Outgoing
from edge_agent.mqtt.packets import Protocol, check_topic, publish_packet_bytes


def message(token: int = 1, size: int = 10) -> Outgoing:
    """Return a message with a payload of that size."""
    return Outgoing(token, "t", bytes(size), 1, retain=False)


@given(
    topic=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="+#\0"), min_size=1),
    size=st.one_of(st.integers(0, 300), st.sampled_from([16_370, 16_383, 16_384, 2_097_140, 2_097_160])),
    qos=st.sampled_from([0, 1]),
    protocol=st.sampled_from(["5", "3.1.1"]),
    content_type=st.none() | st.just("application/edge-agent+cbor") | st.text("ab", max_size=200),
    expiry_seconds=st.none() | st.integers(0, 2**32 - 1),
)
def test_the_predicted_packet_size_is_what_paho_writes(  # noqa: PLR0917 (one for each part of a packet)
    topic: str,
    size: int,
    qos: int,
    protocol: Protocol,
    content_type: str | None,
    expiry_seconds: int | None,
) -> None:
    """The check against the broker's Maximum Packet Size is exact, so that none is refused or cut off."""
    v5 = protocol == "5"
    client = Client(
        CallbackAPIVersion.VERSION2,
        protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
    )
    properties = Properties(PacketTypes.PUBLISH)
    if content_type is not None:
        properties.ContentType = content_type
    if expiry_seconds is not None:
        properties.MessageExpiryInterval = expiry_seconds
    written: list[bytes] = []
    client._sock = object()  # type: ignore[assignment]
    client._packet_queue = lambda _kind, data, *_: written.append(data)  # type: ignore[method-assign,assignment,misc,return-value]
    client._send_publish(
        1, topic.encode(), bytes(size), qos, info=MQTTMessageInfo(1), properties=properties if v5 else None
    )
    client._sock = None
    assert len(written[0]) == publish_packet_bytes(
        topic,
        size,
        qos=qos,
        protocol=protocol,
        content_type=content_type,
        expiry_seconds=expiry_seconds,
    )


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "\ud800", "a" * 65_536])
def test_a_topic_that_nobody_can_publish_to_is_refused(topic: str) -> None:
    """Wildcards, NUL, empty and over-long topics are told to the caller."""
    with pytest.raises(UsageError):
        check_topic(topic)


def test_a_closed_outbox_keeps_nothing() -> None:
    """Without a connection a message is refused and not kept for the next connection."""
    outbox = Outbox(options(1))
    with pytest.raises(TransportError) as refused:
        outbox.put(message())
    assert refused.value.error_code == "not-connected"
    outbox.open("5", 1000)
    assert outbox.take() is None


def test_a_full_outbox_refuses_and_keeps_its_order() -> None:
    """Both bounds hold, a refused message leaves nothing behind, and space that came free can be used."""
    outbox = Outbox(options(1, outbox_messages=3, outbox_bytes=1024))
    outbox.open("3.1.1", 10_000)
    for token in (1, 2, 3):
        outbox.put(message(token))
    with pytest.raises(TransportError) as refused:
        outbox.put(message(4))
    assert refused.value.error_code == "outbox-full"
    assert outbox.take() == message(1)
    with pytest.raises(TransportError):
        outbox.put(message(5, size=1010))
    outbox.put(message(6, size=900))
    assert [m.token for m in outbox.close()] == [2, 3, 6]
    outbox.open("3.1.1", 10_000)
    outbox.put(message(7, size=5000))  # alone, it may be larger than the bound of the waiting bytes
    assert len(outbox) == 1


def test_a_packet_above_the_brokers_limit_is_refused_to_the_byte() -> None:
    """The limit is that of the whole packet, not of the payload."""
    outbox = Outbox(options(1))
    outbox.open("5", publish_packet_bytes("t", 100, qos=1, protocol="5"))
    outbox.put(message(size=100))
    with pytest.raises(TooLargeError):
        outbox.put(message(size=101))
    assert len(outbox) == 1
