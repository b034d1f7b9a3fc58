"""Agents against each other at a broker with the configuration that we print: Mosquitto, NATS, RabbitMQ."""

from __future__ import annotations

import contextlib
import queue
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import paho.mqtt.client as paho
import pytest
from broker_processes import BrokerProcess
from broker_processes import RabbitMq as RabbitMqProcess
from fakes import NETWORK, TOPICS, key
from needs import tool
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.cli import main
from edge_agent.coordinator import identities
from edge_agent.coordinator.store import Store
from edge_agent.wire.broker_certificates import broker_certificate
from edge_agent.wire.keys import SigningKey

pytestmark = pytest.mark.timeout(600)
"""RabbitMQ starts within half a minute on a quiet machine, and within two on a busy one."""

PATIENCE_SECONDS = 30.0
REGISTRAR, COORDINATOR = key("registrar"), key("coordinator")
VICTIM, ATTACKER = key("victim"), key("attacker")
Heard = tuple[str, bytes]
GONE: Heard = ("", b"")
"""What a peer hears last: that its connection is lost."""


class Configured(BrokerProcess):
    """A broker with the files that `edge-agent coordinator broker-config` wrote."""

    kind: ClassVar[str]

    def write_config(self) -> None:
        """Have the configuration written for our port."""
        state = str(self.folder / "coordinator")
        asked = ["coordinator", "broker-config", self.kind, "--server-name", "127.0.0.1", "--port", str(self.port)]
        assert main([*asked, "--out-dir", str(self.folder), "--state", state, "--network", NETWORK]) == 0


class Mosquitto(Configured):
    """Mosquitto 2."""

    name, kind, ready = "mosquitto", "mosquitto", "running"

    def command(self) -> list[str]:
        """Start it as the configuration says; as root it would leave its own user no way to the test's folder."""
        self.write_config()
        config = self.folder / "mosquitto.conf"
        config.write_text(f"user root\nlog_dest stderr\n{config.read_text()}")
        return [tool("mosquitto"), "-c", str(config)]


class Nats(Configured):
    """The NATS server."""

    name, kind, ready = "nats-server", "nats", "Server is ready"

    def command(self) -> list[str]:
        """Start it as the configuration says."""
        self.write_config()
        return [tool("nats-server"), "-c", str(self.folder / "nats.conf")]


class RabbitMq(Configured, RabbitMqProcess):
    """RabbitMQ with its MQTT plugin."""

    kind = "rabbitmq"

    def command(self) -> list[str]:
        """Start it as the configuration says, beside the port mapper of its own; it logs to us."""
        found = super().command()
        self.write_config()
        config = self.folder / "rabbitmq.conf"
        config.write_text(f"log.file = false\nlog.console = true\n{config.read_text()}")
        (self.folder / "plugins").write_text("[rabbitmq_mqtt,rabbitmq_auth_mechanism_ssl].\n")
        return found


class Peer:
    """A client that does what it is told, with nothing of ours in between."""

    def __init__(self, port: int, folder: Path, login: str | None, client_id: str, will: Heard | None = None) -> None:
        self.heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self.connected: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.granted: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.lost = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv311)
        context = ssl.create_default_context(cafile=folder / "registrar-ca.pem")
        if login is not None:
            context.load_cert_chain(folder / f"{login}.crt", folder / f"{login}.key")
        self._client.tls_set_context(context)
        self.kept_too = False
        self._client.on_message = self._on_message
        self._client.on_connect = lambda _c, _u, _f, code, _p: self.connected.put(not code.is_failure)
        self._client.on_subscribe = lambda _c, _u, mid, _r, _p: self.granted.put(mid)
        self._client.on_disconnect = self._on_disconnect
        if will is not None:
            self._client.will_set(will[0], will[1], qos=1, retain=True)
        self._client.reconnect_delay_set(60, 60)
        try:
            self._client.connect("127.0.0.1", port, keepalive=30)
        except OSError:
            self._client.loop()  # closes what is left of the socket
            raise
        self._client.loop_start()

    def _on_message(self, _client: paho.Client, _user: object, message: paho.MQTTMessage) -> None:
        if self.kept_too or not message.retain:
            self.heard.put((message.topic, message.payload))

    def _on_disconnect(self, *_: object) -> None:
        self.lost += 1
        self.connected.put(False)
        self.granted.put(0)  # nobody will answer any more
        self.heard.put(GONE)

    def __enter__(self) -> Self:
        assert self.connected.get(timeout=PATIENCE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, topic: str) -> None:
        """Subscribe; the broker may refuse."""
        self._client.subscribe(topic, 1)
        self.granted.get(timeout=PATIENCE_SECONDS)  # some brokers end the connection instead

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish; the broker may refuse, say nothing, or end the connection."""
        sent = self._client.publish(topic, payload, 1, retain)
        with contextlib.suppress(RuntimeError, ValueError):
            sent.wait_for_publish(2.0)

    def hear(self) -> Heard:
        """Return the next message."""
        return self.heard.get(timeout=PATIENCE_SECONDS)

    def vanish(self) -> None:
        """Break the connection without a word, so that the will is published."""
        sock = self._client.socket()
        assert sock is not None
        sock.shutdown(2)
        self._client.loop_stop()
        sock.close()


@dataclass(frozen=True)
class Network:
    """A running broker with the files of its clients."""

    broker: Configured
    folder: Path

    def peer(self, who: SigningKey, client_id: str | None = None, will: Heard | None = None) -> Peer:
        """Connect with somebody's certificate."""
        login = "coordinator" if who is COORDINATOR else who.public.id
        return Peer(self.broker.port, self.folder, login, client_id or f"ea1-{who.public.id}-secret", will)


