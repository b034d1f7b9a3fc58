"""What one run with many inputs would win over as many runs with one each, and whether its outputs stay the same.

For each workload of `peers.py`: processor time and wall time an input when 2, 4, 8 and 16 of them are one run, beside
single runs one after the other and beside single runs on two threads at once (which is how the worker serves waiting
jobs, ADR 0027). Rounds take turns; figures are medians. Each output of a batch is compared with that of its input run
alone, bit for bit; where the model's file leaves no batch dimension free, that is said. `dense` is a network of three
layers of 2048 by 2048 in fp32, 50 MB of weights, which a single run has to fetch for one row. At the end: what the
worker itself does with it, runs one by one, on two threads and made one (ADR 0032), and what its canary run advises.
`python benchmarks/batching.py [--rounds N] [--seconds N] [--only tiny,text,dense]`
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
from onnx import TensorProto, helper, numpy_helper
from peerlab import own
from peerlab.workloads import Arrays, Workload, session_of, workloads
from worker import Piped

from edge_agent.inference import canary, together
from edge_agent.inference.handle import Request, RunDone
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

SIZES = (2, 4, 8, 16)
LANES = 2
WIDTH = 2048
WAYS = {"one by one": (1, 1, 1), f"on {LANES} threads": (LANES, LANES, 1), "made one": (1, 1, together.MOST)}
"""Threads of the worker, lanes, runs that are made one."""


def dense() -> Workload:
    """Return the workload that no peer is asked for: its model is made here."""
    return Workload("dense", "dense", "fp32", {"x": np.random.default_rng(3).random((1, WIDTH), np.float32)})


def dense_model() -> bytes:
    """Build its model."""
    random = np.random.default_rng(4)
    nodes, weights, x = [], [], "x"
    for layer in range(3):
        of = random.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5)
        weights.append(numpy_helper.from_array(of, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [x, f"w{layer}"], [f"sum{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"sum{layer}"], [f"h{layer}"]))
        x = f"h{layer}"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", WIDTH)) for name in ("x", x)]
    graph = helper.make_graph(nodes, "dense", ports[:1], ports[1:], weights)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def through_the_worker(model: Path, inputs: list[Arrays], options: argparse.Namespace) -> None:
    """Print how many runs a second the worker answers while as many wait as are made one, twice over."""
    tensors = [
        Tensor(TensorSpec("x", DataType.FP32, one["x"].shape), one["x"].tobytes())
        for one in inputs[: 2 * together.MOST]
    ]
    requests = [Request(token, bytes(32), [tensor], (), 1 << 20) for token, tensor in enumerate(tensors, 1)]
    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, (threads, lanes, several) in WAYS.items():
            piped = Piped(threads)
            piped.start()
            piped.load(bytes(32), model.read_bytes(), lanes, several)
            began, done = time.perf_counter(), 0
            while time.perf_counter() - began < options.seconds:
                piped.worker.run_all(requests)
                done += sum(isinstance(piped.events.get(), RunDone) for _ in requests)
            rates.setdefault(name, []).append(done / (time.perf_counter() - began))
            piped.worker.stop(10)
    with model.open("rb") as file:
        found = canary.measure(file.fileno(), canary.Plan([], {}, (LANES, 1), options.seconds, 60.0, 1 << 20))
    print("\n| `dense` through the worker | runs a second |\n|---|---|")
    for name, figures in rates.items():
        print(f"| {name} | {statistics.median(figures):.0f} |")
    print(f"\nIts canary run advises {found.lanes} lanes, and {found.together} waiting runs to be made one.")


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
    parser.add_argument("--only", help="these workloads, separated by commas: tiny,vision-int8,vision-fp32,text,dense")
    parser.add_argument("--cache", type=Path, help="where `peers.py` keeps its published models (default: made anew)")
    options = parser.parse_args()
    print(f"onnxruntime {ort.__version__}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")
    print(f"| workload | way | CPU, ms an input | wall, ms an input | inputs/s over {LANES} threads | outputs |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(LANES) as pool:
        repository = own.published(workloads(), options.cache or Path(folder))
        (made_here := Path(folder, "dense.onnx")).write_bytes(dense_model())
        for workload in [*workloads(), dense()]:
            if options.only and workload.name not in options.only.split(","):
                continue
            if workload.name == "dense":
                measure(workload, made_here, options, pool)
                through_the_worker(made_here, varied(workload, max(SIZES)), options)
                continue
            made = repository if workload.form is not None else None
            measure(workload, own.file_of(made, workload.family, workload.form or "int8-static"), options, pool)


if __name__ == "__main__":
    main()
