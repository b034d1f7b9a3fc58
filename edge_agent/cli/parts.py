"""What several commands build from the settings: logs, keys, ready files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from edge_agent.cli.parsing import Parser
    from edge_agent.settings import Settings
    from edge_agent.wire.keys import SigningKey


def set_up_log(settings: Settings) -> None:
    """Send the log of this process to standard error, as the settings say."""
    from edge_agent import log  # noqa: PLC0415 only commands that log need it

    log.set_up(settings.log.level, settings.log.format)


def own_key(path: Path) -> SigningKey:
    """Read our key, or make it at the first start, with the public half beside it.

    Raises:
        KeyFileError: the file is there and is not a key, or it cannot be written.
    """
    from edge_agent.wire.keys import SigningKey  # noqa: PLC0415 as above

    if path.exists():
        return SigningKey.from_file(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = SigningKey.generate()
    key.write(path)
    public = path.with_suffix(".pub")
    if not public.exists():
        key.public.write(public)
    return key


def add_ready_file(parser: Parser, content: str) -> None:
    """Add `--ready-file`."""
    parser.add_argument("--ready-file", metavar="FILE", help=f"write {content} to FILE as JSON once it works")


def write_ready_file(args: argparse.Namespace, content: dict[str, object]) -> None:
    """Write the file that `--ready-file` names, if it was given, in one piece."""
    if args.ready_file:
        from pathlib import Path  # noqa: PLC0415 as above

        path = Path(args.ready_file)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(json.dumps(content) + "\n")
        temporary.replace(path)
