"""What commands that show something share which changes: print it once, or again and again until Ctrl-C."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from edge_agent.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.cli.parsing import Parser

DEFAULT_SECONDS = 2.0
LEAST_SECONDS = 0.5
CLEAR = "\x1b[H\x1b[2J"


def add_watch(parser: Parser) -> None:
    """Add `--watch`."""
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=float,
        const=DEFAULT_SECONDS,
        help="show it again and again, so often; default: 2; ends with Ctrl-C",
    )


def show(text: Callable[[], str], watch: float | None, *, clear: bool = True) -> int:
    """Print what `text` gives.

    Args:
        text: asks and describes.
        watch: seconds between two times; None for once.
        clear: on a terminal, clear it in between; not for what programs read.

    Raises:
        UsageError: too often.
    """
    if watch is not None and not LEAST_SECONDS <= watch <= 3600:
        raise UsageError(f"--watch takes {LEAST_SECONDS:g} to 3600 seconds.")
    while True:
        found = text()
        if watch is not None and clear and sys.stdout.isatty():
            print(CLEAR, end="")
        print(found, flush=True)
        if watch is None:
            return 0
        time.sleep(watch)
