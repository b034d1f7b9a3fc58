"""What following a published catalogue costs: bytes, time, and memory of the idle daemon.

`python benchmarks/catalogue.py`; on Mosquitto, everything on loopback.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from brokers import mosquitto
from networks import clean_environment
from repositories import Operator, digits_named

from edge_agent.models.catalogue import public_models
from edge_agent.models.known import Source as CatalogueSource
from edge_agent.models.publishing.server import Server
from edge_agent.models.refresh import refresh
from edge_agent.models.refresher import Refresher
from edge_agent.models.transfer import Source
from edge_agent.wire.keys import SigningKey

REPEATS = 9
SETTLE_SECONDS = 4.0
PATIENCE_SECONDS = 240.0
IMPORT = """
import re, edge_agent.agent.assemble
def pss(): return int(re.search(r"^Pss:\\s+(\\d+)", open("/proc/self/smaps_rollup").read(), re.M)[1])
before = pss()
import tuf.ngclient
print(pss() - before)
"""


class Counting(Source):
    """Counts the bytes of bodies, and requests."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.requests = 0

    def stream(self, url: str) -> Iterator[bytes]:
        """Give the bytes, counted."""
        self.requests += 1
        for block in super().stream(url):
            self.bytes += len(block)
            yield block


def pss_mb(pid: int) -> float:
    """Return a process's proportional set size in MB."""
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def idle_mb(folder: Path, port: int, name: str, *more: str) -> float:
    """Run an agent whose worker sleeps until its catalogue is there; return its memory."""
    state, ready = folder / name, folder / f"{name}.ready"
    command = [
        sys.executable,
        "-m",
        "edge_agent",
        "run",
        "--broker",
        f"mqtt://127.0.0.1:{port}",
        "--log-level",
        "error",
    ]
    command += ["--state", str(state), "--coordinator-key", str(folder / "coordinator.pub"), "--ready-file", str(ready)]
    environment = {**clean_environment(), "EDGE_AGENT_AGENT_WORKER_IDLE_SECONDS": "1"}
    process = subprocess.Popen([*command, *more], env=environment)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        done = [ready, state / "status.json"] + ([state / "catalogue" / "verified.json"] if more else [])
        while not all(path.exists() for path in done) or json.loads(done[1].read_text())["worker_pid"] is not None:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(SETTLE_SECONDS)
        return pss_mb(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def main() -> None:
    """Measure and print."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    logging.disable(logging.CRITICAL)
    code = [sys.executable, "-c", IMPORT]
    imports = [int(subprocess.run(code, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    print(f"importing tuf.ngclient into the agent's daemon    +{statistics.median(imports) / 1024:.1f} MiB PSS")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        now = datetime.now(UTC)
        operator = Operator(folder / "repository", now=now)
        operator.publish("first")
        operator.repository.documents.drop_pending("targets")
        families = [digits_named(f"family-{number}") for number in range(200)]
        operator.repository._write_draft([*operator.repository.draft.families, *families])  # noqa: SLF001 200 at once
        operator.publish()
        root = operator.root_file.read_bytes()
        with Server(("127.0.0.1", 0), operator.public, logging.getLogger("bench")) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for what, fresh in (("first refresh, 201 families of 3 variants", True), ("refresh without news", False)):
                took, counted = [], Counting()
                for number in range(REPEATS):
                    counted = Counting()
                    began = time.monotonic()
                    refresh(server.url, root, folder / (f"state-{number}" if fresh else "state-0"), 0, counted)
                    took.append(time.monotonic() - began)
                ms = statistics.median(took) * 1000
                print(f"{what:49} {ms:.0f} ms, {counted.requests} requests, {counted.bytes} bytes")
            source = CatalogueSource(folder / "state-0", server.url, operator.root_file)
            took, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
            for _ in range(REPEATS):
                began = time.monotonic()
                Refresher(source).refresh()
                took.append(time.monotonic() - began)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / REPEATS
            print(f"{'the same as a process of its own':49} {statistics.median(took):.2f} s, {cpu:.2f} s of CPU")
            server.shutdown()
        idle_part(folder, now)


def idle_part(folder: Path, now: datetime) -> None:
    """Measure the idle daemon with catalogues of several sizes."""
    SigningKey.generate().public.write(folder / "coordinator.pub")
    some = [digits_named(f"family-{number}") for number in range(200)]
    sizes = {"one family, 3 variants": [], "96 families, 192 variants": public_models().families, "201, 603": some}
    with mosquitto(folder, "allow_anonymous true") as port:
        alone = [idle_mb(folder, port, f"alone-{n}") for n in range(3)]
        print(f"{'idle daemon, no catalogue':49} {statistics.median(alone):.1f} MB PSS")
        for number, (what, families) in enumerate(sizes.items()):
            operator = Operator(folder / f"repository-{number}", now=now)
            if number != 1:
                operator.publish("first")
            operator.repository._write_draft([*operator.repository.draft.families, *families])  # noqa: SLF001 as above
            operator.publish()
            with Server(("127.0.0.1", 0), operator.public, logging.getLogger("bench")) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                flags = ("--catalogue", server.url, "--catalogue-root", str(operator.root_file))
                found = [idle_mb(folder, port, f"idle-{number}-{n}", *flags) for n in range(3)]
                server.shutdown()
            print(f"{'  following ' + what:49} {statistics.median(found):.1f} MB PSS")


if __name__ == "__main__":
    main()
