"""What a connection needs of the link that it belongs to."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.mqtt.abilities import Abilities
    from edge_agent.mqtt.connection import Connection
    from edge_agent.mqtt.events import LinkEvent


class Owner(typing.Protocol):
    """The link, as its connections see it."""

    wake_fd: int
    deadline: float | None  # set once the link is being stopped: when to have finished, monotonic seconds

    def wake(self) -> None:
        """Make the link's thread look again."""

    def turned(self) -> None:
        """Take note that the link's thread works."""

    def up(self, connection: Connection) -> None:
        """Take note that the connection can be used."""

    def wants_probe(self, abilities: Abilities) -> bool:
        """Say whether to find out by trying what the broker does not tell."""

    def found(self, abilities: Abilities) -> None:
        """Take note of what the broker can do."""

    def emit(self, event: LinkEvent) -> None:
        """Give an event to the sink; never raises."""

    def drop(self, what: str) -> None:
        """Count a message that could not be passed on; never raises."""
