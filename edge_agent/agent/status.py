"""What the agent writes into its state directory about itself: for the supervisor, the demonstration and people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edge_agent.agent.planner import Planner
from edge_agent.agent.plans import Plan
from edge_agent.folders import write_atomically

STATUS_FILE = "status.json"
ANEW = (
    "the agent is stopped, agent.key in its state directory is moved away, and edge-agent enrol is run with a new "
    "token: a revoked key stays so"
)


class StatusFile:
    """Writes `status.json`, and only what is new: an idle agent says the same every minute, and cards wear out.

    Args:
        folder: the state directory.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATUS_FILE
        self._written = ""

    def write(self, status: dict[str, Any]) -> None:
        """Write it.

        Raises:
            OSError: it cannot be written; it is tried again the next time.
        """
        text = json.dumps(status, indent=1) + "\n"
        if text != self._written:
            write_atomically(self._path, text)
            self._written = text


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return what was written last, or None when there is nothing readable."""
    try:
        found: dict[str, Any] = json.loads((folder / STATUS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found


def in_a_line(status: Mapping[str, Any]) -> str:
    """Return for a service manager what the agent does: `systemctl status` shows it."""
    if status["mode"] != "work":
        return "resting; `edge-agent why` says why"
    offers = ", ".join(status["offers"])
    doing = f"serving {offers}" if offers else "serving nothing"
    return "; ".join([doing, *(obstacle["text"] for obstacle in status["obstacles"])])


def obstacles(
    planner: Planner,
    connected: bool,  # noqa: FBT001 two facts of one place
    heard: bool,  # noqa: FBT001 as above
    revoked: str | None,
    unheard: str | None = None,
) -> list[dict[str, str]]:
    """Return what keeps a machine from working that its owner lets work; the arguments are those of `standing`."""
    found = []
    if revoked is not None:
        text = f"the operator revoked this agent's key: {revoked}"
        found.append(("revoked", text, ANEW))
    if not connected:
        found.append(("no-broker", "the broker is not reached", "edge-agent doctor says what is wrong"))
    elif not heard:
        text = "no hello of the coordinator has come that is signed by the pinned key"
        found.append(("no-coordinator", text, "the coordinator starts, or edge-agent doctor says what is wrong"))
    if unheard is not None:
        change = "the operator updates the coordinator, or you take the rules on clients and labels away"
        found.append(("old-coordinator", unheard, change))
    if not planner.decided:
        found.append(("measuring", "the models are still to be measured", "a minute or two of work"))
    elif not any(plan.chosen is not None for plan in planner.plans):
        text = "no model can be served here"
        found.append(("nothing-fits", text, "edge-agent models pick --explain says why each one is not"))
    return [{"code": code, "text": text, "change": change} for code, text, change in found]


def standing(
    planner: Planner,
    connected: bool,  # noqa: FBT001 two facts of one place
    heard: bool,  # noqa: FBT001 as above
    revoked: str | None,
    unheard: str | None = None,
) -> dict[str, Any]:
    """Return what is offered and why, and what keeps a machine from working that its owner lets work.

    Args:
        planner: has the plans.
        connected: whether the broker is reached.
        heard: whether the coordinator has said hello.
        revoked: why our key counts no more, if it does not.
        unheard: why the rules on whose jobs are taken cannot be kept with this coordinator, if that is so.
    """
    return {
        "connected": connected,
        "offers": [offer.family for offer in planner.offers()],
        "families": describe(planner.plans),
        "obstacles": obstacles(planner, connected, heard, revoked, unheard),
    }


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
                "lanes": chosen.lanes if chosen else None,
                "together": chosen.together if chosen else None,
                "checked": chosen.checked if chosen else None,
                "loaded": plan.loaded,
                "lost": [{"variant": lost.variant.name, "why": lost.reason} for lost in plan.lost],
            }
        )
    return families
