"""What several commands build from the settings: logs, ready files."""

from __future__ import annotations

import json
import os
import secrets
import sys
from typing import TYPE_CHECKING

from edge_agent.errors import StateError, UsageError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from edge_agent.cli.parsing import Parser
    from edge_agent.models.known import Known
    from edge_agent.settings import Settings


def set_up_log(settings: Settings) -> None:
    """Send the log of this process to standard error, as the settings say."""
    from edge_agent import log  # noqa: PLC0415 only commands that log need it

    log.set_up(settings.log.level, settings.log.format)


def own_secret(path: Path) -> bytes:
    """Read a secret of 32 bytes, or make it at the first start; its file is for its owner alone.

    Raises:
        StateError: the file is there and does not hold one, or it cannot be written.
    """
    from edge_agent.folders import make_private, write_durably  # noqa: PLC0415 as above

    make_private(path.parent)
    try:
        if not path.exists():
            write_durably(path, secrets.token_bytes(32), secret=True)
        path.chmod(0o600)  # restored from a backup, it may have come open to others
        found = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path} cannot be used: {error.strerror}") from error
    if len(found) != 32:
        raise StateError(
            f"{path} does not hold a secret of 32 bytes",
            hint="Put it back from a backup. If there is none, move it away: another one is made, but the keys of past "
            "draws are lost, and who audits the draws sees other commitments than before.",
        )
    return found


def add_ready_file(parser: Parser, content: str) -> None:
    """Add `--ready-file`."""
    parser.add_argument("--ready-file", metavar="FILE", help=f"write {content} to FILE as JSON once it works")


def ready_file(args: argparse.Namespace) -> Path | None:
    """Return the file that `--ready-file` names, without what an earlier run left there.

    Raises:
        UsageError: it could not be written, which is told before anything is started.
    """
    from pathlib import Path  # noqa: PLC0415 as above

    if not args.ready_file:
        return None
    path = Path(args.ready_file)
    try:
        path.unlink(missing_ok=True)
        problem = "" if os.access(path.parent, os.W_OK) else "its folder is not there or not writable"
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        raise UsageError(f"--ready-file {path} cannot be written: {problem}.", hint="Name a file in a folder of yours.")
    return path


def write_ready_file(path: Path | None, content: dict[str, object]) -> None:
    """Write the file that `ready_file` gave, if any, in one piece.

    Raises:
        StateError: it cannot be written.
    """
    from edge_agent.folders import write_atomically  # noqa: PLC0415 as above

    if path is not None:
        try:
            write_atomically(path, json.dumps(content) + "\n")
        except OSError as error:
            raise StateError(f"the ready file {path} cannot be written: {error.strerror}") from error


def known_catalogue(settings: Settings) -> Known:
    """Return what the agent of these settings knows of models; say on standard error what is wrong with it.

    Raises:
        StateError: the program's own files are damaged.
    """
    from edge_agent.published import known_now, source_of  # noqa: PLC0415 as above

    found = known_now(source_of(settings, settings.agent.state_dir))
    complain_about(found)
    return found


def complain_about(found: Known) -> None:
    """Say on standard error what is wrong with a catalogue, if anything is."""
    if found.problem:
        print(f"note: {found.problem}; see: edge-agent models refresh --help", file=sys.stderr)
    if found.hidden:
        names = ", ".join(found.hidden)
        print(f"note: published, but not used, since built-in families have the same names: {names}", file=sys.stderr)
