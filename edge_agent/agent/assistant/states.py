"""What the state topic says, from what the agent says of itself. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edge_agent.agent.assistant.orders import PERCENT

MAX_REASONS = 16


def state(status: Mapping[str, Any], memory_bytes: int, version: str, latest: str) -> bytes:
    """Return the message.

    Args:
        status: as `edge-agent status --json` has it.
        memory_bytes: of the agent and its worker.
        version: of this agent.
        latest: that is known in the network.
    """
    account = status["account"]
    models = [family["family"] for family in status["families"] if family["chosen"]]
    celsius = status["cpu_celsius"]
    document = {
        "state": _state(status),
        "work": "OFF" if status["order"] else "ON",
        "mode": status["pace"],
        "celsius": None if celsius is None else round(celsius, 1),
        "watts": account["watts"],
        "kwh": account["kwh_ever"],
        "jobs": account["finished_ever"],
        "model": (", ".join(models) or "none")[:250],
        "memory_mb": round(memory_bytes / 1e6),
        "limits": {name: _shown(name, limit) for name, limit in status["limits"].items()},
        "version": {"installed_version": version, "latest_version": latest},
        "why": {
            "reasons": [reason["text"] for reason in status["reasons"]][:MAX_REASONS],
            "until": [reason["change"] for reason in status["reasons"]][:MAX_REASONS],
            "obstacles": [obstacle["text"] for obstacle in status["obstacles"]][:MAX_REASONS],
            "watts_source": account["watts_source"],
            "today": sum(count["finished"] for count in status["today"].values()),
            "cost_today": account["cost_today"],
            "currency": account["currency"],
        },
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _state(status: Mapping[str, Any]) -> str:
    if status["mode"] == "rest":
        return "resting"
    if status["attempts"]["running"]:
        return "working"
    return "unable" if status["obstacles"] else "ready"


def _shown(name: str, limit: Mapping[str, float | None]) -> int:
    value = limit["value"] if limit["value"] is not None else limit["highest"]
    return round((100 if name in PERCENT else 1) * (value or 0))
