"""Session numbers grow, whatever the clock and the disk do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.agent.sessions import SESSION_FILE, Sessions
from edge_agent.wire.messages import MAX_INTEGER

NOW_MS = 1_800_000_000_000
CLOCK = st.integers(0, 2 * NOW_MS)


@settings(max_examples=50, deadline=None)
@given(lives=st.lists(st.lists(CLOCK, min_size=1, max_size=5), min_size=1, max_size=5))
def test_every_session_is_larger_than_any_before(
    tmp_path_factory: pytest.TempPathFactory, lives: list[list[int]]
) -> None:
    """Through restarts, with a clock that says anything."""
    folder = tmp_path_factory.mktemp("state")
    numbers = []
    for moments in lives:
        sessions = Sessions(folder)
        for wall_ms in moments:
            number, problem = sessions.next(wall_ms)
            assert problem is None
            numbers.append(number)
    assert numbers == sorted(set(numbers))


def test_a_new_start_without_the_file_is_newer_by_the_clock(tmp_path: Path) -> None:
    """A state directory from a backup does not make the agent look old."""
    (tmp_path / SESSION_FILE).write_text("7\n")
    assert Sessions(tmp_path).next(NOW_MS) == (NOW_MS, None)
    assert Sessions(tmp_path).next(NOW_MS - 1000) == (NOW_MS + 1, None)


@pytest.mark.parametrize("content", ["", "no number", "-5", "9" * 31, str(MAX_INTEGER), "\0" * 20])
def test_a_file_that_says_nonsense_is_not_believed(tmp_path: Path, content: str) -> None:
    """A loss of power may leave zeroes; a number that no statement can carry would lock the agent out."""
    (tmp_path / SESSION_FILE).write_text(content)
    assert Sessions(tmp_path).next(NOW_MS) == (NOW_MS, None)
    assert Sessions(tmp_path).next(0) == (NOW_MS + 1, None)


def test_a_disk_that_cannot_be_written_is_told_and_counted_on_without(tmp_path: Path) -> None:
    """An agent on a card that turned read-only still connects, and each time under a larger number."""
    sessions = Sessions(tmp_path / "gone")
    first, problem = sessions.next(NOW_MS)
    assert isinstance(problem, OSError)
    second, problem = sessions.next(0)
    assert isinstance(problem, OSError)
    assert second == first + 1
