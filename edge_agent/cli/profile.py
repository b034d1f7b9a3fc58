"""`edge-agent profile`: what this machine is, and what it can carry right now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, new_command
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "profile",
        summary="show what this machine is and what it can carry",
        description="Read the machine and print what it is: board, CPUs, memory, accelerators, heat, power.\n"
        "Nothing is guessed: what cannot be known is null, with the reason under `unknown`.\n"
        "Every field is explained in docs/profile.md.",
        examples=("edge-agent profile", "edge-agent profile --json", "edge-agent profile --root /mnt/card"),
    )
    add_json_flag(parser, "the whole profile")
    parser.add_argument("--root", metavar="DIR", default="/", help="a tree laid out like a root file system")


def run(args: argparse.Namespace) -> int:
    """Print the profile."""
    from pathlib import Path  # noqa: PLC0415 the parser of every command imports this module

    from hardware import profile  # noqa: PLC0415 as above

    root = Path(args.root)
    if not root.is_dir():
        raise UsageError(f"--root {args.root} is not a folder.")
    found = profile(root)
    print(json.dumps(found.to_dict(), indent=None if args.json else 1))
    return 0
