"""One connection to the broker, for several checks: what it can do, who coordinates, and what time it is there.

An honest measure of the clocks needs an answer that cannot be older than the question: a retained hello may be days
old, and MQTT brokers tell no time. So the doctor delivers a signed failure of an attempt that never was. A coordinator
settles such an answer as `unknown`, signs that with its time, and nothing is changed anywhere. The answer was made
between our sending and our hearing, which bounds the difference of the clocks from both sides. It also shows that the
whole way works in both directions, and that the coordinator has admitted this agent: strangers get no answer.
"""

from __future__ import annotations

import logging
import queue
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from edge_agent.errors import PeerError, TransportError
from edge_agent.mqtt import Abilities, Connected, ConnectFailed, Link, LinkEvent, Message, Probed
from edge_agent.wire.envelope import announced_key, open_envelope, seal
from edge_agent.wire.messages import Failure, Hello, Settled
from edge_agent.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.mqtt import LinkOptions
    from edge_agent.wire.keys import PublicKey, SigningKey

CONNECT_SECONDS = 15.0
HELLO_SECONDS = 3.0
PROBE_SECONDS = 5.0
ANSWER_SECONDS = 5.0
MAX_BYTES = 128 * 1024

E = TypeVar("E", bound=LinkEvent)


@dataclass(frozen=True, slots=True)
class Answer:
    """A fresh word of the coordinator's.

    Attributes:
        sent_ms: our wall clock when we asked.
        issued_ms: the coordinator's when it answered.
        round_trip_ms: between our asking and our hearing, on our monotonic clock.
    """

    sent_ms: int
    issued_ms: int
    round_trip_ms: float

    @property
    def ahead_ms(self) -> float:
        """How far the coordinator's clock is ahead of ours, give or take `uncertain_ms`."""
        return self.issued_ms - self.sent_ms - self.round_trip_ms / 2

    @property
    def uncertain_ms(self) -> float:
        """Half of the time in which it may have been made, and a millisecond for rounding."""
        return self.round_trip_ms / 2 + 1


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of it.

    Attributes:
        connect_ms: from the beginning to the granted subscription.
        abilities: of the broker; None if they were not found out in time.
        hello: the coordinator's, verified; None if there was none.
        hello_retained: whether the broker had kept it.
        refused: why a hello was not believed, if one came.
        answer: a fresh word of the coordinator's; None if it gave none or there was no key to ask with.
    """

    address: str
    connect_ms: float
    abilities: Abilities | None
    hello: Hello | None
    hello_retained: bool
    refused: PeerError | None
    answer: Answer | None


def visit(
    options: LinkOptions,
    *,
    network: str,
    key: SigningKey | None,
    coordinator_key: PublicKey | None,
    random_bytes: Callable[[int], bytes],
) -> Visit:
    """Go there, look, ask, and leave.

    Args:
        options: of the link, under a client id of its own.
        network: whose coordinator.
        key: the agent's, to ask with.
        coordinator_key: whose answers are believed.
        random_bytes: for the attempt that never was.

    Raises:
        TransportError: the broker cannot be reached or refuses us.
        SettingsError: a TLS file cannot be used.
    """
    topics = Topics(network)
    subscriptions = [topics.coordinator]
    if key is not None:
        subscriptions.append(topics.settled(key.public.id))
        options = replace(options, probe_topic=topics.probe(key.public.id), probe_always=True)
    guest = _Guest(options, subscriptions)
    try:
        return guest.look(topics, key, coordinator_key, random_bytes)
    finally:
        guest.leave()


class _Guest:
    def __init__(self, options: LinkOptions, subscriptions: list[str]) -> None:
        quiet = logging.getLogger("edge_agent.doctor.link")
        quiet.setLevel(logging.CRITICAL)
        self._address = str(options.address)
        self._probes = options.probe_topic is not None
        self._events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
        self._link = Link(options, subscriptions, self._events.put, will=lambda: None, rng=random.Random(0), log=quiet)  # noqa: S311 one try, no jitter
        self._began = time.monotonic()
        self._link.start()

    def leave(self) -> None:
        self._link.stop(1.0)

    def look(
        self,
        topics: Topics,
        key: SigningKey | None,
        coordinator_key: PublicKey | None,
        random_bytes: Callable[[int], bytes],
    ) -> Visit:
        self._connect()
        connect_ms = (time.monotonic() - self._began) * 1000
        hello, retained, refused = self._hear_hello(topics, coordinator_key)
        answer = None
        if key is not None and coordinator_key is not None:
            answer = self._ask(topics, key, coordinator_key, random_bytes(16))
        abilities = self._abilities()
        return Visit(self._address, connect_ms, abilities, hello, retained, refused, answer)

    def _connect(self) -> None:
        end = time.monotonic() + CONNECT_SECONDS
        while (event := self._next(end)) is not None:
            if isinstance(event, Connected):
                return
            if isinstance(event, ConnectFailed):
                code = event.code if event.code in TransportError.codes else None
                raise TransportError(event.reason, code=code, hint=HINTS.get(event.code, TransportError.default_hint))
        raise TransportError(f"the broker {self._address} gives no answer", code="timeout", hint=HINTS["timeout"])

    def _next(self, end: float) -> LinkEvent | None:
        try:
            return self._events.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            return None

    def _hear_hello(
        self, topics: Topics, coordinator_key: PublicKey | None
    ) -> tuple[Hello | None, bool, PeerError | None]:
        """Wait for the hello; what else comes is kept for the next step."""
        kept: list[LinkEvent] = []
        end = time.monotonic() + HELLO_SECONDS
        hello, retained, refused = None, False, None
        while hello is None and (event := self._next(end)) is not None:
            if not isinstance(event, Message) or event.topic != topics.coordinator or not event.payload:
                kept.append(event)
                continue
            try:
                key = coordinator_key or announced_key(event.payload, MAX_BYTES)
                opened = open_envelope(event.payload, key, Hello, network=topics.network, max_bytes=MAX_BYTES)
                hello, retained = opened.statement, event.retain
            except PeerError as error:
                refused = error
        for event in kept:
            self._events.put(event)
        return hello, retained, refused

    def _ask(self, topics: Topics, key: SigningKey, coordinator_key: PublicKey, attempt: bytes) -> Answer | None:
        sent_ms = time.time_ns() // 1_000_000
        began = time.monotonic()
        question = Failure(
            network=topics.network,
            issued_ms=sent_ms,
            job=attempt,
            epoch=1,
            agent_id=key.public.id,
            code="handed-back",
            message="The doctor asks for a sign of life; there is no such attempt.",
            blame="agent",
            retry=True,
            retry_after_ms=0,
        )
        try:
            self._link.publish(topics.results(key.public.id), seal(key, question))
        except TransportError:
            return None
        kept: list[LinkEvent] = []
        end = began + ANSWER_SECONDS
        answer = None
        while answer is None and (event := self._next(end)) is not None:
            heard = time.monotonic()
            if not isinstance(event, Message) or event.topic != topics.settled(key.public.id):
                kept.append(event)
                continue
            try:
                settled = open_envelope(
                    event.payload, coordinator_key, Settled, network=topics.network, max_bytes=MAX_BYTES
                ).statement
            except PeerError:
                continue
            if any(entry.job == attempt for entry in settled.settled):
                answer = Answer(sent_ms, settled.issued_ms, (heard - began) * 1000)
        for event in kept:
            self._events.put(event)
        return answer

    def _abilities(self) -> Abilities | None:
        if not self._probes:
            return None
        end = time.monotonic() + PROBE_SECONDS
        while (event := self._next(end)) is not None:
            if isinstance(event, Probed):
                return event.abilities
        return None


HINTS = {
    "unreachable": "Is broker.url right, does the broker run, and does a firewall let us through?",
    "timeout": "Something swallows what we send: a firewall, a wrong port, or a broker that hangs.",
    "tls": "Compare broker.ca_file, broker.server_name and broker.server_fingerprint with the broker's certificate, "
    "and the port with the broker's: mqtts:// is for one with TLS.",
    "broker-refused": "Compare broker.username and the password with the broker's own access control, "
    "and mqtt:// or mqtts:// with the kind of port.",
}
"""What to do about each code of a connection that failed."""
