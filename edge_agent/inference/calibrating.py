"""The calibration's own process: `python -m edge_agent.inference.calibrating --threads 1,2 --seconds 3`.

It runs as a worker does, in the same environment and with the same session options, times the models of `micro` and
prints the rates as JSON. Of a kernel's runs the fastest counts: other programs make some slower, nothing makes one
faster. With one thread the time on the CPU counts, which other programs hardly change; with several the clock, unless
the machine is so busy that it would tell more of others: then the time on the CPUs, shared evenly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_agent.inference import containment, limits
from edge_agent.models.rates import Point, Rates
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

MIN_RUNS = 3
MEASURED_ALWAYS = 12
"""So many of the models are measured whatever time it takes: without them little can be said."""
SLICE_SECONDS = 0.008
LEAST_US = 0.05
MOST_WAITING = 4.0
QUIET_SHARE = 0.8
UNEVEN = 1.15
"""Threads never share work evenly: the last one takes so much longer than the mean."""
RUNS_OF_NOTHING = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures rates for the agent; started by the agent, not by people.")
    parser.add_argument("--threads", required=True, help="numbers of threads, such as 1,2")
    parser.add_argument("--seconds", type=float, required=True, help="how long it may take")
    parser.add_argument("--parent", type=int, required=True, help="the process id of who asked")
    options = parser.parse_args(arguments)
    limits.die_with(options.parent)
    limits.volunteer_for_oom()
    limits.no_core_dumps()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    counts = sorted({max(1, int(count)) for count in options.threads.split(",")})
    nothing = _nothing()
    containment.enter(())
    rates = measure(counts, options.seconds, nothing)
    sys.stdout.write(json.dumps(rates.to_json()) + "\n")
    return 0


def measure(threads: Sequence[int], seconds: float, nothing: int) -> Rates:
    """Return the rates at each number of threads.

    What is not done when the process has had the CPU for `seconds`, imports included, or after several times as long by
    the clock, is left out. `nothing` is the file of a model that does nothing.
    """
    until = time.perf_counter() + MOST_WAITING * seconds
    from edge_agent.inference import micro  # noqa: PLC0415 - imports numpy

    before = _run_and_wait()
    run_us = {count: _run_us(count, nothing) for count in threads}
    bare_us = {count: _bare_us(count) for count in threads}
    points: dict[int, dict[str, list[Point]]] = {count: {} for count in threads}
    for count in threads:
        each = _timed(micro.overhead(), count, bare_us[count])
        points[count]["view"] = [Point(1.0, max(LEAST_US, each))]
    for index, model in enumerate(micro.all_of_them()):
        for count in threads:
            over = time.process_time() > seconds or time.perf_counter() > until
            if over and index >= MEASURED_ALWAYS:
                break
            # An operator that this build lacks, or memory that it has not, costs its own figure only.
            with contextlib.suppress(Exception):
                each = _timed(model, count, bare_us[count])
                points[count].setdefault(model.kind, []).append(Point(model.amount, max(LEAST_US, each)))
    curves = {count: {kind: tuple(sorted(found)) for kind, found in kinds.items()} for count, kinds in points.items()}
    run, wait = (after - first for after, first in zip(_run_and_wait(), before, strict=True))
    return Rates(curves, run_us, min(1.0, max(0.05, run / (run + wait))) if run > 0 else 1.0)


def _nothing() -> int:
    """Return the file of a model that does nothing: what is contained makes no files, not even in memory."""
    from edge_agent.inference import micro, sessions  # noqa: F401, PLC0415 - numpy, onnxruntime: under the limits above

    descriptor = os.memfd_create("nothing")
    os.write(descriptor, micro.nothing().build()[0])
    return descriptor


def _run_us(threads: int, nothing: int) -> float:
    """Return what one run through a worker's own session takes, with a model that does nothing."""
    from edge_agent.inference import micro  # noqa: PLC0415 - as above
    from edge_agent.inference.sessions import Session  # noqa: PLC0415 - as above

    _, feeds = micro.nothing().build()
    session = Session(nothing, threads)
    inputs = [Tensor(TensorSpec(name, DataType.FP32, array.shape), array.tobytes()) for name, array in feeds.items()]
    took = []
    for _ in range(RUNS_OF_NOTHING):
        start = time.perf_counter_ns()
        session.run(inputs, [], 1 << 20)
        took.append(time.perf_counter_ns() - start)
    return max(LEAST_US, sorted(took)[len(took) // 4] / 1e3)


def _bare_us(threads: int) -> float:
    """Return what one run of onnxruntime alone takes: what is taken off the times of kernels."""
    from edge_agent.inference import micro  # noqa: PLC0415 - as above

    return max(0.0, _timed(micro.nothing(), threads, 0.0))


def _timed(model: Any, threads: int, run_us: float) -> float:  # noqa: ANN401 - `micro` is imported late
    """Return how long one node of `model` takes, in microseconds, without what the run itself costs."""
    from edge_agent.inference.sessions import open_bytes  # noqa: PLC0415 - imports onnxruntime

    data, feeds = model.build()
    session = open_bytes(data, threads)
    session.run(None, feeds)
    run, wait = _run_and_wait()
    by_clock = threads > 1 and run >= QUIET_SHARE * (run + wait)
    now = time.perf_counter_ns if by_clock else time.process_time_ns
    took: list[int] = []
    end = time.perf_counter_ns() + int(SLICE_SECONDS * 1e9)
    while len(took) < MIN_RUNS or time.perf_counter_ns() < end:
        start = now()
        session.run(None, feeds)
        took.append(now() - start)
    shared = 1.0 if by_clock or threads == 1 else UNEVEN / threads
    return float((shared * min(took) / 1e3 - run_us) / model.nodes)


def _run_and_wait() -> tuple[float, float]:
    """Return the seconds that the threads of this process have run, and waited while they could have run."""
    run = wait = 0.0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):
            ran, waited, *_ = task.read_text(encoding="ascii").split()
            run += int(ran) / 1e9
            wait += int(waited) / 1e9
    return run, wait


if __name__ == "__main__":
    sys.exit(main())
