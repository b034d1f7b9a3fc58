"""The link against a broker that says exactly what the test wants, fault by fault."""

from __future__ import annotations

import dataclasses
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from brokers import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PATIENCE_SECONDS,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    Client,
    Peer,
    ScriptedBroker,
    options,
    packet,
)

from edge_agent.errors import TooLargeError, TransportError, UsageError
from edge_agent.mqtt import (
    Connected,
    ConnectFailed,
    Disconnected,
    LinkEvent,
    Message,
    Published,
    PublishRefused,
    Will,
)
from edge_agent.mqtt import link as link_module

if TYPE_CHECKING:
    from collections.abc import Iterator

V311 = {"protocol": "3.1.1"}
V5 = {"protocol": "5"}


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    """Return a broker that waits for its script."""
    with ScriptedBroker() as scripted:
        yield scripted


def mid_of(publish: bytes) -> bytes:
    """Return the message id of a QoS 1 PUBLISH."""
    length = int.from_bytes(publish[:2], "big")
    return publish[2 + length : 4 + length]


def up(broker: ScriptedBroker, client: Client, properties: bytes = b"") -> Peer:
    """Let a link without subscriptions in."""
    peer = broker.accept()
    peer.welcome(properties)
    client.expect(Connected)
    return peer


def test_every_connection_is_clean_and_has_its_own_will(broker: ScriptedBroker) -> None:
    """Will and clean start are in each CONNECT, so that a late will never speaks for a newer connection."""
    sessions = iter([b"session-1", b"session-2"])
    client = Client(options(broker.port, **V5), will=lambda: Will("gone", next(sessions), retain=True))
    with client:
        for will in (b"session-1", b"session-2"):
            peer = broker.accept()
            connect = peer.welcome()
            assert connect[7] & 0x02, "clean start"
            assert connect[7] & 0x3C == 0x2C, "a will, QoS 1, retained"
            assert will in connect
            client.expect(Connected)
            peer.sock.close()
            client.expect(Disconnected)


def test_what_was_not_acknowledged_is_named_and_forgotten(broker: ScriptedBroker) -> None:
    """After a disconnect the caller learns what was lost, and the next connection sends none of it."""
    with Client(options(broker.port, **V311)) as client:
        peer = up(broker, client)
        tokens = [client.link.publish("t", b"%d" % n) for n in range(15)]
        first = peer.expect(PUBLISH)
        peer.send(PUBACK, mid_of(first))
        assert client.next() == Published(tokens[0])
        peer.sock.close()
        assert client.expect(Disconnected).lost == tuple(tokens[1:])
        peer = up(broker, client)
        token = client.link.publish("t", b"new")
        sent = peer.expect(PUBLISH)
        assert sent.endswith(b"new")
        peer.send(PUBACK, mid_of(sent))
        assert client.next() == Published(token)


def test_publishing_without_a_connection_leaves_nothing_behind(broker: ScriptedBroker) -> None:
    """Before Connected and after the end, publish raises; nothing is sent later."""
    with Client(options(broker.port, **V5)) as client:
        peer = broker.accept()
        peer.expect(CONNECT)
        with pytest.raises(TransportError) as refused:
            client.link.publish("t", b"early")
        assert refused.value.error_code == "not-connected"
        assert not client.link.connected
        peer.send(CONNACK, b"\0\0\0")
        client.expect(Connected)
        client.link.publish("t", b"in time", qos=0)
        assert peer.expect(PUBLISH).endswith(b"in time")
        assert client.link.stop(0.1)
        with pytest.raises(TransportError):
            client.link.publish("t", b"late")
        assert peer.expect(DISCONNECT) == b""
        assert peer.at_end()


