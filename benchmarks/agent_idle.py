"""What the agent's daemon costs when there is nothing to do: start to online, memory, CPU; its worker asleep.

`python benchmarks/agent_idle.py [--seconds N]`; on Mosquitto.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import psutil
from brokers import mosquitto
from networks import clean_environment

from edge_agent.wire.keys import SigningKey

STARTS = 5


def start(folder: Path, port: int) -> tuple[subprocess.Popen[bytes], float]:
    """Start `edge-agent run`; return it and the seconds until its first birth was sent."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    environment = {**clean_environment(), "EDGE_AGENT_AGENT_WORKER_IDLE_SECONDS": "1"}
    command = [sys.executable, "-m", "edge_agent", "run", "--broker", f"mqtt://127.0.0.1:{port}"]
    command += ["--state", str(folder / "agent"), "--coordinator-key", str(folder / "coordinator.pub")]
    command += ["--ready-file", str(ready), "--log-level", "warning"]
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment)
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.002)
    return process, time.monotonic() - started


def wait_without_worker(folder: Path) -> None:
    """Wait until the worker has been put to sleep."""
    status = folder / "agent" / "status.json"
    end = time.monotonic() + 30
    seen_worker = False
    while time.monotonic() < end:
        worker = json.loads(status.read_text())["worker_pid"] if status.exists() else None
        seen_worker = seen_worker or worker is not None
        if seen_worker and worker is None:
            return
        time.sleep(0.05)
    raise SystemExit("the worker did not go to sleep")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the idle daemon is watched")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        SigningKey.generate().public.write(folder / "coordinator.pub")
        with mosquitto(folder, "allow_anonymous true") as port:
            online = []
            for _ in range(STARTS):
                process, seconds = start(folder, port)
                online.append(seconds)
                process.send_signal(signal.SIGTERM)
                process.wait(30)
            process, _ = start(folder, port)
            wait_without_worker(folder)
            daemon = psutil.Process(process.pid)
            before, began = daemon.cpu_times(), time.monotonic()
            time.sleep(args.seconds)
            after, lasted = daemon.cpu_times(), time.monotonic() - began
            memory = daemon.memory_full_info()
            switches = daemon.num_ctx_switches()
            threads = daemon.num_threads()
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    cpu = (after.user + after.system - before.user - before.system) / lasted
    low, high = min(online), max(online)
    print(f"start to online   median {statistics.median(online):.2f} s of {STARTS} ({low:.2f} to {high:.2f})")
    print(f"idle memory       PSS {memory.pss / 1e6:.1f} MB, RSS {memory.rss / 1e6:.1f} MB, {threads} threads")
    print(f"idle CPU          {cpu:.3%} of one core over {lasted:.0f} s; context switches so far {sum(switches)}")
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
