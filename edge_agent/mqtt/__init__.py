"""The link to the broker, over MQTT 3.1.1 or 5.

`Link` (link.py) owns one thread and makes one `Connection` (connection.py) after the other, each with a paho
client of its own (client.py, the only file that imports paho). What was accepted and not acknowledged when a
connection ends is named in `Disconnected.lost` and forgotten: the cores above deliver again by their own
rules. Messages go out in the order of `publish`.

`TransportError`, `TooLargeError` and `UsageError` are what `Link.publish` raises; all other trouble is an
event for the sink.
"""

from edge_agent.mqtt.abilities import Abilities
from edge_agent.mqtt.backoff import Backoff
from edge_agent.mqtt.events import (
    Connected,
    ConnectFailed,
    Disconnected,
    LinkEvent,
    Message,
    Probed,
    Published,
    PublishRefused,
)
from edge_agent.mqtt.link import Link
from edge_agent.mqtt.options import BrokerAddress, LinkOptions, Will
from edge_agent.mqtt.packets import Protocol, publish_packet_bytes

__all__ = [
    "Abilities",
    "Backoff",
    "BrokerAddress",
    "ConnectFailed",
    "Connected",
    "Disconnected",
    "Link",
    "LinkEvent",
    "LinkOptions",
    "Message",
    "Probed",
    "Protocol",
    "PublishRefused",
    "Published",
    "Will",
    "publish_packet_bytes",
]
