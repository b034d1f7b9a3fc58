"""Feeds the service manager's watchdog from the coordinator's loop, while link and writer make progress."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from edge_agent import supervisor
from edge_agent.clock import system_now
from edge_agent.coordinator.writer import Writer
from edge_agent.mqtt import Link
from edge_agent.supervisor import Supervisor
from edge_agent.watchdog import NETWORK_PATIENCE_SECONDS, STORE_PATIENCE_SECONDS, Part

__all__ = ["STOP_SECONDS", "look_after", "supervisor"]

STOP_SECONDS = 30.0
"""Until clients are answered, what is queued is written and all is closed; told to the service manager."""


async def look_after(house: Coroutine[Any, Any, None], supervisor: Supervisor, link: Link, writer: Writer) -> None:
    """Keep house and feed the watchdog, until cancelled."""
    await asyncio.gather(house, keep_fed(supervisor, link, writer))


async def keep_fed(supervisor: Supervisor, link: Link, writer: Writer) -> None:
    """Feed for ever, or end at once where there is no watchdog; a loop that hangs feeds nothing."""
    while (due := supervisor.due) is not None:
        await asyncio.sleep(max(0.0, due - system_now().monotonic))
        parts = (
            Part("network", link.turned_at, NETWORK_PATIENCE_SECONDS),
            Part("store", writer.owes_since, STORE_PATIENCE_SECONDS),
        )
        supervisor.feed(parts, system_now().monotonic)
