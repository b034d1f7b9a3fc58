"""Checks of a real worker: that onnxruntime starts in it, with telemetry off, and what it is contained by."""

from __future__ import annotations

import logging
import queue
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from edge_agent.agent.status import read_status
from edge_agent.doctor.files import in_use
from edge_agent.doctor.findings import Finding, SkipCheck, failed, ok, warning
from edge_agent.errors import WorkerError
from edge_agent.inference.bounds import GROUP
from edge_agent.inference.events import WorkerDied, WorkerEvent, WorkerStarted
from edge_agent.inference.handle import Worker

if TYPE_CHECKING:
    from edge_agent.doctor.context import Context

LEAST_RUNTIME = (1, 27)
"""Older ones open any file that a hostile model names (docs/models.md)."""
WORKER_SECONDS = 30.0
OPT_OUT = b"ORT_DISABLE_TELEMETRY=1"
_MEND_START = "Install the program again with its dependencies; `edge-agent run --log-level debug` tells more."
_MEND_CONTAINMENT = (
    "Run a kernel of 5.13 or later with Landlock among its security modules (`lsm=landlock,…` on its command line), on "
    "x86 or ARM of 64 bits, and let the unit or container make the calls of seccomp and Landlock; docs/security.md."
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of starting a worker once; `started` is None if it did not start, and `problem` says why.

    Attributes:
        code: of the problem.
        telemetry: what speaks against telemetry being off.
    """

    started: WorkerStarted | None
    problem: str = ""
    code: str = "worker-start"
    telemetry: str = ""


def start() -> Trial:
    """Start a worker as the agent would, look at it, and end it."""
    events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
    quiet = logging.getLogger("edge_agent.doctor.worker")
    quiet.setLevel(logging.CRITICAL)
    worker = Worker(events.put, threads=1, memory_limit_bytes=None, log=quiet)
    try:
        worker.start()
        event = events.get(timeout=WORKER_SECONDS)
        if not isinstance(event, WorkerStarted):
            why = event.message if isinstance(event, WorkerDied) else type(event).__name__
            return Trial(None, f"the worker does not start: {why}")
        return Trial(event, telemetry=_telemetry(event.pid))
    except queue.Empty:
        return Trial(None, f"the worker does not start within {WORKER_SECONDS:g} s")
    except WorkerError as error:
        return Trial(None, error.message, error.error_code)
    finally:
        worker.stop(2.0)


def runtime(context: Context) -> Finding:
    """A worker starts as the agent would start it, with onnxruntime in it and its telemetry off."""
    trial = context.worker
    event = trial.started
    if event is None:
        return failed(trial.problem, _MEND_START, trial.code)
    found = re.search(r"(\d+)\.(\d+)", event.runtime)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    facts = {"runtime": event.runtime, "providers": list(event.providers), "start_ms": round(event.start_ms)}
    if trial.telemetry:
        return failed(
            f"{event.runtime} {trial.telemetry}", "Report this: telemetry must be off in every worker.", facts=facts
        )
    text = f"{event.runtime} starts in {event.start_ms:.0f} ms, its telemetry is off"
    if version < LEAST_RUNTIME:
        return failed(text, f"Install onnxruntime {LEAST_RUNTIME[0]}.{LEAST_RUNTIME[1]} or later.", facts=facts)
    return ok(text, facts)


def containment(context: Context) -> Finding:
    """A model that takes its worker over reaches nothing else; what this kernel lacks for that is said."""
    event = context.worker.started
    if event is None:
        raise SkipCheck("no worker starts")
    found = event.containment
    text = f"in force: {', '.join(found.in_force)}"
    if found.missing:
        text += f"; missing: {', '.join(f'{name} ({why})' for name, why in found.missing)}"
    if not found.lack:
        return ok(text, found.document())
    if context.settings.agent.uncontained_models == "allow":
        return warning(f"models of strangers are run all the same; {text}", _MEND_CONTAINMENT, found.document())
    what = "models that did not come with the program are refused (agent.uncontained_models)"
    return warning(f"{what}; {text}", _MEND_CONTAINMENT, found.document())


def bounds(context: Context) -> Finding:
    """What bounds the memory, processes and CPU of the running agent's workers from outside."""
    folder = context.settings.agent.state_dir
    status = read_status(folder) if in_use(folder) else None
    found = status.get("bounds") if status is not None else None
    if not isinstance(found, dict):
        raise SkipCheck("no agent runs here; where systemd delegates a control group to it, its workers have their own")
    if found.get("by") == GROUP:
        cpus = found.get("cpus")
        most = f" ({cpus:.2g} CPUs at most)" if isinstance(cpus, float) else ""
        return ok(f"a control group of its own for each worker: memory, processes, share of the CPU{most}", found)
    return ok(f"limits, and a watcher on the memory of workers, since {found.get('why')}", found)


def _telemetry(pid: int) -> str:
    """Say what speaks against telemetry being off in a running worker; empty if nothing does."""
    if OPT_OUT not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        return "runs without its opt-out of telemetry"
    sockets = psutil.Process(pid).net_connections(kind="inet")
    return f"has {len(sockets)} network connections open" if sockets else ""
