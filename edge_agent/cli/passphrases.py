"""Passphrases come from a file or from the terminal: never from arguments, which others on the machine can see."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from edge_agent.errors import KeyFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_PASSPHRASE_BYTES = 1024
MIN_PASSPHRASE_BYTES = 8


def first_line(path: Path) -> bytes:
    """Return the first line of a file.

    Raises:
        KeyFileError: it cannot be read, or the line is empty or too long.
    """
    try:
        with path.open("rb") as stream:
            line = stream.readline(MAX_PASSPHRASE_BYTES + 2).rstrip(b"\r\n")
    except OSError as error:
        raise KeyFileError(f"The passphrase file {path} cannot be read: {error.strerror}.") from error
    if not 0 < len(line) <= MAX_PASSPHRASE_BYTES:
        raise KeyFileError(
            f"The first line of {path} is empty or longer than {MAX_PASSPHRASE_BYTES} bytes.",
            hint="Put the passphrase alone on the first line of the file.",
        )
    return line


def asker(file: Path | None) -> Callable[[Path], bytes | None]:
    """Return what asks for the passphrase of a key file: the given file, else the terminal, else nobody."""

    def ask(path: Path) -> bytes | None:
        if file is not None:
            return first_line(file)
        if not sys.stdin.isatty():
            return None
        return getpass.getpass(f"Passphrase of {path} (empty: go on without this key): ").encode() or None

    return ask


def new_passphrase(*, ask: bool, file: Path | None) -> bytes | None:
    """Return the passphrase for new keys, or None if none is wanted.

    Raises:
        UsageError: it is short, was typed in two ways, or there is no terminal to type it at.
        KeyFileError: as `first_line`.
    """
    if file is None and not ask:
        return None
    if file is not None:
        passphrase = first_line(file)
    elif sys.stdin.isatty():
        passphrase = getpass.getpass("New passphrase for the keys of root and targets: ").encode()
        if getpass.getpass("The same again: ").encode() != passphrase:
            raise UsageError("Those were two different passphrases.", hint="Run the command again.")
    else:
        raise UsageError("There is no terminal to ask for a passphrase at.", hint="Use --passphrase-file FILE.")
    if len(passphrase) < MIN_PASSPHRASE_BYTES:
        raise UsageError(f"The passphrase has fewer than {MIN_PASSPHRASE_BYTES} bytes.", hint="Take a longer one.")
    return passphrase
