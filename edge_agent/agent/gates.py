"""Readings of gates from the owner's own broker: a link that only listens, and the last message of each topic.

Whatever comes over it decides about these gates and about nothing else: there is no topic for orders.
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

from edge_agent.agent.policy import Reading
from edge_agent.clock import Now
from edge_agent.errors import EdgeAgentError
from edge_agent.mqtt import Connected, ConnectFailed, Disconnected, Link, LinkEvent, LinkOptions, Message
from edge_agent.settings import Gate

MAX_PAYLOAD_BYTES = 64 * 1024
STOP_SECONDS = 0.5
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_WORDS = {"on": 1.0, "true": 1.0, "off": 0.0, "false": 0.0}
"""What home automation says in place of 1 and 0."""

log = logging.getLogger("edge_agent.agent.home")


@dataclass(frozen=True, slots=True)
class _Heard:
    payload: bytes
    at: float


class Gates:
    """Listens to the topics of gates.

    Args:
        monotonic: reads the clock; called on the link's thread, too.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()  # of the two below
        self._heard: dict[str, _Heard] = {}
        self._problem = ""
        self._link: Link | None = None
        self._wanted: tuple[frozenset[str], LinkOptions | None] = (frozenset(), None)

    def listen(self, gates: Sequence[Gate], options: LinkOptions | None) -> None:
        """Listen to these gates' topics from now on, on this broker; without gates, to nothing."""
        topics = frozenset(gate.topic for gate in gates)
        wanted = (topics, options if topics else None)
        if wanted == self._wanted:
            return
        self.stop()
        self._wanted = wanted
        if wanted[1] is None:
            return
        self._problem = "the broker at home is not reached yet"
        rng = random.Random(os.urandom(16))  # noqa: S311 jitter, not a secret
        try:
            self._link = Link(wanted[1], sorted(topics), self._sink, will=lambda: None, rng=rng, log=log)
        except EdgeAgentError as error:
            self._problem = error.message
            log.error("Cannot listen to the broker at home: %s", error.message, extra={"action": "home"})  # noqa: TRY400 no defect
            return
        self._link.start()

    def stop(self) -> None:
        """Listen no more, and forget what was heard."""
        link, self._link = self._link, None
        self._wanted = (frozenset(), None)
        if link is not None:
            link.stop(STOP_SECONDS)
        with self._lock:
            self._heard.clear()

    def read(self, gates: Sequence[Gate], now: Now) -> Mapping[str, Reading]:
        """Return the reading of each gate, by its text."""
        with self._lock:
            heard, problem = dict(self._heard), self._problem
        return {gate.text: _reading(gate, heard.get(gate.topic), problem, now) for gate in gates}

    def _sink(self, event: LinkEvent) -> None:
        """Take note of a message; called on the link's thread."""
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


def _reading(gate: Gate, heard: _Heard | None, problem: str, now: Now) -> Reading:
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
