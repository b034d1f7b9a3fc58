"""What the agent writes into its state directory about itself: for the supervisor, the demonstration and people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_agent.agent.plans import Plan
from edge_agent.folders import write_atomically

STATUS_FILE = "status.json"


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Write `status.json`."""
    write_atomically(folder / STATUS_FILE, json.dumps(status, indent=1) + "\n")


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return what was written last, or None when there is nothing readable."""
    try:
        found: dict[str, Any] = json.loads((folder / STATUS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found


def describe(plans: Iterable[Plan]) -> list[dict[str, Any]]:
    """Return for each family what serves it and why, and why each other variant does not."""
    families = []
    for plan in plans:
        chosen = plan.chosen
        families.append(
            {
                "family": plan.family.name,
                "chosen": chosen.variant.name if chosen else None,
                "why": plan.why,
                "latency_us": chosen.p50_us if chosen else None,
                "peak_bytes": chosen.peak_bytes if chosen else None,
                "held_bytes": chosen.held_bytes if chosen else None,
                "threads": chosen.threads if chosen else None,
                "checked": chosen.checked if chosen else None,
                "loaded": plan.loaded,
                "lost": [{"variant": lost.variant.name, "why": lost.reason} for lost in plan.lost],
            }
        )
    return families
