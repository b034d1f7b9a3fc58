"""The owner's rules as settings: hours as people write them, and what contradicts itself."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import SettingsError
from edge_agent.settings import DAY_MINUTES, Window, load, parse_window

HOME = {"HOME": "/home/ada"}
EVERY_DAY = frozenset(range(7))


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("08:00-17:30", Window(EVERY_DAY, 480, 570)),
        ("22:00-07:00", Window(EVERY_DAY, 1320, 540)),
        ("00:00-24:00", Window(EVERY_DAY, 0, 1440)),
        ("mon-fri 09:00-17:00", Window(frozenset({0, 1, 2, 3, 4}), 540, 480)),
        ("sun 23:59-00:00", Window(frozenset({6}), 1439, 1)),
        ("sat-mon 00:00-24:00", Window(frozenset({5, 6, 0}), 0, 1440)),
        ("wed-wed 12:00-13:00", Window(frozenset({2}), 720, 60)),
    ],
)
def test_hours_as_people_write_them(text: str, window: Window) -> None:
    """An end that is not after the start is one of the next day."""
    assert parse_window(text) == window


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8-17",
        "8:00-17:00",
        "24:00-07:00",
        "08:60-09:00",
        "08:00-24:01",
        "08:00-08:00",
        "Mon 08:00-09:00",
        "mon,tue 08:00-09:00",
        "mon- 08:00-09:00",
        " 08:00-09:00",
        "08:00 - 09:00",
        "08:00-09:00\n",
        "٠٨:00-09:00",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    """The message says how to write one, or what is wrong."""
    with pytest.raises(ValueError, match="must"):
        parse_window(text)


@given(st.text(max_size=30))
def test_any_text_is_a_window_or_refused(text: str) -> None:
    """Nothing else comes out of reading it."""
    with contextlib.suppress(ValueError):
        window = parse_window(text)
        assert window.days
        assert 0 <= window.start < DAY_MINUTES
        assert 1 <= window.minutes <= DAY_MINUTES


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('work_hours = ["nights"]', "must be hours such as"),
        ('work_hours = "22:00-07:00"', "policy.work_hours"),
        ('time_zone = "Mars/Olympus"', "Europe/Paris"),
        ('time_zone = "../../etc/passwd"', "Europe/Paris"),
        ("max_other_cpu_share = 0", "greater than 0"),
        ("max_cpu_celsius = 700", "120"),
        ("resume_cpu_celsius = 60", "policy.max_cpu_celsius, which must be set"),
        ("max_cpu_celsius = 70.0\nresume_cpu_celsius = 70.0", "must be below policy.max_cpu_celsius"),
        ('battery = "sometimes"', "charging"),
        ("dwell_seconds = -1", "0"),
    ],
)
def test_rules_that_cannot_hold_are_refused(tmp_path: Path, line: str, words: str) -> None:
    """With the words that help."""
    file = tmp_path / "config.toml"
    file.write_text(f"[policy]\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        load(file, HOME, {})
    assert words in caught.value.message


def test_rules_from_the_environment() -> None:
    """Lists by commas, numbers as numbers, nothing for not set."""
    found = load(
        None,
        {
            **HOME,
            "EDGE_AGENT_POLICY_WORK_HOURS": "22:00-07:00, sat-sun 00:00-24:00",
            "EDGE_AGENT_POLICY_MAX_CPU_CELSIUS": "70",
            "EDGE_AGENT_POLICY_MAX_OTHER_CPU_SHARE": "",
        },
        {},
    ).settings.policy
    assert found.work_hours == ("22:00-07:00", "sat-sun 00:00-24:00")
    assert (found.max_cpu_celsius, found.max_other_cpu_share) == (70, None)
