from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.agent import fetching as module
from edge_agent.agent.events import Wanted
from edge_agent.agent.fetching import Fetching

WAIT_SECONDS = 30
FIRST = Wanted("digits", "fp32", "1" * 64)
SECOND = Wanted("digits", "int8", "2" * 64)

# Writes down what it was asked for; what the file `wrong` names fails, what the file `slow` names takes for ever.
PROGRAM = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
name = sys.argv[2]
with (folder / "asked").open("a") as file:
    file.write(name + "\\n")
for state in ("wrong", "slow"):
    path = folder / state
    if path.exists() and name in path.read_text():
        if state == "slow":
            time.sleep(1000)
        sys.stderr.write("edge-agent: error: the disk is full\\nhint: buy one\\n")
        sys.exit(75)
with (folder / "done").open("a") as file:
    file.write(name + "\\n")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the program."""
    (tmp_path / "done").touch()
    return tmp_path


@pytest.fixture
def fetching(folder: Path) -> Iterator[Fetching]:
    """Return what fetches with the program; nothing of it is left after the test."""
    before = set(threading.enumerate())
    found = Fetching({}, [sys.executable, "-c", PROGRAM, str(folder)])
    yield found
    found.stop()
    assert set(threading.enumerate()) == before


def fetched(folder: Path, count: int) -> list[str]:
    """Wait until so many were fetched, and return them in their order."""
    end = time.monotonic() + WAIT_SECONDS
    while len(names := (folder / "done").read_text().split()) < count:
        assert time.monotonic() < end
        threading.Event().wait(0.01)  # polls a file that another process writes; the deadline decides
    return names


def test_files_are_fetched_one_after_the_other(fetching: Fetching, folder: Path) -> None:
    """In the order in which they are wanted; what is here is not fetched again."""
    fetching.want((FIRST, SECOND))
    assert fetched(folder, 2) == ["digits/fp32", "digits/int8"]
    fetching.want((FIRST, SECOND, Wanted("other", "v", "3" * 64)))
    assert fetched(folder, 3)[2] == "other/v"
    assert (folder / "asked").read_text().split() == ["digits/fp32", "digits/int8", "other/v"]


def test_what_fails_waits_and_keeps_nothing_else_waiting(
    fetching: Fetching, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why and when it is tried again."""
    (folder / "wrong").write_text("digits/fp32")
    with caplog.at_level(logging.WARNING, "edge_agent.fetching"):
        fetching.want((FIRST, SECOND))
        assert fetched(folder, 1) == ["digits/int8"]
    assert "Could not fetch fp32 of digits: the disk is full Trying again in 600 s" in caplog.text
    assert (folder / "asked").read_text().split() == ["digits/fp32", "digits/int8"]


def test_what_failed_is_tried_again(folder: Path, fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause."""
    monkeypatch.setattr(module, "RETRY_FIRST_SECONDS", 0.05)
    (folder / "wrong").write_text("digits/fp32")
    fetching.want((FIRST, SECOND))
    assert fetched(folder, 1) == ["digits/int8"]
    (folder / "wrong").unlink()
    assert fetched(folder, 2)[1] == "digits/fp32"


def test_a_stop_does_not_wait_for_a_slow_mirror(fetching: Fetching, folder: Path) -> None:
    """The process that fetches is ended."""
    (folder / "slow").write_text("digits/fp32")
    fetching.want((FIRST,))
    while not (folder / "asked").exists():
        threading.Event().wait(0.01)
    process = fetching._process
    fetching.stop()
    assert process is not None
    assert process.wait(WAIT_SECONDS) != 0


def test_what_nobody_wants_any_more_is_ended_and_fetched_when_it_is_wanted_again(
    fetching: Fetching, folder: Path
) -> None:
    """As when the owner lets the machine rest: it is no failure, and nothing has to wait for it."""
    (folder / "slow").write_text("digits/fp32")
    fetching.want((FIRST,))
    while not (folder / "asked").exists():
        threading.Event().wait(0.01)
    process = fetching._process
    assert process is not None
    fetching.want(())
    assert process.wait(WAIT_SECONDS) != 0
    (folder / "slow").unlink()
    fetching.want((FIRST, SECOND))
    assert fetched(folder, 2) == ["digits/fp32", "digits/int8"]


def test_a_command_that_is_not_there_is_a_failure_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    """It ends neither the thread nor the agent."""
    fetching = Fetching({}, ["/nonexistent/edge-agent"])
    with caplog.at_level(logging.WARNING, "edge_agent.fetching"):
        fetching.want((FIRST,))
        while "Could not fetch" not in caplog.text:
            threading.Event().wait(0.01)
    fetching.stop()
    assert "/nonexistent/edge-agent" in caplog.text


def test_nothing_is_started_while_nothing_is_wanted() -> None:
    """No thread for an owner whose files are all here."""
    before = set(threading.enumerate())
    fetching = Fetching({}, ["false"])
    fetching.want(())
    assert set(threading.enumerate()) == before
    fetching.stop()
