"""The canary run: load a model alone, run it on known inputs, and measure. The daemon judges the outputs."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

from edge_agent.inference import limits
from edge_agent.inference.messages import Case
from edge_agent.inference.sessions import Output, Session

MAX_RUNS = 20_000


class Measured(NamedTuple):
    """What a canary run found; bytes are above what the worker had before it."""

    p50_us: int
    p95_us: int
    runs: int
    load_us: int
    peak_bytes: int
    outputs: list[list[Output]]


def measure(fd: int, cases: Sequence[Case], max_output_bytes: int, seconds: float, threads: int) -> Measured:
    """Load the model in `fd`, run every case once, then time up to `MAX_RUNS` runs for `seconds`.

    Raises:
        WorkerError: "model-load", "model-run".
        InputError: the model takes other inputs or gives other outputs than the cases have.
        TooLargeError: the outputs of all cases have more than `max_output_bytes` together.
        ResourceError: there is not enough memory.
    """
    gc.collect()
    limits.trim()
    limits.reset_peak()
    before = limits.status_bytes("VmRSS")
    session = Session(fd, threads)
    outputs = []
    for case in cases:
        outputs.append(session.run(case.inputs, case.outputs, max_output_bytes))
        max_output_bytes -= sum(len(output.data) for output in outputs[-1])
    times_us = _time_runs(session, cases, seconds)
    peak_bytes = max(0, limits.status_bytes("VmHWM") - before)
    return Measured(
        p50_us=times_us[len(times_us) // 2],
        p95_us=times_us[len(times_us) * 95 // 100],
        runs=len(times_us),
        load_us=session.load_us,
        peak_bytes=peak_bytes,
        outputs=outputs,
    )


def _time_runs(session: Session, cases: Sequence[Case], seconds: float) -> list[int]:
    """Return the times of single runs in microseconds, in ascending order."""
    times_us: list[int] = []
    until = time.perf_counter_ns() + int(seconds * 1e9)
    for case in cycle(cases):
        started = time.perf_counter_ns()
        session.run(case.inputs, case.outputs, max_output_bytes=2**63)
        ended = time.perf_counter_ns()
        times_us.append((ended - started) // 1000)
        if ended >= until or len(times_us) >= MAX_RUNS:
            break
    return sorted(times_us)
