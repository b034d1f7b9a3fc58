"""The embedded broker: amqtt on the loopback interface, for trying the network out on one machine.

It speaks MQTT 3.1.1 and lets everybody in, which is why it refuses to listen anywhere but on loopback. A
network of several machines uses a broker of its own, such as Mosquitto, with access control and TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from typing import TYPE_CHECKING, Final

from edge_agent.errors import SettingsError, TransportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqtt.broker import Broker

_LISTENER: Final = "default"
_STREAM_BUFFER_BYTES: Final = 2**20  # asyncio's 64 KiB make a message of 2 MiB stop and go 30 times
_CONNECT_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 1.0
_LEVEL_MQTT_5: Final = 5
_REFUSE_MQTT_5: Final = b"\x20\x03\x00\x84\x00"  # CONNACK "Unsupported Protocol Version" (MQTT 5, 3.2)


async def serve(
    host: str,
    port: int,
    *,
    on_ready: Callable[[str, int], None],
    max_message_bytes: int,
    stop: asyncio.Event,
) -> None:
    """Run a broker until `stop` is set.

    Args:
        host: a loopback address, or `localhost`.
        port: TCP port; 0 takes a free one.
        on_ready: called once with the host and the real port when clients can connect.
        max_message_bytes: a client that sends a larger packet is disconnected.
        stop: ends the broker and every connection.

    Raises:
        SettingsError: the host is not loopback.
        TransportError: the port cannot be listened on.
        UsageError: amqtt is not installed.
    """
    require_loopback(host)
    _silence_logs()
    broker = _new_broker()
    clients = _Clients(broker, max_message_bytes)
    await broker.start()
    try:
        try:
            server = await asyncio.start_server(clients.connected, host, port, limit=_STREAM_BUFFER_BYTES)
        except OSError as error:
            raise TransportError(
                f"the embedded broker cannot listen on {host} port {port}: {error.strerror or error}",
                hint="Choose another port, or port 0 for any that is free.",
            ) from error
        on_ready(host, server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()
    finally:
        await broker.shutdown()
        await clients.close()


def require_loopback(host: str) -> None:
    """Refuse an address that other machines can reach.

    Raises:
        SettingsError: `host` is neither `localhost` nor a loopback address.
    """
    with contextlib.suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    raise SettingsError(
        f"the embedded broker lets everybody in, so it does not listen on {host!r}",
        hint="Use 127.0.0.1, or run a broker with access control, such as Mosquitto, for other machines.",
    )


def _new_broker() -> Broker:
    try:
        from amqtt.broker import Broker  # noqa: PLC0415 (only who runs this broker needs it)
        from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"the embedded broker needs amqtt, which cannot be imported: {error}",
            hint='Install it with `pip install "edge-agent[coordinator]"`.',
        ) from error
    # The socket is ours ("external" in amqtt's words): so the port is known and packets can be bounded.
    listener = ListenerConfig(type=ListenerType.EXTERNAL)
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    return Broker(BrokerConfig(listeners={_LISTENER: listener}, plugins=plugins))


class _Clients:
    """The connections, each given to amqtt by a task of ours."""

    def __init__(self, broker: Broker, max_message_bytes: int) -> None:
        self._broker = broker
        self._max_message_bytes = max_message_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_id: dict[bytes, tuple[asyncio.Task[None], asyncio.StreamWriter]] = {}

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a new connection."""
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End every connection."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Give one connection to amqtt, and close it whatever happens there."""
        client_id = b""
        try:
            ahead, level, client_id = await asyncio.wait_for(_read_ahead(reader), _CONNECT_SECONDS)
            if level == _LEVEL_MQTT_5:
                writer.write(_REFUSE_MQTT_5)
                return
            await self._take_over(client_id, writer)
            await self._hand_over(reader, writer, ahead)
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        except Exception as error:  # noqa: BLE001 (amqtt lets a client's mistakes out as any exception)
            log = logging.getLogger(__name__)
            log.info("A client was disconnected: %s", error, extra={"action": "broker-client-refused"})
        finally:
            if self._by_id.get(client_id, (None,))[0] is asyncio.current_task():
                del self._by_id[client_id]
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), _CLOSE_SECONDS)

    async def _take_over(self, client_id: bytes, writer: asyncio.StreamWriter) -> None:
        """Close an older connection of the same client (MQTT-3.1.4-2), which amqtt leaves open and deaf."""
        older = self._by_id.get(client_id)
        current = asyncio.current_task()
        if current is not None and client_id:
            self._by_id[client_id] = (current, writer)
        if older is not None:
            older[1].transport.abort()
            await asyncio.wait({older[0]}, timeout=_CLOSE_SECONDS)

    async def _hand_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ahead: bytes) -> None:
        from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter  # noqa: PLC0415

        limit = self._max_message_bytes

        class BoundedReader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt has no types
            """Gives back what was read ahead, and reads no packet into memory that is above the limit."""

            ahead = b""

            async def read(self, n: int = -1) -> bytes:
                if n > limit:
                    raise ValueError(f"a packet of {n} bytes is above the limit of {limit} bytes")
                first, self.ahead = self.ahead[:n], self.ahead[n:]
                rest: bytes = await super().read(n - len(first)) if len(first) < n else b""
                return first + rest

        bounded = BoundedReader(reader)
        bounded.ahead = ahead
        await self._broker.external_connected(bounded, StreamWriterAdapter(writer), _LISTENER)


async def _read_ahead(reader: asyncio.StreamReader) -> tuple[bytes, int, bytes]:
    """Read a CONNECT up to its client identifier; return these bytes, the level and the identifier.

    amqtt reads a CONNECT of version 5 as if it were 3.1.1 and waits for bytes that never come, so that a
    client that tries version 5 first would have to wait for its own timeout.
    """
    data = await reader.readexactly(2)
    while data[-1] & 0x80 and len(data) < 5:  # the remaining length: up to four bytes
        data += await reader.readexactly(1)
    data += await reader.readexactly(7)  # two bytes of length, "MQTT", the level
    if data[0] >> 4 != 1 or data[-7:-1] != b"\0\4MQTT":
        raise ValueError("the first packet is no CONNECT of MQTT 3.1.1 or later")
    level = data[-1]
    if level == _LEVEL_MQTT_5:
        return data, level, b""
    data += await reader.readexactly(5)  # flags, keep-alive, the length of the identifier
    client_id = await reader.readexactly(int.from_bytes(data[-2:], "big"))
    return data + client_id, level, client_id


def _silence_logs() -> None:
    """Keep amqtt, which tells about every packet and calls a closed connection an error, to real defects."""
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.WARNING)
