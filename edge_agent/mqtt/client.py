"""One paho client for one connection: how it is made and opened, and what the broker's codes mean in words.

The only file that imports paho; it lends the names of paho's types to connection.py, which drives the client.
Every client has its own will and a clean session: neither the broker nor paho remembers anything from one
connection to the next.
"""

from __future__ import annotations

import itertools
import ssl
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.client import DisconnectFlags, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.errors import MalformedError
from edge_agent.mqtt.abilities import Abilities
from edge_agent.mqtt.events import MAX_USER_PROPERTIES, Message
from edge_agent.mqtt.reading import PUBACK, PUBLISH, Packet, PacketReader
from edge_agent.mqtt.tls import explain, options_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_agent.mqtt.options import BrokerAddress, LinkOptions, Will
    from edge_agent.mqtt.outbox import Outgoing
    from edge_agent.mqtt.packets import Protocol

__all__ = [
    "DisconnectFlags",
    "End",
    "MqttClient",
    "Properties",
    "ReasonCode",
    "abilities_of",
    "in_words",
    "refused_connect",
    "refused_filters",
    "why_disconnected",
]

_VERSIONS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_UNSUPPORTED_VERSION: Final = 0x84  # MQTT 5, table 3-1; paho translates 3.1.1's codes into these

_LARGE_BYTES: Final = 16 * 1024
"""Of a payload: what is above goes to the socket from where it lies."""
_RETAIN_NOT_SUPPORTED: Final = 0x9A
_ACKNOWLEDGED: Final = ReasonCode(PacketTypes.PUBACK)
_NO_PROPERTIES: Final = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class End:
    """Why a connection is over.

    `other_version`: the reason may be the MQTT version. `no_retain`: it was our wish that a message be kept.
    """

    code: str
    reason: str
    other_version: bool = False
    no_retain: bool = False


