"""What was adjusted beside the owner's file, kept over restarts: one small file in the state directory."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.agent.policy import LIMITS, Adjustments, Pace
from edge_agent.folders import write_durably

ADJUSTED_FILE = "adjusted.json"
MAX_FILE_BYTES = 4096


def write(folder: Path, adjusted: Adjustments) -> None:
    """Keep what was adjusted; without anything, no file.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / ADJUSTED_FILE
    if adjusted == Adjustments():
        path.unlink(missing_ok=True)
    else:
        write_durably(path, json.dumps(asdict(adjusted)) + "\n")


def read(folder: Path) -> tuple[Adjustments, str]:
    """Return what was kept, and what is wrong with the file; one that is damaged counts as quiet."""
    path = folder / ADJUSTED_FILE
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_FILE_BYTES))
        return _parsed(document), ""
    except FileNotFoundError:
        return Adjustments(), ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Adjustments(Pace.QUIET), f"{type(error).__name__}: {error}"


def _parsed(document: dict[str, Any]) -> Adjustments:
    pace = document["pace"]
    limits = {name: document[name] for name in LIMITS}
    for name, value in limits.items():
        if value is not None and not (math.isfinite(value) and LIMITS[name].lowest <= value <= LIMITS[name].highest):
            raise ValueError(f"{name} is out of its range")
    return Adjustments(None if pace is None else Pace(pace), **limits)
