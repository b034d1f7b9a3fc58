"""The content-addressed store: each file under the SHA-256 of its bytes, put there whole or not at all.

    sha256/ab/abcd…     a file whose bytes have that digest, read-only, made durable before it got its name
    partial/abcd…       what has come of a file so far; never looked at by who loads models
    pins/abcd…          an empty file: this one is never evicted
    optimised/abcd….*   what was made of the model with that digest on this machine (`optimised`); goes with it
    optimised/*.part    what is being made there: locked by whoever makes it, and waste if nobody holds the lock

A name below `sha256/` appears only by renaming a file that was hashed and synced, so that a power cut leaves either the
whole file or none. Who loads a model hashes it again (`store`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import ResourceError, StateError
from edge_agent.folders import make_private

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FOLDERS = ("sha256", "partial", "pins", "optimised")
_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the store; `used` is the Unix time at which it was last loaded or put there."""

    digest: str
    size_bytes: int
    used: float
    pinned: bool


class Content:
    """A folder of files by digest.

    Args:
        root: made private when something is put into it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def folder(self) -> Path:
        """Where whole files are, and nothing else."""
        return self.root / "sha256"

    def prepare(self) -> None:
        """Make the folders, if they can be made: a worker can only be told to read what is there when it starts."""
        with contextlib.suppress(StateError, ResourceError):
            self._make_folders()

    def path(self, digest: str) -> Path:
        """Return where the file with this digest lies, or would.

        Raises:
            ValueError: it is not 64 hexadecimal digits: it could lead out of the folder.
        """
        return self.folder / _checked(digest)[:2] / digest

    def has(self, digest: str, size_bytes: int | None = None) -> bool:
        """Whether there is a regular file under this digest, of this size; its bytes are not read."""
        try:
            status = self.path(digest).lstat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and size_bytes in {None, status.st_size}

    def changed_at(self) -> int:
        """Return when a file was last put here or removed, in nanoseconds of the file system's clock; 0 if never."""
        folder = self.root / "sha256"
        with contextlib.suppress(OSError):
            return max(path.stat().st_mtime_ns for path in (folder, *folder.iterdir()))
        return 0

    def entries(self) -> list[Entry]:
        """Return all files, the one used longest ago first."""
        pins = self.pins()
        found = []
        for digest, status in self._files("sha256/*"):
            found.append(Entry(digest, status.st_size, status.st_mtime, digest in pins))
        return sorted(found, key=lambda entry: (entry.used, entry.digest))

    def partials(self) -> list[tuple[str, int, float]]:
        """Return (digest, bytes so far, Unix time of the last byte) of what is not whole yet."""
        return [(digest, status.st_size, status.st_mtime) for digest, status in self._files("partial")]

    def _files(self, pattern: str) -> Iterator[tuple[str, os.stat_result]]:
        for folder in sorted(self.root.glob(pattern)):
            with contextlib.suppress(OSError):
                for path in sorted(folder.iterdir()):
                    if _DIGEST.fullmatch(path.name):
                        with contextlib.suppress(OSError):  # it went away meanwhile
                            yield path.name, path.lstat()

    def used_bytes(self) -> int:
        """Return what all files take, unfinished and optimised ones included."""
        whole = sum(entry.size_bytes for entry in self.entries())
        return whole + sum(size for _, size, _ in self.partials()) + sum(self.optimised().values())

    def free_bytes(self) -> int:
        """Return what an ordinary user may still write to the disk of the store."""
        folder = next(parent for parent in (self.root, *self.root.parents) if parent.exists())
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize

    # -- pins and use ---------------------------------------------------------------------------------------------

    def pins(self) -> set[str]:
        """Return the digests that are never evicted, whether their files are there or not."""
        with contextlib.suppress(OSError):
            return {path.name for path in (self.root / "pins").iterdir() if _DIGEST.fullmatch(path.name)}
        return set()

    def pin(self, digest: str) -> None:
        """Never evict this file.

        Raises:
            StateError: the store cannot be written.
        """
        _checked(digest)
        self._make_folders()
        with self._explained("pinned"):
            (self.root / "pins" / digest).touch()

    def unpin(self, digest: str) -> None:
        """Let this file be evicted again."""
        with self._explained("unpinned"):
            (self.root / "pins" / _checked(digest)).unlink(missing_ok=True)

    def touch(self, digest: str) -> None:
        """Note that a file is used now; a store that cannot be written forgets it."""
        with contextlib.suppress(OSError):
            os.utime(self.path(digest))

    # -- optimised models -----------------------------------------------------------------------------------------

    @property
    def optimised_folder(self) -> Path:
        """Where models are as onnxruntime has optimised them, and nothing else."""
        return self.root / "optimised"

    def optimised_path(self, digest: str) -> Path:
        """Return where the optimised copy of a model lies, or would.

        Raises:
            ValueError: it is no digest.
        """
        return self.optimised_folder / f"{_checked(digest)}.ort"

    def optimised(self) -> dict[str, int]:
        """Return the bytes that the optimised copy of each model takes, by its digest; "" for what is unfinished."""
        found: dict[str, int] = {}
        with contextlib.suppress(OSError):
            for path in self.optimised_folder.iterdir():
                digest = path.name.partition(".")[0]
                with contextlib.suppress(OSError):  # it went away meanwhile
                    name = digest if _DIGEST.fullmatch(digest) else ""
                    found[name] = found.get(name, 0) + path.lstat().st_size
        return found

    def make_optimised(self) -> Path:
        """Make the folder of optimised copies, and return it.

        Raises:
            StateError: the store cannot be written.
        """
        self._make_folders()
        return self.optimised_folder

    def new_optimised(self) -> tuple[int, Path]:
        """Return a descriptor of a new file for what is to become an optimised copy, and the file's name.

        The name is nobody else's. As long as the descriptor is open, here or in a process that has it from here, the
        file stays; afterwards `remove_abandoned` takes it away.

        Raises:
            OSError, StateError: the store cannot be written.
        """
        path = self.make_optimised() / f"making-{secrets.token_hex(8)}.part"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor, path

    def remove_abandoned(self, *, dry_run: bool = False) -> int:
        """Take away what killed processes left of copies that they made; return the bytes, also if it only would."""
        freed = 0
        with contextlib.suppress(OSError):
            for path in self.optimised_folder.glob("*.part"):
                with contextlib.suppress(OSError):  # it is being made, or went away meanwhile
                    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        size = os.fstat(descriptor).st_size
                        if not dry_run:
                            path.unlink()
                        freed += size
                    finally:
                        os.close(descriptor)
        return freed

    def remove_optimised(self, digest: str) -> None:
        """Take the optimised copy of a model away.

        Raises:
            StateError: the store cannot be written.
        """
        path = self.optimised_path(digest)
        with self._explained("removed"):
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)

    # -- changes --------------------------------------------------------------------------------------------------

    def remove(self, digest: str) -> None:
        """Take a file away, and what has come of it so far."""
        with self._explained("removed"):
            self.path(digest).unlink(missing_ok=True)
            (self.root / "partial" / digest).unlink(missing_ok=True)
        self.remove_optimised(digest)

    @contextlib.contextmanager
    def incoming(self, digest: str) -> Iterator[Incoming]:
        """Give the unfinished file of this digest, with what had come before; one process at a time.

        Raises:
            StateError: `state-in-use`: another process is fetching it; or the store cannot be written.
        """
        _checked(digest)
        self._make_folders()
        path = self.root / "partial" / digest
        with self._explained("opened"):
            # Never through a link, and never a file that somebody else may read while it is not checked.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StateError(
                    f"Another process is fetching {digest[:12]}….",
                    code="state-in-use",
                    hint="Wait for it, or stop it: what it has got so far is kept.",
                ) from error
            # Between opening and locking, the file may have got its name, or been removed, by who had the lock.
            if not same_file(descriptor, path):
                raise StateError(
                    f"Another process has just finished fetching {digest[:12]}….",
                    code="state-in-use",
                    hint="Try again.",
                )
            yield Incoming(self, digest, descriptor, path)
        finally:
            os.close(descriptor)

    def _make_folders(self) -> None:
        make_private(self.root)
        for name in _FOLDERS:
            make_private(self.root / name)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateError(
                f"A file of the model store {self.root} cannot be {what}: {error.strerror}.",
                hint="Look at the disk (full? read-only?) and at who owns the folder, or set `models.dir`.",
            ) from error


