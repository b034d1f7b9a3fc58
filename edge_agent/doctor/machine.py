"""Checks of the machine and of what runs on it: Python, architecture, memory, onnxruntime in a real worker."""

from __future__ import annotations

import logging
import platform
import queue
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from edge_agent.doctor.findings import Finding, failed, ok, warning
from edge_agent.errors import WorkerError
from edge_agent.inference.events import WorkerDied, WorkerEvent, WorkerStarted
from edge_agent.inference.handle import Worker

if TYPE_CHECKING:
    from edge_agent.doctor.context import Context

TESTED_PYTHONS = ((3, 11), (3, 14))
ARCHITECTURES = ("x86_64", "aarch64")
LEAST_RUNTIME = (1, 27)
"""Older ones open any file that a hostile model names (docs/models.md)."""
WORKER_SECONDS = 30.0
LEAST_BUDGET_BYTES = 64 * 1024 * 1024
OPT_OUT = b"ORT_DISABLE_TELEMETRY=1"


def python(_context: Context) -> Finding:
    """The program runs on a Python and an architecture that it is tested on."""
    version, machine = sys.version_info[:2], platform.machine()
    facts = {"python": platform.python_version(), "architecture": machine, "bits": 64 if sys.maxsize > 2**32 else 32}
    text = f"Python {facts['python']} on {machine}, {platform.libc_ver()[0] or 'unknown C library'}"
    if facts["bits"] != 64 or machine not in ARCHITECTURES:
        return failed(text, "onnxruntime comes for 64-bit x86 and ARM only: install a 64-bit system.", facts=facts)
    low, high = TESTED_PYTHONS
    if not low <= version < high:
        return warning(text, f"It is tested on Python {low[0]}.{low[1]} to {high[0]}.{high[1] - 1}.", facts)
    return ok(text, facts)


def memory(context: Context) -> Finding:
    """There is memory for models."""
    share = context.settings.agent.memory_share
    budget = context.machine.memory.budget_bytes
    if budget is None:
        why = context.machine.unknown.get("memory.budget_bytes", "it cannot be read")
        return warning(f"free memory is not known: {why}", "256 MiB are taken for granted; see `edge-agent profile`.")
    usable = int(budget * share)
    text = f"{usable / 1e6:.0f} MB for models: {share:.0%} (agent.memory_share) of {budget / 1e6:.0f} MB"
    facts = {"budget_bytes": budget, "usable_bytes": usable}
    if usable < LEAST_BUDGET_BYTES:
        mend = "End other programs, or raise agent.memory_share or the cgroup's limit."
        return failed(text, mend, "does-not-fit", facts)
    return ok(text, facts)


def runtime(_context: Context) -> Finding:
    """A worker starts as the agent would start it, with onnxruntime in it and its telemetry off."""
    events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
    quiet = logging.getLogger("edge_agent.doctor.worker")
    quiet.setLevel(logging.CRITICAL)
    worker = Worker(events.put, threads=1, memory_limit_bytes=None, log=quiet)
    mend = "Install the program again with its dependencies; `edge-agent run --log-level debug` tells more."
    try:
        worker.start()
        event = events.get(timeout=WORKER_SECONDS)
        if not isinstance(event, WorkerStarted):
            why = event.message if isinstance(event, WorkerDied) else type(event).__name__
            return failed(f"the worker does not start: {why}", mend, "worker-start")
        telemetry = _telemetry(event.pid)
    except queue.Empty:
        return failed(f"the worker does not start within {WORKER_SECONDS:g} s", mend, "worker-start")
    except WorkerError as error:
        return failed(error.message, mend, error.error_code)
    finally:
        worker.stop(2.0)
    found = re.search(r"(\d+)\.(\d+)", event.runtime)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    facts = {"runtime": event.runtime, "providers": list(event.providers), "start_ms": round(event.start_ms)}
    if telemetry:
        return failed(
            f"{event.runtime} {telemetry}", "Report this: telemetry must be off in every worker.", facts=facts
        )
    text = f"{event.runtime} starts in {event.start_ms:.0f} ms, its telemetry is off"
    if version < LEAST_RUNTIME:
        return failed(text, f"Install onnxruntime {LEAST_RUNTIME[0]}.{LEAST_RUNTIME[1]} or later.", facts=facts)
    return ok(text, facts)


def _telemetry(pid: int) -> str:
    """Say what speaks against telemetry being off in a running worker; empty if nothing does."""
    if OPT_OUT not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        return "runs without its opt-out of telemetry"
    sockets = psutil.Process(pid).net_connections(kind="inet")
    return f"has {len(sockets)} network connections open" if sockets else ""
