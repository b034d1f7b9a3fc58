"""The unit file, as systemd's own tools judge it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import needs

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "edge-agent.service"
MAX_EXPOSURE = 1.6


def test_exposure_is_low() -> None:
    """systemd-analyze security computes an exposure of at most 1.6."""
    tool = needs.tool("systemd-analyze")
    command = [tool, "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for edge-agent\.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MAX_EXPOSURE


def test_nothing_but_the_missing_installation_is_complained_about() -> None:
    """systemd-analyze verify knows every setting; only the program itself may be missing here."""
    tool = needs.tool("systemd-analyze")
    done = subprocess.run([tool, "verify", "--man=no", str(UNIT)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert [line for line in complaints if "is not executable" not in line] == []


def test_the_worker_can_contain_itself_under_the_unit() -> None:
    """What it calls for that is allowed by name, behind the groups that are taken away."""
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith("SystemCallFilter=")]
    last = max(number for number, line in enumerate(lines) if line.startswith("SystemCallFilter=~"))
    allowed = " ".join(lines[last + 1 :])
    contains = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp", "setrlimit")
    for call in (*contains, "setpriority"):  # who optimises a model gives way to others
        assert call in allowed, call


def test_settings_that_blind_the_program_stay_out() -> None:
    """ProcSubset=pid hides /proc/cpuinfo and /proc/meminfo; without AF_NETLINK psutil lists no interfaces."""
    settings = [line for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    assert "ProcSubset=pid" not in settings
    assert any(line.startswith("RestrictAddressFamilies=") and "AF_NETLINK" in line for line in settings)
    assert any("ORT_DISABLE_TELEMETRY=1" in line for line in settings)
