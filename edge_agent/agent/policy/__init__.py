"""The owner's rules on what, when and how much the machine works: a local veto that no coordinator can loosen. Pure."""

from edge_agent.agent.policy.allowance import Policy
from edge_agent.agent.policy.clientele import clientele, terms_of
from edge_agent.agent.policy.judge import Decision, Mode, Order, Reason, Rules, State, decide, seconds_text, tighter
from edge_agent.agent.policy.pace import (
    LIMITS,
    Adjustments,
    Pace,
    adjusted_policy,
    highest,
    is_looser,
    pace_of,
    threads_of,
)
from edge_agent.agent.policy.readings import Reading, Readings

__all__ = [
    "LIMITS",
    "Adjustments",
    "Decision",
    "Mode",
    "Order",
    "Pace",
    "Policy",
    "Reading",
    "Readings",
    "Reason",
    "Rules",
    "State",
    "adjusted_policy",
    "clientele",
    "decide",
    "highest",
    "is_looser",
    "pace_of",
    "seconds_text",
    "terms_of",
    "threads_of",
    "tighter",
]
