"""The link against real brokers: one suite says the same of all of them, in both versions of MQTT."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import needs
import pytest
from broker_processes import KINDS, BrokerProcess
from brokers import PATIENCE_SECONDS, Cable, Client, amqtt, mosquitto, options

from edge_agent.coordinator import broker as embedded
from edge_agent.errors import SettingsError, TooLargeError, TransportError
from edge_agent.mqtt import (
    Connected,
    ConnectFailed,
    Disconnected,
    Link,
    Message,
    Probed,
    Published,
    PublishRefused,
    Will,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edge_agent.mqtt import LinkOptions


pytestmark = pytest.mark.timeout(600)
"""RabbitMQ starts within half a minute on a quiet machine, and within two on a busy one."""


class Case(NamedTuple):
    """A broker that runs, and the version of MQTT to speak to it."""

    broker: BrokerProcess
    ask: str
    get: str

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.broker.port

    @property
    def token(self) -> str:
        """A level of a topic for this case; dots mean something else to NATS and RabbitMQ."""
        return f"version-{self.ask.replace('.', '-')}"

    def options(self, client_id: str, **changes: object) -> LinkOptions:
        """Return options for this broker and version."""
        return options(self.port, client_id, protocol=self.ask, **changes)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], BrokerProcess]]:
    """Return a function that starts a broker, each once for all tests of this file."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def started(name: str) -> BrokerProcess:
            broker = KINDS[name](tmp_path_factory.mktemp(name))
            stack.callback(broker.close)
            broker.start()
            return broker

        yield started


CASES = [f"{name} {ask}" for name, kind in KINDS.items() for ask in (*kind.protocols, "auto")]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, start: Callable[[str], BrokerProcess]) -> Case:
    """Give one broker, and one version to ask for, to all tests of the suite."""
    name, ask = request.param.split()
    newest = KINDS[name].protocols[0]
    return Case(start(name), ask, newest if ask == "auto" else ask)


# -- one suite for all ----------------------------------------------------------------------------------


def test_messages_arrive_once_in_order_and_unchanged(case: Case) -> None:
    """Every size up to two MiB goes through, at QoS 1 and 0, and each QoS 1 message is acknowledged."""
    with Client(case.options("order"), ["echo/order"]) as client:
        assert client.skip_to(Connected).protocol == case.get
        payloads = [b"", b"\0\xff", bytes(range(256)) * 4, b"z" * 65_536, b"y" * 2**21]
        payloads += [b"%d" % n for n in range(100)]
        tokens = [client.link.publish("echo/order", payload) for payload in payloads]
        acknowledged, arrived = [], []
        while len(acknowledged) < len(tokens) or len(arrived) < len(payloads):
            event = client.next()
            if isinstance(event, Message):
                arrived.append(event.payload)
            else:
                assert isinstance(event, Published)
                acknowledged.append(event.token)
        assert arrived == payloads
        assert sorted(acknowledged) == tokens
        client.link.publish("echo/order", b"once", qos=0, content_type="text/plain", expiry_seconds=9)
        assert client.next() == Message("echo/order", b"once", retain=False)


def test_many_threads_may_publish(case: Case) -> None:
    """Publishing writes from the caller's thread; eight at once neither mix their bytes nor lose any."""
    with Client(case.options("many"), ["echo/many"]) as client:
        client.skip_to(Connected)

        async def all_at_once() -> None:
            def publish(who: int) -> None:
                for n in range(40):
                    client.link.publish("echo/many", b"%d:%d:" % (who, n) + bytes(3000))

            await asyncio.gather(*(asyncio.to_thread(publish, who) for who in range(8)))

        asyncio.run(all_at_once())
        arrived = [client.skip_to(Message).payload for _ in range(320)]
        for who in range(8):
            mine = [int(p.split(b":")[1]) for p in arrived if p.startswith(b"%d:" % who)]
            assert mine == list(range(40))
        assert all(p.endswith(bytes(3000)) for p in arrived)


def test_a_retained_message_is_marked_and_can_be_taken_back(case: Case) -> None:
    """A hello is kept for whoever comes later, until it is replaced by nothing."""
    topic = f"kept/{case.token}/hello"
    with Client(case.options("keeper")) as keeper:
        keeper.skip_to(Connected)
        keeper.link.publish(topic, b"here", retain=True)
        keeper.expect(Published)
        with Client(case.options("late"), [topic]) as late:
            late.skip_to(Connected)
            assert late.next() == Message(topic, b"here", retain=True)
        keeper.link.publish(topic, b"", retain=True)
        keeper.expect(Published)
        with Client(case.options("later"), [topic, "kept/other"]) as later:
            later.skip_to(Connected)
            later.link.publish("kept/other", b"first")
            assert later.skip_to(Message) == Message("kept/other", b"first", retain=False)


