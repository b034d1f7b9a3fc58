"""Which messages share a packet, and what becomes of those that are not taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import EdgeAgentError, TooLargeError, TransportError
from edge_agent.mqtt.packing import MAX_PACKED, MAX_PACKED_BYTES, packets, send


@dataclass(frozen=True)
class Said:
    """A message."""

    topic: str
    payload: bytes
    retain: bool = False


@given(
    st.lists(
        st.builds(
            Said,
            st.sampled_from("abc"),
            st.sampled_from([1, 100, MAX_PACKED_BYTES // 2, MAX_PACKED_BYTES, 2 * MAX_PACKED_BYTES]).map(bytes),
            st.booleans(),
        ),
        max_size=80,
    )
)
def test_nothing_is_lost_and_the_order_of_each_topic_stays(messages: list[Said]) -> None:
    """Packets are of one topic and bounded; what is retained, or large, is alone."""
    made = packets(messages)
    for topic in "abc":
        sent = [message for packet in made for message in packet if message.topic == topic]
        assert [id(m) for m in sent] == [id(m) for m in messages if m.topic == topic]
    for packet in made:
        assert len({message.topic for message in packet}) == 1
        assert len(packet) == 1 or sum(len(message.payload) for message in packet) <= MAX_PACKED_BYTES
        assert len(packet) <= MAX_PACKED
        assert len(packet) == 1 or not any(message.retain for message in packet)


def test_small_messages_for_one_topic_share_a_packet() -> None:
    """Also when others come in between."""
    assert [len(packet) for packet in packets([Said("a", b"1"), Said("b", b"2"), Said("a", b"3")])] == [2, 1]


def test_what_is_too_large_together_is_sent_alone() -> None:
    """A broker with a low limit costs packets, not messages; other errors are told of each message."""
    taken: list[bytes] = []

    def publish(packet: Sequence[Said], payload: bytes) -> None:
        if packet[0].topic == "gone":
            raise TransportError("no connection", code="not-connected")
        if len(payload) > 5:
            raise TooLargeError("too large")
        taken.append(payload)

    messages = [Said("a", b"123"), Said("a", b"456"), Said("a", b"1234567"), Said("gone", b"1"), Said("gone", b"2")]
    lost: list[tuple[Said, EdgeAgentError]] = list(send(messages, publish))
    assert taken == [b"123", b"456"]
    assert [message for message, _ in lost] == messages[2:]
    assert [error.error_code for _, error in lost] == ["too-large", "not-connected", "not-connected"]
