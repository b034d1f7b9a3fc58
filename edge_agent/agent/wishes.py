"""The owner's wishes on which variants and families are served, as the settings say them."""

from __future__ import annotations

from edge_agent.models.selection import Rules, Weights
from edge_agent.settings import Settings, pairs


def rules(settings: Settings) -> Rules:
    """Return what the choice between variants goes by; a weight that is not named counts nothing."""
    named = dict(pairs(settings.agent.weights))
    weights = Weights(*(named.get(name, 0.0) for name in ("quality", "speed", "memory", "energy")))
    return Rules(weights, settings.agent.max_quality_drop_share)


def values(settings: Settings) -> tuple[tuple[str, float], ...]:
    """Return what families are worth, by patterns of their names."""
    return pairs(settings.agent.values)