def test_receive_maximum_bounds_what_is_in_flight(broker: ScriptedBroker) -> None:
    """With a Receive Maximum of 2 the third message waits for an acknowledgement."""
    with Client(options(broker.port, **V5)) as client:
        peer = broker.accept()
        peer.welcome(b"\x21\x00\x02")
        assert client.expect(Connected).receive_maximum == 2
        for n in range(4):
            client.link.publish("t", b"%d" % n)
        first, second = peer.expect(PUBLISH), peer.expect(PUBLISH)
        peer.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.sock.recv(1)
        peer.sock.settimeout(PATIENCE_SECONDS)
        peer.send(PUBACK, mid_of(first))
        assert peer.expect(PUBLISH).endswith(b"2")
        peer.send(PUBACK, mid_of(second))
        assert peer.expect(PUBLISH).endswith(b"3")


def test_at_most_ten_are_in_flight_and_the_outbox_is_bounded(broker: ScriptedBroker) -> None:
    """A broker that does not acknowledge fills the outbox, and then publish says so."""
    with Client(options(broker.port, **V311, outbox_messages=5)) as client:
        up(broker, client)
        for _ in range(15):
            client.link.publish("t", b"x")
        with pytest.raises(TransportError) as refused:
            client.link.publish("t", b"x")
        assert refused.value.error_code == "outbox-full"


def test_the_brokers_maximum_packet_size_is_respected(broker: ScriptedBroker) -> None:
    """A packet above it would make the broker drop the connection, so publish refuses it."""
    with Client(options(broker.port, **V5)) as client:
        peer = broker.accept()
        peer.welcome(b"\x27\x00\x00\x04\x00")
        assert client.expect(Connected).max_packet_bytes == 1024
        with pytest.raises(TooLargeError):
            client.link.publish("t", bytes(1024))
        client.link.publish("t", bytes(1000))
        assert len(peer.expect(PUBLISH)) == 1000 + 6


def test_our_limit_is_told_to_a_broker_of_version_5(broker: ScriptedBroker) -> None:
    """Maximum Packet Size and Receive Maximum stand in the CONNECT."""
    with Client(options(broker.port, **V5, max_packet_bytes=2048, inbox_messages=7)):
        connect = broker.accept().welcome()
        assert b"\x27\x00\x00\x08\x00" in connect
        assert b"\x21\x00\x07" in connect


def test_a_packet_above_our_limit_is_not_read(broker: ScriptedBroker) -> None:
    """MQTT 3.1.1 cannot tell the broker a limit; the link leaves before 256 MiB are in memory."""
    with Client(options(broker.port, **V311, max_packet_bytes=2048)) as client:
        peer = up(broker, client)
        peer.sock.sendall(packet(PUBLISH, bytes(2_000_000))[:100])
        assert client.expect(Disconnected).code == "too-large"


def test_a_refused_publish_is_reported(broker: ScriptedBroker) -> None:
    """In MQTT 5 a PUBACK can be a refusal; 'no matching subscribers' is none."""
    with Client(options(broker.port, **V5)) as client:
        peer = up(broker, client)
        refused, alone = client.link.publish("a", b"1"), client.link.publish("b", b"2")
        peer.send(PUBACK, mid_of(peer.expect(PUBLISH)) + b"\x87" + b"\x08\x1f\x00\x05no\nit")
        peer.send(PUBACK, mid_of(peer.expect(PUBLISH)) + b"\x10")
        assert client.next() == PublishRefused("a", refused, "Not authorized (no?it)")
        assert client.next() == Published(alone)


@pytest.mark.parametrize("v5", [True, False])
def test_connected_waits_for_every_subscription(broker: ScriptedBroker, v5: bool) -> None:  # noqa: FBT001
    """Messages that come before the SUBACK are given after Connected; one refusal refuses the connection."""
    opts = options(broker.port, **(V5 if v5 else V311))
    with Client(opts, ["down/a", "down/b"]) as client:
        peer = broker.accept(v5=v5)
        peer.welcome()
        mid = peer.expect(SUBSCRIBE)[:2]
        peer.send(PUBLISH, b"\0\6down/a" + (b"\0" if v5 else b"") + b"kept", flags=1)
        peer.send(SUBACK, mid + (b"\0" if v5 else b"") + b"\1\1")
        client.expect(Connected)
        assert client.next() == Message("down/a", b"kept", retain=True)
        peer.sock.close()
        client.expect(Disconnected)
        peer = broker.accept(v5=v5)
        peer.welcome()
        peer.grant(1, 0x87 if v5 else 0x80)
        failed = client.expect(ConnectFailed)
        assert failed.code == "broker-refused"
        assert "down/b" in failed.reason
        assert "down/a" not in failed.reason


