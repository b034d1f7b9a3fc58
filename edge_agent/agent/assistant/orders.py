"""What a message of the broker at home asks for, and whether that may be asked there. Pure."""

from __future__ import annotations

import math
from typing import Any

from edge_agent.agent.assistant.discovery import Control
from edge_agent.agent.policy import LIMITS, Adjustments, Pace, highest, is_looser
from edge_agent.settings import Policy

PAUSE_SECONDS = 3600.0
MAX_BYTES = 64
ORDERS = ("work", "mode", "pause", *LIMITS)
PERCENT = frozenset({"cpu_share", "max_other_cpu_share"})


def parse(what: str, payload: bytes) -> dict[str, Any] | str:
    """Return the request that a message is, as the control socket has it, or why it is none.

    Args:
        what: the last level of its topic.
        payload: foreign bytes.
    """
    text = payload[:MAX_BYTES].decode(errors="replace")
    match what, text:
        case "work", "ON":
            return {"do": "resume"}
        case "work", "OFF":
            return {"do": "pause"}
        case "pause", "PRESS":
            return {"do": "pause", "seconds": PAUSE_SECONDS}
        case "mode", _ if text in {*Pace}:
            return {"do": "adjust", "pace": text}
        case name, _ if name in LIMITS:
            return _limit(name, text)
    return f"{text[:32]!r} is nothing that {what[:32]!r} can be"


def _limit(name: str, text: str) -> dict[str, Any] | str:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    value = number / 100 if name in PERCENT else number
    limit = LIMITS[name]
    if not limit.lowest <= value <= limit.highest:
        return f"{text[:32]!r} is no value that {name} can have"
    return {"do": "adjust", name: value}


def why_not(
    request: dict[str, Any], control: Control, settings: Policy, before: Adjustments, after: Adjustments
) -> str | None:
    """Say why a request is refused, or None.

    Args:
        request: as `parse` gave it.
        control: what the owner lets be asked there.
        settings: the owner's file.
        before: what is adjusted now.
        after: what would be.
    """
    if control == "off":
        return "nothing may be asked there (home.control)"
    for name in LIMITS:
        if name in request and request[name] > highest(settings, name) + 1e-9:
            return f"{name} may not be above {highest(settings, name):g}, which your file allows"
    if control != "tighten":
        return None
    if request["do"] == "resume":
        return "it would work again, and only less may be asked there (home.control)"
    if request["do"] == "adjust" and is_looser(settings, before, after):
        return "it would allow more, and only less may be asked there (home.control)"
    return None
