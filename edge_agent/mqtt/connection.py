"""One connection to the broker, driven without paho's own thread.

With `loop_start` an exception in a callback ends paho's thread while `is_connected()` stays true. Here
`loop_read`, `loop_write` and `loop_misc` are called from the link's thread, where any exception ends the
connection and so leads to the next. Every connection has a fresh paho client (client.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from edge_agent.mqtt.abilities import Abilities
from edge_agent.mqtt.client import (
    End,
    MqttClient,
    abilities_of,
    in_words,
    message_of,
    refused_connect,
    refused_filters,
    why_disconnected,
)
from edge_agent.mqtt.events import LinkEvent, Message, Published, PublishRefused
from edge_agent.mqtt.outbox import Outbox, Outgoing
from edge_agent.mqtt.probing import Probing
from edge_agent.mqtt.tls import TlsSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_agent.mqtt.client import DisconnectFlags, Properties, ReasonCode
    from edge_agent.mqtt.options import LinkOptions, Will
    from edge_agent.mqtt.owner import Owner
    from edge_agent.mqtt.packets import Protocol

MAX_IN_FLIGHT: Final = 10
"""QoS 1 messages on the way to the broker at once; fewer where its Receive Maximum is smaller."""

_SUBSCRIPTION_QOS: Final = 1
_LINGER_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 0.02


class Connection:
    """From CONNECT to the end; never used again after it.

    `serve` and `abandon` are the link's thread's, `accept` and `push` are for any thread. `_drive` is held
    during every call into paho and so during its callbacks. Whoever publishes writes to the socket himself
    when the link's thread sleeps: a thread switch less for each message.

    Args:
        options: the broker and the bounds.
        subscriptions: topic filters that must be granted.
        protocol: the MQTT version to speak.
        will: for this connection.
        answer_seconds: how long the broker may take to answer the CONNECT.
        owner: the link.

    Raises:
        SettingsError: a TLS file cannot be used.
    """

    def __init__(  # noqa: PLR0913 (made in one place)
        self,
        options: LinkOptions,
        subscriptions: Sequence[str],
        owner: Owner,
        *,
        protocol: Protocol,
        will: Will | None,
        answer_seconds: float,
    ) -> None:
        self.protocol: Protocol = protocol
        self.abilities = Abilities(protocol)
        self.max_packet_bytes = options.max_packet_bytes
        self.retain_available = True
        self.acknowledged_bytes = 0  # size of the largest packet that was
        self._options = options
        self._subscriptions = subscriptions
        self._answer_seconds = answer_seconds
        self._owner = owner
        self._drive = threading.Lock()
        self._outbox = Outbox(options)
        self._in_flight: dict[int, Outgoing] = {}  # by message id
        self._window = MAX_IN_FLIGHT
        self._max_qos = 1
        self._probing: Probing | None = None
        self._progress = 0.0  # when the broker last acknowledged, or was last owed nothing
        self._events: list[LinkEvent] = []  # for the owner, once `_drive` is free
        self._early: list[Message] = []  # what came before the subscriptions were granted
        self._answered = False
        self._up = False
        self._subscribe_mid: int | None = None
        self._end: End | None = None
        self._opened = 0.0
        self._socket: Any = None  # paho calls it SocketLike and forgets it at the end
        self._next_check = 0.0
        self._guarded_step = self._guard(self._step)
        self._guarded_pump = self._guard(self._pump)
        self._client = MqttClient(options, protocol, will)
        self._client.on_socket_open = self._guard(self._on_socket_open)
        self._client.on_connect = self._guard(self._on_connect)
        self._client.on_subscribe = self._guard(self._on_subscribe)
        self._client.on_delivery = self._guard(self._on_delivery)
        self._client.on_publish = self._guard(self._on_publish)
        self._client.on_disconnect = self._guard(self._on_disconnect)

    def _guard(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Turn an exception into the end of the connection."""

        def guarded(*arguments: object) -> None:
            try:
                callback(*arguments)
            except Exception as error:  # noqa: BLE001 (paho may raise anything, and must not see ours)
                self._finish(End("transport", f"the link itself failed: {type(error).__name__}: {error}"))

        return guarded

    def _finish(self, end: End | None) -> None:
        """Note the first reason for the end; later ones are its consequences."""
        if self._end is None:
            self._end = end

    # -- for any thread ---------------------------------------------------------------------------------

    def accept(self, message: Outgoing) -> None:
        """Queue a message, or raise what `Link.publish` raises and leave nothing behind."""
        self._outbox.put(message)

    def push(self) -> None:
        """Send what can be sent without waiting, and leave the rest to the link's thread."""
        if self._drive.acquire(blocking=False):
            try:
                self._guarded_pump()
                done = self._end is None and not self._client.want_write()
            finally:
                self._drive.release()
            if done:
                return
        self._owner.wake()

    # -- for the link's thread --------------------------------------------------------------------------

    def serve(self) -> End:
        """Open the connection, drive it to its end, and return why it ended."""
        with self._drive:
            self._opened = time.monotonic()
            self._guard(self._open)()
        wake_fd = self._owner.wake_fd
        poller = select.poll()
        poller.register(wake_fd, select.POLLIN)
        watched: tuple[int, int] | None = None
        readable = False
        while True:
            self._owner.turned()
            with self._drive:
                self._guarded_step(readable)
                end = self._end
                events, self._events = self._events, []
                if end is None:
                    mask = select.POLLIN | (select.POLLOUT if self._client.want_write() else 0)
                    fd = self._socket.fileno()
                    # What OpenSSL has read already does not show in poll.
                    pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
                    timeout = 0.0 if pending else self._seconds_to_next_check()
            # Without the lock, so that whoever answers an event at once finds the socket free.
            for event in events:
                self._owner.emit(event)
            if end is not None:
                return end
            if watched != (fd, mask):
                poller.register(fd, mask)
                watched = (fd, mask)
            ready = dict(poller.poll(timeout * 1000))
            if wake_fd in ready:
                os.eventfd_read(wake_fd)
            readable = pending or bool(ready.get(fd, 0) & ~select.POLLOUT)

    def unacknowledged(self) -> list[int]:
        """Return the sizes of the packets that are under way."""
        with self._drive:
            return [message.packet_bytes(self.protocol) for message in self._in_flight.values()]

    def abandon(self) -> tuple[int, ...]:
        """Close the socket and refuse everything; return the tokens that were accepted, not acknowledged."""
        with self._drive:
            self._up = False
            lost = [*self._in_flight.values(), *self._outbox.close()]
            self._in_flight.clear()
            self._client.drop_out_messages()
            if self._socket is not None:
                self._socket.close()
            return tuple(sorted(message.token for message in lost))

    def _open(self) -> None:
        self._finish(self._client.open())

    def _step(self, readable: bool) -> None:  # noqa: FBT001 (what poll said)
        """Do everything that can be done without waiting."""
        if self._end is None and readable:
            self._client.loop_read()
            self._after_read()
        if self._end is None and self._client.want_write():
            self._client.loop_write()
        if self._end is None:
            self._pump()
            now = time.monotonic()
            # A connection that carries a thousand messages a second need not look at the clock for each.
            if now >= self._next_check or not self._up or self._owner.deadline is not None:
                self._next_check = now + _CHECK_SECONDS
                self._client.loop_misc()
                self._check_deadlines(now)
                if self._probing is not None:
                    self._probing.tick(now)
        if self._end is None and self._client.socket() is None:
            self._finish(End("unreachable", f"the connection to {self._options.address} was lost"))

    def _after_read(self) -> None:
        if self._end is not None or self._client.socket() is None:
            return
        # Linux leaves quick-ack mode by itself. Without it, a broker that has no TCP_NODELAY holds its next
        # small packet back until our kernel acknowledges this one, 40 ms later.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        # MQTT 3.1.1 has no way to tell the broker a limit, and paho would read 256 MiB into memory.
        coming, limit = self._client.coming_bytes, self._options.max_packet_bytes
        if coming > limit:
            self._finish(End("too-large", f"the broker sends a packet of {coming} bytes; the limit is {limit}"))

    def _pump(self) -> None:
        """Give waiting messages to paho while the window is open and the socket takes them at once."""
        while self._end is None and len(self._in_flight) < self._window and not self._client.want_write():
            message = self._outbox.take()
            if message is None:
                return
            if not self._in_flight:
                self._progress = time.monotonic()
            qos = min(message.qos, self._max_qos)
            retain = message.retain and self.retain_available
            message_id = self._client.send(message, qos, retain=retain)
            if qos:
                self._in_flight[message_id] = message

    def _check_deadlines(self, now: float) -> None:
        if self._owner.deadline is not None:
            self._check_stop(self._owner.deadline)
            return
        address = self._options.address
        if not self._up and now >= self._opened + self._handshake_seconds():
            what = "acknowledge the subscriptions" if self._answered else "answer the CONNECT"
            reason = f"the broker {address} did not {what} within {self._handshake_seconds():g} s"
            self._finish(End("timeout", reason, other_version=not self._answered))
        if self._client.want_write():
            self._progress = now
        elif self._in_flight and now >= self._progress + self._options.acknowledge_timeout_seconds:
            seconds = self._options.acknowledge_timeout_seconds
            self._finish(End("timeout", f"the broker {address} acknowledged nothing for {seconds:g} s"))

    def _check_stop(self, deadline: float) -> None:
        unsent = self._outbox or self._in_flight or self._client.want_write()
        if self._up and not unsent:
            self._say_goodbye(deadline)
        elif not self._up or time.monotonic() >= deadline:
            # No DISCONNECT: what was accepted did not get through, so the will shall.
            self._finish(End("stopped", "the link was stopped before everything was acknowledged"))

    def _say_goodbye(self, deadline: float) -> None:
        """Send DISCONNECT, and keep the socket until the broker has closed its end.

        Paho closes at once. With unread messages in the socket the kernel would then send a reset, which can
        overtake the DISCONNECT in the broker, and the will would be published after a graceful stop.
        """
        with socket.socket(fileno=os.dup(self._socket.fileno())) as spare:
            self._finish(End("stopped", "the link was stopped"))
            self._client.disconnect()
            seconds = min(_LINGER_SECONDS, deadline - time.monotonic())
            end = time.monotonic() + seconds
            with contextlib.suppress(OSError):
                spare.shutdown(socket.SHUT_WR)
                while (left := end - time.monotonic()) > 0:
                    spare.settimeout(left)
                    if not spare.recv(65_536):
                        break

    def _handshake_seconds(self) -> float:
        limit = self._options.connect_timeout_seconds
        return limit if self._answered else min(limit, self._answer_seconds)

    def _seconds_to_next_check(self) -> float:
        """Return how long to sleep at most, so that no deadline is missed by much."""
        now = time.monotonic()
        ends = [now + max(0.05, min(5.0, self._options.keepalive_seconds / 6))]
        if not self._up:
            ends.append(self._opened + self._handshake_seconds())
        if self._in_flight:
            ends.append(self._progress + self._options.acknowledge_timeout_seconds)
        if self._probing is not None and (moment := self._probing.next_deadline) is not None:
            ends.append(moment)
        if self._owner.deadline is not None:
            ends.append(self._owner.deadline)
        return max(0.001, min(ends) - now)

    # -- paho's callbacks, with `_drive` held -------------------------------------------------------------

    def _on_socket_open(self, _client: object, _data: object, opened: Any) -> None:  # noqa: ANN401 (paho's)
        self._socket = opened
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _on_connect(
        self, client: MqttClient, _data: object, _flags: object, code: ReasonCode, properties: Properties
    ) -> None:
        self._answered = True
        refused = refused_connect(self._options.address, code, properties)
        if refused is not None:
            self._finish(refused)
            return
        self.abilities = told = abilities_of(self.protocol, properties)
        self._window = min(MAX_IN_FLIGHT, told.receive_maximum or MAX_IN_FLIGHT)
        self.max_packet_bytes = min(self.max_packet_bytes, told.max_packet_bytes or self.max_packet_bytes)
        self.retain_available = told.retained is not False
        self._max_qos = 1 if told.max_qos is None else min(1, told.max_qos)
        if self._subscriptions:
            filters = [(text, _SUBSCRIPTION_QOS) for text in self._subscriptions]
            self._subscribe_mid = client.subscribe(filters)[1]
        else:
            self._become_up()

    def _on_subscribe(
        self, _client: object, _data: object, mid: int, codes: list[ReasonCode], properties: Properties
    ) -> None:
        if self._probing is not None:
            self._probing.on_subscribe(mid, codes)
        if mid != self._subscribe_mid or self._up:
            return
        refused = refused_filters(self._subscriptions, codes, properties)
        if refused is not None:
            self._finish(refused)
        else:
            self._become_up()

    def _become_up(self) -> None:
        self._up = True
        self._outbox.open(self.protocol, self.max_packet_bytes)
        self._owner.up(self)
        self._events += self._early
        self._early.clear()
        topic = self._options.probe_topic
        if topic is not None and self.retain_available and self._owner.wants_probe(self.abilities):
            self._probing = Probing(self._client, topic, self._on_probed)
        else:
            self._owner.found(self.abilities)

    def _on_probed(self, retained: bool | None, by_wildcard: bool | None) -> None:  # noqa: FBT001 (answers)
        self.abilities = replace(self.abilities, retained=retained, retained_by_wildcard=by_wildcard)
        self._owner.found(self.abilities)

    def _on_delivery(self, name: bytes, retain: bool, payload: bytes, properties: Properties | None) -> None:  # noqa: FBT001
        try:
            topic = name.decode()
        except UnicodeDecodeError:
            self._owner.drop("a message whose topic is not UTF-8")
            return
        if self._probing is not None and self._probing.takes(topic, retain=retain):
            return
        message = message_of(topic, retain, payload, properties)
        if self._up:
            self._events.append(message)
        elif len(self._early) < self._options.inbox_messages:
            self._early.append(message)  # some brokers send retained messages before the SUBACK
        else:
            self._owner.drop("a message, because too many came before the SUBACK")

    def _on_publish(self, _client: object, _data: object, mid: int, code: ReasonCode, properties: Properties) -> None:
        message = self._in_flight.pop(mid, None)
        if message is None:  # QoS 0, which paho reports when it is written, or the probe's
            if self._probing is not None:
                self._probing.on_publish(mid)
            return
        self._progress = time.monotonic()
        self.acknowledged_bytes = max(self.acknowledged_bytes, message.packet_bytes(self.protocol))
        if code.is_failure:
            self._events.append(PublishRefused(message.topic, message.token, in_words(code, properties)))
        else:
            self._events.append(Published(message.token))

    def _on_disconnect(
        self, _client: object, _data: object, flags: DisconnectFlags, code: ReasonCode, properties: Properties
    ) -> None:
        failure = self._socket.failure if isinstance(self._socket, TlsSocket) else None
        address, answered = self._options.address, self._answered
        self._finish(why_disconnected(address, flags, code, properties, answered=answered, tls_failure=failure))
