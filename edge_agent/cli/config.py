"""`edge-agent config`: the effective settings, and where each came from."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_command
from edge_agent.cli.table import render

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    from edge_agent.settings import KEYS  # noqa: PLC0415 - not for `edge-agent --help` alone

    parser = new_command(
        subparsers,
        "config",
        summary="show every setting, its value and where it came from",
        description="Check the settings file, the environment and the flags, and show what is in force.\n"
        "Later ones win: defaults, file, environment, flags. Secrets are shown as (set).",
        examples=("edge-agent config", "EDGE_AGENT_LOG_LEVEL=debug edge-agent config --json"),
    )
    add_json_flag(parser, "the settings")
    add_settings(parser, *(key.dotted for key in KEYS.values() if key.flag is not None))


def run(args: argparse.Namespace) -> int:
    """Print the settings."""
    from edge_agent.settings import default_paths, plain  # noqa: PLC0415 - as above

    found = effective(args)
    if args.json:
        document = {
            "file": str(found.file) if found.file else None,
            "settings": {
                name: {"value": value, "source": found.sources[name]} for name, value in found.shown().items()
            },
        }
        print(json.dumps(document, indent=2))
        return 0
    rows = [(name, plain(found.value(name)), found.sources[name]) for name in found.sources]
    print(render(("setting", "value", "from"), rows))
    print()
    if found.file:
        print(f"Settings file: {found.file}")
    else:
        print("No settings file; looked for " + " and ".join(str(path) for path in default_paths(os.environ)))
    return 0
