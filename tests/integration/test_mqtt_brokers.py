"""The link against real brokers: one suite says the same of all of them, in both versions of MQTT."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import needs
import pytest
from brokers import PATIENCE_SECONDS, Cable, Client, amqtt, mosquitto, options
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent.coordinator import broker as embedded
from edge_agent.errors import SettingsError, TransportError
from edge_agent.mqtt import (
    BrokerAddress,
    Connected,
    ConnectFailed,
    Disconnected,
    Link,
    Message,
    Published,
    PublishRefused,
    Will,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edge_agent.mqtt import LinkOptions


class Case(NamedTuple):
    """A broker that runs, and the version of MQTT to speak to it."""

    port: int
    ask: str
    get: str

    def options(self, client_id: str, **changes: object) -> LinkOptions:
        """Return options for this broker and version."""
        return options(self.port, client_id, protocol=self.ask, **changes)


@pytest.fixture(
    scope="module",
    params=["mosquitto 5", "mosquitto 3.1.1", "mosquitto auto", "amqtt 3.1.1", "amqtt auto"],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """Run one broker for all tests of the suite."""
    name, ask = request.param.split()
    if name == "mosquitto":
        with mosquitto(tmp_path_factory.mktemp("broker"), "allow_anonymous true") as port:
            yield Case(port, ask, "3.1.1" if ask == "3.1.1" else "5")
    else:
        with amqtt() as port:
            yield Case(port, ask, "3.1.1")


# -- one suite for all ----------------------------------------------------------------------------------


def test_messages_arrive_once_in_order_and_unchanged(case: Case) -> None:
    """Every size up to two MiB goes through, at QoS 1 and 0, and each QoS 1 message is acknowledged."""
    with Client(case.options("order"), ["echo/order"]) as client:
        assert client.expect(Connected).protocol == case.get
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
        client.expect(Connected)

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
    """A birth is kept for whoever comes later, until it is replaced by nothing."""
    with Client(case.options("keeper")) as keeper:
        keeper.expect(Connected)
        keeper.link.publish("kept/birth", b"here", retain=True)
        keeper.expect(Published)
        with Client(case.options("late"), ["kept/+"]) as late:
            late.expect(Connected)
            assert late.next() == Message("kept/birth", b"here", retain=True)
        keeper.link.publish("kept/birth", b"", retain=True)
        keeper.expect(Published)
        with Client(case.options("later"), ["kept/+"]) as later:
            later.expect(Connected)
            later.link.publish("kept/other", b"first")
            assert later.skip_to(Message) == Message("kept/other", b"first", retain=False)


def test_the_will_speaks_after_a_cut_and_not_after_a_stop(case: Case) -> None:
    """Each connection's own will is published when its cable is cut; a stopped link leaves quietly."""
    asked: list[bytes] = []

    def will() -> Will:
        asked.append(b"will-%d" % len(asked))
        return Will("gone/heir", asked[-1])

    with Client(case.options("heir"), ["gone/heir", "said/heir"]) as heir, Cable(case.port) as cable:
        heir.expect(Connected)
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
        sender.expect(Connected)
        opts = options(cable.port, "absent", protocol=case.ask)
        with Client(opts, ["news/absent"]) as absent:
            absent.expect(Connected)
        sender.link.publish("news/absent", b"while away")
        sender.expect(Published)
        with Client(opts, ["news/absent"]) as absent:
            absent.expect(Connected)
            sender.link.publish("news/absent", b"while here")
            assert absent.next() == Message("news/absent", b"while here", retain=False)


def test_a_link_that_hears_nothing_any_more_comes_back(case: Case) -> None:
    """A cable that swallows everything is noticed by the keep-alive, without any error from TCP."""
    with Cable(case.port) as cable:
        opts = options(cable.port, "deaf", protocol=case.ask, keepalive_seconds=1)
        with Client(opts) as client:
            client.expect(Connected)
            cable.clog()
            assert client.expect(Disconnected).code == "timeout"


def test_a_second_link_with_the_same_name_takes_over(case: Case) -> None:
    """The older one is thrown out and says so; it is not silently deaf."""
    first = Client(case.options("twin", backoff_initial_seconds=60, backoff_max_seconds=60))
    with first:
        first.expect(Connected)
        with Client(case.options("twin")) as second:
            second.expect(Connected)
            assert first.expect(Disconnected).code in {"broker-refused", "unreachable"}


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
                client.expect(Connected)
                token = client.link.publish("yours/a", b"x")
                assert client.expect(PublishRefused).token == token
        with Client(options(port, **ann), ["mine/a"]) as client:
            client.expect(Connected)
            client.link.publish("mine/a", b"x")
            assert client.skip_to(Message).payload == b"x"


