"""The journal: every note is counted, and no flood of them fills the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from edge_agent.notes import BURST_LINES, WINDOW_SECONDS, Journal, Note

REFUSED = Note(logging.WARNING, "Refused a message", "refused", (("code", "bad-signature"),))
log = logging.getLogger("edge_agent.test_notes")


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    """The logger's level is what each test sets."""
    yield
    log.setLevel(logging.NOTSET)


def test_note_is_counted_and_written(caplog: pytest.LogCaptureFixture) -> None:
    """A note is counted by action and by code, and its fields are in the record."""
    log.setLevel(logging.INFO)
    journal = Journal(log)
    journal.write(REFUSED, 0.0)
    assert journal.counters == {"refused": 1, "refused:bad-signature": 1}
    assert [(r.getMessage(), vars(r)["code"]) for r in caplog.records] == [("Refused a message", "bad-signature")]


def test_flood_is_counted_in_full_and_written_in_part(caplog: pytest.LogCaptureFixture) -> None:
    """A flood takes a bounded number of lines; other kinds are not touched; the next window says how many."""
    log.setLevel(logging.INFO)
    journal = Journal(log)
    for number in range(10 * BURST_LINES):
        journal.write(REFUSED, number * 1e-3)
    assert journal.counters["refused"] == 10 * BURST_LINES
    assert len(caplog.records) == BURST_LINES
    journal.write(Note(logging.INFO, "Agent is online", "agent-online"), 1.0)
    assert caplog.records[-1].getMessage() == "Agent is online"
    journal.write(REFUSED, WINDOW_SECONDS)
    assert [r.getMessage() for r in caplog.records[-2:]] == [
        f"Left out {9 * BURST_LINES} more lines like the following",
        "Refused a message",
    ]


def test_debugging_shows_every_line(caplog: pytest.LogCaptureFixture) -> None:
    """With the level debug nothing is left out."""
    log.setLevel(logging.DEBUG)
    journal = Journal(log)
    for _ in range(2 * BURST_LINES):
        journal.write(REFUSED, 0.0)
    assert len(caplog.records) == 2 * BURST_LINES
