"""`edge-agent why`: all reasons for which the agent rests now, and what would change each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.cli.owner import ask_agent, headline, obstacle_lines, owner_command, reason_lines, show

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    owner_command(
        subparsers,
        "why",
        summary="show why the agent rests, and what would change that",
        description="All reasons that hold now, not just the first one, each with what would change it; also what\n"
        "keeps an agent from working that its owner lets work.",
        examples=("edge-agent why", "edge-agent why --json"),
    )


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    answer = ask_agent(args, "why")
    kept = ("mode", "since_ms", "now_ms", "order", "reasons", "notes", "obstacles", "refused_rules", "clientele")
    lines = [f"It {headline(answer)}." if answer["mode"] == "rest" else "Your rules let it work."]
    lines += reason_lines(answer)
    if answer["clientele"]["text"] != "for everybody":
        lines.append(f"When it works, it works {answer['clientele']['text']}.")
    lines += obstacle_lines(answer)
    lines += [f"- passed over: {note['text']}" for note in answer["notes"]]
    if answer["refused_rules"]:
        lines.append(f"New rules were refused, the old ones hold: {answer['refused_rules']}")
    return show(args, {name: answer[name] for name in kept}, lines)