def test_the_packet_limit_of_mosquitto_is_learnt(tmp_path: Path) -> None:
    """With MQTT 5 the broker tells its limit, and the link refuses what would end the connection."""
    lines = ("allow_anonymous true", "max_packet_size 3000")
    with mosquitto(tmp_path, *lines) as port, Client(options(port)) as client:
        assert client.expect(Connected).max_packet_bytes == 3000
        client.link.publish("t", bytes(2900))
        client.expect(Published)


class Identity(NamedTuple):
    """A certificate with its key, as files and as what can sign others."""

    cert: Path
    key: Path
    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey


@pytest.fixture(scope="module")
def issue(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Identity]:
    """Return a function that makes certificates."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, issuer: Identity | None = None, address: str = "127.0.0.1") -> Identity:
        private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        )
        certificate = builder.sign(issuer.private if issuer else private, hashes.SHA256())
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Identity(cert, key, certificate, private)

    return make


def tls_options(port: int, **changes: object) -> LinkOptions:
    """Return options for TLS on that port."""
    return options(port, address=BrokerAddress("127.0.0.1", port, tls=True), **changes)


def test_tls_with_a_private_authority_and_client_certificates(tmp_path: Path, issue: Callable[..., Identity]) -> None:
    """Good certificates connect; a stranger's, another host's and a missing one are told as tls."""
    ours, theirs = issue("our-authority"), issue("other-authority")
    server, elsewhere = issue("server", ours), issue("elsewhere", ours, "10.9.9.9")
    client_identity, stranger = issue("client", ours), issue("stranger", theirs)
    good = {"ca_file": ours.cert, "client_cert": client_identity.cert, "client_key": client_identity.key}

    def listen(identity: Identity) -> tuple[str, ...]:
        files = (f"cafile {ours.cert}", f"certfile {identity.cert}", f"keyfile {identity.key}")
        return ("allow_anonymous true", "require_certificate true", *files)

    with mosquitto(tmp_path, *listen(server)) as port:
        with Client(tls_options(port, **good), ["t"]) as client:
            assert client.expect(Connected).protocol == "5"
            payload = bytes(range(256)) * 8000
            client.link.publish("t", payload)
            assert client.skip_to(Message).payload == payload
        with Client(tls_options(port, **good | {"ca_file": theirs.cert})) as client:
            failed = client.expect(ConnectFailed)
            assert failed.code == "tls"
            assert "certificate of the broker" in failed.reason
            assert client.expect(ConnectFailed).code == "tls"
        for identity in (None, stranger):
            files = {"client_cert": identity.cert, "client_key": identity.key} if identity else {}
            with Client(tls_options(port, ca_file=ours.cert, **files)) as client:
                failed = client.expect(ConnectFailed)
                # The broker's alert can be overtaken by the reset of the connection, so the code may vary.
                assert failed.code in {"tls", "broker-refused"}
                assert "client certificate" in failed.reason
        with Client(options(port)) as client:
            assert client.expect(ConnectFailed).code == "broker-refused"
    with mosquitto(tmp_path, *listen(elsewhere)) as port, Client(tls_options(port, **good)) as client:
        failed = client.expect(ConnectFailed)
        assert failed.code == "tls"
        assert "127.0.0.1" in failed.reason


def test_tls_to_a_broker_without_is_not_tried_in_the_clear(case: Case) -> None:
    """A listener without TLS is an error, whatever it answers to the handshake."""
    with Client(tls_options(case.port, connect_timeout_seconds=0.5)) as client:
        assert client.expect(ConnectFailed).code in {"tls", "unreachable", "timeout"}


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
        witness.expect(Connected)
        greedy.expect(Connected)
        token = greedy.link.publish("t", bytes(20_000))
        assert greedy.expect(Disconnected).lost == (token,)
        greedy.expect(Connected)
        greedy.link.publish("t", b"small")
        assert witness.next() == Message("t", b"small", retain=False)


@pytest.mark.parametrize("noise", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\x7f" + bytes(50)])
def test_the_embedded_broker_survives_strangers(noise: bytes) -> None:
    """Port scanners and browsers neither stop it nor fill its log."""
    with amqtt() as port:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as stranger:
            stranger.sendall(noise)
        with Client(options(port)) as client:
            client.expect(Connected)


def test_a_link_can_be_made_and_dropped_without_a_start() -> None:
    """Nothing is opened before the start, so there is nothing to leak."""
    link = Client(options(1)).link
    assert isinstance(link, Link)
    assert link.wake_fd == -1
