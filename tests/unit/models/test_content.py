"""The content-addressed store and the rules of what leaves it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import ResourceError, StateError
from edge_agent.models.catalogue import Variant, builtin
from edge_agent.models.content import Content, Entry
from edge_agent.models.eviction import STALE_SECONDS, Room, make_room, stale, unwanted
from edge_agent.models.store import Store

DATA = b"a model"
DIGEST = hashlib.sha256(DATA).hexdigest()


def put(content: Content, data: bytes) -> str:
    """Put a file into the store."""
    digest = hashlib.sha256(data).hexdigest()
    with content.incoming(digest) as incoming:
        incoming.append(data)
        incoming.finish()
    return digest


def test_a_file_gets_its_name_only_when_it_is_finished(tmp_path: Path) -> None:
    """Before that it is a part, private, and not to be found under its digest."""
    content = Content(tmp_path / "store")
    with content.incoming(DIGEST) as incoming:
        incoming.append(DATA)
        assert not content.has(DIGEST)
        assert content.partials()[0][:2] == (DIGEST, len(DATA))
        assert stat.S_IMODE((content.root / "partial" / DIGEST).stat().st_mode) == 0o600
        incoming.finish()
    assert content.has(DIGEST, len(DATA))
    assert not content.has(DIGEST, len(DATA) + 1)
    assert content.partials() == []
    assert [entry.digest for entry in content.entries()] == [DIGEST]
    assert stat.S_IMODE(content.root.stat().st_mode) == 0o700


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_only_a_digest_is_a_name(tmp_path: Path, digest: str) -> None:
    """Nothing else leads anywhere, and nothing is made."""
    content = Content(tmp_path / "store")
    for call in (content.path, content.pin, content.unpin, content.remove, content.has):
        with pytest.raises(ValueError, match="SHA-256"):
            call(digest)
    assert not (tmp_path / "store").exists()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """A link in place of a part or of a file leads nowhere, and its target stays as it was."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    content = Content(tmp_path / "store")
    put(content, b"other")
    (content.root / "partial" / DIGEST).symlink_to(target)
    with pytest.raises(StateError), content.incoming(DIGEST):
        pytest.fail("it was opened")
    path = content.path(DIGEST)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    assert not content.has(DIGEST)
    assert target.read_bytes() == b"precious"


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    """The second is told so, and the first goes on."""
    content = Content(tmp_path)
    with content.incoming(DIGEST) as first:
        with pytest.raises(StateError, match="Another process") as caught, Content(tmp_path).incoming(DIGEST):
            pytest.fail("both have it")
        assert caught.value.error_code == "state-in-use"
        first.append(DATA)
        first.finish()
    assert content.path(DIGEST).read_bytes() == DATA


def test_pins_and_use_decide_the_order(tmp_path: Path) -> None:
    """The one used longest ago comes first; pins are remembered, also of files that are not there."""
    content = Content(tmp_path)
    digests = [put(content, bytes([number])) for number in range(3)]
    for age, digest in enumerate(digests):
        os.utime(content.path(digest), (1000 + age, 1000 + age))
    content.touch(digests[0])
    content.pin(digests[1])
    content.pin(DIGEST)
    assert [(entry.digest, entry.pinned) for entry in content.entries()] == [
        (digests[1], True),
        (digests[2], False),
        (digests[0], False),
    ]
    content.unpin(digests[1])
    assert content.pins() == {DIGEST}


def test_fetched_files_are_found_by_digest_and_verified(tmp_path: Path) -> None:
    """A variant whose files were fetched is served from there; a damaged file is refused as ever."""
    variant = builtin().family("digits").variants[0]
    assert variant.golden is not None
    source = Store()
    content = Content(tmp_path)
    store = Store((), content)
    assert not store.has(variant)
    for data in (Path(source.path_of(variant)).read_bytes(), source.golden_file(variant)):
        put(content, data)
    assert store.has(variant)
    assert store.golden_cases(variant) == source.golden_cases(variant)
    os.utime(content.path(variant.digest), (1, 1))
    os.close(store.open_variant(variant))
    assert content.entries()[-1].used > 1
    _damage(content, variant)
    with pytest.raises(Exception, match="SHA-256"):
        store.open_variant(variant)


def _damage(content: Content, variant: Variant) -> None:
    path = content.path(variant.digest)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


ENTRIES = st.lists(
    st.builds(
        Entry,
        digest=st.integers(0, 2**64).map(lambda number: f"{number:064x}"),
        size_bytes=st.integers(0, 1000),
        used=st.floats(0, 1e9),
        pinned=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda entry: entry.digest,
)


LIMITS = st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 3000))


@given(ENTRIES, st.integers(0, 3000), LIMITS, st.sets(st.integers(0, 11), max_size=4))
def test_room_is_made_or_nothing_goes(
    entries: list[Entry], needed: int, limits: tuple[int, int, int], used_now: set[int]
) -> None:
    """Afterwards both limits hold; pinned files and files in use stay; no more goes than needed, oldest first."""
    free, max_bytes, keep_free = limits
    used = sum(entry.size_bytes for entry in entries)
    room = Room(free_bytes=free, used_bytes=used, max_bytes=max_bytes, keep_free_bytes=keep_free)
    in_use = {entries[index].digest for index in used_now if index < len(entries)}
    may_go = [entry for entry in entries if not entry.pinned and entry.digest not in in_use]
    if room.missing(needed) > sum(entry.size_bytes for entry in may_go):
        with pytest.raises(ResourceError, match="no room"):
            make_room(entries, room, needed, in_use=in_use)
        return
    gone = make_room(entries, room, needed, in_use=in_use)
    freed = sum(entry.size_bytes for entry in gone)
    assert set(gone) <= set(may_go)
    if room.missing(needed):
        assert used - freed + needed <= max_bytes
        assert free + freed - needed >= keep_free
    else:
        assert gone == []
    if gone:
        assert freed - gone[-1].size_bytes < room.missing(needed)
        stays = [entry for entry in may_go if entry not in gone]
        assert all(entry.used >= gone[-1].used for entry in stays)


def test_what_no_catalogue_names_is_unwanted_unless_pinned() -> None:
    """Rules of `gc`: unknown files and parts that nobody goes on with."""
    old, pinned, known = Entry("a" * 64, 1, 0.0, pinned=False), Entry("b" * 64, 1, 0.0, pinned=True), "c" * 64
    assert unwanted([old, pinned, Entry(known, 1, 0.0, pinned=False)], {known}) == [old]
    assert stale([("d" * 64, 5, 0.0), ("e" * 64, 5, 10.0)], STALE_SECONDS + 5) == ["d" * 64]
