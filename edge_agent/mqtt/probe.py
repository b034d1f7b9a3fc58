"""Finds out by trying what a broker of MQTT 3.1.1 does not tell: does it keep messages, and for whom? No I/O.

On a topic of our own, a message is kept and asked for twice, by its name and by a wildcard; then it is taken back.
The connection carries the packets and asks here what comes next.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

PATIENCE_SECONDS: Final = 3.0
"""For the whole probe; what is not known by then stays unknown."""
WAIT_SECONDS: Final = 1.0
"""A kept message comes right after the SUBACK, if at all."""


class Step(Enum):
    """What the probe waits for."""

    KEEPING = auto()  # the PUBACK of the message that is to be kept
    ASKING = auto()  # the SUBACK for its own topic
    GETTING = auto()  # the kept message
    ASKING_WILDCARD = auto()  # the SUBACK for the wildcard
    GETTING_WILDCARD = auto()
    DONE = auto()


@dataclass(frozen=True, slots=True)
class Keep:
    """Publish this with QoS 1, to be retained. An empty payload takes the message back."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Subscribe to this."""

    topic_filter: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Unsubscribe from these."""

    topic_filters: tuple[str, ...]


Do = Keep | Ask | Leave


class Probe:
    """One probe on one connection.

    Args:
        topic: two topics below it are used; nobody else's are.
        now: monotonic seconds.

    Attributes:
        retained: the answer to the first question; None as long as it is not known.
        retained_by_wildcard: the answer to the second one.
    """

    def __init__(self, topic: str, now: float) -> None:
        self.retained: bool | None = None
        self.retained_by_wildcard: bool | None = None
        self._topic = f"{topic}/kept"
        self._wildcard = f"{topic}/+"
        self._step = Step.KEEPING
        self._give_up_at = now + PATIENCE_SECONDS
        self._wait_until = self._give_up_at

    @property
    def done(self) -> bool:
        """Whether there is nothing more to find out."""
        return self._step is Step.DONE

    @property
    def next_deadline(self) -> float:
        """Monotonic seconds at which `on_time` has something to say."""
        return min(self._wait_until, self._give_up_at)

    def begin(self) -> list[Do]:
        """Say what comes first."""
        return [Keep(self._topic, b"kept")]

    def owns(self, topic: str) -> bool:
        """Whether a message on this topic is the probe's, and nobody else's business."""
        return topic == self._topic

    def on_acknowledged(self) -> list[Do]:
        """Take note of the PUBACK."""
        if self._step is not Step.KEEPING:
            return []
        self._step = Step.ASKING
        return [Ask(self._topic)]

    def on_subscribed(self, now: float, *, granted: bool) -> list[Do]:
        """Take note of a SUBACK. A topic that we may not read tells nothing."""
        if self._step not in {Step.ASKING, Step.ASKING_WILDCARD}:
            return []
        if not granted:
            return self._finish()
        self._step = Step.GETTING if self._step is Step.ASKING else Step.GETTING_WILDCARD
        self._wait_until = now + WAIT_SECONDS
        return []

    def on_message(self, *, retain: bool) -> list[Do]:
        """Take note of the message; some brokers send it before the SUBACK."""
        if not retain:
            return []
        if self._step in {Step.ASKING, Step.GETTING}:
            self.retained = True
            self._step = Step.ASKING_WILDCARD
            self._wait_until = self._give_up_at
            return [Ask(self._wildcard)]
        if self._step in {Step.ASKING_WILDCARD, Step.GETTING_WILDCARD}:
            self.retained_by_wildcard = True
            return self._finish()
        return []

    def on_time(self, now: float) -> list[Do]:
        """Take note of the time: what has not come is not kept."""
        if now < self.next_deadline or self.done:
            return []
        if self._step is Step.GETTING:
            self.retained = self.retained_by_wildcard = False
        elif self._step is Step.GETTING_WILDCARD:
            self.retained_by_wildcard = False
        return self._finish()

    def _finish(self) -> list[Do]:
        self._step = Step.DONE
        return [Keep(self._topic, b""), Leave((self._topic, self._wildcard))]
