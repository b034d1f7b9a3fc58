"""What is read of the machine for the owner's rules, and that nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest
import trees

from edge_agent.agent import readers as module
from edge_agent.agent.policy import Readings, Rules
from edge_agent.agent.readers import Readers, local_zone, midnight_ms
from edge_agent.clock import Now
from edge_agent.settings import Policy

START_MS = 1_800_000_000_000
ALL = Policy(
    idle_seconds=60.0, max_other_cpu_share=0.5, max_memory_pressure_share=0.5, max_cpu_celsius=70.0, battery="never"
)
FILES = {
    "run/systemd/sessions/empty.ref": "",
    "proc/stat": "cpu  100 0 0 900\n",
    "proc/7/stat": "7 (agent) R 1 1 1 0 -1 0 0 0 0 0 10 0 0 0 20 0\n",
    "proc/pressure/memory": "some avg10=5.00 avg60=0.00 avg300=0.00 total=0\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48000\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/power_supply/BAT0/capacity": "80\n",
}


def rules(settings: Policy) -> Rules:
    """Return rules in UTC."""
    return Rules.of(settings, UTC)


def now(seconds: float = 0.0) -> Now:
    """Return a moment."""
    return Now(1000.0 + seconds, START_MS + int(seconds * 1000))


def test_everything_that_rules_ask_for_is_read(tmp_path: Path) -> None:
    """From a tree as from the machine."""
    readers = Readers(trees.make(tmp_path, FILES), 7)
    readers.read(rules(ALL), now())
    (tmp_path / "proc/stat").write_text("cpu  150 0 0 950\n")
    found = readers.read(rules(ALL), now(1.0))
    assert found.idle_seconds.value is not None
    assert found.idle_seconds.value > 3600
    assert (found.other_cpu_share.value, found.memory_pressure_share.value) == (0.5, 0.05)
    assert (found.cpu_celsius.value, found.supply.on_battery, found.supply.charge_share) == (48.0, True, 0.8)


def test_a_rule_that_is_not_set_costs_no_reading(tmp_path: Path) -> None:
    """The defaults read nothing at all."""
    readers = Readers(trees.make(tmp_path, FILES), 7)
    assert readers.read(rules(Policy()), now()) == Readings()


def test_the_share_of_others_is_taken_over_a_second_at_least(tmp_path: Path) -> None:
    """`edge-agent why`, asked twice, must not measure a few ticks."""
    readers = Readers(trees.make(tmp_path, FILES), 7)
    first = readers.read(rules(ALL), now()).other_cpu_share
    assert (first.value, first.pending) == (None, True)
    (tmp_path / "proc/stat").write_text("cpu  150 0 0 950\n")
    assert readers.read(rules(ALL), now(1.0)).other_cpu_share.value == 0.5
    (tmp_path / "proc/stat").write_text("cpu  160 0 0 950\n")
    assert readers.read(rules(ALL), now(1.5)).other_cpu_share.value == 0.5
    assert readers.read(rules(ALL), now(2.0)).other_cpu_share.value == 1.0


def test_what_is_not_there_is_unknown_with_the_reason(tmp_path: Path) -> None:
    """Nothing is guessed."""
    found = Readers(trees.make(tmp_path, {}), 7).read(rules(ALL), now())
    for reading in (found.idle_seconds, found.other_cpu_share, found.memory_pressure_share, found.cpu_celsius):
        assert reading.value is None
        assert reading.why


# -- local time -------------------------------------------------------------------------------------------------------


def offset_hours(zone: tzinfo) -> float:
    """Return how far a zone is from UTC in January."""
    offset = datetime(2026, 1, 1, tzinfo=zone).utcoffset()
    assert offset is not None
    return offset.total_seconds() / 3600


def test_the_zone_that_is_set_wins_over_the_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then `TZ`, then `/etc/localtime`, then UTC."""
    monkeypatch.setenv("TZ", ":Asia/Kathmandu")
    assert offset_hours(local_zone("Europe/Paris")) == 1.0
    assert offset_hours(local_zone(None)) == 5.75
    monkeypatch.delenv("TZ")
    monkeypatch.setattr(module, "LOCAL_TIME", tmp_path / "none")
    assert local_zone(None) is UTC
    (tmp_path / "none").write_bytes(b"no zone")
    assert local_zone(None) is UTC


def test_midnight_is_today_and_here() -> None:
    """At most 25 hours ago, and a full hour or half of one in every zone."""
    began = midnight_ms()
    assert 0 <= datetime.now(UTC).timestamp() * 1000 - began <= 25 * 3_600_000
    assert began % 900_000 == 0