def test_what_the_broker_can_do_is_found_out_and_said_in_one_line(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """By its own words with MQTT 5, by trying with 3.1.1; nothing of the probe is left, and nobody else hears of it."""
    caplog.set_level(logging.INFO)
    topic = f"probe/{case.token}"
    watcher = Client(case.options("watcher"), [f"{topic}/kept"])
    prober = Client(case.options("prober", probe_topic=topic, probe_always=True), ["mine"])
    with watcher, contextlib.ExitStack() as stack:
        watcher.skip_to(Connected)  # before the probe begins
        stack.enter_context(prober)
        prober.skip_to(Connected)
        prober.link.publish("mine", b"beside the probe")
        heard: list[object] = []
        while not heard or not isinstance(heard[-1], Probed):
            heard.append(prober.next())
        abilities = heard[-1].abilities
        assert all(isinstance(event, Published | Message | Probed) for event in heard)
        assert {event.topic for event in heard if isinstance(event, Message)} <= {"mine"}
        kind = type(case.broker)
        assert abilities.protocol == case.get
        assert (abilities.retained, abilities.retained_by_wildcard) == (True, kind.retained_by_wildcard)
        seen = [watcher.skip_to(Message).payload]
        while seen[-1]:  # kept and live, if it came just as we subscribed
            seen.append(watcher.skip_to(Message).payload)
        assert set(seen) == {b"kept", b""}
        with Client(case.options("late"), [f"{topic}/kept"]) as late:
            late.skip_to(Connected)
            late.link.publish(f"{topic}/kept", b"nothing was kept")
            assert late.skip_to(Message).payload == b"nothing was kept"
    lines = [r.getMessage() for r in caplog.records if getattr(r, "action", "") == "link-abilities"]
    told = [line for line in lines if "wildcards" in line] if not kind.retained_by_wildcard else lines
    assert told
    assert all(("MQTT 5 (it tells" in line) == (case.get == "3.1.1") for line in lines)


def test_large_messages_go_through(case: Case) -> None:
    """As large as a job may be by default, byte for byte."""
    payload = bytes(range(256)) * (16 * 4096)
    with Client(case.options("large", max_packet_bytes=17 * 2**20), ["large"]) as client:
        client.skip_to(Connected)
        token = client.link.publish("large", payload)
        assert client.skip_to(Message).payload == payload
        client.link.publish("large", b"and a small one after it")
        assert client.skip_to(Message).payload == b"and a small one after it"
        assert token


def test_the_will_speaks_after_a_cut_and_not_after_a_stop(case: Case) -> None:
    """Each connection's own will is published when its cable is cut; a stopped link leaves quietly."""
    asked: list[bytes] = []

    def will() -> Will:
        asked.append(b"will-%d" % len(asked))
        return Will("gone/heir", asked[-1])

    with Client(case.options("heir"), ["gone/heir", "said/heir"]) as heir, Cable(case.port) as cable:
        heir.skip_to(Connected)
        with Client(options(cable.port, "mortal", protocol=case.ask), will=will) as mortal:
            for _ in range(2):
                mortal.skip_to(Connected)
                expected = asked[-1]
                cable.cut()
                assert mortal.skip_to(Disconnected).code == "unreachable"
                assert heir.skip_to(Message).payload == expected
            mortal.skip_to(Connected)
            mortal.link.publish("said/heir", b"goodbye")
            assert mortal.link.stop()
        assert heir.skip_to(Message).payload == b"goodbye"
        heir.link.publish("said/heir", b"nothing in between")
        assert heir.skip_to(Message).payload == b"nothing in between"


def test_nothing_is_remembered_across_connections(case: Case) -> None:
    """What is sent while a link is away does not reach it later: clean sessions on every broker."""
    with Client(case.options("sender")) as sender, Cable(case.port) as cable:
        sender.skip_to(Connected)
        opts = options(cable.port, "absent", protocol=case.ask)
        with Client(opts, ["news/absent"]) as absent:
            absent.skip_to(Connected)
        sender.link.publish("news/absent", b"while away")
        sender.expect(Published)
        with Client(opts, ["news/absent"]) as absent:
            absent.skip_to(Connected)
            sender.link.publish("news/absent", b"while here")
            assert absent.next() == Message("news/absent", b"while here", retain=False)


def test_a_link_that_hears_nothing_any_more_comes_back(case: Case) -> None:
    """A cable that swallows everything is noticed by the keep-alive, without any error from TCP."""
    with Cable(case.port) as cable:
        opts = options(cable.port, "deaf", protocol=case.ask, keepalive_seconds=1)
        with Client(opts) as client:
            client.skip_to(Connected)
            cable.clog()
            assert client.expect(Disconnected).code == "timeout"


def test_a_second_link_with_the_same_name_takes_over(case: Case) -> None:
    """The older one is thrown out and says so; it is not silently deaf."""
    first = Client(case.options("twin", backoff_initial_seconds=60, backoff_max_seconds=60))
    with first:
        first.skip_to(Connected)
        with Client(case.options("twin")) as second:
            second.skip_to(Connected)
            assert first.expect(Disconnected).code in {"broker-refused", "unreachable"}


def echo(client: Client, payload: bytes) -> None:
    """Publish until it comes back; a broker that has just started may give a connection up once more."""
    end = time.monotonic() + 240
    connected = client.link.connected
    while True:
        if connected:
            with contextlib.suppress(TransportError):
                client.link.publish("echo", payload, retain=True)
        event = client.next(end - time.monotonic())
        if isinstance(event, Message) and event.payload == payload:
            return
        connected = isinstance(event, Connected)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KINDS)
