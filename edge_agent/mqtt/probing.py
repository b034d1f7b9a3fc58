"""Carries a probe over a connection that is up: its packets go beside everybody else's, and nobody waits for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge_agent.mqtt.probe import Ask, Do, Keep, Leave, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_agent.mqtt.client import MqttClient, ReasonCode


class Probing:
    """All calls are made as those into the client are: one at a time.

    Args:
        client: that is connected.
        topic: of our own, see `Probe`.
        on_done: called once, with whether messages are kept and whether wildcards get them.
    """

    def __init__(self, client: MqttClient, topic: str, on_done: Callable[[bool | None, bool | None], None]) -> None:
        self._client = client
        self._on_done = on_done
        self._waits_for = 0  # the id of the packet whose answer is the next step
        self._probe = Probe(topic, time.monotonic())
        self._do(self._probe.begin())

    @property
    def next_deadline(self) -> float | None:
        """Monotonic seconds at which `tick` has something to do, if any."""
        return None if self._probe.done else self._probe.next_deadline

    def on_publish(self, message_id: int) -> None:
        """Take note of a PUBACK."""
        if message_id == self._waits_for:
            self._do(self._probe.on_acknowledged())

    def on_subscribe(self, message_id: int, codes: Sequence[ReasonCode]) -> None:
        """Take note of a SUBACK."""
        if message_id == self._waits_for:
            granted = bool(codes) and not any(code.is_failure for code in codes)
            self._do(self._probe.on_subscribed(time.monotonic(), granted=granted))

    def takes(self, topic: str, *, retain: bool) -> bool:
        """Take a message if it is the probe's; say so."""
        if not self._probe.owns(topic):
            return False
        self._do(self._probe.on_message(retain=retain))
        return True

    def tick(self, now: float) -> None:
        """Take note of the time."""
        if not self._probe.done:
            self._do(self._probe.on_time(now))

    def _do(self, what: Sequence[Do]) -> None:
        for do in what:
            match do:
                case Keep():
                    self._waits_for = self._client.publish(do.topic, do.payload, qos=1, retain=True).mid
                case Ask():
                    self._waits_for = self._client.subscribe([(do.topic_filter, 1)])[1] or 0
                case Leave():
                    self._client.unsubscribe(list(do.topic_filters))
        if what and self._probe.done:
            self._on_done(self._probe.retained, self._probe.retained_by_wildcard)
