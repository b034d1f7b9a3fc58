"""Gates as settings: a number on an MQTT topic of the owner's own, and what it must be."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_GATES = 16
DEFAULT_STALE_SECONDS = 900.0
OPERATORS = (">=", "<=", ">", "<")
_SOURCE = r"(?P<topic>[^\s#+,\0]{1,200})(?:#(?P<member>[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64}){0,7}))?"
_STALE = r"(?: within (?P<stale>[1-9][0-9]{0,6}))?"
_READING = re.compile(_SOURCE + _STALE)
_GATE = re.compile(
    _SOURCE
    + r" (?P<operator>>=|<=|>|<) (?P<number>-?[0-9]{1,12}(?:\.[0-9]{1,6})?)"
    + _STALE
    + r"(?: else (?P<otherwise>open|closed))?"
)


class Source(NamedTuple):
    """Where a number is said.

    Attributes:
        text: as it was written.
        topic: of the owner's broker.
        member: of a JSON object on it, its parts; none where the message is the number itself.
        stale_seconds: what is older counts as nothing.
    """

    text: str
    topic: str
    member: tuple[str, ...]
    stale_seconds: float


def parse_source(text: str) -> Source:
    """Read `TOPIC[#MEMBER][ within SECONDS]`.

    Raises:
        ValueError: it is something else.
    """
    match = _READING.fullmatch(text)
    if match is None:
        raise ValueError("must be a topic such as `home/plug#power`, with ` within 300` behind it")
    return Source(text, match["topic"], _parts(match["member"]), float(match["stale"] or DEFAULT_STALE_SECONDS))


def source(text: str) -> str:
    """Check where a number is said."""
    parse_source(text)
    return text


def _parts(member: str | None) -> tuple[str, ...]:
    return tuple(member.split(".")) if member else ()


class Gate(NamedTuple):
    """One condition.

    Attributes:
        text: as it was written.
        topic: of the owner's broker.
        member: of a JSON object on it, its parts; none where the message is the number itself.
        operator: one of `OPERATORS`.
        number: that the reading is compared with.
        stale_seconds: a reading that is older is none.
        open_without: whether the gate is open without a reading.
    """

    text: str
    topic: str
    member: tuple[str, ...]
    operator: str
    number: float
    stale_seconds: float
    open_without: bool

    def lets(self, value: float) -> bool:
        """Return whether it is open at this reading."""
        match self.operator:
            case ">":
                return value > self.number
            case ">=":
                return value >= self.number
            case "<":
                return value < self.number
            case _:
                return value <= self.number


def parse_gate(text: str) -> Gate:
    """Read `TOPIC[#MEMBER] OPERATOR NUMBER[ within SECONDS][ else open|closed]`.

    Raises:
        ValueError: it is something else.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise ValueError("must be like `home/roof/watts > 500`, with ` within 300` or ` else open` behind it")
    return Gate(
        text=text,
        topic=match["topic"],
        member=_parts(match["member"]),
        operator=match["operator"],
        number=float(match["number"]),
        stale_seconds=float(match["stale"] or DEFAULT_STALE_SECONDS),
        open_without=match["otherwise"] == "open",
    )


def gate(text: str) -> str:
    """Check a gate."""
    parse_gate(text)
    return text
