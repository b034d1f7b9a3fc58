"""State directories: private, taken by one process, files replaced in one piece."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edge_agent.errors import StateError
from edge_agent.folders import make_private, take, write_atomically


def test_folder_is_private(tmp_path: Path) -> None:
    """A new folder is for its owner alone."""
    made = make_private(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


@pytest.mark.parametrize("make", [make_private, take])
def test_folder_below_a_file_is_told(tmp_path: Path, make: object) -> None:
    """A folder that cannot be made is an error of ours, with a hint."""
    (tmp_path / "file").write_text("")
    assert callable(make)
    with pytest.raises(StateError, match="cannot be made") as caught:
        make(tmp_path / "file" / "state")
    assert "--state" in caught.value.hint


def test_second_process_on_a_state_directory_is_refused(tmp_path: Path) -> None:
    """One holds it; the next is told; when the first lets go, it is free again."""
    with take(tmp_path), pytest.raises(StateError) as caught:
        take(tmp_path, patience_seconds=0)
    assert caught.value.error_code == "state-in-use"
    take(tmp_path, patience_seconds=0).close()


def test_failed_write_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    """What cannot be replaced stays, without a temporary file beside it."""
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(OSError, match="taken"):
        write_atomically(folder, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert (folder / "old").read_text() == "old"
