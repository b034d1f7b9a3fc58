"""The link to the owner's own broker: the last message of each topic that somebody names, and who speaks there.

A message on the topic of a gate decides about these gates and about nothing else. Orders have topics of their own,
which are listened to only if the owner wants Home Assistant to give some (`assistant`).
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_agent.agent.asked import HomeSaid, HomeUp
from edge_agent.agent.policy import Reading
from edge_agent.clock import Now
from edge_agent.errors import EdgeAgentError
from edge_agent.mqtt import Connected, ConnectFailed, Disconnected, Link, LinkEvent, LinkOptions, Message, Will
from edge_agent.settings import Gate, Source

MAX_PAYLOAD_BYTES = 64 * 1024
MAX_ORDER_BYTES = 256
STOP_SECONDS = 0.5
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_WORDS = {"on": 1.0, "true": 1.0, "off": 0.0, "false": 0.0}
"""What home automation says in place of 1 and 0."""

log = logging.getLogger("edge_agent.agent.home")


@dataclass(frozen=True, slots=True)
class _Heard:
    payload: bytes
    at: float


class Speaker(Protocol):
    """Who speaks over the link, too."""

    @property
    def topics(self) -> tuple[str, ...]:
        """What it listens to."""

    def will(self) -> Will:
        """Return what the broker says when the connection breaks."""


class Gates:
    """Listens to the topics of gates and other numbers, and carries what somebody says.

    Args:
        monotonic: reads the clock; called on the link's thread, too.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()  # of the two below
        self._heard: dict[str, _Heard] = {}
        self._problem = ""
        self._link: Link | None = None
        self._wanted: tuple[frozenset[str], LinkOptions | None, Speaker | None] = (frozenset(), None, None)
        self._put: Callable[[HomeSaid | HomeUp], None] = _nobody

    def listen(
        self,
        gates: Sequence[Gate | Source],
        options: LinkOptions | None,
        speaker: Speaker | None = None,
        put: Callable[[HomeSaid | HomeUp], None] | None = None,
    ) -> None:
        """Listen to these topics from now on, on this broker; without any, to nothing."""
        topics = frozenset(gate.topic for gate in gates)
        wanted = (topics, options if topics or speaker else None, speaker)
        if wanted == self._wanted:
            return
        self.stop()
        self._wanted, self._put = wanted, put or _nobody
        if wanted[1] is None:
            return
        self._problem = "the broker at home is not reached yet"
        rng = random.Random(os.urandom(16))  # noqa: S311 jitter, not a secret
        try:
            subscriptions = sorted(topics.union(speaker.topics if speaker else ()))
            will = speaker.will if speaker else _no_will
            self._link = Link(wanted[1], subscriptions, self._sink, will=will, rng=rng, log=log)
        except EdgeAgentError as error:
            self._problem = error.message
            log.error("Cannot listen to the broker at home: %s", error.message, extra={"action": "home"})  # noqa: TRY400 no defect
            return
        self._link.start()

    def stop(self) -> None:
        """Listen no more, and forget what was heard."""
        link, self._link = self._link, None
        self._wanted = (frozenset(), None, None)
        if link is not None:
            link.stop(STOP_SECONDS)
        with self._lock:
            self._heard.clear()

    def publish(self, topic: str, payload: bytes) -> bool:
        """Say something that the broker is to keep; return whether there is a connection that takes it."""
        try:
            if self._link is not None:
                self._link.publish(topic, payload, retain=True)
                return True
        except EdgeAgentError as error:
            log.debug("Not said at home: %s", error.message, extra={"action": "home"})
        return False

    def read(self, gates: Sequence[Gate | Source], now: Now) -> Mapping[str, Reading]:
        """Return the reading of each gate or source, by its text."""
        with self._lock:
            heard, problem = dict(self._heard), self._problem
        return {gate.text: _reading(gate, heard.get(gate.topic), problem, now) for gate in gates}

    def _sink(self, event: LinkEvent) -> None:
        """Take note of a message; called on the link's thread."""
        speaker = self._wanted[2]
        if speaker is not None and isinstance(event, Connected):
            self._put(HomeUp())
        if speaker is not None and isinstance(event, Message) and event.topic in speaker.topics:
            self._put(HomeSaid(event.topic, event.payload[:MAX_ORDER_BYTES], event.retain))
        with self._lock:
            match event:
                case Message() if event.topic in self._wanted[0]:
                    payload = event.payload if len(event.payload) <= MAX_PAYLOAD_BYTES else b""
                    known = self._heard.get(event.topic)
                    # What the broker had kept and gives again at each connection is no newer for that.
                    if not (event.retain and known is not None and known.payload == payload):
                        self._heard[event.topic] = _Heard(payload, self._monotonic())
                case Connected():
                    self._problem = ""
                case Disconnected() | ConnectFailed():
                    self._problem = f"the broker at home is not reached: {event.reason}"
                case _:
                    pass


def _nobody(_event: HomeSaid | HomeUp) -> None:
    """Stand for nobody who wants to hear."""


def _no_will() -> None:
    """Stand for no will."""


def _reading(gate: Gate | Source, heard: _Heard | None, problem: str, now: Now) -> Reading:
    if heard is None:
        return Reading(None, problem or "nothing was said there yet", pending=True)
    age = now.monotonic - heard.at
    if age > gate.stale_seconds:
        return Reading(None, f"the last reading is {age:.0f} s old{f', and {problem}' if problem else ''}")
    found = parse_reading(heard.payload, gate.member)
    return Reading(None, found) if isinstance(found, str) else Reading(found)


def parse_reading(payload: bytes, member: Sequence[str]) -> float | str:
    """Return the number in a message, or why there is none.

    Args:
        payload: foreign bytes: a number, on or off, or a JSON object.
        member: of the object, its name part by part; none where the message is the number itself.
    """
    try:
        text = payload.decode()
        if not member:
            return _number(text)
        value = json.loads(text)
        for name in member:
            value = value[name]
        return _number(value)
    except UnicodeDecodeError:
        return "the message is no text"
    except (ValueError, RecursionError):
        return "the message is no JSON, and a member of it is asked for"
    except (KeyError, TypeError, IndexError):
        return f"the message has no member {'.'.join(member)}"


def _number(value: object) -> float | str:
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _WORDS:
            return _WORDS[text]
        value = float(text) if _NUMBER.fullmatch(text) else value
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float) and abs(value) <= 1e300 and math.isfinite(value):
        return float(value)
    return "the message is no number, nor on or off; of an object, name a member as TOPIC#MEMBER"
