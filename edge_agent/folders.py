"""State directories: made private, used by one process at a time, their files replaced in one piece."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edge_agent.errors import StateError

LOCK_FILE = "lock"
PATIENCE_SECONDS = 5.0
"""A process that was told to stop, or whose supervisor was killed, is gone by then."""
RETRY_SECONDS = 0.05


def make_private(folder: Path) -> Path:
    """Make a folder, for its owner alone, unless it is there.

    Raises:
        StateError: it cannot be made, or is something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StateError(
            f"the folder {folder} cannot be made: {error.strerror}",
            hint="Choose another folder; for a state directory with --state DIR.",
        ) from error
    return folder


def take(folder: Path, patience_seconds: float | None = None) -> IO[str]:
    """Make a folder ours until the returned file is closed or the process ends, however it ends.

    Two processes on one state directory have one key, and push each other off the broker again and again.

    Args:
        folder: made when it is not there.
        patience_seconds: how long another process may take to leave; `PATIENCE_SECONDS` by default.

    Raises:
        StateError: `state-in-use`; or the folder cannot be made or written to.
    """
    make_private(folder)
    try:
        lock = _open_lock(folder / LOCK_FILE)
    except OSError as error:
        raise StateError(
            f"the folder {folder} cannot be written to: {error.strerror}",
            hint="Choose another folder; for a state directory with --state DIR.",
        ) from error
    try:
        _wait_for(lock, PATIENCE_SECONDS if patience_seconds is None else patience_seconds)
    except OSError as error:
        lock.close()
        raise StateError(
            f"another process uses the state directory {folder}",
            code="state-in-use",
            hint="Choose another one with --state DIR, or stop the other process.",
        ) from error
    return lock


@contextlib.contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Let no other process that asks for the same change this file meanwhile; a file beside it is locked for that.

    Raises:
        StateError: `state-in-use`: another one does not let go of it.
        OSError: there can be no file beside it.
    """
    with _open_lock(path.with_name(f".{path.name}.lock")) as lock:
        try:
            _wait_for(lock, PATIENCE_SECONDS)
        except OSError as error:
            raise StateError(
                f"Another process uses {path}.", code="state-in-use", hint="Try again; or stop the other process."
            ) from error
        yield


def _wait_for(lock: IO[str], patience_seconds: float) -> None:
    give_up_at = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return


def _open_lock(path: Path) -> IO[str]:
    try:
        return path.open("w")
    except OSError as error:
        # Cards that wear out turn read-only. The lock needs no writing, and a file that is there is enough.
        if error.errno != errno.EROFS or not path.exists():
            raise
        return path.open()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file so that a reader sees the old or the new content, never a part.

    Raises:
        OSError: it cannot be written; the old content stays, and nothing else.
    """
    _replace(path, content, durable=False)


def write_durably(path: Path, content: str | bytes, *, secret: bool = False) -> None:
    """Replace a file as `write_atomically` does, and return only when it would survive a loss of power.

    Args:
        path: of the file.
        content: what it is to hold.
        secret: nobody but its owner may read it.

    Raises:
        OSError: it cannot be written; the old content stays, and nothing else.
    """
    _replace(path, content, durable=True, secret=secret)


def _replace(path: Path, content: str | bytes, *, durable: bool, secret: bool = False) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            if secret:
                os.fchmod(file.fileno(), 0o600)
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # on a read-only disk there is nothing to remove
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
