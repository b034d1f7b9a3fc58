from __future__ import annotations

import signal
import site
from pathlib import Path

import pytest

from edge_agent.inference import launch, obituary


def test_the_worker_is_told_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the daemon's variables only those pass that find the same packages; telemetry is off; no home."""
    monkeypatch.setattr(site, "ENABLE_USER_SITE", None)
    daemon = {
        "HTTPS_PROXY": "http://proxy",
        "EDGE_AGENT_BROKER_PASSWORD": "secret",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "HOME": "/home/owner",
        "ORT_DISABLE_TELEMETRY": "0",
        "PYTHONPATH": "/packages",
        "LD_LIBRARY_PATH": "/libraries",
    }
    found = launch.environment(daemon)
    assert found["ORT_DISABLE_TELEMETRY"] == "1"
    assert found["HOME"] == "/nonexistent"
    assert (found["PYTHONPATH"], found["LD_LIBRARY_PATH"]) == ("/packages", "/libraries")
    assert (found["MALLOC_ARENA_MAX"], found["MALLOC_TRIM_THRESHOLD_"]) == ("2", "131072")
    assert not {"HTTPS_PROXY", "EDGE_AGENT_BROKER_PASSWORD", "CREDENTIALS_DIRECTORY"} & set(found)


def test_packages_of_the_user_are_found_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the daemon uses the user's own packages, the worker is told where they are."""
    monkeypatch.setattr(site, "ENABLE_USER_SITE", value=True)
    monkeypatch.setattr(site, "getuserbase", lambda: "/home/owner/.local")
    assert launch.environment({})["PYTHONUSERBASE"] == "/home/owner/.local"


@pytest.mark.parametrize(
    ("status", "oom_killed", "words"),
    [
        (0, False, "ended by itself with status 0"),
        (3, True, "ended by itself with status 3"),
        (-signal.SIGKILL, False, "killed from outside (SIGKILL)"),
        (-signal.SIGKILL, True, "memory ran out (SIGKILL)"),
        (-signal.SIGSEGV, False, "crashed (SIGSEGV)"),
        (-signal.SIGABRT, True, "crashed (SIGABRT)"),
        (-signal.SIGTERM, False, "ended by SIGTERM"),
        (-99, False, "ended by signal 99"),
    ],
)
def test_every_end_has_its_words(status: int, oom_killed: bool, words: str) -> None:  # noqa: FBT001 - a table
    """The message names the signal or status, and the likely cause."""
    message = obituary.write(status, [], obituary.End(oom_killed=oom_killed))
    assert words in message


def test_last_words_are_quoted_but_not_all() -> None:
    """The last three lines are quoted, shortened and made harmless."""
    lines = [f"line {n}" for n in range(50)] + ["terminate called\x1b[2J", "x" * 5000]
    message = obituary.write(-6, lines, obituary.End())
    assert len(message) < 800
    assert "\x1b" not in message
    assert "line 48" not in message


def test_our_own_reasons_come_first() -> None:
    """A worker that we killed is not said to have been killed from outside."""
    assert "in time" in obituary.write(-9, [], obituary.End(hung=True, oom_killed=True))
    message = obituary.write(-9, [], obituary.End(too_much="it held 9 MiB of memory", oom_killed=True))
    assert "ended because it held 9 MiB of memory" in message
    message = obituary.write(-9, [], obituary.End(garbled="A frame is odd.", oom_killed=True))
    assert "not an answer: A frame is odd." in message


def test_the_kernel_says_how_often_it_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is read where the kernel gives it, and is 0 where not."""
    monkeypatch.setattr(Path, "read_text", lambda _: "nr_free 7\noom_kill 12\n")
    assert obituary.oom_kills() == 12
    monkeypatch.setattr(Path, "read_text", lambda _: "nr_free 7\n")
    assert obituary.oom_kills() == 0