class Incoming:
    """A file on its way into the store.

    Args:
        content: the store.
        digest: that the whole file must have.
        descriptor: of the unfinished file, locked.
        path: of it.
    """

    def __init__(self, content: Content, digest: str, descriptor: int, path: Path) -> None:
        self.digest = digest
        self._content = content
        self._descriptor = descriptor
        self._path = path

    @property
    def size_bytes(self) -> int:
        """What has come so far."""
        return os.fstat(self._descriptor).st_size

    def blocks(self, block_bytes: int = 1024 * 1024) -> Iterator[bytes]:
        """Give what has come so far, from the start."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while block := os.read(self._descriptor, block_bytes):
            yield block

    def append(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            ResourceError: `disk-full`.
            StateError: the disk cannot be written.
        """
        try:
            os.lseek(self._descriptor, 0, os.SEEK_END)
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            if error.errno in _OUT_OF_SPACE:
                raise ResourceError(
                    f"The disk of {self._content.root} is full.",
                    code="disk-full",
                    hint="Make room with `edge-agent models gc` or elsewhere on the disk, or set `models.dir`.",
                ) from error
            raise StateError(
                f"A model cannot be written to {self._content.root}: {error.strerror}.", hint="Look at the disk."
            ) from error

    def restart(self) -> None:
        """Throw away what has come so far."""
        os.ftruncate(self._descriptor, 0)

    def discard(self) -> None:
        """Remove the unfinished file."""
        self._path.unlink(missing_ok=True)

    def finish(self) -> Path:
        """Give the file its name; the caller vouches for size and digest of all `blocks`.

        Raises:
            StateError: the disk refuses; then there is no file under that name.
        """
        target = self._content.path(self.digest)
        try:
            os.fsync(self._descriptor)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            self._path.replace(target)
            # Only now: a part that nobody may write could not be gone on with after a crash in between.
            os.fchmod(self._descriptor, 0o400)
            os.utime(target, (time.time(), time.time()))
            for folder in (target.parent, target.parent.parent):
                _sync_folder(folder)
        except OSError as error:
            raise StateError(
                f"A model cannot be put into {self._content.root}: {error.strerror}.", hint="Look at the disk."
            ) from error
        return target


def same_file(descriptor: int, path: Path) -> bool:
    """Whether what is open is what has this name."""
    try:
        there = path.lstat()
    except OSError:
        return False
    ours = os.fstat(descriptor)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"not a SHA-256 in lowercase hexadecimal: {digest[:80]!r}")
    return digest


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
