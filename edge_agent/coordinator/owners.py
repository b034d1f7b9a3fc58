"""Whose a machine is, as far as the operator said so. Pure."""

from __future__ import annotations

from typing import Final

from edge_agent.coordinator.registry import Registry

OPERATOR: Final = "operator"
STRANGERS: Final = "?"
"""Agents that nobody vouched for: they may all be one person's."""


def owner_of(registry: Registry, agent_id: str) -> str:
    """Return the owner of an agent, `OPERATOR`, or `STRANGERS`; a name that the operator gave follows a `=`."""
    owner = registry.owners.get(agent_id)
    if owner is not None:
        return f"={owner}"
    return OPERATOR if agent_id in registry.approved else STRANGERS
