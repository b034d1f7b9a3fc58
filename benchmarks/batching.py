"""What one run with many inputs would win over as many runs with one each, and whether its outputs stay the same.

For each workload of `peers.py`: processor time and wall time an input when 2, 4, 8 and 16 of them are one run, beside
single runs one after the other and beside single runs on two threads at once (which is how the worker serves waiting
jobs, ADR 0027). Rounds take turns; figures are medians. Each output of a batch is compared with that of its input run
alone, bit for bit; where the model's file leaves no batch dimension free, that is said.
`python benchmarks/batching.py [--rounds N] [--seconds N] [--only tiny,text]`
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import onnxruntime as ort
from peerlab import own
from peerlab.workloads import Arrays, Workload, session_of, workloads

SIZES = (2, 4, 8, 16)
LANES = 2


def varied(workload: Workload, count: int) -> list[Arrays]:
    """Return so many inputs that differ."""
    random = np.random.default_rng(5)
    found = []
    for _ in range(count):
        one: Arrays = {}
        for name, array in workload.inputs.items():
            whole = array.dtype.kind == "i"
            one[name] = random.permutation(array, axis=1) if whole else random.random(array.shape, np.float32)
        found.append(one)
    return found


def joined(inputs: list[Arrays]) -> Arrays:
    """Return inputs as one, along the first axis."""
    return {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}


def timed(run: Callable[[], object], inputs: int, seconds: float) -> tuple[float, float]:
    """Return milliseconds of processor and of wall an input, over so many seconds."""
    run()
    cpu, wall, runs = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - wall < seconds:
        run()
        runs += 1
    return (time.process_time() - cpu) * 1000 / runs / inputs, (time.perf_counter() - wall) * 1000 / runs / inputs


def measure(workload: Workload, model: Path, options: argparse.Namespace, pool: ThreadPoolExecutor) -> None:
    """Measure one workload and print its rows."""
    session = session_of(model)
    inputs = varied(workload, max(SIZES))
    alone = [session.run(None, one) for one in inputs]
    batches = {size: joined(inputs[:size]) for size in SIZES}
    try:
        session.run(None, batches[SIZES[0]])
    except Exception as error:  # noqa: BLE001 onnxruntime's own are not one class
        print(f"| {workload.name} | cannot be batched: {str(error).splitlines()[0][:80]} | | | | |")
        return
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "one by one": (lambda: [session.run(None, one) for one in inputs], len(inputs)),
        f"on {LANES} threads": (lambda: list(pool.map(lambda one: session.run(None, one), inputs)), len(inputs)),
    }
    for size, batch in batches.items():
        ways[f"{size} in a run"] = (lambda batch=batch: session.run(None, batch), size)
        several = [batch] * LANES
        ways[f"{size} in a run, on {LANES} threads"] = (
            lambda several=several: list(pool.map(lambda one: session.run(None, one), several)),
            size * LANES,
        )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (run, count) in ways.items():
            found[name].append(timed(run, count, options.seconds))
    base = statistics.median(wall for _, wall in found[f"on {LANES} threads"])
    for name, figures in found.items():
        cpu, wall = (statistics.median(each) for each in zip(*figures, strict=True))
        said = ""
        if "threads" not in name and name != "one by one":
            size = int(name.split()[0])
            outputs = session.run(None, batches[size])
            same = all(
                np.array_equal(output[row], alone[row][number][0])
                for number, output in enumerate(outputs)
                for row in range(size)
            )
            said = "same bits" if same else "OTHER BITS"
        print(f"| {workload.name} | {name} | {cpu:.3f} | {wall:.3f} | {base / wall:.2f} | {said} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each way in each round (default 0.4)")
    parser.add_argument("--only", help="these workloads, separated by commas: tiny,vision-int8,vision-fp32,text")
    parser.add_argument("--cache", type=Path, help="where `peers.py` keeps its published models (default: made anew)")
    options = parser.parse_args()
    print(f"onnxruntime {ort.__version__}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")
    print(f"| workload | way | CPU, ms an input | wall, ms an input | inputs/s over {LANES} threads | outputs |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(LANES) as pool:
        repository = own.published(workloads(), options.cache or Path(folder))
        for workload in workloads():
            if options.only and workload.name not in options.only.split(","):
                continue
            made = repository if workload.form is not None else None
            measure(workload, own.file_of(made, workload.family, workload.form or "int8-static"), options, pool)


if __name__ == "__main__":
    main()