def test_a_link_comes_back_after_the_broker_was_killed_with_and_without_its_state(tmp_path: Path, name: str) -> None:
    """SIGKILL, then the same broker with what it kept, then one that has forgotten everything."""
    broker = KINDS[name](tmp_path)
    try:
        broker.start()
        opts = options(broker.port, "survivor", backoff_max_seconds=0.2)
        with Client(opts, ["echo"], will=lambda: Will("gone", b"gone", retain=True)) as client:
            echo(client, b"before")
            for forget in (False, True):
                broker.kill()
                assert client.skip_to(Disconnected).code in {"unreachable", "broker-refused", "timeout"}
                if forget:
                    broker.forget()
                broker.start()
                echo(client, b"with a new memory" if forget else b"with its memory")
    finally:
        broker.close()
        print(broker.log[-4000:])  # noqa: T201 (for a failure)


# -- what only some brokers do --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_passwords_and_access_rules_of_mosquitto(tmp_path: Path, protocol: str) -> None:
    """A wrong password, a forbidden subscription and a forbidden publish are each told as what they are."""
    (tmp_path / "acl").write_text("user ann\ntopic readwrite mine/#\n")
    subprocess.run(
        [needs.tool("mosquitto_passwd"), "-b", "-c", str(tmp_path / "passwords"), "ann", "right"],
        check=True,
        capture_output=True,
    )
    rules = (f"password_file {tmp_path}/passwords", f"acl_file {tmp_path}/acl")
    with mosquitto(tmp_path, "allow_anonymous false", *rules) as port:
        for secret in (None, "wrong"):
            login = {"username": None if secret is None else "ann", "password": secret}
            with Client(options(port, protocol=protocol, **login)) as client:
                failed = client.expect(ConnectFailed)
                assert failed.code == "broker-refused"
                assert "uthor" in failed.reason
        ann = {"username": "ann", "password": "right", "protocol": protocol}
        if protocol == "5":  # Mosquitto 2.0 grants such subscriptions to clients of 3.1.1 and delivers nothing
            with Client(options(port, **ann), ["mine/a"]) as client:
                client.skip_to(Connected)
                token = client.link.publish("yours/a", b"x")
                assert client.expect(PublishRefused).token == token
        with Client(options(port, **ann), ["mine/a"]) as client:
            client.skip_to(Connected)
            client.link.publish("mine/a", b"x")
            assert client.skip_to(Message).payload == b"x"


def test_the_packet_limit_of_mosquitto_is_learnt(tmp_path: Path) -> None:
    """With MQTT 5 the broker tells its limit, and the link refuses what would end the connection."""
    lines = ("allow_anonymous true", "max_packet_size 3000")
    with mosquitto(tmp_path, *lines) as port, Client(options(port)) as client:
        assert client.skip_to(Connected).max_packet_bytes == 3000
        client.link.publish("t", bytes(2900))
        client.expect(Published)


