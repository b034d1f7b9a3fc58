"""`edge-agent history`: when the agent rested and worked, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.cli.owner import ask_agent, clock, owner_command, show
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = owner_command(
        subparsers,
        "history",
        summary="show when the agent rested and worked, and why",
        description="The last changes between work and rest, newest first, with who or what made them and all reasons\n"
        "that held. The last 200 are kept, over restarts, too.",
        examples=("edge-agent history", "edge-agent history --count 100 --json"),
    )
    parser.add_argument("--count", metavar="N", type=int, default=20, help="so many, at most 200; default: 20")


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    if not 1 <= args.count <= 200:
        raise UsageError("--count must be 1 to 200.")
    answer = ask_agent(args, "history", count=args.count)
    lines = []
    for entry in answer["transitions"]:
        works = entry.get("works", "for everybody")  # an agent of before an upgrade does not say it
        whom = "" if works == "for everybody" else f" ({works})"
        lines.append(f"{clock(entry['at_ms'])}  {entry['mode']}, by {entry['by']}{whom}")
        lines += [f"  - {reason['text']}" for reason in entry["reasons"]]
    return show(args, answer, lines or ["It has worked all the time."])
