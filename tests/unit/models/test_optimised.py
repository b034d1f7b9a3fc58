"""Optimised copies on the disk: good for one model, one onnxruntime and one processor, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.models import optimised
from edge_agent.models.content import Content
from edge_agent.models.download import Budget, Downloader, Places, Wanted
from edge_agent.models.optimised import OptimisedFiles, key
from edge_agent.models.transfer import Limits, Source

VARIANT = "ab" * 32
BYTES = b"onnxruntime's own format" * 50
KEY = key("onnxruntime 1.32.0", "x86_64+avx2", ("avx2: True",))
PLENTY = 10**12


def files_in(folder: Path, made_for: str = KEY, max_bytes: int = PLENTY) -> OptimisedFiles:
    """Return the copies of a store."""
    return OptimisedFiles(Content(folder), made_for, max_bytes, 0)


def keep(files: OptimisedFiles, data: bytes = BYTES, *, in_place: bool = True) -> None:
    """Have a copy made of these bytes."""
    scratch = files.scratch(len(data))
    assert scratch is not None
    os.write(scratch.fd, data)
    assert files.keep(VARIANT, scratch, in_place=in_place)
    scratch.close()


def read(files: OptimisedFiles) -> bytes | None:
    """Return what is loaded."""
    found = files.open(VARIANT)
    if found is None:
        return None
    with os.fdopen(found[0], "rb") as file:
        return file.read()


@pytest.mark.parametrize("in_place", [True, False])
def test_what_was_made_is_what_is_loaded(tmp_path: Path, in_place: bool) -> None:  # noqa: FBT001 a parameter
    """By whoever comes later, too; private, and not made again."""
    assert files_in(tmp_path).wants(VARIANT)
    keep(files_in(tmp_path), in_place=in_place)
    later = files_in(tmp_path)
    assert read(later) == BYTES
    found = later.open(VARIANT)
    assert found is not None
    assert found[1] is in_place
    os.close(found[0])
    assert not later.wants(VARIANT)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in Content(tmp_path).optimised_folder.iterdir()}
    assert modes == {0o600}


@pytest.mark.parametrize(
    "other",
    [
        key("onnxruntime 1.33.0", "x86_64+avx2", ("avx2: True",)),
        key("onnxruntime 1.32.0", "x86_64+avx512vnni", ("avx2: True",)),
        key("onnxruntime 1.32.0", "x86_64+avx2", ("avx2: True", "fma: True")),
    ],
    ids=["runtime", "path", "features"],
)
def test_a_copy_for_something_else_is_made_again(tmp_path: Path, other: str) -> None:
    """A copy lays weights out for the kernels of one processor, and its format is one version's."""
    keep(files_in(tmp_path))
    assert read(files_in(tmp_path, other)) is None
    assert files_in(tmp_path, other).wants(VARIANT)
    assert Content(tmp_path).optimised() == {}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda path: os.truncate(path, 10),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.write_bytes(b""),
        Path.unlink,
        _link,
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text('{"key": 1, "made": "x"}'),
        lambda path: path.with_suffix(".json").write_text("[" * 4096),
    ],
    ids=["bit", "cut", "longer", "empty", "gone", "link", "note-cut", "note-types", "note-deep"],
)
def test_a_damaged_copy_is_not_loaded_but_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    """And that is said; the model itself is untouched by it."""
    files = files_in(tmp_path)
    keep(files)
    damage(Content(tmp_path).optimised_path(VARIANT))
    assert read(files) is None
    assert "made again" in caplog.text
    assert files.wants(VARIANT)
    keep(files)
    assert read(files) == BYTES


@given(note=st.binary(max_size=200))
def test_no_note_makes_anything_else_a_copy(tmp_path_factory: pytest.TempPathFactory, note: bytes) -> None:
    """Whatever lies beside the file, nothing but bytes that were hashed is loaded."""
    folder = tmp_path_factory.mktemp("store")
    files = files_in(folder)
    keep(files)
    Content(folder).optimised_path(VARIANT).with_suffix(".json").write_bytes(note)
    assert read(files) is None


