"""Whatever ends a run, nothing of it stays on the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from harness.cleanup import clean_stale
from harness.memory import hierarchy
from harness.namespaces import NETNS_FOLDER, PREFIX
from harness.processes import clean_environment, wait_until

PATIENCE_SECONDS = 90.0
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "chaos.py"
CLASSES = ("partition", "disk-full", "read-only", "memory")


def left_of(pid: int, folder: Path) -> list[str]:
    """Return the namespaces, mounts, control groups and processes of a run."""
    mark = f"{PREFIX}-{pid}"
    root = hierarchy()
    assert root is not None
    found = [path.name for path in NETNS_FOLDER.glob(f"{mark}-*")]
    found += [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if mark in line]
    found += [str(path) for path in root.glob(f"{mark}-*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text and path.parent.name != str(pid):
            found.append(text.replace("\0", " "))
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_ended_harness_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """After Ctrl-C at once; after SIGKILL the processes are gone, and the next harness removes the rest."""
    if os.geteuid() != 0:
        pytest.skip("it needs root")
    for program in ("mosquitto", "ip", "nft", "mkfs.ext4"):
        needs.tool(program)
    command = [sys.executable, str(SCRIPT), "--combine", "--minutes", "2", "--agents", "2", "--keep", str(tmp_path)]
    for name in CLASSES:
        command += ["--class", name]
    with (tmp_path / "output").open("w") as output:
        run = subprocess.Popen(command, stdout=output, stderr=output, env=clean_environment(), start_new_session=True)
    try:
        logs = f"{PREFIX}-{run.pid}-*/logs/agent-2.log"
        assert wait_until(lambda: run.poll() is not None or any(tmp_path.glob(logs)), PATIENCE_SECONDS)
        assert run.poll() is None, (tmp_path / "output").read_text()
        assert left_of(run.pid, tmp_path) != []
    finally:
        run.send_signal(number)
        run.wait(PATIENCE_SECONDS)
    if number is signal.SIGKILL:
        clean_stale()
    wait_until(lambda: not left_of(run.pid, tmp_path), PATIENCE_SECONDS)
    assert left_of(run.pid, tmp_path) == []
