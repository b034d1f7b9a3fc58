"""`status.json`: written when something is new, and not every minute."""

from __future__ import annotations

from pathlib import Path

from edge_agent.agent.status import STATUS_FILE, StatusFile, read_status


def test_what_is_not_new_is_not_written(tmp_path: Path) -> None:
    """An idle agent must not wear a card out; a change is there at once."""
    file = StatusFile(tmp_path)
    file.write({"mode": "work"})
    first = (tmp_path / STATUS_FILE).stat().st_ino
    file.write({"mode": "work"})
    assert (tmp_path / STATUS_FILE).stat().st_ino == first
    file.write({"mode": "rest"})
    assert read_status(tmp_path) == {"mode": "rest"}
