"""`edge-agent demo`: the main job on real input, as a newcomer runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import needs
import psutil
import pytest
import tied
from brokers import mosquitto
from networks import clean_environment


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demonstration to its end."""
    command = [sys.executable, "-m", "edge_agent", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=clean_environment())


def test_json_report(tmp_path: Path) -> None:
    """With --json, standard output is one object with what scripts lean on, and the receipts are there."""
    done = demo("--json", "--receipts", str(tmp_path))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["jobs"] == report["verified"] == 200
    assert report["failed"] == 0
    assert report["accuracy"] >= 0.96
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["seconds"] > 0
    assert report["variant"] in {"fp32", "int8-static", "int8-dynamic"}
    assert len(list(Path(report["receipts"]).glob("*.receipt"))) == 200
    assert Path(report["coordinator_key"]).is_file()


def test_report_for_people_with_another_broker(tmp_path: Path) -> None:
    """With Mosquitto by --broker: the report names the choice, why the others lost, and what to try next."""
    needs.tool("mosquitto")
    with mosquitto(tmp_path, "allow_anonymous true") as port:
        done = demo("--broker", f"mqtt://127.0.0.1:{port}", "--jobs", "40", "--receipts", str(tmp_path / "r"))
    assert done.returncode == 0, done.stderr
    for words in ("machine", "chosen", "not fp32", "40 of 40", "p50", "p99", "what to try next", "edge-agent verify"):
        assert words in done.stdout
    assert "100%" in done.stderr or "40/40" in done.stderr


@pytest.mark.parametrize("step", ["starting the coordinator", "scans verified"])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, step: str) -> None:
    """Interrupted while starting or while the jobs run: status 130, and no process is left."""
    command = [sys.executable, "-m", "edge_agent", "demo", "--receipts", str(tmp_path / "r")]
    environment = {**clean_environment(), "TTY_COMPATIBLE": "1"}
    with tied.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        seen = ""
        while step not in seen:
            piece = process.stderr.read(1)
            assert piece, seen
            seen += piece
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(30) == 130
    assert psutil.wait_procs(children, timeout=15)[1] == []


def test_broker_that_is_not_there_names_the_step_and_the_cause(tmp_path: Path) -> None:
    """No broker at that address: non-zero, with the cause and a hint, and soon."""
    done = demo("--broker", "mqtt://127.0.0.1:1", "--receipts", str(tmp_path))
    assert done.returncode != 0
    assert "mqtt://127.0.0.1:1" in done.stderr
    assert re.search(r"^hint: ", done.stderr, re.MULTILINE)
