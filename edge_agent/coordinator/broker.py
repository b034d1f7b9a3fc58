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
    clients: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_serve_client(broker, reader, writer, max_message_bytes))
        clients.add(task)
        task.add_done_callback(clients.discard)

    await broker.start()
    try:
        try:
            server = await asyncio.start_server(connected, host, port, limit=_STREAM_BUFFER_BYTES)
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
        for task in tuple(clients):
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


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


async def _serve_client(
    broker: Broker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_message_bytes: int
) -> None:
    """Give one connection to amqtt, and close it whatever happens there."""
    from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter  # noqa: PLC0415

    class BoundedReader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt has no types
        """Gives back what was read ahead, and reads no packet into memory that is above the limit."""

        ahead = b""

        async def read(self, n: int = -1) -> bytes:
            if n > max_message_bytes:
                raise ValueError(f"a packet of {n} bytes is above the limit of {max_message_bytes} bytes")
            first, self.ahead = self.ahead[:n], self.ahead[n:]
            rest: bytes = await super().read(n - len(first)) if len(first) < n else b""
            return first + rest

    log = logging.getLogger(__name__)
    try:
        bounded = BoundedReader(reader)
        bounded.ahead, level = await asyncio.wait_for(_read_ahead(reader), _CONNECT_SECONDS)
        if level == _LEVEL_MQTT_5:
            writer.write(_REFUSE_MQTT_5)
        else:
            await broker.external_connected(bounded, StreamWriterAdapter(writer), _LISTENER)
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    except Exception as error:  # noqa: BLE001 (amqtt lets a client's mistakes out as any exception)
        log.info("A client was disconnected: %s", error, extra={"action": "broker-client-refused"})
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), _CLOSE_SECONDS)


async def _read_ahead(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """Read a CONNECT up to its protocol level; return these bytes and the level.

    amqtt reads a CONNECT of version 5 as if it were 3.1.1 and waits for bytes that never come, so that a
    client that tries version 5 first would have to wait for its own timeout.
    """
    data = bytearray(await reader.readexactly(2))
    while data[-1] & 0x80 and len(data) < 5:  # the remaining length: up to four bytes
        data += await reader.readexactly(1)
    data += await reader.readexactly(7)  # two bytes of length, "MQTT", the level
    return bytes(data), data[-1] if data[-7:-1] == b"\0\4MQTT" else 0


def _silence_logs() -> None:
    """Keep amqtt, which tells about every packet and calls a closed connection an error, to real defects."""
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.WARNING)
