"""Packets out of a stream, however it is cut."""

from __future__ import annotations

import itertools

import pytest
from brokers import packet
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MalformedError
from edge_agent.mqtt.reading import PUBLISH, Packet, PacketReader

MOST = 300_000


def publish(topic: bytes, payload: bytes, *, qos: int = 0, v5: bool = False, properties: bytes = b"") -> bytes:
    """Return a PUBLISH."""
    said = len(topic).to_bytes(2, "big") + topic + (b"\0\7" if qos else b"")
    said += packet(0, properties)[1:] if v5 else b""
    return packet(PUBLISH, said + payload, qos << 1)


class Stream:
    """Gives bytes in pieces of the sizes that are asked for, over and over; None in front of each piece of size 0."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.left = data
        self.readings = 0
        self._sizes = itertools.cycle(sizes)

    def receive(self, view: memoryview) -> int | None:
        """Put the next piece into the view."""
        self.readings += 1
        size = next(self._sizes)
        if not size and self.left:
            return None
        piece, self.left = self.left[: min(size, len(view))], self.left[min(size, len(view)) :]
        view[: len(piece)] = piece
        return len(piece)


def packets_of(stream: Stream, reader: PacketReader) -> list[Packet]:
    """Read to the end of the stream."""
    found = []
    while reader.fill(stream.receive) != 0:
        while (came := reader.take()) is not None:
            found.append(came)
    return found


messages = st.tuples(
    st.binary(min_size=1, max_size=40),
    st.one_of(st.binary(max_size=60), st.sampled_from([16_370, 16_384, 50_000]).map(lambda n: b"\1" + bytes(n))),
    st.sampled_from([0, 1]),
    st.sampled_from([b"", b"\x01\x01", b"\x26\0\1a\0\1b" * 3]),
)


@given(st.lists(messages, max_size=4), st.booleans(), st.lists(st.integers(0, 30_000), min_size=1, max_size=5))
def test_packets_come_whole_and_in_order_however_the_stream_is_cut(
    said: list[tuple[bytes, bytes, int, bytes]],
    v5: bool,  # noqa: FBT001
    sizes: list[int],
) -> None:
    """Topic, properties and payload of each, of any length, with others before and behind it."""
    data, expected = b"\xd0\0", [(0xD0, b"", b"")]
    for topic, payload, qos, properties in said:
        whole = publish(topic, payload, qos=qos, v5=v5, properties=properties if v5 else b"")
        head = len(topic).to_bytes(2, "big") + topic + (b"\0\7" if qos else b"")
        head += packet(0, properties)[1:] if v5 else b""
        data += whole + b"\x40\2\0\5"
        expected += [(0x30 | qos << 1, head, payload), (0x40, b"\0\5", b"")]
    if len(data) > 500_000:
        sizes = [max(size, 100) for size in sizes]  # one byte at a time would take long
    reader = PacketReader(2**20, v5=v5)
    found = packets_of(Stream(data, [*sizes, 7]), reader)
    assert [tuple(one) for one in found] == expected
    assert reader.coming_bytes == 0


def test_small_packets_that_are_there_come_with_one_reading() -> None:
    """A hundred acknowledgements and messages cost one call of the kernel."""
    data = publish(b"t", b"x", qos=1) * 50 + b"\x40\2\0\5" * 50
    stream = Stream(data, [2**20])
    reader = PacketReader(MOST, v5=False)
    assert reader.fill(stream.receive) == len(data)
    assert len(list(iter(reader.take, None))) == 100
    assert stream.readings == 1


def test_a_large_payload_is_read_in_few_calls_and_its_reading_is_bounded() -> None:
    """Whoever sends without end leaves room for others after some readings."""
    data = publish(b"t", bytes(MOST - 10))
    fast = Stream(data, [2**20])
    assert len(packets_of(fast, PacketReader(MOST, v5=False))) == 1
    assert fast.readings == 3, "the beginning, the rest, the end of the stream"
    slow = Stream(data, [1])
    reader = PacketReader(MOST, v5=False)
    while not reader.coming_bytes:
        reader.fill(slow.receive)
        assert reader.take() is None
    before = slow.readings
    reader.fill(slow.receive)
    assert slow.readings - before < 100


def test_a_head_that_is_longer_than_what_is_read_ahead() -> None:
    """A topic and properties of 60 KB each are taken apart all the same."""
    topic, properties = b"t" * 60_000, b"\x26\xea\x60" + b"n" * 60_000 + b"\0\1v"
    data = publish(topic, b"payload", qos=1, v5=True, properties=properties)
    (found,) = packets_of(Stream(data, [9_000]), PacketReader(MOST, v5=True))
    assert found.payload == b"payload"
    assert found.head[2:60_002] == topic


@pytest.mark.parametrize("kind", [PUBLISH, 2])
@pytest.mark.parametrize("size", [MOST + 1, 200_000_000])
def test_a_packet_above_the_limit_is_not_read(kind: int, size: int) -> None:
    """Its length is told, no room is made for it and nothing more is asked for."""
    begin = packet(kind, b"")[:1]
    while size:
        size, digit = divmod(size, 128)
        begin += bytes([digit | (0x80 if size else 0)])
    stream = Stream(begin + b"\0\1t" + bytes(1000), [100])
    reader = PacketReader(MOST, v5=False)
    reader.fill(stream.receive)
    assert reader.take() is None
    assert reader.coming_bytes > MOST
    left = stream.left
    assert reader.fill(stream.receive) is None
    assert reader.take() is None
    assert stream.left == left


def test_a_small_packet_above_a_small_limit_is_refused_although_it_is_there() -> None:
    """However fast it came."""
    reader = PacketReader(50, v5=False)
    reader.fill(Stream(publish(b"t", bytes(60)), [2**20]).receive)
    assert reader.take() is None
    assert reader.coming_bytes == 63


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x30\xff\xff\xff\xff\x01", id="length-of-five-digits"),
        pytest.param(b"\x30\x02\0\x09", id="topic-behind-the-end"),
        pytest.param(b"\x30\x01\0", id="half-a-length-of-a-topic"),
        pytest.param(b"\x32\x04\0\1t\0", id="half-an-id"),
        pytest.param(b"\x30\x03\0\1t", id="no-properties"),
        pytest.param(b"\x30\x04\0\1t\x05", id="properties-behind-the-end"),
        pytest.param(b"\x30\x08\0\1t\xff\xff\xff\xff\x01", id="properties-of-five-digits"),
        pytest.param(packet(PUBLISH, b"\0\1t\xff\xff\xff\x7f" + bytes(100_000)), id="large-properties-behind-the-end"),
    ],
)
def test_what_is_no_packet(data: bytes) -> None:
    """A length that is none, or that reaches behind the end of its packet."""
    with pytest.raises(MalformedError):
        packets_of(Stream(data, [2**20]), PacketReader(MOST, v5=True))


def test_no_bytes_of_one_payload_show_in_the_next() -> None:
    """What was given away does not change when the same memory is read into again."""
    reader = PacketReader(MOST, v5=False)
    stream = Stream(publish(b"a", b"1" * 50_000) + publish(b"b", b"2" * 50_000) + publish(b"c", b"3" * 50), [3_000])
    found = packets_of(stream, reader)
    assert [one.payload for one in found] == [b"1" * 50_000, b"2" * 50_000, b"3" * 50]
