"""`edge-agent resume`: take a pause or a drain back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.cli.owner import ask_agent, headline, owner_command, reason_lines, show

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    owner_command(
        subparsers,
        "resume",
        summary="take a pause or a drain back",
        description="The agent works again as its rules allow; if they do not just now, it says why.",
        examples=("edge-agent resume",),
    )


def run(args: argparse.Namespace) -> int:
    """Order it and say how things stand."""
    answer = ask_agent(args, "resume")
    first = "The order is taken back."
    if answer["mode"] == "rest":
        return show(args, answer, [first, f"It still {headline(answer)}.", *reason_lines(answer)])
    return show(args, answer, [f"{first} Your rules let it work."])
