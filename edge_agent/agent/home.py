"""The agent's end of the owner's own broker: numbers and Home Assistant. Belongs to the daemon's loop."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent.agent.asked import HomeSaid, HomeUp
from edge_agent.agent.assistant.assistant import Assistant
from edge_agent.agent.assistant.discovery import Device
from edge_agent.agent.assistant.orders import parse, why_not
from edge_agent.agent.policy import Adjustments, Rules
from edge_agent.agent.readers import Readers
from edge_agent.clock import Now
from edge_agent.mqtt import LinkOptions
from edge_agent.settings import Policy, Source

log = logging.getLogger("edge_agent.agent.home")

Adjust = Callable[[Mapping[str, Any]], Adjustments]


class Home:
    """What is said and heard at home.

    Args:
        readers: have the link.
        put: gives what is heard to the daemon's loop.
        status: says how the agent fares, as `edge-agent status --json` has it.
        latest: says which version is known in the network; empty where none is.
    """

    def __init__(
        self,
        readers: Readers,
        put: Callable[[HomeSaid | HomeUp], None],
        status: Callable[[Now], dict[str, Any]],
        latest: Callable[[], str],
    ) -> None:
        self._readers = readers
        self._put = put
        self._status = status
        self._latest = latest
        self._assistant: Assistant | None = None
        self.refused = ""
        """The last order that was refused, in words."""

    @property
    def look_at(self) -> float | None:
        """The monotonic second at which something is to be said, if any."""
        return None if self._assistant is None else self._assistant.look_at

    @property
    def tightens(self) -> bool:
        """Whether only less may be asked there."""
        return self._assistant is not None and self._assistant.device.control == "tighten"

    def listen(
        self, rules: Rules, sources: Sequence[Source], options: LinkOptions | None, device: Device | None
    ) -> None:
        """Listen and speak as these settings say from now on; who is no longer to be seen there is forgotten."""
        before = self._assistant
        if before is not None and (device is None or device.retained_topics != before.device.retained_topics):
            before.forget()
        if device is None:
            self._assistant = None
        elif before is None or before.device != device:
            self._assistant = Assistant(device, self._readers.publish, random.SystemRandom().random)
        self._readers.listen(rules, sources, options, self._assistant, self._put)

    def hurry(self, now: Now) -> None:
        """Say soon that something has changed."""
        if self._assistant is not None:
            self._assistant.hurry(now)

    def look(self, now: Now) -> None:
        """Say what is due."""
        assistant = self._assistant
        if assistant is not None and assistant.look_at is not None and assistant.look_at <= now.monotonic:
            status = self._status(now)
            memory = sum(_resident_bytes(pid) for pid in ("self", status["worker_pid"]) if pid)
            assistant.look(now, status, memory, self._latest() or assistant.device.version)

    def hear(
        self, event: HomeSaid | HomeUp, settings: Policy, before: Adjustments, adjust: Adjust, now: Now
    ) -> dict[str, Any] | None:
        """Take in what came from there; return the request that it is, if it is one that may be made.

        Args:
            event: foreign.
            settings: the owner's file.
            before: what is adjusted now.
            adjust: returns what would be after a request.
            now: the moment.
        """
        assistant = self._assistant
        if assistant is None:
            return None
        if isinstance(event, HomeUp):
            assistant.connected(now)
            return None
        what = assistant.heard(event.topic, event.payload, retained=event.retained, now=now)
        if what is None:
            return None
        request = parse(what, event.payload)
        if isinstance(request, str):
            self._refuse(what, request)
            return None
        after = adjust(request) if request["do"] == "adjust" else before
        if (why := why_not(request, assistant.device.control, settings, before, after)) is not None:
            self._refuse(what, why)
            return None
        return request

    def _refuse(self, what: str, why: str) -> None:
        self.refused = f"an order ({what}) from the broker at home was refused: {why}"
        log.warning("Refused an order from the broker at home, %s: %s", what, why, extra={"action": "home-refused"})

    def leave(self) -> None:
        """Say goodbye."""
        if self._assistant is not None:
            self._assistant.leave()


def _resident_bytes(pid: object) -> int:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return int(fields[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0
