"""The conversation with Home Assistant: says what there is when it should, and hears orders.

It belongs to the daemon's loop, is given a way to publish and a way to ask how the agent fares, and has neither
thread nor socket of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from edge_agent.agent.assistant.discovery import OFFLINE, ONLINE, Device, message
from edge_agent.agent.assistant.orders import ORDERS
from edge_agent.agent.assistant.states import state
from edge_agent.clock import Now
from edge_agent.mqtt import Will

SOON_SECONDS = 2.0
"""A change is said after so long at most, and nothing more often."""
AGAIN_SECONDS = 60.0
"""Figures that change all the time, such as watts, are said so often."""
BIRTH_DELAY_SECONDS = (1.0, 15.0)
"""After Home Assistant has started, all devices speak; each at a moment of its own."""

log = logging.getLogger("edge_agent.agent.assistant")

Publish = Callable[[str, bytes], bool]


class Assistant:
    """What is said.

    Args:
        device: what this machine is.
        publish: says something, retained; returns whether it was accepted.
        draw: gives random numbers from 0 to 1.
    """

    def __init__(self, device: Device, publish: Publish, draw: Callable[[], float]) -> None:
        self.device = device
        self._publish = publish
        self._draw = draw
        self._announce_at: float | None = None
        self._said: bytes = b""
        self._said_at = 0.0
        self.look_at: float | None = None

    @property
    def topics(self) -> tuple[str, ...]:
        """What is to be listened to."""
        orders = () if self.device.control == "off" else tuple(self.device.order_topic(what) for what in ORDERS)
        return (self.device.birth_topic, *orders)

    def will(self) -> Will:
        """Return what the broker says when the connection breaks."""
        return Will(self.device.availability_topic, OFFLINE.encode(), retain=True)

    def connected(self, now: Now) -> None:
        """Say everything: the broker may know nothing of us."""
        self._announce_at = self.look_at = now.monotonic

    def heard(self, topic: str, payload: bytes, *, retained: bool, now: Now) -> str | None:
        """Take a message in; return which order it is, if it is one.

        What the broker had kept is none: an order is given once, by somebody who is there.
        """
        if topic == self.device.birth_topic:
            if payload == ONLINE.encode() and not retained:
                low, high = BIRTH_DELAY_SECONDS
                self._announce_at = now.monotonic + low + (high - low) * self._draw()
                self.look_at = self._announce_at if self.look_at is None else min(self.look_at, self._announce_at)
            return None
        what = topic.removeprefix(self.device.order_topic(""))
        if retained:
            log.warning("Ignored an order that the broker had kept: %s", what[:32], extra={"action": "home-order"})
            return None
        return what if what in ORDERS else None

    def hurry(self, now: Now) -> None:
        """Say soon that something has changed."""
        soon = max(now.monotonic, self._said_at + SOON_SECONDS)
        self.look_at = soon if self.look_at is None else min(self.look_at, soon)

    def look(self, now: Now, status: Mapping[str, Any], memory_bytes: int, latest: str) -> None:
        """Say what is due."""
        if self._announce_at is not None and self._announce_at <= now.monotonic:
            self._announce_at, self._said = None, b""
            self._publish(self.device.discovery_topic, message(self.device))
            self._publish(self.device.availability_topic, ONLINE.encode())
        said = state(status, memory_bytes, self.device.version, latest)
        if said != self._said and self._publish(self.device.state_topic, said):
            self._said = said
        self._said_at = now.monotonic
        self.look_at = now.monotonic + AGAIN_SECONDS
        if self._announce_at is not None:
            self.look_at = min(self.look_at, self._announce_at)

    def leave(self) -> None:
        """Say that the agent does not run any more."""
        self._publish(self.device.availability_topic, OFFLINE.encode())

    def forget(self) -> None:
        """Take everything back that the broker keeps for us: then Home Assistant removes the device."""
        for topic in self.device.retained_topics:
            self._publish(topic, b"")
