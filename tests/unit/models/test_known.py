"""What a process knows: built-in, published and public families together, and what is wrong with them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept import DAY_MS, NOW_MS, ROOT, keep, names, source
from repositories import digits_named

from edge_agent.errors import StateError
from edge_agent.models.catalogue import builtin, public_models
from edge_agent.models.known import RECORD_FILE, Source, day, known, read_record, stored_bytes


def test_without_an_address_only_what_comes_with_the_program(tmp_path: Path) -> None:
    """And nothing is wrong with that."""
    found = known(Source(tmp_path), NOW_MS)
    assert (found.catalogue, found.record, found.problem) == (builtin(), None, "")


def test_published_families_are_added(tmp_path: Path) -> None:
    """Behind the built-in ones, with the published version."""
    record = keep(tmp_path / "state", "a", "b")
    found = known(source(tmp_path), NOW_MS)
    assert names(found.catalogue) == ["digits", "a", "b"]
    assert (found.catalogue.version, found.record, found.problem, found.hidden) == (7, record, "", ())


def test_a_built_in_family_is_not_replaced(tmp_path: Path) -> None:
    """The published one of its name is told, and not used."""
    keep(tmp_path / "state", "digits", "a")
    found = known(source(tmp_path), NOW_MS)
    assert found.hidden == ("digits",)
    assert found.catalogue.family("digits") == builtin().family("digits")


def test_public_families_come_last_and_only_when_asked_for(tmp_path: Path) -> None:
    """A published family wins over a public one of its name."""
    name = public_models().families[0].name
    keep(tmp_path / "state", name)
    without = known(source(tmp_path), NOW_MS)
    assert names(without.catalogue) == ["digits", name]
    found = known(source(tmp_path, public=True), NOW_MS)
    assert len(found.catalogue.families) == 1 + len(public_models().families)
    assert found.catalogue.family(name) == digits_named(name)
    assert found.hidden == ()


@pytest.mark.parametrize(
    ("late_ms", "used", "words"),
    [
        (-1, True, ""),
        (0, True, "expired on 2030-03-17"),
        (DAY_MS, True, "expired on"),
        (DAY_MS + 1, False, "longer ago"),
    ],
)
def test_an_expired_catalogue_is_used_for_the_grace(tmp_path: Path, late_ms: int, used: bool, words: str) -> None:  # noqa: FBT001 a table's column
    """With a warning, and then no longer."""
    keep(tmp_path / "state", "a", expires_ms=NOW_MS)
    found = known(source(tmp_path), NOW_MS + late_ms)
    assert names(found.catalogue) == (["digits", "a"] if used else ["digits"])
    assert words in found.problem
    assert bool(found.problem) is bool(words)


def test_a_clock_that_went_back_makes_nothing_young(tmp_path: Path) -> None:
    """A board without a battery starts in 1970: what was refreshed later than that counts."""
    keep(tmp_path / "state", "a", expires_ms=NOW_MS - 2 * DAY_MS)
    found = known(source(tmp_path), 0)
    assert "longer ago" in found.problem
    assert names(found.catalogue) == ["digits"]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    """Never fetched, a missing root, another root, a damaged file: each in words, and the built-in families stay."""
    own = source(tmp_path)
    assert "not fetched yet" in known(own, NOW_MS).problem
    record = keep(tmp_path / "state", "a")
    assert known(own, NOW_MS).problem == ""
    (tmp_path / "root.json").write_bytes(b"another")
    assert "another root" in known(own, NOW_MS).problem
    (tmp_path / "root.json").unlink()
    assert "cannot be read" in known(own, NOW_MS).problem
    (tmp_path / "root.json").write_bytes(ROOT)
    (tmp_path / "state" / f"catalogue-{record.digest}.json").write_bytes(b"{}")
    assert "damaged" in known(own, NOW_MS).problem
    assert names(known(own, NOW_MS).catalogue) == ["digits"]


def test_only_the_newest_catalogue_is_kept(tmp_path: Path) -> None:
    """The file of the one before is removed."""
    first = keep(tmp_path, "a", version=1)
    second = keep(tmp_path, "b", version=2)
    assert read_record(tmp_path) == second
    assert stored_bytes(tmp_path, first.digest) is None
    assert stored_bytes(tmp_path, second.digest) is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"catalogue-{second.digest}.json", "verified.json"]


@given(
    st.binary(max_size=300) | st.recursive(st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_no_record_is_too_strange(data: bytes) -> None:
    """Whatever lies there, it is a record or none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / RECORD_FILE).write_bytes(data)
        assert read_record(folder) is None


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"digest": "../../etc/passwd"},
        {"pinned": 5},
        {"expires_ms": "soon"},
        {"refreshed_ms": -1},
        {"catalogue": True},
        {"versions": [1]},
        {"versions": {"root": None}},
        {"more": 1},
    ],
)
def test_a_record_with_a_wrong_field_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    """Neither a path, nor a text where a time belongs, gets any further."""
    keep(tmp_path, "a")
    fields = json.loads((tmp_path / RECORD_FILE).read_bytes())
    assert read_record(tmp_path) is not None
    (tmp_path / RECORD_FILE).write_text(json.dumps({**fields, **change}))
    assert read_record(tmp_path) is None


def test_nested_without_end_is_none(tmp_path: Path) -> None:
    """A parser that runs out of stack is no crash of the daemon."""
    (tmp_path / RECORD_FILE).write_bytes(b"[" * 4000)
    assert read_record(tmp_path) is None


def test_an_enormous_root_is_none(tmp_path: Path) -> None:
    """It is not read into memory."""
    own = source(tmp_path)
    keep(tmp_path / "state", "a")
    (tmp_path / "root.json").write_bytes(bytes(600_000))
    assert "cannot be read" in known(own, NOW_MS).problem


def test_impossible_dates_have_words() -> None:
    """A record could say anything."""
    assert (day(0), day(2**70)) == ("1970-01-01", "an impossible date")


def test_a_damaged_installation_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The public models are part of the program."""
    monkeypatch.setattr("edge_agent.models.catalogue.PUBLIC_FILE", tmp_path / "missing")
    with pytest.raises(StateError, match="cannot be read"):
        known(Source(tmp_path, public=True), NOW_MS)


def test_the_state_says_what_is_known(tmp_path: Path) -> None:
    """In short, for the status of an agent; families nobody could ask for are known and not served."""
    keep(tmp_path / "state", "a")
    found = known(source(tmp_path, public=True), NOW_MS)
    assert found.state == {
        "version": 7,
        "expires_ms": NOW_MS + DAY_MS,
        "refreshed_ms": NOW_MS,
        "families": len(found.catalogue.families),
        "problem": "",
    }
    assert all(family.servable for family in found.served.families)
    assert len(found.served.families) < len(found.catalogue.families)
    assert known(Source(tmp_path), NOW_MS).state["version"] is None
