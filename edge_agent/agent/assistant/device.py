"""What Home Assistant is told of this machine, from the settings and the profile."""

from __future__ import annotations

import socket

from edge_agent import __version__
from edge_agent.agent.assistant.discovery import Device
from edge_agent.agent.policy import LIMITS, highest
from edge_agent.settings import Settings


def device_of(settings: Settings, agent_id: str, model: str, *, thermometer: bool) -> Device:
    """Return the device.

    Args:
        settings: of the owner.
        agent_id: of the agent.
        model: of the board.
        thermometer: whether the CPU's temperature is known.
    """
    return Device(
        agent_id=agent_id,
        name=settings.home.name or f"edge-agent on {socket.gethostname()}"[:64],
        model=model,
        version=__version__,
        control=settings.home.control,
        thermometer=thermometer,
        highest={name: highest(settings.policy, name) for name in LIMITS},
        prefix=settings.home.discovery_prefix,
    )
