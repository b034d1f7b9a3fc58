"""Measured facts: what this machine's memory, kernels and disk really do, taken once and kept.

The measuring is a process of its own (`python -m hardware.benchmark --json`), so that whoever asks stays free of
numpy and onnxruntime. `measure` starts it, keeps the result under the conditions it was taken under, and takes
it again when one of them changes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware.verdict import table, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hardware.schema import Profile

__all__ = ["BenchmarkError", "Measured", "conditions", "measure", "plan", "table", "verdict"]

SECONDS = 8.0
"""What a measurement may take, from the start of its process on."""
GRACE_SECONDS = 60.0
"""When a process that doesn't come back is ended: a machine out of memory may take long to import numpy."""
FILE_NAME = "benchmark.json"
MAX_FILE_BYTES = 256 * 1024


class BenchmarkError(RuntimeError):
    """The measurement didn't succeed; the message says why and what to do."""


@dataclass(frozen=True)
class Measured:
    """One measurement: the conditions it holds under, and the figures (see docs/profile.md)."""

    conditions: dict[str, Any]
    results: dict[str, Any]
    cached: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"conditions": self.conditions, "results": self.results, "cached": self.cached}

    def figure(self, *path: str) -> Any:  # noqa: ANN401 - JSON is what it is
        """Return the figure at that path of `results`, or None."""
        value: Any = self.results
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def gmac_s(self, kernel: str, *, one_thread: bool = False) -> float | None:
        """Return a kernel's rate in 10^9 multiply-accumulates a second, or None if it wasn't measured."""
        rate = self.figure("kernels", kernel, "gmac_s_1" if one_thread else "gmac_s")
        return float(rate) if isinstance(rate, (int, float)) and rate > 0 else None


def plan(profile: Profile) -> tuple[int, tuple[int, ...] | None]:
    """Return how many threads work may use, and on which CPUs: the big ones we may use, as far as the quota goes.

    onnxruntime itself counts all CPUs of the machine, whatever the process may use. None as CPUs: unknown.
    """
    usable = profile.cpu.usable or profile.cpu.online
    if not usable:
        return 1, None
    big = tuple(cpu for cluster in profile.cpu.clusters if cluster.big for cpu in cluster.cpus if cpu in usable)
    cpus = tuple(sorted(big or usable))
    quota = profile.cpu.quota_cpus
    threads = len(cpus) if quota is None else max(1, min(len(cpus), int(quota)))
    return threads, cpus


def conditions(profile: Profile) -> dict[str, Any]:
    """Return what a measurement depends on; when any of it changes, the old figures no longer hold."""
    threads, cpus = plan(profile)
    return {
        "onnxruntime": _onnxruntime_version(),
        "kernel": profile.kernel_release,
        "governor": profile.cpu.governor,
        "cpu": profile.cpu.model,
        "usable": list(profile.cpu.usable or ()),
        "quota_cpus": profile.cpu.quota_cpus,
        "threads": threads,
        "cpus": None if cpus is None else list(cpus),
    }


def measure(
    profile: Profile,
    cache_dir: Path | str,
    *,
    seconds: float = SECONDS,
    again: bool = False,
    python: str = sys.executable,
) -> Measured:
    """Return the measured facts of this machine: those kept in `cache_dir`, or new ones.

    New ones are taken if there are none, if their conditions have changed, or if `again`. The disk measured is
    that of `cache_dir`. Raises BenchmarkError.
    """
    now = conditions(profile)
    path = Path(cache_dir) / FILE_NAME
    if not again and (kept := _read(path)) is not None and kept.conditions == now:
        return kept
    measured = Measured(now, _run(profile, Path(cache_dir), seconds, python))
    # The figures are good even where they can't be kept.
    with contextlib.suppress(OSError):
        _write(path, measured)
    return measured


def _onnxruntime_version() -> str | None:
    from importlib import metadata  # noqa: PLC0415 - slow to import, and onnxruntime itself much slower

    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> Measured | None:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MAX_FILE_BYTES))
        return Measured(dict(data["conditions"]), dict(data["results"]), cached=True)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # absent, cut or not ours: measured again


def _write(path: Path, measured: Measured) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"conditions": measured.conditions, "results": measured.results}
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".benchmark-")
    try:
        with os.fdopen(fd, "w") as file:
            json.dump(data, file, indent=1)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _run(profile: Profile, folder: Path, seconds: float, python: str) -> dict[str, Any]:
    threads, cpus = plan(profile)
    command = [python, "-P", "-m", "hardware.benchmark", "--json"]
    command += ["--threads", str(threads), "--seconds", str(seconds), "--folder", str(folder)]
    if cpus is not None:
        command += ["--cpus", ",".join(map(str, cpus))]
    if profile.memory.budget_bytes is not None:
        command += ["--free-bytes", str(profile.memory.budget_bytes)]
    ours = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds + GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(
            f"The measurement did not end within {seconds + GRACE_SECONDS:.0f} s. Try again when the machine is idle."
        ) from None
    except OSError as error:
        raise BenchmarkError(f"{python} could not be started: {error.strerror}.") from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().split("\n")
        raise BenchmarkError(
            f"The measurement failed (status {done.returncode}): {lines[-1][:300]}. Is onnxruntime installed?"
        )
    try:
        results = json.loads(done.stdout)
        return dict(results)
    except (ValueError, TypeError) as error:
        raise BenchmarkError("The measurement gave no figures that can be read.") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure here and now, in this process, and print the figures."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m hardware.benchmark", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--threads", type=int, default=0, help="threads to use besides one (0: all CPUs)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long it may take")
    parser.add_argument("--cpus", default="", help="the CPUs to run on, such as 4,5,6,7")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="the folder whose disk is measured")
    parser.add_argument("--free-bytes", type=int, default=None, help="how much memory may be taken")
    options = parser.parse_args(arguments)
    if options.cpus:
        # Where the cpuset changed meanwhile, the kernel's own choice is as good.
        with contextlib.suppress(OSError, ValueError):
            os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    threads = options.threads if options.threads > 0 else len(os.sched_getaffinity(0))
    from hardware import timing  # noqa: PLC0415 - numpy and onnxruntime, in this process only

    results = timing.run(threads, options.seconds, options.folder, options.free_bytes, started)
    if options.json:
        sys.stdout.write(json.dumps(results) + "\n")
    else:
        sys.stdout.write("\n".join(table(Measured({}, results))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
