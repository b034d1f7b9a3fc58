"""What the agent's daemon costs when there is nothing to do: start, memory, and a day of CPU, disk, network, wake-ups.

`python benchmarks/agent_idle.py [--seconds N] [--home]`; on Mosquitto, where a coordinator has left its hello, with the
worker asleep. What was seen in N seconds is scaled to a day: a multiple of 600 is best, since the birth is repeated so
often. Network bytes are those of its TCP connections as `ss` shows them, with 66 bytes of headers a segment.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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

from edge_agent.clock import system_now
from edge_agent.coordinator.statements import Statements
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.topics import Topics

STARTS = 5
COUNTERS = re.compile(r"(bytes_sent|bytes_received|segs_out|segs_in):([0-9]+)")
SETTLE_SECONDS = 10.0
SEGMENT_BYTES = 66
"""Ethernet, IPv4 and TCP headers with timestamps."""


def start(folder: Path, port: int, *, home: bool = False) -> tuple[subprocess.Popen[bytes], float]:
    """Start `edge-agent run`; return it and the seconds until its first birth was sent."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    environment = {**clean_environment(), "EDGE_AGENT_AGENT_WORKER_IDLE_SECONDS": "1"}
    if home:
        environment |= {"EDGE_AGENT_HOME_ASSISTANT": "on", "EDGE_AGENT_HOME_URL": f"mqtt://127.0.0.1:{port}"}
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


def say_hello(key: SigningKey, port: int) -> None:
    """Leave a coordinator's hello with the broker, so that the agent knows that there is one."""
    hello = Statements(key, Topics("home")).hello(1, system_now())
    address = ["-h", "127.0.0.1", "-p", str(port)]
    subprocess.run(
        ["mosquitto_pub", *address, "-r", "-q", "1", "-t", hello.topic, "-s"], input=hello.payload, check=True
    )


def threads_of(pid: int) -> list[Path]:
    """Return the folders of a process's threads."""
    return list(Path(f"/proc/{pid}/task").iterdir())


def wake_ups(pid: int) -> int:
    """Return how often its threads have slept and were woken, all together (proc_pid_status(5))."""
    texts = [(folder / "status").read_text() for folder in threads_of(pid)]
    return sum(int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for text in texts)


def written(pid: int) -> int:
    """Return the bytes that it has sent to disks."""
    return int(Path(f"/proc/{pid}/io").read_text().split("\nwrite_bytes: ")[1].split()[0])


def on_the_wire(pid: int) -> int:
    """Return the bytes of its open TCP connections, both ways, headers included."""
    lines = subprocess.run(["ss", "-tinpHO"], capture_output=True, text=True, check=True).stdout.splitlines()
    total = 0
    for line in lines:
        if f"pid={pid}," in line:
            found = {name: int(value) for name, value in COUNTERS.findall(line)}
            total += found.get("bytes_sent", 0) + found.get("bytes_received", 0)
            total += SEGMENT_BYTES * (found.get("segs_out", 0) + found.get("segs_in", 0))
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the idle daemon is watched")
    parser.add_argument("--home", action="store_true", help="with Home Assistant on the same broker")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = SigningKey.generate()
        key.public.write(folder / "coordinator.pub")
        with mosquitto(folder, "allow_anonymous true") as port:
            say_hello(key, port)
            online = []
            for _ in range(STARTS):
                process, seconds = start(folder, port)
                online.append(seconds)
                process.send_signal(signal.SIGTERM)
                process.wait(30)
            process, _ = start(folder, port, home=args.home)
            wait_without_worker(folder)
            daemon = psutil.Process(process.pid)
            pid = process.pid
            time.sleep(SETTLE_SECONDS)
            before, began = daemon.cpu_times(), time.monotonic()
            counts = [count(pid) for count in (wake_ups, written, on_the_wire)]
            time.sleep(args.seconds)
            after, lasted = daemon.cpu_times(), time.monotonic() - began
            memory = daemon.memory_full_info()
            woken, wrote, moved = (
                count(pid) - first for count, first in zip((wake_ups, written, on_the_wire), counts, strict=True)
            )
            threads = daemon.num_threads()
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    cpu = (after.user + after.system - before.user - before.system) / lasted
    low, high = min(online), max(online)
    print(f"start to online   median {statistics.median(online):.2f} s of {STARTS} ({low:.2f} to {high:.2f})")
    own, share, resident = (size / 1e6 for size in (memory.uss, memory.pss, memory.rss))
    print(f"idle memory       {own:.1f} MB its own (USS), PSS {share:.1f} MB, RSS {resident:.1f} MB, {threads} threads")
    day = 86_400 / lasted
    print(f"idle CPU          {cpu:.3%} of one core over {lasted:.0f} s")
    print(f"idle wake-ups     {woken / lasted:.2f} a second, of all threads")
    print(f"idle disk writes  {wrote * day / 1e6:.2f} MB a day ({wrote} bytes seen)")
    print(f"idle network      {moved * day / 1e6:.2f} MB a day ({moved} bytes seen)")
    print(f"load of the machine {os.getloadavg()[1]:.1f}")
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