@pytest.mark.parametrize("refusal", [b"\x86\x00", b"\x87\x00", b"\x88\x00"])
def test_a_refusal_that_is_not_about_the_version_is_no_reason_to_fall_back(
    broker: ScriptedBroker, refusal: bytes
) -> None:
    """Wrong passwords are reported, and the next attempt is again version 5."""
    with Client(options(broker.port)) as client:
        for _ in range(2):
            peer = broker.accept()
            assert peer.expect(CONNECT)[6] == 5
            peer.send(CONNACK, b"\0" + refusal)
            failed = client.expect(ConnectFailed)
            assert failed.code == "broker-refused"


@pytest.mark.parametrize("answer", ["refused as 5", "refused as 3.1.1", "dropped", "nothing"])
def test_auto_falls_back_to_3_1_1_and_remembers(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """Whatever a broker for 3.1.1 makes of version 5, the link comes up, and asks no second time."""
    monkeypatch.setattr(link_module, "VERSION_PROBE_SECONDS", 0.05)
    with Client(options(broker.port)) as client:
        peer = broker.accept()
        assert peer.expect(CONNECT)[6] == 5
        if answer == "refused as 5":
            peer.send(CONNACK, b"\0\x84\0")
        elif answer == "refused as 3.1.1":
            peer.send(CONNACK, b"\0\1")
        if answer != "nothing":
            peer.sock.close()
        for _ in range(2):
            peer = broker.accept()
            assert peer.welcome()[6] == 4
            assert client.expect(Connected).protocol == "3.1.1"
            peer.sock.close()
            client.expect(Disconnected)


def test_a_broker_that_spoke_5_is_not_downgraded_by_a_dropped_connect(broker: ScriptedBroker) -> None:
    """A restart of the broker in the middle of a CONNECT does not cost the features of version 5."""
    with Client(options(broker.port)) as client:
        up(broker, client).sock.close()
        client.expect(Disconnected)
        peer = broker.accept()
        assert peer.expect(CONNECT)[6] == 5
        peer.sock.close()
        assert client.expect(ConnectFailed).code == "broker-refused"
        assert broker.accept().welcome()[6] == 5


@pytest.mark.parametrize("garbage", [b"\x20\xff\xff\xff\xff\xff", b"\x00\x00", b"\x20\x00", b"\xf0\x02ab", b"H"])
def test_garbage_ends_the_connection_and_not_the_link(broker: ScriptedBroker, garbage: bytes) -> None:
    """Bytes that are no MQTT are an event; the next connection works."""
    with Client(options(broker.port, **V5)) as client:
        peer = broker.accept()
        peer.expect(CONNECT)
        peer.sock.sendall(garbage)
        peer.sock.close()
        assert client.expect(ConnectFailed).code in {"broker-refused", "transport", "unreachable"}
        up(broker, client)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x32\x03\x00\x09a", id="topic"),
        pytest.param(b"\x30\x07\x00\x01t\x02\x99\x00x", id="property"),
        pytest.param(b"\x30\x08\x00\x01t\x03\x08\x00\x05x", id="cut-property"),
        pytest.param(b"\x30\x03\x00\x00\x00", id="no-topic"),
        pytest.param(b"\x30\xff\xff\xff\xff\xff", id="length"),
    ],
)
def test_garbage_on_an_open_connection_ends_it(broker: ScriptedBroker, garbage: bytes) -> None:
    """A malformed packet after Connected is the end of that connection only."""
    with Client(options(broker.port, **V5)) as client:
        peer = up(broker, client)
        peer.sock.sendall(garbage)
        client.expect(Disconnected)
        up(broker, client)


