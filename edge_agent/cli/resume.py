"""`edge-agent resume`: take a pause or a drain back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.cli.owner import ask_agent, headline, kept_lines, owner_command, reason_lines, show

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
    lines = ["The order is taken back. Your rules let it work."]
    if answer["mode"] == "rest":
        lines = ["The order is taken back.", f"It still {headline(answer)}.", *reason_lines(answer)]
    return show(args, answer, [*lines, *kept_lines(answer)])
