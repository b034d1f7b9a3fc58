"""The options of a link, from the settings: the same for agent and coordinator."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from edge_agent.mqtt import BrokerAddress, LinkOptions
from edge_agent.settings import Settings
from edge_agent.settings.model import Limits
from edge_agent.settings.passwords import read_password
from edge_agent.wire.keys import SigningKey, key_id_text

READ_BYTES: int = Limits.model_fields["max_inline_bytes"].default
"""Packets up to this size are read also where the limit is set lower: what is too large is then answered. Larger ones
a broker keeps back (MQTT 5), or they end the connection."""
MQTT_OVERHEAD_BYTES = 64 * 1024
"""A packet is larger than its message by its header, topic and properties."""


HOME_PACKET_BYTES = 256 * 1024
"""What is larger than that is no reading of a sensor."""


def home_link_options(settings: Settings, client_id: str) -> LinkOptions | None:
    """Turn the settings into the options of a link to the owner's own broker; None without one.

    Raises:
        SettingsError: the broker's address or a file does not hold.
    """
    home = settings.home
    if home.url is None:
        return None
    return LinkOptions(
        address=BrokerAddress.parse(home.url),
        client_id=client_id,
        username=home.username,
        password=home.read_password(),
        ca_file=home.ca_file,
        max_packet_bytes=HOME_PACKET_BYTES,
        inbox_messages=64,
        outbox_messages=16,
        outbox_bytes=HOME_PACKET_BYTES,
    )


def client_id(key: SigningKey, network: str) -> str:
    """Return the client id of an agent or coordinator: its id, and what only the holder of its key can know.

    A broker that does not tie client ids to logins lets anybody who knows an id push its owner off.
    """
    secret = hashlib.sha256(key.sign(b"edge-agent client id v1\0" + network.encode())).digest()[:10]
    return f"ea1-{key.public.id}-{key_id_text(secret)}"


def gateway_link_options(settings: Settings, client_id: str) -> LinkOptions:
    """Turn the settings into the options of the coordinator's link to plain MQTT clients.

    Raises:
        SettingsError: the broker's address or a file does not hold.
    """
    options, gateway = link_options(settings, client_id), settings.gateway
    if gateway.mqtt_url is None:
        return options
    return replace(
        options,
        address=BrokerAddress.parse(gateway.mqtt_url),
        username=gateway.mqtt_username,
        password=read_password(None, gateway.mqtt_password_file, "gateway.mqtt_password_file"),
        client_cert=None,
        client_key=None,
    )


def link_options(settings: Settings, client_id: str) -> LinkOptions:
    """Turn the settings into the options of one link.

    Raises:
        SettingsError: the broker's address or a file does not hold.
    """
    broker = settings.broker
    return LinkOptions(
        address=BrokerAddress.parse(broker.url),
        client_id=client_id,
        username=broker.username,
        password=broker.read_password(),
        ca_file=broker.ca_file,
        client_cert=broker.client_cert_file,
        client_key=broker.client_key_file,
        server_name=broker.server_name,
        server_pin=bytes.fromhex(broker.server_fingerprint.replace(":", "")) if broker.server_fingerprint else None,
        protocol=broker.protocol,
        keepalive_seconds=broker.keepalive_seconds,
        backoff_max_seconds=broker.retry_max_seconds,
        max_packet_bytes=max(settings.limits.max_inline_bytes, READ_BYTES) + MQTT_OVERHEAD_BYTES,
        inbox_messages=settings.limits.inbox_messages,
        outbox_messages=settings.limits.outbox_messages,
        outbox_bytes=settings.limits.outbox_bytes,
    )