def test_a_mosquitto_that_keeps_nothing_is_worked_with_all_the_same(tmp_path: Path) -> None:
    """It refuses wills and messages that are to be kept; both go out without, and it is said."""
    with mosquitto(tmp_path, "allow_anonymous true", "retain_available false") as port:
        opts = options(port, "keeper", protocol="5", probe_topic="probe")
        with Client(opts, ["t"], will=lambda: Will("gone", b"gone", retain=True)) as client:
            connected = client.skip_to(Connected)
            assert connected.retain_available is False
            found = client.skip_to(Probed).abilities
            assert found.retained is False
            assert "retained messages" in found.lacking(1)
            client.link.publish("t", b"kept by nobody", retain=True)
            assert client.skip_to(Message) == Message("t", b"kept by nobody", retain=False)


@pytest.mark.parametrize("name", ["mosquitto", "amqtt"])
def test_a_limit_that_the_broker_does_not_tell_is_learnt(tmp_path: Path, name: str) -> None:
    """It ends the connection over a message above its limit; after the third time such messages are refused here."""
    limited = mosquitto(tmp_path, "allow_anonymous true", "max_packet_size 1000000") if name == "mosquitto" else None
    with limited or amqtt(max_message_bytes=1_000_000) as port:
        opts = options(port, "large", protocol="3.1.1", max_packet_bytes=8 * 2**20)
        with Client(opts, ["t"]) as client:
            for _ in range(3):
                assert client.skip_to(Connected).max_packet_bytes == 8 * 2**20
                client.link.publish("t", bytes(2 * 2**20))
                assert client.skip_to(Disconnected).code in {"unreachable", "broker-refused"}
            learnt = client.skip_to(Connected).max_packet_bytes
            assert 2 * 2**20 <= learnt < 2 * 2**20 + 100
            with pytest.raises(TooLargeError, match="above the limit"):
                client.link.publish("t", bytes(2 * 2**20))
            client.link.publish("t", bytes(900_000))
            assert client.skip_to(Message).payload == bytes(900_000)


# -- the embedded broker --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "broker.example", ""])  # noqa: S104 (refused)
def test_the_embedded_broker_stays_on_loopback(host: str) -> None:
    """It lets everybody in, so it refuses to listen where others can reach it."""

    async def attempt() -> None:
        await embedded.serve(host, 0, on_ready=lambda *_: None, max_message_bytes=1000, stop=asyncio.Event())

    with pytest.raises(SettingsError, match="everybody"):
        asyncio.run(attempt())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_in_all_its_forms_is_accepted(host: str) -> None:
    """The check does not refuse what is safe."""
    embedded.require_loopback(host)


def test_a_taken_port_is_told() -> None:
    """The embedded broker names the port that it could not have."""
    needs.module("amqtt")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        async def attempt() -> None:
            await embedded.serve(
                "127.0.0.1",
                port,
                on_ready=lambda *_: None,
                max_message_bytes=1000,
                stop=asyncio.Event(),
            )

        with pytest.raises(TransportError, match=str(port)):
            asyncio.run(attempt())


def test_the_embedded_broker_bounds_messages_and_survives() -> None:
    """A packet above the limit ends the connection of its sender only."""
    with (
        amqtt(max_message_bytes=10_000) as port,
        Client(options(port, "witness"), ["t"]) as witness,
        Client(options(port, "greedy")) as greedy,
    ):
        witness.skip_to(Connected)
        greedy.skip_to(Connected)
        token = greedy.link.publish("t", bytes(20_000))
        assert greedy.expect(Disconnected).lost == (token,)
        greedy.skip_to(Connected)
        greedy.link.publish("t", b"small")
        assert witness.next() == Message("t", b"small", retain=False)


@pytest.mark.parametrize("noise", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\x7f" + bytes(50)])
def test_the_embedded_broker_survives_strangers(noise: bytes) -> None:
    """Port scanners and browsers neither stop it nor fill its log."""
    with amqtt() as port:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as stranger:
            stranger.sendall(noise)
        with Client(options(port)) as client:
            client.skip_to(Connected)


def test_a_link_can_be_made_and_dropped_without_a_start() -> None:
    """Nothing is opened before the start, so there is nothing to leak."""
    link = Client(options(1)).link
    assert isinstance(link, Link)
    assert link.wake_fd == -1
