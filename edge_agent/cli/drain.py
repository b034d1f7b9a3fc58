"""`edge-agent drain`: let the agent finish what it holds, then rest."""

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
        "drain",
        summary="let the agent finish what it holds, then rest",
        description="Takes nothing new on, finishes all that it holds however long that takes, then rests and frees\n"
        "the memory. Stays so over restarts. Without a span, until resume.",
        examples=("edge-agent drain", "edge-agent drain 1d"),
    )
    parser.add_argument("span", nargs="?", metavar="SPAN", help="90s, 30m, 2h, 1d; a number alone means minutes")


def run(args: argparse.Namespace) -> int:
    """Order it and say how things stand."""
    answer = ask_agent(args, "drain", seconds=None if args.span is None else span_seconds(args.span))
    return show(args, answer, [f"It {headline(answer)}.", *reason_lines(answer), *kept_lines(answer)])
