"""A coordinator's backup and its way back, by the very commands of docs/operations.md."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import httpx
import needs
import psutil
import pytest
from networks import running_network

from edge_agent.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
GONE_SECONDS = 15


def as_written(beginning: str, state: Path, backup: Path) -> None:
    """Run the command of the page that begins like this."""
    found = re.search(rf"^    ({beginning} .*)$", PAGE, re.MULTILINE)
    assert found is not None
    command = found[1].replace("STATE/", f"{state / 'coordinator'}/").replace("/backup/", f"{backup}/")
    done = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def job_in(receipts: Path) -> str:
    """Return the id of the only job with a receipt in this folder."""
    (path,) = receipts.glob("*.receipt")
    return path.stem.partition("-")[2]


def test_a_copy_made_while_it_runs_is_put_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed and restored, it knows what came before the copy and nothing after it, and works on; auditors notice."""
    needs.tool("sqlite3")
    backup, heads = tmp_path / "backup", tmp_path / "heads.jsonl"
    backup.mkdir()
    with running_network(tmp_path) as network:
        about = network.about
        assert network.run_jobs(tmp_path / "before", 1).verified == 1
        as_written("sqlite3", network.state, backup)
        assert network.run_jobs(tmp_path / "after", 1).verified == 1
        to = ["--coordinator", about["http"], "--coordinator-key", about["coordinator_key"], "--heads", str(heads)]
        assert main(["log", "audit", *to]) == 0
        keys = httpx.get(f"{about['http']}/api/v1/checks/keys", trust_env=False).json()
        processes = [psutil.Process(pid) for pid in about["pids"].values()]
        network.process.send_signal(signal.SIGSTOP)  # it would start the next one otherwise
        for process in (*processes, network.process):
            process.kill()
        _, alive = psutil.wait_procs(processes, timeout=GONE_SECONDS)
        assert alive == []
        network.ready_file.unlink()
    assert (network.state / "coordinator" / "coordinator.db-wal").stat().st_size > 0
    as_written("cp", network.state, backup)
    with running_network(tmp_path) as network:
        http = network.about["http"]
        statuses = [
            httpx.get(f"{http}/api/v1/jobs/{job_in(tmp_path / name)}", trust_env=False).status_code
            for name in ("before", "after")
        ]
        assert statuses == [200, 404]
        commitments = [
            {row["period"]: row["commitment"] for row in rows}
            for rows in (keys, httpx.get(f"{http}/api/v1/checks/keys", trust_env=False).json())
        ]
        assert all(commitments[1].get(period, found) == found for period, found in commitments[0].items())
        assert network.about["agent_id"] == about["agent_id"]
        to[1] = http
        assert main(["log", "audit", *to]) == 1
        assert "The log was shortened" in capsys.readouterr().err
        assert network.run_jobs(tmp_path / "again", 1).verified == 1
