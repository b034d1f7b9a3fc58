"""How fast this machine does each kind of work: measured once in a process like a worker, and kept.

The measuring takes at most a few seconds. It is done again when the onnxruntime, the kernel, the governor, the CPUs
that may be used or their quota change. Imports neither numpy nor onnxruntime.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_agent.errors import ResourceError
from edge_agent.folders import write_atomically
from edge_agent.inference.launch import environment
from edge_agent.models.rates import Rates
from hardware import Profile

SECONDS = 3.0
"""How long measuring may have the CPU; on a busy machine that takes longer, up to four times as long."""
GRACE_SECONDS = 30.0
BURSTS = 4
BURST_SECONDS = 0.06
FILE_NAME = "calibration.json"
VERSION = 3
"""Grows when other things are measured."""
MAX_FILE_BYTES = 1024 * 1024


def conditions(profile: Profile) -> dict[str, Any]:
    """Return what the rates depend on; when any of it changes, old ones no longer hold."""
    try:
        runtime = metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        runtime = None
    return {
        "version": VERSION,
        "onnxruntime": runtime,
        "kernel": profile.kernel_release,
        "isa": profile.isa_path,
        "cpu": profile.cpu.model,
        "governor": profile.cpu.governor,
        "usable": list(profile.cpu.usable or ()),
        "quota_cpus": profile.cpu.quota_cpus,
    }


def thread_counts(profile: Profile) -> tuple[int, ...]:
    """Return the numbers of threads that are measured: one, two, and all that inference would use."""
    most = max(1, len(profile.cpu.usable or ()))
    return tuple(sorted({count for count in (1, 2, profile.usable_threads) if count <= most}))


def calibrate(
    profile: Profile,
    folder: Path,
    *,
    again: bool = False,
    seconds: float = SECONDS,
    started: Callable[[subprocess.Popen[bytes]], None] | None = None,
) -> Rates:
    """Return the rates of this machine: those kept in `folder`, or new ones, which are kept.

    Args:
        profile: of this machine.
        folder: the agent's state directory, or another place to keep them.
        again: measure whatever is kept.
        seconds: how long measuring may take.
        started: is given the process that measures, so that somebody may end it.

    Raises:
        ResourceError: they cannot be measured here; the message says why.
    """
    if not again and (found := kept(profile, folder)) is not None:
        return found
    now, path = conditions(profile), folder / FILE_NAME
    rates = replace(_measure(thread_counts(profile), seconds, started), share=present_share(profile))
    # The rates are good even where they can't be kept.
    with contextlib.suppress(OSError):
        write_atomically(path, json.dumps({"conditions": now, "rates": rates.to_json()}))
    return rates


def kept(profile: Profile, folder: Path) -> Rates | None:
    """Return the rates that are kept in `folder` and still hold; None if there are none."""
    return _read(folder / FILE_NAME, conditions(profile))


def present_share(profile: Profile) -> float:
    """Return how much of a CPU this process gets now while it wants one, 0.05 to 1; takes a quarter of a second.

    Other programs are what takes the rest. Under a quota it only asks for less than that, so that it is not stopped.
    """
    quota = profile.cpu.quota_cpus
    burst, pause = (BURST_SECONDS, 0.0) if quota is None else (BURST_SECONDS * min(0.5, quota / 2), BURST_SECONDS)
    wanted = got = 0.0
    for _ in range(BURSTS):
        wall, cpu = time.perf_counter(), time.thread_time()
        while time.perf_counter() - wall < burst:
            pass
        wanted += time.perf_counter() - wall
        got += time.thread_time() - cpu
        time.sleep(pause)
    return min(1.0, max(0.05, got / wanted))


def _read(path: Path, now: dict[str, Any]) -> Rates | None:
    try:
        with path.open("rb") as stream:
            data = json.loads(stream.read(MAX_FILE_BYTES))
        # How busy the machine was then says nothing of now.
        return replace(Rates.from_json(data["rates"]), share=1.0) if data["conditions"] == now else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # absent, cut or not ours: measured again


def _measure(
    counts: tuple[int, ...], seconds: float, started: Callable[[subprocess.Popen[bytes]], None] | None
) -> Rates:
    command = [sys.executable, "-P", "-m", "edge_agent.inference.calibrating", "--parent", str(os.getpid())]
    command += ["--threads", ",".join(map(str, counts)), "--seconds", str(seconds)]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(os.environ),
            cwd="/",
        )
        if started is not None:
            started(process)
        output, said = process.communicate(timeout=4 * seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise ResourceError(
            f"Measuring this machine did not end within {4 * seconds + GRACE_SECONDS:.0f} s.",
            hint="Try again when the machine is idle.",
        ) from None
    except OSError as error:
        raise ResourceError(f"The process that measures this machine could not be started: {error}.") from error
    try:
        return Rates.from_json(json.loads(output))
    except ValueError as error:
        lines = said.decode("utf-8", "replace").strip().split("\n")
        raise ResourceError(
            f"Measuring this machine failed (status {process.returncode}): {lines[-1][:300] or error}.",
            hint="Is there enough free memory, and is onnxruntime installed?",
        ) from error
