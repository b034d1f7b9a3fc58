"""Verified model files: the only way from a catalogue entry to bytes that may be loaded.

What `open_variant` returns is a descriptor of the very file whose bytes were hashed; a path could name
another file a moment later. The worker loads `/proc/self/fd/N`. A file that someone changes in place
afterwards is beyond what a descriptor can show: the folder must be writable by nobody who is not trusted
with the agent.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_agent.errors import DigestMismatchError, StateError
from edge_agent.models.catalogue import BUILTIN_DIR, MAX_GOLDEN_BYTES, Variant
from edge_agent.models.content import Content
from edge_agent.models.golden import Case, decode_cases

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_CHUNK_BYTES = 1024 * 1024
_FETCH_AGAIN = "Fetch the model with `edge-agent models pull`; what comes with the program, by installing it again."


class Store:
    """The files that are on this machine: fetched ones by digest, then folders with files by name, in their order.

    Args:
        roots: the folders; by default the one that comes with the program.
        content: where fetched files are, if there is such a place.
    """

    def __init__(self, roots: Sequence[Path] = (BUILTIN_DIR,), content: Content | None = None) -> None:
        self._roots = tuple(roots)
        self._content = content

    @property
    def readable(self) -> tuple[str, ...]:
        """The folders that hold models and nothing else, absolute: what a worker has to be able to read."""
        content = self._content
        folders = [*([] if content is None else [content.folder, content.optimised_folder]), *self._roots]
        return tuple(os.path.abspath(folder) for folder in folders)  # noqa: PTH100 - links are left to who opens it

    def has(self, variant: Variant) -> bool:
        """Whether the files of a variant are here, golden ones included; what is in them is not looked at."""
        files = [(variant.file, variant.digest)]
        if variant.golden is not None:
            files.append((variant.golden.file, variant.golden.digest))
        return all(self._look_for(name, digest) is not None for name, digest in files)

    def touch(self, variant: Variant) -> None:
        """Note that a variant is used now, though its file is not opened."""
        if self._content is not None:
            self._content.touch(variant.digest)

    def path_of(self, variant: Variant) -> Path:
        """Return where the variant's file lies, for people and logs.

        Only `open_variant` says whether it is the right file.

        Raises:
            StateError: no folder of the store has it.
        """
        return self._find(variant.file, variant.digest)

    def open_variant(self, variant: Variant) -> int:
        """Return a read-only descriptor, at offset 0, of a file that has the variant's size and digest.

        The caller closes it. It is not inherited by child processes unless it is passed to them.

        Raises:
            StateError: there is no such file, or it is a symbolic link, a folder, a pipe or unreadable.
            DigestMismatchError: its size or its bytes are not the catalogue's.
        """
        descriptor = _open_verified(self._find(variant.file, variant.digest), variant.size_bytes, variant.digest)
        if self._content is not None:
            self._content.touch(variant.digest)
        return descriptor

    def golden_cases(self, variant: Variant) -> tuple[Case, ...]:
        """Return the variant's golden cases, read from a file of the right size and digest.

        Raises:
            StateError, DigestMismatchError: as for `open_variant`.
            MalformedError: the catalogue vouches for a file that is not a golden file.
        """
        return decode_cases(self.golden_file(variant))

    def golden_file(self, variant: Variant) -> bytes:
        """Return the content of the variant's golden file, which has the right size and digest.

        Raises:
            StateError, DigestMismatchError: as for `open_variant`.
        """
        golden = variant.golden
        if golden is None:
            raise StateError(
                f"The catalogue has no known answers for {variant.name}, so its outputs cannot be checked.",
                hint="Choose another variant, or publish this one with answers.",
            )
        with _closing(
            _open_verified(self._find(golden.file, golden.digest), golden.size_bytes, golden.digest)
        ) as descriptor:
            return _read_all(descriptor, MAX_GOLDEN_BYTES)

    def _look_for(self, name: str, digest: str) -> Path | None:
        folders = [] if self._content is None else [self._content.path(digest)]
        # lexists: a dangling link must be refused when it is opened, not passed over.
        return next(
            (path for path in (*folders, *(root / name for root in self._roots)) if os.path.lexists(path)), None
        )

    def _find(self, name: str, digest: str) -> Path:
        path = self._look_for(name, digest)
        if path is None:
            roots = self._roots if self._content is None else (self._content.root, *self._roots)
            searched = ", ".join(str(root) for root in roots)
            raise StateError(f"There is no model file {name} in {searched}.", hint=_FETCH_AGAIN)
        return path


def _open_verified(path: Path, size_bytes: int, digest: str) -> int:
    descriptor = _open_regular(path)
    try:
        _verify(path, descriptor, size_bytes, digest)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _verify(path: Path, descriptor: int, size_bytes: int, digest: str) -> None:
    before = os.fstat(descriptor)
    _check_size(path, before.st_size, size_bytes)
    found, length = _digest(descriptor, size_bytes)
    _check_size(path, length, size_bytes)
    if found != digest:
        raise DigestMismatchError(
            f"The file {path} has the SHA-256 {found[:16]}… but the catalogue says {digest[:16]}…."
        )
    after = os.fstat(descriptor)
    if (before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns):
        raise DigestMismatchError(f"The file {path} was changed while it was read.")


def _open_regular(path: Path) -> int:
    """Open `path` if it is a regular file itself; never follow a link, never wait for a pipe's writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        what = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be opened: {error.strerror}"
        raise StateError(f"The file {path} {what}.", hint=_FETCH_AGAIN) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StateError(f"{path} is not a regular file.", hint=_FETCH_AGAIN)
    return descriptor


def _check_size(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise DigestMismatchError(f"The file {path} has {found} bytes but the catalogue says {expected}.")


def _digest(descriptor: int, limit: int) -> tuple[str, int]:
    """Return the SHA-256 and the number of the bytes read, at most one chunk more than `limit`."""
    state, length = hashlib.sha256(), 0
    while length <= limit and (chunk := os.read(descriptor, _CHUNK_BYTES)):
        state.update(chunk)
        length += len(chunk)
    return state.hexdigest(), length


def _read_all(descriptor: int, limit: int) -> bytes:
    parts, length = [], 0
    while length <= limit and (chunk := os.read(descriptor, _CHUNK_BYTES)):
        parts.append(chunk)
        length += len(chunk)
    return b"".join(parts)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
