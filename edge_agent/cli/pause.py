"""`edge-agent pause`: let the agent rest, for a while or until resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.cli.owner import ask_agent, headline, kept_lines, owner_command, reason_lines, show, span_seconds

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = owner_command(
        subparsers,
        "pause",
        summary="let the agent rest, for a while or until resume",
        description="Running jobs may finish for a few seconds (policy.grace_seconds), the others are handed back and\n"
        "go to other machines; then the memory is free. Stays so over restarts. Without a span, until resume.",
        examples=("edge-agent pause 2h", "edge-agent pause", "edge-agent pause 30m --json"),
    )
    parser.add_argument("span", nargs="?", metavar="SPAN", help="90s, 30m, 2h, 1d; a number alone means minutes")


def run(args: argparse.Namespace) -> int:
    """Order it and say how things stand."""
    answer = ask_agent(args, "pause", seconds=None if args.span is None else span_seconds(args.span))
    return show(args, answer, [f"It {headline(answer)}.", *reason_lines(answer), *kept_lines(answer)])
