"""What the agent writes into its state directory about itself: for the supervisor, the demonstration and people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
