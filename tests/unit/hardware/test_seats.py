"""Who uses the machine: what logind's files and the terminals tell, and what they cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware.seats import NEVER_SECONDS, idle_seconds, parse_session

NOW = 1_800_000_000.0


def session(**fields: str) -> str:
    """Return a session's file, as logind writes it."""
    base = {
        "UID": "1000",
        "USER": "ada",
        "ACTIVE": "1",
        "STATE": "active",
        "REMOTE": "0",
        "CLASS": "user",
        "TYPE": "tty",
    }
    lines = [f"{name}={value}" for name, value in {**base, **fields}.items() if value]
    return "# This is private data. Do not parse.\n" + "\n".join(lines) + "\n"


def machine(tmp_path: Path, *sessions: str, terminals: dict[str, float] | None = None) -> float | str:
    """Lay sessions and terminals out, last used so many seconds ago; return what is made of it."""
    files = {f"run/systemd/sessions/{number}": text for number, text in enumerate(sessions, 1)}
    files["run/systemd/sessions/1.ref"] = ""
    root = trees.make(tmp_path, {**files, **{f"dev/{name}": "" for name in terminals or {}}})
    for name, seconds in (terminals or {}).items():
        os.utime(tmp_path / "dev" / name, (NOW - seconds, NOW - seconds))
    return idle_seconds(root, NOW)


def test_nobody_is_logged_in(tmp_path: Path) -> None:
    """Then nobody has used it for longer than any rule asks for."""
    assert machine(tmp_path) == NEVER_SECONDS


def test_the_terminal_that_was_used_last_counts(tmp_path: Path) -> None:
    """As `w` shows it."""
    found = machine(tmp_path, session(TTY="tty1"), session(TTY="/dev/pts/3"), terminals={"tty1": 900.0, "pts/3": 12.0})
    assert found == pytest.approx(12.0)


def test_a_session_over_ssh_has_the_terminals_of_its_user(tmp_path: Path) -> None:
    """The server of it does not say which one."""
    uid = str(os.getuid())
    terminals = {"pts/0": 700.0, "pts/1": 300.0}
    assert machine(tmp_path / "a", session(UID=uid, REMOTE="1"), terminals=terminals) == pytest.approx(300.0)
    assert isinstance(machine(tmp_path / "b", session(UID="4242", REMOTE="1"), terminals=terminals), str)


@pytest.mark.parametrize(
    "fields",
    [
        {"CLASS": "greeter", "TYPE": "wayland"},
        {"CLASS": "background", "TYPE": "unspecified"},
        {"CLASS": "manager", "TYPE": "unspecified"},
        {"STATE": "closing"},
        {"TYPE": "x11", "ACTIVE": "0"},
    ],
)
def test_what_is_no_person_at_the_machine_does_not_count(tmp_path: Path, fields: dict[str, str]) -> None:
    """The login screen, cron, a user's service manager, a session that is over, one behind another one."""
    assert machine(tmp_path, session(**fields)) == NEVER_SECONDS


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"TYPE": "wayland"}, "graphical"),
        ({"TYPE": "x11", "REMOTE": "1", "ACTIVE": "0"}, "graphical"),
        ({"TTY": "tty1"}, "terminal"),
        ({"TTY": "../../etc/passwd"}, "terminal"),
    ],
)
def test_what_does_not_tell_is_said_and_not_guessed(tmp_path: Path, fields: dict[str, str], word: str) -> None:
    """With whose session it is."""
    found = machine(tmp_path, session(**fields))
    assert isinstance(found, str)
    assert word in found
    assert "ada" in found


def test_a_machine_without_logind_does_not_tell(tmp_path: Path) -> None:
    """There may be somebody."""
    assert idle_seconds(trees.make(tmp_path, {}), NOW) == "no logind runs that tells who is logged in"


def test_a_clock_that_was_put_back_makes_nobody_idle(tmp_path: Path) -> None:
    """A terminal that was used in the future was used now."""
    assert machine(tmp_path, session(TTY="tty1"), terminals={"tty1": -5000.0}) == 0.0


@given(st.text(max_size=300))
def test_any_text_is_a_session_of_clean_fields(text: str) -> None:
    """Nothing in it can disturb a terminal."""
    for value in parse_session(text).values():
        assert value.isprintable()
        assert len(value) <= 128