def _write_client(folder: Path, who: SigningKey, login: str, registrar: SigningKey, name: str | None = None) -> None:
    der = broker_certificate(registrar, who.public, name or login, now_ms=time.time_ns() // 1_000_000, days=1)
    (folder / f"{login}.crt").write_text(ssl.DER_cert_to_PEM_cert(der))
    who.write(folder / f"{login}.key")


@pytest.fixture(scope="module", params=[Mosquitto, Nats, RabbitMq], ids=["mosquitto", "nats", "rabbitmq"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A broker, a coordinator's state with two agents, and their certificates."""
    kind: type[Configured] = request.param
    folder = tmp_path_factory.mktemp(kind.name)
    state = folder / "coordinator"
    store = Store(state / "coordinator.db")
    for name, each in (("coordinator", COORDINATOR), ("registrar", REGISTRAR)):
        each.write(state / f"{name}.key")
        each.public.write(state / f"{name}.pub")
    for agent in (VICTIM, ATTACKER):
        raw, agent_id = agent.public.raw, agent.public.id
        store.write(
            lambda c, raw=raw, agent_id=agent_id: identities.admit(  # type: ignore[misc] # bound now
                c, agent_id, owner=None, public_key=raw, sealing_key=None
            )
        )
        _write_client(folder, agent, agent_id, REGISTRAR)
    store.close()
    broker = kind(folder)
    broker.start()
    COORDINATOR.write(folder / "coordinator.key")
    try:
        yield Network(broker, folder)
    finally:
        broker.close()


@pytest.fixture
def coordinator(network: Network) -> Iterator[Peer]:
    """The coordinator, hearing every agent."""
    with network.peer(COORDINATOR) as peer:
        for channel in ("birth", "gone", "results"):
            peer.subscribe(TOPICS.all_agents(channel))
        yield peer


def test_an_agent_speaks_and_hears_on_its_own_topics(network: Network, coordinator: Peer) -> None:
    """What is attacked below works for who it is for, retained birth and will included."""
    me = VICTIM.public.id
    with network.peer(VICTIM, will=(TOPICS.gone(me), b"will")) as victim:
        for topic in (*TOPICS.all_channels(me), TOPICS.coordinator, TOPICS.revocations):
            victim.subscribe(topic)
        victim.publish(TOPICS.birth(me), b"birth", retain=True)
        assert coordinator.hear() == (TOPICS.birth(me), b"birth")
        coordinator.publish(TOPICS.jobs(me), b"job")
        assert victim.hear() == (TOPICS.jobs(me), b"job")
        victim.vanish()
    assert coordinator.hear() == (TOPICS.gone(me), b"will")


def test_reading_the_topics_of_another_agent(network: Network, coordinator: Peer) -> None:
    """Not by its topic, nor by wildcards, nor by what a broker has inside."""
    me, other = ATTACKER.public.id, VICTIM.public.id
    wanted = [TOPICS.jobs(other), TOPICS.control(other), f"ea1/{NETWORK}/+/jobs", f"ea1/{NETWORK}/#", "#", "+/+/+/+"]
    wanted += [TOPICS.results(other), TOPICS.birth(other), "$MQTT/#", "$MQTT/sub/#", "$SYS/#", "$JS/#"]
    for topic in wanted:
        with network.peer(VICTIM) as victim, network.peer(ATTACKER) as attacker:
            victim.subscribe(TOPICS.jobs(other))
            attacker.subscribe(topic)
            coordinator.publish(TOPICS.jobs(other), b"secret")
            assert victim.hear() == (TOPICS.jobs(other), b"secret")
            victim.publish(TOPICS.results(other), b"result")
            assert coordinator.hear() == (TOPICS.results(other), b"result")
            if not attacker.lost:
                attacker.subscribe(TOPICS.jobs(me))
                coordinator.publish(TOPICS.jobs(me), b"marker")
            ends = {(TOPICS.jobs(me), b"marker"), GONE}  # it hears what is for it, later, or nothing at all any more
            assert attacker.hear() in ends, topic


def test_writing_the_topics_of_another_agent(network: Network, coordinator: Peer) -> None:
    """Topic spoofing, retained or not, also of the coordinator's own topics: nobody hears it, nothing is kept."""
    me, other = ATTACKER.public.id, VICTIM.public.id
    with network.peer(VICTIM) as victim:
        for topic in (TOPICS.jobs(other), TOPICS.control(other), TOPICS.coordinator, TOPICS.revocations):
            victim.subscribe(topic)
        spoofed = [TOPICS.birth(other), TOPICS.gone(other), TOPICS.results(other), TOPICS.jobs(other)]
        for topic in (*spoofed, TOPICS.coordinator, TOPICS.revocations, TOPICS.jobs(me)):
            for retain in (False, True):
                with network.peer(ATTACKER) as attacker:
                    attacker.publish(topic, b"spoofed", retain=retain)
        with network.peer(ATTACKER) as attacker:
            attacker.publish(TOPICS.results(me), b"marker")
        assert coordinator.hear() == (TOPICS.results(me), b"marker")
        coordinator.publish(TOPICS.jobs(other), b"marker")
        assert victim.hear() == (TOPICS.jobs(other), b"marker")
    with network.peer(COORDINATOR, "ea1-coordinator-later") as later:
        later.kept_too = True
        later.subscribe(f"ea1/{NETWORK}/#")
        later.publish(f"ea1/{NETWORK}/{other}/probe/end", b"end")
        kept = []
        while (entry := later.hear()) != (f"ea1/{NETWORK}/{other}/probe/end", b"end"):
            kept.append(entry)
        assert [entry for entry in kept if entry[1] == b"spoofed"] == []


def test_will_on_the_topic_of_another_agent(network: Network, coordinator: Peer) -> None:
    """A will for somebody else is not published when its owner vanishes."""
    me, other = ATTACKER.public.id, VICTIM.public.id
    for topic in (TOPICS.gone(other), TOPICS.birth(other), TOPICS.coordinator):
        attacker = network.peer(ATTACKER, will=(topic, b"false will"))
        if attacker.connected.get(timeout=PATIENCE_SECONDS):  # some brokers refuse the connection
            attacker.vanish()
        else:
            attacker.__exit__()
    with network.peer(ATTACKER) as later:
        later.publish(TOPICS.results(me), b"marker")
    assert coordinator.hear() == (TOPICS.results(me), b"marker")


def test_client_id_of_another_agent(network: Network, coordinator: Peer) -> None:
    """Whoever takes all that is known of another's client id neither pushes it off nor gets what is for it."""
    me, other = ATTACKER.public.id, VICTIM.public.id
    with network.peer(VICTIM) as victim:
        victim.subscribe(TOPICS.jobs(other))
        for name in (f"ea1-{other}", other):
            with network.peer(ATTACKER, name) as attacker:
                attacker.subscribe(TOPICS.jobs(me))
                coordinator.publish(TOPICS.jobs(other), b"job")
                assert victim.hear() == (TOPICS.jobs(other), b"job")
                coordinator.publish(TOPICS.jobs(me), b"marker")
                assert attacker.hear() in {(TOPICS.jobs(me), b"marker"), GONE}  # some brokers throw it out
        assert victim.lost == 0


def test_login_without_a_certificate_of_the_registrar(network: Network) -> None:
    """No certificate, one of its own making in the victim's name, one of another authority: nobody gets in."""
    stranger, forger, victim = key("stranger"), key("forger"), VICTIM.public.id
    _write_client(network.folder, stranger, "self-made", stranger, victim)
    _write_client(network.folder, stranger, "forged", forger, victim)
    for login in (None, "self-made", "forged"):
        inside = False
        with contextlib.suppress(OSError):  # told in the handshake, or by the end of the connection
            peer = Peer(network.broker.port, network.folder, login, f"ea1-{victim}-secret")
            try:
                inside = peer.connected.get(timeout=PATIENCE_SECONDS)
            finally:
                peer.__exit__()
        assert not inside, login
    with network.peer(VICTIM):  # who is let in with the right one
        pass
