"""What a link is told: the broker's address, the bounds, the will. Pure."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge_agent.errors import SettingsError
from edge_agent.mqtt.packets import MAX_REMAINING_BYTES, is_mqtt_text

if TYPE_CHECKING:
    from pathlib import Path

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_HINT = "Write it as mqtt://host:1883, or mqtts://host:8883 for a broker with TLS."


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker listens.

    Attributes:
        host: a name or an IP address; IPv6 without brackets.
        port: TCP port.
        tls: whether the connection is encrypted and the broker's certificate checked.
    """

    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> BrokerAddress:
        """Read `mqtt://host[:port]` or `mqtts://host[:port]`.

        Raises:
            SettingsError: the text is anything else, or carries a user, a password or a path.
        """
        shown = _without_secret(text)
        try:
            parts = urllib.parse.urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise SettingsError(f"the broker address {shown!r} cannot be read: {error}", hint=_HINT) from error
        if parts.scheme not in _PORTS:
            raise SettingsError(f"the broker address {shown!r} starts with neither mqtt:// nor mqtts://", hint=_HINT)
        if parts.username is not None or parts.password is not None:
            raise SettingsError(
                f"the broker address {shown!r} carries a user or a password; addresses end up in logs",
                hint="Set broker.username, and put the password into a file named by broker.password_file.",
            )
        if parts.path not in {"", "/"} or parts.query or parts.fragment or "?" in text or "#" in text:
            raise SettingsError(f"the broker address {shown!r} goes on after the port", hint=_HINT)
        if not host or not _is_host(host):
            raise SettingsError(f"the broker address {shown!r} names no usable host", hint=_HINT)
        if port == 0:
            raise SettingsError(f"the broker address {shown!r} has port 0; ports are 1 to 65535", hint=_HINT)
        return cls(host, port or _PORTS[parts.scheme], tls=parts.scheme == "mqtts")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def _without_secret(text: str) -> str:
    """Cut everything between `//` and the last `@`, where people put passwords."""
    scheme, separator, rest = text.partition("//")
    return f"{scheme}{separator}…@{rest.rpartition('@')[2]}" if "@" in rest else text


def _is_host(host: str) -> bool:
    return len(host) <= 253 and all(ch.isalnum() or ch in "-._:%" for ch in host)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """Everything that one link needs to know about its broker and its bounds.

    Attributes:
        address: the broker.
        client_id: the MQTT client identifier; two links with the same one throw each other out.
        username: for the broker's own access control.
        password: belongs to the username; never shown.
        ca_file: PEM file of the only authorities to trust; without it, the system's.
        client_cert: PEM certificate that this client shows.
        client_key: PEM key of that certificate, not encrypted.
        server_name: the name that must stand in the broker's certificate; None for the address's host.
        server_pin: SHA-256 of the broker's certificate, the only one to accept; None for any that is valid.
        protocol: MQTT version; "auto" tries 5 and falls back to 3.1.1.
        keepalive_seconds: the link counts as dead after about twice this without a word from the broker. A
            single message must be uploaded within that time.
        connect_timeout_seconds: from the TCP connect to the acknowledged subscriptions.
        acknowledge_timeout_seconds: a broker that acknowledges nothing for so long is given up.
        max_packet_bytes: the largest MQTT packet accepted, and offered to the broker, in either direction.
        inbox_messages: how many messages the broker may have on the way to us unacknowledged (MQTT 5), and
            how many are kept while the subscriptions are being acknowledged.
        outbox_messages: how many accepted messages may wait to be sent.
        outbox_bytes: how many bytes of packets may wait to be sent.
        backoff_initial_seconds: the longest wait before the second attempt to connect.
        backoff_max_seconds: the longest wait before any attempt.
        stable_seconds: a connection that lived so long starts the back-off afresh.
        probe_topic: of our own; two topics below it are used to find out what the broker can do. None to not try.
        probe_always: try also what a broker of MQTT 5 tells by itself.
    """

    address: BrokerAddress
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str | None = None
    server_pin: bytes | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_seconds: int = 30
    connect_timeout_seconds: float = 10.0
    acknowledge_timeout_seconds: float = 60.0
    max_packet_bytes: int = 4 * 2**20
    inbox_messages: int = 1000
    outbox_messages: int = 1000
    outbox_bytes: int = 64 * 2**20
    backoff_initial_seconds: float = 0.2
    backoff_max_seconds: float = 30.0
    stable_seconds: float = 10.0
    probe_topic: str | None = None
    probe_always: bool = False

    def __post_init__(self) -> None:
        """Refuse options that contradict each other or that no broker can meet.

        Raises:
            SettingsError: names the option.
        """
        tls_files = [p for p in (self.ca_file, self.client_cert, self.client_key) if p is not None]
        ranges: tuple[tuple[str, float, float, float], ...] = (
            ("keepalive_seconds", self.keepalive_seconds, 1, 65_535),
            ("connect_timeout_seconds", self.connect_timeout_seconds, 0.01, 600),
            ("acknowledge_timeout_seconds", self.acknowledge_timeout_seconds, 0.01, 86_400),
            ("max_packet_bytes", self.max_packet_bytes, 1024, MAX_REMAINING_BYTES),
            ("inbox_messages", self.inbox_messages, 1, 65_535),
            ("outbox_messages", self.outbox_messages, 1, 1_000_000),
            ("outbox_bytes", self.outbox_bytes, 1024, 2**40),
            ("backoff_initial_seconds", self.backoff_initial_seconds, 0.001, 3600),
            ("backoff_max_seconds", self.backoff_max_seconds, self.backoff_initial_seconds, 86_400),
            ("stable_seconds", self.stable_seconds, 0, 86_400),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise SettingsError(f"broker option {name} is {value}; it must be {low} to {high}")
        for name, text in (("client_id", self.client_id), ("username", self.username or "")):
            if not is_mqtt_text(text):
                raise SettingsError(f"broker option {name} has a NUL character or is longer than 65535 bytes")
        if not self.client_id:
            raise SettingsError("broker option client_id is empty; MQTT needs one that no other client uses")
        if self.password is not None and self.username is None:
            raise SettingsError(
                "there is a broker password but no username; MQTT 3.1.1 forbids that",
                hint="Set broker.username too, or take broker.password_file away.",
            )
        if (self.client_cert is None) != (self.client_key is None):
            raise SettingsError(
                "a client certificate and its key come together, and only one is set",
                hint="Set both broker.client_cert and broker.client_key, or neither.",
            )
        for_tls = [*tls_files, *(["the expected name or fingerprint"] if self.server_name or self.server_pin else [])]
        if for_tls and not self.address.tls:
            raise SettingsError(
                f"{for_tls[0]} is for TLS, but the broker address {self.address} is without",
                hint="Write the address as mqtts://…, or take the certificate settings away.",
            )


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us when the connection dies without a goodbye.

    Attributes:
        topic: where.
        payload: what.
        retain: whether the broker keeps it for later subscribers.
        qos: 0 or 1.
    """

    topic: str
    payload: bytes
    retain: bool = False
    qos: Literal[0, 1] = 1
