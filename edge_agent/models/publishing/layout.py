"""Where everything of a catalogue's repository lies, and how files get there in one piece.

    DIR/
      catalogue.json     the draft: what `publish` signs next
      repository.json    how long each role's metadata holds
      root.json          the newest root: agents and coordinators pin it
      keys/              secret keys that stay on this machine, mode 0600
      pending/           metadata that still waits for signatures
      public/            what is served, and all that is served
        metadata/        1.root.json, 1.targets.json, 1.snapshot.json, timestamp.json
        targets/         DIGEST.catalogue.json
        sha256/          models and golden files, named by their digests

Keys and drafts lie outside `public/`, so that copying or serving it gives nothing away.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.errors import DigestMismatchError, StateError
from edge_agent.folders import write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = "catalogue.json"
"""The one TUF target: everything else is named, with its digest, in it."""
BLOBS = "sha256"
"""The folder of models and golden files, below the catalogue's own address."""
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one repository's folder."""

    folder: Path

    @property
    def draft(self) -> Path:
        """The catalogue that `publish` signs next."""
        return self.folder / TARGET

    @property
    def settings(self) -> Path:
        """How long each role's metadata holds."""
        return self.folder / "repository.json"

    @property
    def pinned_root(self) -> Path:
        """The newest root, to be given to agents."""
        return self.folder / "root.json"

    @property
    def keys(self) -> Path:
        """Secret keys."""
        return self.folder / "keys"

    @property
    def pending(self) -> Path:
        """Metadata that waits for signatures."""
        return self.folder / "pending"

    @property
    def public(self) -> Path:
        """What is served."""
        return self.folder / "public"

    @property
    def metadata(self) -> Path:
        """Signed metadata."""
        return self.public / "metadata"

    @property
    def targets(self) -> Path:
        """Published catalogues."""
        return self.public / "targets"

    @property
    def blobs(self) -> Path:
        """Models and golden files."""
        return self.public / BLOBS

    def blob(self, digest: str) -> Path:
        """Return where the file with this digest is served from."""
        return self.blobs / digest

    def make(self) -> None:
        """Make all folders; those with secrets for the owner alone.

        Raises:
            StateError: one cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for private in (self.keys, self.pending):
                private.mkdir(mode=0o700, exist_ok=True)
            for served in (self.public, self.metadata, self.targets, self.blobs):
                served.mkdir(exist_ok=True)
        except OSError as error:
            raise StateError(
                f"The folder {self.folder} cannot be made: {error.strerror}.", hint="Name another folder."
            ) from error

    def take_in(self, source: Path, digest: str, size_bytes: int) -> None:
        """Copy a file to where it is served from, unless it is there; only with the right size and digest.

        Raises:
            DigestMismatchError: the bytes are others than were described; nothing is kept.
            StateError: it cannot be read, or the copy cannot be written.
        """
        goal = self.blob(digest)
        if goal.exists() and goal.stat().st_size == size_bytes:
            return
        temporary = goal.with_name(f".{digest}.{os.getpid()}")
        try:
            with temporary.open("wb") as copy:
                state, length = hashlib.sha256(), 0
                for chunk in _chunks(source):
                    state.update(chunk)
                    length += len(chunk)
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
            if (state.hexdigest(), length) != (digest, size_bytes):
                raise DigestMismatchError(
                    f"{source} has {length} bytes with the SHA-256 {state.hexdigest()}, but it is described with "
                    f"{size_bytes} bytes and {digest}.",
                    hint="Describe the file again, or give the file that was described.",
                )
            temporary.chmod(0o644)
            temporary.replace(goal)
        except OSError as error:
            raise StateError(f"{source} cannot be copied to {goal}: {error.strerror}.") from error
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one piece, through to the disk.

    Raises:
        StateError: it cannot be written; the old content stays.
    """
    try:
        write_durably(path, content)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}.") from error


def read_bytes(path: Path, limit: int) -> bytes | None:
    """Return the content of a file, or None if there is none.

    Raises:
        StateError: it cannot be read, or has more than `limit` bytes.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > limit:
        raise StateError(f"{path} has more than {limit} bytes.")
    return content


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