def test_what_is_not_worth_a_copy_is_remembered_for_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is not tried at every start; a copy that was there goes."""
    files = files_in(tmp_path)
    keep(files)
    files.refuse(VARIANT, "it saves nothing")
    assert read(files) is None
    assert not files.wants(VARIANT)
    now = optimised.time.time()
    monkeypatch.setattr(optimised.time, "time", lambda: now + optimised.RETRY_SECONDS + 1)
    assert files.wants(VARIANT)


def test_a_variant_that_could_not_be_optimised_for_now_is_tried_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then later and later, so that who always fails in passing costs no more in the end than who always fails."""
    now = optimised.time.time()
    monkeypatch.setattr(optimised.time, "time", lambda: now)
    waits = []
    for _ in range(30):
        waits.append(files_in(tmp_path).refuse(VARIANT, "the disk is full", passing=True))
        now += waits[-1]
        assert not files_in(tmp_path).wants(VARIANT)
        now += 1
        assert files_in(tmp_path).wants(VARIANT)
    assert waits[:3] == [900.0, 3600.0, 14_400.0]
    assert set(waits[6:]) == {optimised.RETRY_SECONDS}
    keep(files_in(tmp_path))
    assert files_in(tmp_path).refuse(VARIANT, "the disk is full", passing=True) == waits[0]
    assert files_in(tmp_path).refuse(VARIANT, "it saves nothing") == optimised.RETRY_SECONDS


def test_what_was_noted_before_reasons_could_pass_counts(tmp_path: Path) -> None:
    """As one that lasts."""
    files_in(tmp_path).refuse(VARIANT, "it saves nothing")
    note = Content(tmp_path).optimised_path(VARIANT).with_suffix(".json")
    fields = json.loads(note.read_bytes())
    del fields["passing"]
    note.write_text(json.dumps(fields))
    assert not files_in(tmp_path).wants(VARIANT)


def test_a_file_that_had_too_little_room_is_told_from_one_that_had_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its start, or because somebody else has filled the disk since."""
    most = optimised.MAX_FACTOR * 1000 + optimised.MAX_MORE_BYTES
    for room, cramped in ((most, False), (most - 1, True)):
        files = files_in(tmp_path, max_bytes=room)
        scratch = files.scratch(1000)
        assert scratch is not None
        assert files.is_cramped(scratch) is cramped
        files.discard(scratch)
        scratch.close()
    scratch = files_in(tmp_path).scratch(1000)
    assert scratch is not None
    os.write(scratch.fd, bytes(100))
    for free, cramped in ((most - 100, False), (most - 101, True)):
        monkeypatch.setattr(Content, "free_bytes", lambda _, free=free: free)
        assert files_in(tmp_path).is_cramped(scratch) is cramped
    scratch.close()


@pytest.mark.parametrize("character", ["\U0001f600", "\x1b", '"', "\udcff", "x"], ids=ascii)
def test_whatever_is_said_against_a_copy_can_be_read_again(tmp_path: Path, character: str) -> None:
    """Of the longest, too: else the copy would be made at each load, and not each week."""
    files = files_in(tmp_path)
    files.refuse(VARIANT, character * 10_000)
    assert not files_in(tmp_path).wants(VARIANT)


def test_a_copy_has_no_more_room_than_the_owner_gives(tmp_path: Path) -> None:
    """Neither of `models.max_bytes` nor of what stays free on the disk; and it is a few times the model at most."""
    assert files_in(tmp_path, max_bytes=999).scratch(1000) is None
    assert OptimisedFiles(Content(tmp_path), KEY, PLENTY, PLENTY).scratch(1000) is None
    scratch = files_in(tmp_path).scratch(1000)
    assert scratch is not None
    assert scratch.max_bytes == 4000 + optimised.MAX_MORE_BYTES
    scratch.close()


def test_what_a_killed_process_left_is_no_hindrance(tmp_path: Path) -> None:
    """It counts against the store's room, and goes with the next copy."""
    files = files_in(tmp_path)
    scratch = files.scratch(1000)
    assert scratch is not None
    os.write(scratch.fd, bytes(500))
    scratch.close()
    (Content(tmp_path).optimised_folder / "making.part").write_bytes(b"as they once were named")
    assert Content(tmp_path).used_bytes() == 523
    keep(files)
    assert set(Content(tmp_path).optimised()) == {VARIANT}