def test_a_topic_that_is_not_utf8_is_dropped(broker: ScriptedBroker) -> None:
    """Paho raises for such a topic inside the callback; the link counts it and goes on."""
    with Client(options(broker.port, **V5)) as client:
        peer = up(broker, client)
        peer.send(PUBLISH, b"\0\2\xff\xfe\0x")
        peer.send(PUBLISH, b"\0\1t\0x")
        assert client.next() == Message("t", b"x", retain=False)
        assert client.link.dropped == 1


def test_packets_that_come_together_are_all_taken_in(broker: ScriptedBroker) -> None:
    """Nothing that was read waits for the next byte from the broker: not a message, not an acknowledgement."""
    with Client(options(broker.port, **V5)) as client:
        peer = up(broker, client)
        tokens = [client.link.publish("t", b"%d" % n) for n in range(3)]
        acknowledged = b"".join(packet(PUBACK, mid_of(peer.expect(PUBLISH))) for _ in tokens)
        said = b"".join(packet(PUBLISH, b"\0\1t\0%c\0" % n + b"%d" % n, 2) for n in range(1, 4))
        peer.sock.sendall(acknowledged + said + packet(PUBLISH, b"\0\1t\0the last")[:3])
        assert [client.next() for _ in tokens] == [Published(token) for token in tokens]
        assert [client.next() for _ in range(3)] == [Message("t", b"%d" % n, retain=False) for n in range(1, 4)]
        assert [peer.expect(PUBACK)[:2] for _ in range(3)] == [b"\0\1", b"\0\2", b"\0\3"]
        peer.sock.sendall(packet(PUBLISH, b"\0\1t\0the last")[3:])
        assert client.next() == Message("t", b"the last", retain=False)


@pytest.mark.parametrize("v5", [True, False], ids=["v5", "v3"])
def test_a_large_message_goes_out_whole_while_the_broker_is_slow(broker: ScriptedBroker, v5: bool) -> None:  # noqa: FBT001
    """It is sent from where it lies, in as many pieces as the socket takes, and what follows stays behind it."""
    payload = bytes(range(256)) * 12_000
    with Client(options(broker.port, **(V5 if v5 else V311))) as client:
        peer = broker.accept(v5=v5)
        peer.welcome()
        client.expect(Connected)
        first = client.link.publish("large", payload, content_type="text/plain")
        second = client.link.publish("t", b"behind it")
        body = peer.expect(PUBLISH)
        said = b"\0\5large" + mid_of(body) + (b"\x0d\3\0\x0atext/plain" if v5 else b"")
        assert body == said + payload
        peer.send(PUBACK, mid_of(body))
        small = peer.expect(PUBLISH)
        assert small.endswith(b"behind it")
        peer.send(PUBACK, mid_of(small))
        assert [client.next(), client.next()] == [Published(first), Published(second)]


@pytest.mark.parametrize("flags", [4, 6])
def test_a_message_of_a_qos_that_nobody_asked_for_ends_the_connection(broker: ScriptedBroker, flags: int) -> None:
    """We subscribe with QoS 1: 2 is more than was granted, 3 is nothing at all."""
    with Client(options(broker.port, **V5)) as client:
        peer = up(broker, client)
        peer.send(PUBLISH, b"\0\1t\0\1\0x", flags=flags)
        client.expect(Disconnected)
        up(broker, client)


