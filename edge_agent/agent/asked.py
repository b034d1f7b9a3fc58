"""What the owner asks of a running agent, for its daemon and not for its core: plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class OwnerAsked:
    """The owner asks something through the control socket.

    Attributes:
        request: as `control.parse_request` gave it.
        by: whom, for the history.
        reply: takes the answer; to be called once.
    """

    request: Mapping[str, Any]
    by: str
    reply: Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class HomeSaid:
    """A message for Home Assistant's sake came over the broker at home.

    Attributes:
        topic: one of those that were asked for.
        payload: foreign bytes.
        retained: whether the broker had kept it.
    """

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True)
class HomeUp:
    """The broker at home is reached."""


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """The owner's rules are to be read anew."""