def test_two_agents_over_one_store_make_their_copies_side_by_side(tmp_path: Path) -> None:
    """Neither takes away, or gives its name to, what the other one makes; also if it makes the same."""
    one, other = files_in(tmp_path), files_in(tmp_path)
    first, second = one.scratch(1000), other.scratch(1000)
    assert first is not None
    assert second is not None
    os.write(first.fd, BYTES)
    os.write(second.fd, b"half")
    assert Content(tmp_path).remove_abandoned() == 0
    assert one.keep(VARIANT, first, in_place=True)
    assert read(other) == BYTES
    one.discard(first)
    first.close()
    os.write(second.fd, b" and whole")
    assert read(one) == BYTES
    assert other.keep(VARIANT, second, in_place=True)
    second.close()
    assert read(one) == b"half and whole"
    assert len(list(Content(tmp_path).optimised_folder.iterdir())) == 2


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_file_that_was_exchanged_while_it_was_made_is_not_kept(
    tmp_path: Path,
    exchanged: bool,  # noqa: FBT001 a parameter
) -> None:
    """What was hashed is what gets the name, or nothing does; a copy that was there stays."""
    files = files_in(tmp_path)
    keep(files)
    scratch = files.scratch(1000)
    assert scratch is not None
    os.write(scratch.fd, b"another copy")
    scratch.path.unlink()
    if exchanged:
        scratch.path.write_bytes(b"another file")
    assert not files.keep(VARIANT, scratch, in_place=True)
    files.discard(scratch)
    scratch.close()
    assert read(files) == BYTES
    assert len(list(Content(tmp_path).optimised_folder.iterdir())) == 2


def test_what_is_abandoned_goes_and_what_is_being_made_stays(tmp_path: Path) -> None:
    """Even if only a process has it that was started from here; links are left alone, and what they lead to."""
    content = Content(tmp_path)
    files = files_in(tmp_path)
    scratch = files.scratch(1000)
    assert scratch is not None
    os.write(scratch.fd, bytes(500))
    (tmp_path / "mine").write_bytes(b"mine")
    link = content.optimised_folder / "link.part"
    link.symlink_to(tmp_path / "mine")
    maker = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[scratch.fd])
    scratch.close()
    assert content.remove_abandoned() == 0
    maker.communicate()
    assert content.remove_abandoned(dry_run=True) == 500
    assert scratch.path.exists()
    assert content.remove_abandoned() == 500
    assert list(content.optimised_folder.iterdir()) == [link]
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_copy_goes_with_its_model(tmp_path: Path) -> None:
    """Whoever removes a model has its room back, all of it."""
    content = Content(tmp_path)
    keep(files_in(tmp_path))
    assert content.used_bytes() > len(BYTES)
    content.remove(VARIANT)
    assert content.used_bytes() == 0
    assert list(content.optimised_folder.iterdir()) == []


def test_copies_make_room_before_models_do(tmp_path: Path) -> None:
    """They can be made again here; a model has to be fetched."""
    data = os.urandom(1000)
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "new").write_bytes(data)
    content = Content(tmp_path / "store")
    kept = hashlib.sha256(BYTES).hexdigest()
    with content.incoming(kept) as incoming:
        incoming.append(BYTES)
        incoming.finish()
    keep(files_in(content.root))
    room = len(BYTES) + 1000 + 100
    budget = Budget(max_bytes=room, keep_free_bytes=0)
    source = Source(Limits(connect_seconds=5, silence_seconds=5))
    downloader = Downloader(content, Places(), budget, source, lambda _: None, random.Random(1))
    downloader.fetch(Wanted("m", digest, 1000, (f"file://{tmp_path}/mirror/new",)))
    assert content.has(kept)
    assert content.has(digest)
    assert content.optimised() == {}
    assert downloader.evicted == []


def test_a_note_says_nothing_but_what_is_needed(tmp_path: Path) -> None:
    """It is read by every later version."""
    keep(files_in(tmp_path))
    note = json.loads(Content(tmp_path).optimised_path(VARIANT).with_suffix(".json").read_text())
    assert set(note) == {"key", "made", "size_bytes", "sha256", "in_place", "why_not", "passing"}
    assert note["sha256"] == hashlib.sha256(BYTES).hexdigest()