def test_a_sink_that_raises_loses_the_event_and_not_the_link(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue above is counted; the message is acknowledged and the link lives."""
    client = Client(options(broker.port, **V5))

    def sink(event: LinkEvent) -> None:
        if isinstance(event, Message) and event.payload == b"1":
            raise RuntimeError("the queue is full")
        client.events.put_nowait(event)

    monkeypatch.setattr(client.link, "_sink", sink)
    with client:
        peer = up(broker, client)
        peer.send(PUBLISH, b"\0\1t\0\1\0" + b"1", flags=2)
        assert peer.expect(PUBACK)[:2] == b"\0\1"
        peer.send(PUBLISH, b"\0\1t\0\2\0" + b"2", flags=2)
        assert client.next() == Message("t", b"2", retain=False)
        assert client.link.dropped == 1


@pytest.mark.parametrize("where", ["loop_read", "loop_misc", "publish"])
def test_an_exception_inside_paho_leads_to_a_new_connection(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Paho's own thread would be dead and its is_connected() still true; here the link comes back."""
    with Client(options(broker.port, **V5)) as client:
        peer = up(broker, client)
        current = client.link._current
        assert current is not None

        def explode(*_: object, **__: object) -> None:
            raise ZeroDivisionError("deep inside")

        monkeypatch.setattr(current._client, where, explode)
        if where == "publish":
            client.link.publish("t", b"x")
        else:
            peer.send(PUBLISH, b"\0\1t\0x")
        assert "deep inside" in client.skip_to(Disconnected).reason
        up(broker, client)


def test_a_will_that_raises_is_an_event(broker: ScriptedBroker) -> None:
    """The will's function is foreign code on the link's thread."""
    wills = iter([ZeroDivisionError("no will"), None])

    def will() -> None:
        problem = next(wills)
        if problem is not None:
            raise problem

    with Client(options(broker.port, **V5), will=will) as client:
        failed = client.expect(ConnectFailed)
        assert failed.code == "transport"
        assert "no will" in failed.reason
        up(broker, client)


def test_a_broker_that_acknowledges_nothing_is_given_up(broker: ScriptedBroker) -> None:
    """A connection that looks alive but stands still ends with a timeout and names what it held."""
    with Client(options(broker.port, **V5, acknowledge_timeout_seconds=0.05, keepalive_seconds=1)) as client:
        up(broker, client)
        token = client.link.publish("t", b"x")
        end = client.expect(Disconnected)
        assert (end.code, end.lost) == ("timeout", (token,))


def test_a_broker_that_never_answers_is_a_timeout(broker: ScriptedBroker) -> None:
    """Neither a silent broker nor one that forgets the SUBACK holds the link for ever."""
    with Client(options(broker.port, **V5, connect_timeout_seconds=0.05), ["t"]) as client:
        broker.accept().expect(CONNECT)
        assert client.expect(ConnectFailed).code == "timeout"
        broker.accept().welcome()
        failed = client.expect(ConnectFailed)
        assert failed.code == "timeout"
        assert "subscriptions" in failed.reason


def test_nobody_listening_is_unreachable() -> None:
    """A refused TCP connection is told with the address, and retried with growing, jittered waits."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with Client(options(port)) as client:
            failures = [client.expect(ConnectFailed) for _ in range(5)]
    assert {failed.code for failed in failures} == {"unreachable"}
    assert f"mqtt://127.0.0.1:{port}" in failures[0].reason
    assert len({failed.retry_seconds for failed in failures}) == 5


def test_a_disconnect_from_the_broker_tells_its_reason(broker: ScriptedBroker) -> None:
    """Session taken over: another link uses the same client id."""
    with Client(options(broker.port, **V5)) as client:
        up(broker, client).send(DISCONNECT, b"\x8e\x00")
        end = client.expect(Disconnected)
        assert end.code == "broker-refused"
        assert "Session taken over" in end.reason


def test_stop_flushes_and_then_says_goodbye(broker: ScriptedBroker) -> None:
    """What was accepted is acknowledged before the DISCONNECT; messages on the way in do not disturb it."""
    with Client(options(broker.port, **V5)) as client:
        peer = up(broker, client)
        tokens = [client.link.publish("t", b"%d" % n) for n in range(12)]
        stopped = threading.Thread(target=client.link.stop)
        stopped.start()
        for _ in tokens:
            peer.send(PUBACK, mid_of(peer.expect(PUBLISH)))
        for token in tokens:
            assert client.next() == Published(token)
        peer.sock.sendall(packet(PUBLISH, b"\0\1t\0" + bytes(1000)) * 3)
        assert peer.expect(DISCONNECT) == b""
        assert peer.at_end()
        peer.sock.close()
        stopped.join(PATIENCE_SECONDS)
        end = client.skip_to(Disconnected)
        assert (end.code, end.lost) == ("stopped", ())


def test_stop_without_acknowledgements_leaves_the_will_to_speak(broker: ScriptedBroker) -> None:
    """After the timeout there is no DISCONNECT, and what was not delivered is named."""
    with Client(options(broker.port, **V5)) as client:
        peer = up(broker, client)
        token = client.link.publish("t", b"x")
        peer.expect(PUBLISH)
        assert client.link.stop(0.05)
        end = client.expect(Disconnected)
        assert (end.code, end.lost) == ("stopped", (token,))
        assert peer.at_end()


def test_stop_while_connecting_ends_at_once(broker: ScriptedBroker) -> None:
    """A broker that does not answer does not hold up the end, and no event follows."""
    with Client(options(broker.port, **V5)) as client:
        broker.accept().expect(CONNECT)
        assert client.link.stop(0.5)
        assert client.events.empty()


def test_a_link_is_started_once(broker: ScriptedBroker) -> None:
    """A second start is a mistake of the caller; a stop before the start is none."""
    with Client(options(broker.port)) as client, pytest.raises(UsageError):
        client.link.start()
    assert Client(options(broker.port)).link.stop()


def test_properties_are_a_courtesy_of_version_5_only(broker: ScriptedBroker) -> None:
    """Content type and expiry are sent where the protocol has them, and change nothing where it has not."""
    for protocol, rest in ((V5, b"\x09\x02\x00\x00\x00\x3c\x03\x00\x01cx"), (V311, b"x")):
        with Client(options(broker.port, **protocol)) as client:
            peer = up(broker, client)
            client.link.publish("t", b"x", qos=0, content_type="c", expiry_seconds=60)
            assert peer.expect(PUBLISH) == b"\0\1t" + rest


def test_a_broker_without_qos_1_and_retain_gets_neither(broker: ScriptedBroker) -> None:
    """Maximum QoS 0 and Retain Available 0 are obeyed; otherwise the broker would end the connection."""
    with Client(options(broker.port, **V5)) as client:
        peer = broker.accept()
        peer.welcome(b"\x24\x00\x25\x00")
        assert not client.expect(Connected).retain_available
        client.link.publish("t", b"x", retain=True)
        assert peer.sock.recv(1) == b"\x30"
        with pytest.raises(UsageError):
            client.link.publish("t", b"x", qos=2)


def test_nodelay_is_on_every_socket(broker: ScriptedBroker) -> None:
    """Without TCP_NODELAY a QoS 1 exchange takes 40 ms and more instead of half a millisecond."""
    with Client(options(broker.port, **V5)) as client:
        for _ in range(2):
            peer = up(broker, client)
            current = client.link._current
            assert current is not None
            assert current._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            peer.sock.close()
            client.expect(Disconnected)


def test_quick_acknowledgement_is_renewed_after_every_read(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux leaves quick-ack mode by itself, so setting it once is not enough."""
    with Client(options(broker.port, **V5)) as client:
        peer = up(broker, client)
        current = client.link._current
        assert current is not None
        real, calls = current._socket, []

        class Watched:
            def setsockopt(self, *arguments: int) -> None:
                calls.append(arguments)

            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

        monkeypatch.setattr(current, "_socket", Watched())
        for n in range(3):
            peer.send(PUBLISH, b"\0\1t\0%d" % n)
            client.expect(Message)
        peer.sock.close()
        client.expect(Disconnected)
    assert calls.count((socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)) >= 3


def test_events_are_values_that_cannot_change() -> None:
    """Events cross threads, so they are frozen."""
    event = Published(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.token = 2  # type: ignore[misc]
