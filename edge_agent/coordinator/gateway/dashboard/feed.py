"""The live stream: one look at the coordinator for all browsers together, and only what changed since the last one.

Nobody looks while nobody watches. A browser that reads too slowly loses no truth: it gets the whole state anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

from edge_agent.coordinator.gateway.pages import agent_row, difference, latest_jobs, overview
from edge_agent.coordinator.registry import Presence
from edge_agent.coordinator.rows import StoredAgent
from edge_agent.coordinator.service import Service
from edge_agent.errors import EdgeAgentError

log = logging.getLogger("edge_agent.coordinator")

LOOK_SECONDS: Final = 0.5
STORED_SECONDS: Final = 2.0
"""So often the database is asked who is known; at once when somebody new came or the operator did something."""
ALIVE_SECONDS: Final = 15.0
"""A stream that is silent for longer may be cut by what is between."""
MAX_WAITING: Final = 4
"""So many messages may wait for a browser."""
MAX_VIEWERS: Final = 64
MAX_AGENTS: Final = 1000
"""So many machines are shown live; those that are online first."""


class Viewer:
    """A browser that watches."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)
        self.behind = True

    def put(self, message: bytes | None) -> None:
        """Give it a message, or mark it as behind."""
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.behind = True


class Feed:
    """Looks at the coordinator and tells the viewers.

    Args:
        service: the coordinator.
        look_seconds: how often.
    """

    def __init__(self, service: Service, look_seconds: float = LOOK_SECONDS) -> None:
        self._service = service
        self._look_seconds = look_seconds
        self._viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._stored: list[StoredAgent] = []
        self._stored_at = float("-inf")
        self._newcomers = -1
        self._state: dict[str, Any] = {"overview": {}, "agents": {}, "jobs": {}}
        self._silent_since = 0.0
        self._failed = ""

    def close(self) -> None:
        """End every stream, so that the coordinator can."""
        self._closed = True
        for viewer in self._viewers:
            while not viewer.queue.empty():
                viewer.queue.get_nowait()
            viewer.put(None)
        if self._task is not None:
            self._task.cancel()

    def refresh(self) -> None:
        """Ask the database again at the next look."""
        self._stored_at = float("-inf")

    async def stream(self) -> AsyncGenerator[bytes]:
        """Give the messages of one viewer: the whole state, then changes."""
        if self._closed or len(self._viewers) >= MAX_VIEWERS:
            return
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            await self._try_to_look()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())
            while (message := await viewer.queue.get()) is not None:
                yield message
        finally:
            self._viewers.discard(viewer)

    async def _run(self) -> None:
        while self._viewers:
            await asyncio.sleep(self._look_seconds)
            await self._try_to_look()

    async def _try_to_look(self) -> None:
        """Look; where the database cannot be read for a while, no viewer is left alone with what it was told last."""
        try:
            await self.look()
            self._failed = ""
        except EdgeAgentError as error:
            self.refresh()
            if error.message != self._failed:  # once, not at each look
                log.warning("%s", error.message, extra={"action": "dashboard-look", "code": error.error_code})
            self._failed = error.message

    async def look(self) -> None:
        """Look, and tell each viewer what it does not know yet.

        Raises:
            StateError: the database cannot be read.
        """
        now = self._service.operations.clock().monotonic
        observed = self._service.observed
        if observed.newcomers != self._newcomers or now >= self._stored_at + STORED_SECONDS:
            self._newcomers, self._stored_at = observed.newcomers, now
            self._stored = list(await self._service.operations.stored_agents())
        began = time.thread_time()
        self._tell(now)
        observed.dashboard_seconds.inc(time.thread_time() - began)

    def _tell(self, now: float) -> None:
        before, self._state = self._state, self._look_now()
        delta = {
            "overview": difference(before["overview"], self._state["overview"]),
            "agents": _changed_rows(before["agents"], self._state["agents"]),
            "gone": [agent_id for agent_id in before["agents"] if agent_id not in self._state["agents"]],
            "jobs": difference(before["jobs"], self._state["jobs"]),
        }
        delta = {name: value for name, value in delta.items() if value}
        told = _message("change", delta) if delta else None
        if told is None and now >= self._silent_since + ALIVE_SECONDS:
            told = b": still here\n\n"
        if told is not None:
            self._silent_since = now
        whole: bytes | None = None
        for viewer in list(self._viewers):
            if viewer.behind:
                if not viewer.queue.empty():  # it has not taken what waits: it gets the newest when it has
                    continue
                whole = whole or _message("whole", self._state)
                viewer.behind = False
                viewer.put(whole)
            elif told is not None:
                viewer.put(told)

    def _look_now(self) -> dict[str, Any]:
        service, operations, stored = self._service, self._service.operations, self._stored
        live, orders = operations.registry.agents, operations.registry.orders
        if len(stored) > MAX_AGENTS:
            stored = sorted(stored, key=lambda agent: not _online(live.get(agent.id)))[:MAX_AGENTS]
        summary = overview(service.observed, operations.live_jobs(), connected=service.ready, network=service.network)
        summary["agents_left_out"] = len(self._stored) - len(stored)
        return {
            "overview": summary,
            "agents": {a.id: agent_row(a, live.get(a.id), orders, operations.trust_in(a.id)) for a in stored},
            "jobs": latest_jobs(service.observed),
        }


def _online(agent: Any) -> bool:  # noqa: ANN401 an agent or nothing
    return agent is not None and agent.presence is Presence.ONLINE


def _changed_rows(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    changed = {}
    for agent_id, row in after.items():
        old = before.get(agent_id)
        if old is None:
            changed[agent_id] = row
        elif old != row:
            changed[agent_id] = difference(old, row)
    return changed


def _message(kind: str, body: dict[str, Any]) -> bytes:
    """Make a server-sent event (HTML standard, 9.2)."""
    return f"event: {kind}\ndata: {json.dumps(body, separators=(',', ':'), allow_nan=False)}\n\n".encode()
