from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_agent.errors import DigestMismatchError, MalformedError, StateError
from edge_agent.models import store as store_module
from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.models.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge_agent.models.catalogue import Variant

VARIANT = builtin().family("digits").variants[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a private copy of the built-in folder, to damage."""
    return Path(shutil.copytree(BUILTIN_DIR, tmp_path / "models"))


def _open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> Iterator[None]:
    """Whatever a test does, a refused file leaves no open descriptor behind."""
    before = _open_descriptors()
    yield
    assert _open_descriptors() <= before


def _refused(folder: Path, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Store([folder]).open_variant(VARIANT)


@pytest.mark.parametrize("variant", builtin().family("digits").variants, ids=lambda variant: variant.name)
def test_a_good_file_is_opened_at_its_start_and_read_only(variant: Variant) -> None:
    """The descriptor gives the bytes that were promised, and cannot write them."""
    descriptor = Store().open_variant(variant)
    try:
        data = os.read(descriptor, variant.size_bytes + 1)
        assert hashlib.sha256(data).hexdigest() == variant.digest
        assert not os.get_inheritable(descriptor)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


def test_a_file_replaced_after_opening_is_not_what_the_worker_loads(folder: Path) -> None:
    """The descriptor stays with the file that was hashed, whatever the path names later."""
    descriptor = Store([folder]).open_variant(VARIANT)
    try:
        (folder / "evil").write_bytes(b"x" * VARIANT.size_bytes)
        (folder / "evil").rename(folder / VARIANT.file)
        data = Path(f"/proc/self/fd/{descriptor}").read_bytes()
    finally:
        os.close(descriptor)
    assert hashlib.sha256(data).hexdigest() == VARIANT.digest


@pytest.mark.parametrize("place", [0, VARIANT.size_bytes // 2, VARIANT.size_bytes - 1])
def test_one_changed_bit_is_refused(folder: Path, place: int) -> None:
    """At the start, in the middle and at the end."""
    path = folder / VARIANT.file
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    _refused(folder, DigestMismatchError, "SHA-256")


@pytest.mark.parametrize("change", [-VARIANT.size_bytes, -1, 1, 10_000_000])
def test_a_cut_or_grown_file_is_refused_by_its_size(folder: Path, change: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reading a byte of it: the size comes first."""
    os.truncate(folder / VARIANT.file, VARIANT.size_bytes + change)
    monkeypatch.setattr(store_module, "_digest", lambda *_: pytest.fail("it was read"))
    _refused(folder, DigestMismatchError, "bytes but the catalogue says")


def test_a_symbolic_link_is_refused_even_to_the_right_file(folder: Path, tmp_path: Path) -> None:
    """What a link names can be exchanged by who owns the other end."""
    (folder / VARIANT.file).rename(tmp_path / "real")
    (folder / VARIANT.file).symlink_to(tmp_path / "real")
    _refused(folder, StateError, "symbolic link")


def test_a_dangling_link_is_refused_and_not_passed_over(folder: Path) -> None:
    """Another folder's file does not stand in for it."""
    (folder / VARIANT.file).unlink()
    (folder / VARIANT.file).symlink_to("nowhere")
    with pytest.raises(StateError, match="symbolic link"):
        Store([folder, BUILTIN_DIR]).open_variant(VARIANT)


def test_a_pipe_is_refused_without_waiting(folder: Path) -> None:
    """Opening a pipe would wait for a writer for ever."""
    (folder / VARIANT.file).unlink()
    os.mkfifo(folder / VARIANT.file)
    _refused(folder, StateError, "not a regular file")


def test_a_folder_is_refused(folder: Path) -> None:
    """A folder can be opened for reading, but is no file."""
    (folder / VARIANT.file).unlink()
    (folder / VARIANT.file).mkdir()
    _refused(folder, StateError, "not a regular file")


def test_a_missing_file_is_a_clear_error(folder: Path) -> None:
    """The error names the file and the folder, and says what to do."""
    (folder / VARIANT.file).unlink()
    with pytest.raises(StateError, match=VARIANT.file) as caught:
        Store([folder]).path_of(VARIANT)
    assert str(folder) in caught.value.message
    assert "again" in caught.value.hint


def test_an_unreadable_file_is_a_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason is in the message."""

    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store_module.os, "open", denied)
    _refused(folder, StateError, "Permission denied")


def test_a_file_changed_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write between the first and the last look shows in the file's times."""
    path = folder / VARIANT.file
    real = store_module._digest

    def meddled(descriptor: int, limit: int) -> tuple[str, int]:
        found = real(descriptor, limit)
        os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr(store_module, "_digest", meddled)
    _refused(folder, DigestMismatchError, "changed while")


def test_a_file_that_grows_while_it_is_read_ends_the_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than one chunk beyond the promised size is ever read."""
    monkeypatch.setattr(store_module, "_CHUNK_BYTES", 1000)
    path = folder / VARIANT.file
    real = store_module._digest

    def growing(descriptor: int, limit: int) -> tuple[str, int]:
        os.truncate(path, 50_000_000)
        found, length = real(descriptor, limit)
        assert length <= limit + 1000
        return found, length

    monkeypatch.setattr(store_module, "_digest", growing)
    _refused(folder, DigestMismatchError, "bytes but the catalogue says")


def test_the_first_folder_that_has_the_file_wins(folder: Path, tmp_path: Path) -> None:
    """Folders are looked through in their order."""
    (tmp_path / "empty").mkdir()
    assert Store([tmp_path / "empty", folder, BUILTIN_DIR]).path_of(VARIANT) == folder / VARIANT.file


def test_golden_cases_are_verified_like_models(folder: Path) -> None:
    """A changed golden file could make a broken variant look right."""
    assert len(Store([folder]).golden_cases(VARIANT)) == 10
    path = folder / VARIANT.golden.file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatchError):
        Store([folder]).golden_cases(VARIANT)


def test_a_golden_file_that_is_none_is_refused(folder: Path, make_variant: Callable[..., Variant]) -> None:
    """A right digest does not make it well-formed."""
    data = b"\xa0"
    (folder / "bad.cbor").write_bytes(data)
    golden = VARIANT.golden.model_copy(
        update={"file": "bad.cbor", "size_bytes": len(data), "digest": hashlib.sha256(data).hexdigest()}
    )
    with pytest.raises(MalformedError):
        Store([folder]).golden_cases(make_variant(golden=golden))