class MqttClient(paho.Client):
    """A paho client that is opened once and never reconnects; its callbacks are set by the connection.

    Reading is our own: paho asks the kernel for the first bytes of a packet one by one, and copies a payload six
    times. What paho is needed for, it gets as if it had read it. None of what this uses is public in paho; tests
    guard it.

    Args:
        options: the broker, who we are there, and the bounds.
        protocol: the MQTT version to speak.
        will: for this connection.

    Attributes:
        on_delivery: gets each message, as `paho.Client.on_message` would: with the bytes of its topic, whether the
            broker had kept it, its payload, and its properties if it has any. Must not raise.

    Raises:
        SettingsError: a TLS file cannot be used.
    """

    on_delivery: Callable[[bytes, bool, bytes, Properties | None], None]

    def __init__(self, options: LinkOptions, protocol: Protocol, will: Will | None) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            clean_session=None if protocol == "5" else True,
            protocol=_VERSIONS[protocol],
            reconnect_on_failure=False,
        )
        self._options = options
        self._speaks_5 = protocol == "5"
        self._reader = PacketReader(options.max_packet_bytes, v5=self._speaks_5)
        self._for_paho = b""
        self.connect_timeout = options.connect_timeout_seconds
        if options.username is not None:
            self.username_pw_set(options.username, options.password)
        if options.address.tls:
            self.tls_set_context(options_context(options))
        if will is not None:
            self.will_set(will.topic, will.payload, will.qos, will.retain)

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def coming_bytes(self) -> int:
        """Size of the packet that is being read, as its header tells, if it is a long one; else 0."""
        return self._reader.coming_bytes

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002 (paho's)
        """Take in all packets that one reading of the socket brings."""
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            code = self._read()
        except MalformedError:
            code = MQTTErrorCode.MQTT_ERR_PROTOCOL
        except OSError:
            code = MQTTErrorCode.MQTT_ERR_CONN_LOST
        return self._loop_rc_handle(code) if code > 0 else MQTTErrorCode.MQTT_ERR_SUCCESS

    def _read(self) -> MQTTErrorCode:
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        came = self._reader.fill(self._receive)
        if came is None:
            return code
        if not came:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()
        while code <= 0 and self._sock is not None and (packet := self._reader.take()) is not None:
            code = self._take_in(packet)
        return code

    def _receive(self, view: memoryview) -> int | None:
        sock: Any = self._sock  # what paho calls SocketLike has no `recv_into`
        try:
            return int(sock.recv_into(view))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def _take_in(self, packet: Packet) -> MQTTErrorCode:
        if packet.kind == PUBLISH:
            return self._deliver(packet)
        if packet.kind == PUBACK and len(packet.head) == 2:
            return self._acknowledged(int.from_bytes(packet.head, "big"))
        self._for_paho = bytes(self._pack_remaining_length(bytearray([packet.first]), len(packet.head))) + packet.head
        return self._packet_read()

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self._for_paho:
            raise BlockingIOError
        found, self._for_paho = self._for_paho[:bufsize], self._for_paho[bufsize:]
        return found

    def _deliver(self, packet: Packet) -> MQTTErrorCode:
        head, qos = packet.head, packet.first >> 1 & 3
        end = 2 + int.from_bytes(head[:2], "big")
        if qos > 1 or end == 2:
            raise MalformedError("A PUBLISH is without a topic, or of a QoS that was not asked for.")
        said = head[end + 2 * qos :]
        properties = None
        if self._speaks_5 and said != b"\0":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            try:
                properties.unpack(said)  # type: ignore[no-untyped-call]
            except (MQTTException, struct.error, IndexError, KeyError, ValueError) as error:
                raise MalformedError("The properties of a PUBLISH are malformed.") from error
        self.on_delivery(head[2:end], bool(packet.first & 1), packet.payload, properties)
        if qos and self._sock is not None:
            return self._send_puback(int.from_bytes(head[end : end + 2], "big"))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _acknowledged(self, message_id: int) -> MQTTErrorCode:
        # Nearly every acknowledgement has nothing but its id. Paho makes objects for a reason and for properties all
        # the same, which takes it longer than everything else about the packet.
        with self._out_message_mutex:
            if message_id in self._out_messages:
                return self._do_on_publish(message_id, _ACKNOWLEDGED, _NO_PROPERTIES)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    # -- writing --------------------------------------------------------------------------------------------------

    def open(self) -> End | None:
        """Connect, shake hands and send the CONNECT; return why that failed, or None."""
        address, options = self._options.address, self._options
        v5: dict[str, Any] = {}
        if self._speaks_5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = options.inbox_messages
            properties.MaximumPacketSize = options.max_packet_bytes
            v5 = {"clean_start": True, "properties": properties}
        try:
            self.connect(address.host, address.port, options.keepalive_seconds, **v5)
        except ssl.SSLCertVerificationError as error:
            return End("tls", f"the certificate of the broker {address} is refused: {explain(error)}")
        except ssl.SSLError as error:
            return End("tls", f"the TLS handshake with the broker {address} failed: {explain(error)}")
        except TimeoutError:
            seconds = options.connect_timeout_seconds
            return End("timeout", f"the broker {address} did not answer within {seconds:g} s")
        except OSError as error:
            return End("unreachable", f"the broker {address} cannot be reached: {explain(error)}")
        return None

    def send(self, message: Outgoing, qos: int, *, retain: bool) -> int:
        """Write a message to the socket, or to paho's buffer as far as the socket is full; return its id."""
        properties = self._publish_properties(message)
        while True:
            info = self.publish(message.topic, message.payload, qos, retain, properties)
            # Paho refuses when the next message id is one of ours, unacknowledged for 65535 messages.
            if info.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                return info.mid

    def _send_publish(  # noqa: PLR0913, PLR0917 (paho's)
        self,
        mid: int,
        topic: bytes,
        payload: bytes | bytearray = b"",
        qos: int = 0,
        retain: bool = False,  # noqa: FBT001, FBT002
        dup: bool = False,  # noqa: FBT001, FBT002
        info: MQTTMessageInfo | None = None,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        # Paho copies a payload into its packet, and what is left of that again for each time that the socket is full.
        if not qos or dup or len(payload) <= _LARGE_BYTES:
            return super()._send_publish(mid, topic, payload, qos, retain, dup, info, properties)
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        packed = (b"\0" if properties is None else properties.pack()) if self._speaks_5 else b""  # type: ignore[no-untyped-call]
        begin = bytearray([PUBLISH << 4 | qos << 1 | retain])
        self._pack_remaining_length(begin, 2 + len(topic) + 2 + len(packed) + len(payload))
        self._pack_str16(begin, topic)
        begin += mid.to_bytes(2, "big") + packed + payload[:_LARGE_BYTES]
        code = self._packet_queue(paho.PUBLISH, begin, mid, qos, info)
        rest: Any = memoryview(payload)[_LARGE_BYTES:]
        return code or self._packet_queue(paho.PUBLISH, rest, mid, qos, info)

    def _publish_properties(self, message: Outgoing) -> Properties | None:
        said = message.content_type, message.expiry_seconds, message.correlation
        if not self._speaks_5 or (said == (None, None, None) and not message.user_properties):
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if message.content_type is not None:
            properties.ContentType = message.content_type
        if message.expiry_seconds is not None:
            properties.MessageExpiryInterval = message.expiry_seconds
        if message.correlation is not None:
            properties.CorrelationData = message.correlation
        if message.user_properties:
            properties.UserProperty = list(message.user_properties)
        return properties


def message_of(topic: str, retain: bool, payload: bytes, properties: Properties | None) -> Message:  # noqa: FBT001
    """Return a message as the link's sink gets it; what MQTT 5 says beside the payload is bounded."""
    if properties is None:
        return Message(topic, payload, retain)
    correlation = getattr(properties, "CorrelationData", None)
    response_topic = getattr(properties, "ResponseTopic", None)
    user = getattr(properties, "UserProperty", ())
    return Message(
        topic,
        payload,
        retain,
        response_topic if isinstance(response_topic, str) else None,
        bytes(correlation) if isinstance(correlation, bytes | bytearray) else None,
        tuple((str(name), str(value)) for name, value in list(user)[:MAX_USER_PROPERTIES]),
    )


def abilities_of(protocol: Protocol, properties: Properties | None) -> Abilities:
    """Return what a broker says of itself in its CONNACK; what it leaves out has the defaults of MQTT 5, 3.2.2.3."""
    if protocol != "5":
        return Abilities(protocol)
    return Abilities(
        protocol,
        max_packet_bytes=getattr(properties, "MaximumPacketSize", None),
        receive_maximum=getattr(properties, "ReceiveMaximum", None),
        max_qos=getattr(properties, "MaximumQoS", 2),
        retained=bool(getattr(properties, "RetainAvailable", 1)),
        wildcards=bool(getattr(properties, "WildcardSubscriptionAvailable", 1)),
    )


def in_words(code: ReasonCode | None, properties: Properties | None) -> str:
    """Put a reason code and the broker's own words, which are foreign text, into one short line."""
    text = str(getattr(properties, "ReasonString", ""))[:200]
    printable = "".join(ch if ch.isprintable() else "?" for ch in text)
    return f"{code or 'no reason code'}{f' ({printable})' if printable else ''}"


def refused_connect(address: BrokerAddress, code: ReasonCode, properties: Properties) -> End | None:
    """Return the end that a CONNACK means, or None if it grants the connection."""
    if not code.is_failure:
        return None
    reason = f"the broker {address} refused us: {in_words(code, properties)}"
    return End(
        "broker-refused",
        reason,
        other_version=code.value == _UNSUPPORTED_VERSION,
        no_retain=code.value == _RETAIN_NOT_SUPPORTED,
    )


def refused_filters(filters: Sequence[str], codes: Sequence[ReasonCode], properties: Properties) -> End | None:
    """Return the end that a SUBACK means, or None if it grants every filter."""
    refused = [
        f"{text} ({in_words(code, properties)})"
        for text, code in itertools.zip_longest(filters, codes)
        if code is None or code.is_failure
    ]
    if not refused:
        return None
    return End("broker-refused", f"the broker refused to subscribe us to {', '.join(refused[:5])}")


def why_disconnected(  # noqa: PLR0913 (all that is known about it)
    address: BrokerAddress,
    flags: DisconnectFlags,
    code: ReasonCode,
    properties: Properties,
    *,
    answered: bool,
    tls_failure: str | None,
) -> End:
    """Return why paho gave a connection up.

    Args:
        address: the broker's.
        flags: whether a DISCONNECT came.
        code: the broker's, or the one that paho made up.
        properties: of the DISCONNECT.
        answered: whether the broker had answered the CONNECT.
        tls_failure: the TLS error that broke the connection, in words.
    """
    hint = "; it may not accept our client certificate, or want one"
    if tls_failure is not None:
        return End("tls", f"the broker {address} ended TLS: {tls_failure}{'' if answered else hint}")
    if flags.is_disconnect_packet_from_server:
        return End("broker-refused", f"the broker {address} ended the connection: {in_words(code, properties)}")
    if not answered:
        reason = f"the broker {address} closed the connection instead of answering the CONNECT"
        plain = "; is it a port with TLS, for an address that starts with mqtts://?"
        return End("broker-refused", reason + (hint if address.tls else plain), other_version=True)
    if code == "Keep alive timeout":
        return End("timeout", f"the broker {address} no longer answers")
    return End("unreachable", f"the connection to the broker {address} broke")
