"""The link: a connection to the broker that comes back by itself."""

from __future__ import annotations

import itertools
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edge_agent.errors import EdgeAgentError, UsageError
from edge_agent.mqtt.backoff import Backoff
from edge_agent.mqtt.client import End
from edge_agent.mqtt.connection import Connection
from edge_agent.mqtt.events import Connected, ConnectFailed, Disconnected, LinkEvent, Probed
from edge_agent.mqtt.learnt import STRIKES, LearntLimit
from edge_agent.mqtt.outbox import Outgoing, not_connected
from edge_agent.mqtt.packets import Protocol, check_topic
from edge_agent.mqtt.tls import options_context

if TYPE_CHECKING:
    import logging
    import random
    from collections.abc import Callable, Sequence

    from edge_agent.mqtt.abilities import Abilities
    from edge_agent.mqtt.options import LinkOptions, Will

VERSION_PROBE_SECONDS: Final = 3.0
"""How long "auto" waits for the answer to a CONNECT of version 5: some brokers for 3.1.1 never give one."""


class Link:
    """Connects, subscribes, hands events to its sink, notices the end and connects again, until stopped.

    The sink gets every event on the link's thread; it must only put it into a queue. If it raises, the event
    is dropped, counted in `dropped` and logged, and the link goes on.

    Args:
        options: the broker and the bounds.
        subscriptions: topic filters, all at QoS 1; granted before `Connected` is given.
        sink: gets the events.
        will: asked before every connection for that connection's will; may return None for no will.
        rng: draws the jitter of the back-off.
        log: gets a line for every connection and for its end.

    Attributes:
        dropped: how many events and messages the sink refused or could not be given.
        turned_at: the monotonic second until which the link's thread was last seen to work, or will rest; None before
            the start and after the end. It grows every few seconds, with and without a broker, while the thread lives.

    Raises:
        SettingsError: a TLS file cannot be used.
    """

    def __init__(  # noqa: PLR0913 (each is a seam of its own)
        self,
        options: LinkOptions,
        subscriptions: Sequence[str],
        sink: Callable[[LinkEvent], None],
        *,
        will: Callable[[], Will | None],
        rng: random.Random,
        log: logging.Logger,
    ) -> None:
        self.dropped = 0
        self.wake_fd = -1
        self.deadline: float | None = None
        self.turned_at: float | None = None
        self._options = options
        self._subscriptions = tuple(subscriptions)
        self._sink = sink
        self._will = will
        self._log = log
        self._backoff = Backoff(options.backoff_initial_seconds, options.backoff_max_seconds, rng)
        self._version: Protocol | None = None if options.protocol == "auto" else options.protocol
        self._keeps_wills = True
        self._learnt = LearntLimit()
        self._probed = False
        self._abilities: Abilities | None = None
        self._connections = 0
        self._current: Connection | None = None
        self._tokens = itertools.count(1)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if options.address.tls:  # a wrong file is told now, and not from a thread later
            options_context(options)

    # -- for the owner of the link, any thread ------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a connection whose subscriptions were granted."""
        return self._current is not None

    def start(self) -> None:
        """Begin to connect, in a thread of its own. A link is started once.

        Raises:
            UsageError: it was started before.
        """
        with self._lock:
            if self._thread is not None:
                raise UsageError("this link was started before; make a new one")
            self.turned_at = time.monotonic()
            self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._thread = threading.Thread(target=self._run, name="edge-agent-link", daemon=True)
            self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> bool:
        """Accept nothing more, flush what was accepted, say goodbye to the broker and end the thread.

        What is not acknowledged within the timeout is named in the last `Disconnected`; then no goodbye is
        said either, so that the broker publishes the will. Called on the link's own thread it does not wait.

        Returns:
            Whether the link's thread has ended. It can be held up by a name lookup or a connect for longer
            than the timeout; it then ends by itself.
        """
        if self.deadline is None:
            self.deadline = time.monotonic() + timeout_seconds
        self._stop.set()
        self.wake()
        thread = self._thread
        if thread is None:
            return True
        if thread is not threading.current_thread():
            thread.join(timeout_seconds + 1.0)
        return not thread.is_alive()

    def publish(  # noqa: PLR0913 (what MQTT lets one say about a message)
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        content_type: str | None = None,
        expiry_seconds: int | None = None,
        correlation: bytes | None = None,
        user_properties: tuple[tuple[str, str], ...] = (),
    ) -> int:
        """Accept a message for this connection, and never for a later one.

        Args:
            topic: without wildcards.
            payload: the bytes.
            qos: 1 is acknowledged with `Published` or `PublishRefused`; 0 is never heard of again.
            retain: ask the broker to keep it; without effect where the broker does not keep messages.
            content_type: a MIME type; only sent with MQTT 5.
            expiry_seconds: after which the broker need not deliver it; only sent with MQTT 5.
            correlation: what came with the message that this one answers; only sent with MQTT 5.
            user_properties: names and values; only sent with MQTT 5.

        Returns:
            A token that the later events about this message carry; tokens grow.

        Raises:
            TransportError: not-connected or outbox-full; nothing was queued.
            TooLargeError: the packet would be above our or the broker's limit; nothing was queued.
            UsageError: no such topic or QoS.
        """
        check_topic(topic)
        if qos not in {0, 1}:
            raise UsageError(f"QoS {qos} is not offered; use 0 or 1")
        current = self._current
        if current is None or self.deadline is not None:
            raise not_connected(self._options.address)
        token = next(self._tokens)
        more = (content_type, expiry_seconds, correlation, user_properties)
        current.accept(Outgoing(token, topic, payload, qos, retain, *more))
        current.push()
        return token

    # -- for the connection -------------------------------------------------------------------------------

    def wake(self) -> None:
        """Make the link's thread look again."""
        with self._lock:
            if self.wake_fd >= 0:
                os.eventfd_write(self.wake_fd, 1)

    def turned(self) -> None:
        """Take note that the link's thread works."""
        self.turned_at = time.monotonic()

    def up(self, connection: Connection) -> None:
        """Announce a connection that can be used."""
        self._connections += 1
        self._version = connection.protocol
        self._current = connection
        self._log.info(
            "Connected to the broker %s with MQTT %s.",
            self._options.address,
            connection.protocol,
            extra={"action": "link-connected", "connection": self._connections},
        )
        event = Connected(
            self._connections,
            connection.protocol,
            connection.max_packet_bytes,
            connection.abilities.receive_maximum,
            connection.retain_available,
        )
        self.emit(event)

    def wants_probe(self, abilities: Abilities) -> bool:
        """Say whether to try the broker out: once a link, for some brokers end a connection over what they refuse."""
        wanted = not self._probed and (abilities.retained is None or self._options.probe_always)
        self._probed = self._probed or wanted
        return wanted

    def found(self, abilities: Abilities) -> None:
        """Say once, and again when it changes, what the broker lacks."""
        if self._abilities is not None and abilities.retained is None:  # it was found out before
            known = self._abilities
            abilities = replace(abilities, retained=known.retained, retained_by_wildcard=known.retained_by_wildcard)
        if abilities == self._abilities:
            return
        self._abilities = abilities
        lacking = abilities.lacking(self._options.max_packet_bytes)
        text = f"It lacks: {'; '.join(lacking)}" if lacking else "It lacks nothing that we use"
        fields = {name: value for name, value in abilities.to_dict().items() if value is not None}
        extra = {"action": "link-abilities", **fields}
        self._log.info("The broker %s was asked what it can do. %s.", self._options.address, text, extra=extra)
        if self._options.probe_topic is not None:
            self.emit(Probed(abilities))

    def emit(self, event: LinkEvent) -> None:
        """Give an event to the sink, whatever the sink does."""
        try:
            self._sink(event)
        except Exception as error:  # noqa: BLE001 (the sink is foreign code on our thread)
            self.drop(f"an event of the kind {type(event).__name__}: {type(error).__name__}: {error}")

    def drop(self, what: str) -> None:
        """Count something that is lost here; the first and then every hundredth is logged."""
        self.dropped += 1
        if self.dropped % 100 == 1:
            extra = {"action": "link-dropped", "dropped": self.dropped}
            self._log.warning("Dropped %s. %d dropped so far.", what, self.dropped, extra=extra)

    # -- the link's thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.turned()
                wait = self._connect_once()
                self.turned_at = time.monotonic() + wait
                self._stop.wait(wait)
            self.turned_at = None
        finally:
            with self._lock:
                os.close(self.wake_fd)
                self.wake_fd = -1

    def _connect_once(self) -> float:
        """Connect, serve the connection to its end, announce that; return the seconds to wait."""
        before = self._connections
        began = time.monotonic()
        versions: tuple[Protocol, ...] = ("5", "3.1.1") if self._version is None else (self._version,)
        for version in versions:
            end, lost = self._serve(version)
            self._keeps_wills = self._keeps_wills and not end.no_retain
            if self._connections != before or not end.other_version or self._stop.is_set():
                break
        was_up = self._connections != before
        if was_up and time.monotonic() - began >= self._options.stable_seconds:
            self._backoff.reset()
        wait = 0.0 if end.code == "stopped" else self._backoff.next_seconds()
        extra = {"action": "link-down", "code": end.code, "retry_seconds": round(wait, 3)}
        if end.code == "stopped":
            self._log.info("No more link to %s: %s.", self._options.address, end.reason, extra=extra)
        else:
            self._log.warning("No link: %s. The next attempt is in %.1f s.", end.reason, wait, extra=extra)
        if was_up:
            self.emit(Disconnected(self._connections, end.reason, end.code, lost))
        elif end.code != "stopped":
            self.emit(ConnectFailed(end.reason, end.code, wait))
        return wait

    def _allowed(self, will: Will | None) -> Will | None:
        """Return a will that the broker accepts: one that keeps no messages refuses to keep a will, too."""
        return will if will is None or self._keeps_wills else replace(will, retain=False)

    def _serve(self, version: Protocol) -> tuple[End, tuple[int, ...]]:
        """Run one connection. Whatever goes wrong in it, in paho or in the will is its end, and not ours."""
        options = self._options
        probing = self._version is None and version == "5"
        seconds = VERSION_PROBE_SECONDS if probing else options.connect_timeout_seconds
        try:
            connection = Connection(
                options,
                self._subscriptions,
                self,
                protocol=version,
                will=self._allowed(self._will()),
                answer_seconds=seconds,
            )
        except EdgeAgentError as error:
            return End("tls", f"{error} ({error.hint})"), ()
        except Exception as error:  # noqa: BLE001 (the will is foreign code on our thread)
            return End("transport", f"no connection could be prepared: {type(error).__name__}: {error}"), ()
        if (learnt := self._learnt.limit(time.monotonic())) is not None:
            connection.max_packet_bytes = min(connection.max_packet_bytes, learnt)
        try:
            end = connection.serve()
        except Exception as error:  # noqa: BLE001 (paho may raise anything)
            end = End("transport", f"the link itself failed: {type(error).__name__}: {error}")
        self._current = None
        if end.code in {"unreachable", "broker-refused"}:
            self._learn(connection)
        return end, connection.abandon()

    def _learn(self, connection: Connection) -> None:
        """See whether the broker ends connections over packets that are too large for it."""
        learnt = self._learnt.on_end(connection.unacknowledged(), connection.acknowledged_bytes, time.monotonic())
        if learnt is not None:
            extra = {"action": "link-limit", "max_packet_bytes": learnt}
            text = "The broker %s ended %d connections over packets above %d bytes; none so large are sent for now."
            self._log.warning(text, self._options.address, STRIKES, learnt, extra=extra)
