"""What it costs that a worker is contained: workers with and without it, by turns, on this machine.

    python benchmarks/containment.py [--rounds 15] [--seconds 4] [--threads 1] [--json]

Started by turns: time from start to ready, and memory (PSS) then and with a model. Side by side: single runs of the two
workloads of `worker.py`, in short blocks that take turns. All figures are medians. The workers without containment are
started by this script alone: the program has no switch for it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any
from unittest import mock

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
from worker import BLOCKS, Piped, VisionModel, times_us

from edge_agent.inference import containment, launch
from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

START = "import sys; from edge_agent.inference import containment, worker; {}; sys.exit(worker.main())"
WAYS = {"contained": "pass", "bare": "containment.enter = lambda _readable: containment.NOTHING"}
ENTER = """
import time
from edge_agent.inference import containment, service
before = time.perf_counter()
containment.enter(())
print((time.perf_counter() - before) * 1e3)
"""
DIGEST = bytes(32)


def worker(way: str, threads: int) -> tuple[Piped, float]:
    """Start a worker, contained or not; return it and the milliseconds until it was ready."""
    spawn = subprocess.Popen

    def instead(command: list[str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - those of Popen
        return spawn([command[0], "-P", "-c", START.format(WAYS[way]), *command[4:]], **options)

    with mock.patch.object(launch.subprocess, "Popen", instead):
        piped = Piped(threads)
        return piped, piped.start()


def starts(rounds: int, threads: int, model: bytes) -> dict[str, dict[str, float]]:
    """Return medians over workers that are started, loaded with a model, and ended, by turns."""
    found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for number in range(rounds + 1):
        for way in WAYS if number % 2 else reversed(WAYS):
            piped, start_ms = worker(way, threads)
            idle = piped.pss_mib()
            figures = {"start_ms": start_ms, "load_ms": piped.load(DIGEST, model), "idle_pss_mib": idle}
            figures["loaded_pss_mib"] = piped.pss_mib()
            piped.worker.stop(5)
            for name, value in figures.items():
                if number:  # the first pair fills the kernel's caches
                    found[way].setdefault(name, []).append(value)
    return {
        way: {name: statistics.median(values) for name, values in figures.items()} for way, figures in found.items()
    }


def runs(content: bytes, image: np.ndarray[Any, Any], name: str, seconds: float, threads: int) -> dict[str, float]:
    """Return the median time of a run, in microseconds, contained and not; the outputs are the same."""
    tensor = Tensor(TensorSpec(name, DataType.FP32, image.shape), image.tobytes())
    pair = {way: worker(way, threads)[0] for way in WAYS}
    outputs = set()
    for piped in pair.values():
        piped.load(DIGEST, content)
        outputs.add(tuple(bytes(output.data) for output in piped.run(DIGEST, tensor).outputs))
    assert len(outputs) == 1
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for block in range(2 * BLOCKS):
        for way in WAYS if block % 2 else reversed(WAYS):
            times[way] += times_us(lambda way=way: pair[way].run(DIGEST, tensor), seconds / BLOCKS / 4)  # type: ignore[misc]
    for piped in pair.values():
        piped.worker.stop(5)
    return {way: statistics.median(values) for way, values in times.items()}


def enter_ms(rounds: int) -> float:
    """Return how long entering containment takes inside a process that has imported everything."""
    environment = {**os.environ, **launch.environment(os.environ)}
    command = [sys.executable, "-c", ENTER]
    done = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(rounds)]
    return statistics.median(float(one.stdout) for one in done)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="workers started of each kind (default 15)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each workload (default 4)")
    parser.add_argument("--threads", type=int, default=1, help="inside an operator (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    family = builtin().families[0]
    digits = (BUILTIN_DIR / family.variants[0].file).read_bytes()
    size = [extent if isinstance(extent, int) else 1 for extent in family.inputs[0].shape]
    random = np.random.default_rng(1)
    report: dict[str, Any] = {"offered": containment.offered().document(), "enter_ms": enter_ms(options.rounds)}
    report["starts"] = starts(options.rounds, options.threads, digits)
    report["tiny_us"] = runs(
        digits, random.random(size, np.float32), family.inputs[0].name, options.seconds, options.threads
    )
    image = random.random((1, 3, 224, 224), np.float32)
    report["vision_us"] = runs(VisionModel().build(), image, "image", options.seconds, options.threads)
    if options.json:
        print(json.dumps(report))
        return
    print(f"in force {', '.join(report['offered']['in_force'])}; entering takes {report['enter_ms']:.2f} ms")
    for way in WAYS:
        figures = report["starts"][way]
        print(
            f"{way:10} start {figures['start_ms']:6.1f} ms   load {figures['load_ms']:5.1f} ms   PSS "
            f"{figures['idle_pss_mib']:.2f} idle, {figures['loaded_pss_mib']:.2f} MiB loaded   "
            f"tiny {report['tiny_us'][way]:7.1f} µs   vision {report['vision_us'][way]:9.1f} µs"
        )


if __name__ == "__main__":
    main()
