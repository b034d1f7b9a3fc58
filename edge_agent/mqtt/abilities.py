"""What a broker can do: as it says itself (MQTT 5), and as it was found out by trying. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_agent.mqtt.packets import Protocol


@dataclass(frozen=True, slots=True)
class Abilities:
    """None stands for what is not known: MQTT 3.1.1 tells nothing about itself.

    Attributes:
        protocol: the MQTT version in use.
        max_packet_bytes: the largest packet that it says it takes.
        receive_maximum: how many unacknowledged messages it says it takes.
        max_qos: the highest QoS that it grants.
        retained: whether it keeps retained messages.
        retained_by_wildcard: whether a subscription with a wildcard gets them.
        wildcards: whether it grants subscriptions with wildcards.
    """

    protocol: Protocol
    max_packet_bytes: int | None = None
    receive_maximum: int | None = None
    max_qos: int | None = None
    retained: bool | None = None
    retained_by_wildcard: bool | None = None
    wildcards: bool | None = None

    def lacking(self, our_packet_bytes: int) -> tuple[str, ...]:
        """Say what is missing that we would use, in the words of a log line.

        Args:
            our_packet_bytes: the largest packet that we want to send.
        """
        found: list[str] = []
        if self.protocol != "5":
            found.append("MQTT 5 (it tells neither limits nor why it refuses a message)")
        if self.max_packet_bytes is not None and self.max_packet_bytes < our_packet_bytes:
            found.append(f"packets above {self.max_packet_bytes} bytes (we would send {our_packet_bytes})")
        if self.max_qos == 0:
            found.append("QoS 1")
        if self.retained is False:
            found.append("retained messages")
        elif self.retained_by_wildcard is False:
            found.append("retained messages for subscriptions with wildcards")
        if self.wildcards is False:
            found.append("subscriptions with wildcards, which a coordinator needs")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for a report."""
        return asdict(self)
