"""The canary run, in the worker that does nothing else: load a model, run it on known inputs, measure.

The daemon judges the outputs. Memory is measured on the first session of a fresh process, which takes what the first
session of a serving worker takes; every further number of threads gets a session of its own, and its time.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

from edge_agent.errors import EdgeAgentError
from edge_agent.inference import limits, samples, together
from edge_agent.inference.messages import Case
from edge_agent.inference.sessions import Output, Session

MAX_RUNS = 20_000
WARM_UP_RUNS = 3
MAX_WARM_UP_FRACTION = 0.2
"""Of the time for one number of threads, no more than this goes into runs that are not counted."""
SAME_SPEED = 1.05
"""A number of threads that is faster by less is not worth its threads."""
WORTH = 1.15
"""Runs side by side, each with one thread, or as one must do so many times what single runs do at best."""
MOST_LANES_US = 250_000
"""A single run that takes longer with one thread gets its threads: somebody waits for it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        cases: known runs; if there are none, inputs are made up.
        extents: of the symbols in the shapes of made-up inputs.
        threads: numbers of threads to try, the one that memory is measured with first.
        seconds: how long runs are repeated with each; there is at least one.
        within_seconds: no further number of threads is begun later than this.
        max_output_bytes: the outputs of all cases together.
    """

    cases: Sequence[Case]
    extents: Mapping[str, int]
    threads: Sequence[int]
    seconds: float
    within_seconds: float
    max_output_bytes: int


class Times(NamedTuple):
    """Single runs with one number of threads, in microseconds; `cpu_us` is CPU time over all threads."""

    threads: int
    p50_us: int
    p95_us: int
    cpu_us: int
    runs: int


class Measured(NamedTuple):
    """What a canary run found; bytes are above what the worker had before it.

    `lanes` is how many runs side by side do the most; with more than one, each has one thread. `together` is how many
    waiting runs are best made one, which pays where it is more than one. `outputs` are those of
    the number of threads that comes first in `times`, the best one. `not_finite` says in words what is wrong with the
    outputs for made-up inputs, which are not sent.
    """

    times: list[Times]
    load_us: int
    load_peak_bytes: int
    steady_bytes: int
    run_peak_bytes: int
    outputs: list[list[Output]]
    not_finite: str
    lanes: int = 1
    together: int = 1


def measure(fd: int, plan: Plan) -> Measured:
    """Load the model in `fd`, run every case once, then time up to `MAX_RUNS` runs for each number of threads.

    Raises:
        WorkerError: "model-load", "model-run".
        InputError: the model takes other inputs or gives other outputs than the cases have.
        TooLargeError: the outputs of all cases have more than `max_output_bytes` together.
        ResourceError: there is not enough memory.
    """
    started = time.monotonic()
    gc.collect()
    limits.trim()
    limits.reset_peak()
    before = limits.status_bytes("VmRSS")
    session = Session(fd, plan.threads[0])
    load_us = session.load_us
    load_peak_bytes = max(0, limits.status_bytes("VmHWM") - before)
    steady_bytes = max(0, limits.status_bytes("VmRSS") - before)
    cases = list(plan.cases) or [Case(samples.make(session.inputs, plan.extents), ())]
    limits.reset_peak()
    # What made-up inputs take is the requester's in real work, and no part of the model's.
    inputs_bytes = 0 if plan.cases else sum(len(tensor.data) for tensor in cases[0].inputs)
    beside_peak_bytes = 0
    answers = {plan.threads[0]: _answers(session, cases, plan)}
    times = [_time_runs(session, cases, plan.seconds, plan.threads[0])]
    run_peak_bytes = max(0, limits.status_bytes("VmHWM") - before - inputs_bytes)
    beside = _Beside()
    as_one = {plan.threads[0]: _as_one(session, fd, cases, plan, times[0], run_peak_bytes)}
    for threads in plan.threads[1:]:
        if time.monotonic() - started + load_us / 1e6 > plan.within_seconds:
            break
        # One session at a time: two would not fit where one just does.
        del session
        gc.collect()
        limits.trim()
        session = Session(fd, threads)
        answers[threads] = _answers(session, cases, plan)
        times.append(_time_runs(session, cases, plan.seconds, threads))
        as_one[threads] = _as_one(session, fd, cases, plan, times[-1], run_peak_bytes)
        if threads == 1 and times[-1].p50_us <= MOST_LANES_US:
            limits.reset_peak()
            beside = _side_by_side(session, cases, plan.seconds, max(plan.threads))
            beside_peak_bytes = max(0, limits.status_bytes("VmHWM") - before - inputs_bytes)
    fastest = min(entry.p50_us for entry in times)
    times.sort(key=lambda entry: (entry.p50_us > SAME_SPEED * fastest, entry.threads))
    best_together = max(as_one, key=lambda threads: as_one[threads].per_second)
    several = as_one[best_together]
    if several.per_second > WORTH * max(1e6 / max(1, fastest), beside.per_second):
        times.sort(key=lambda entry: entry.threads != best_together)
        beside = _Beside()
    elif beside.per_second > WORTH * 1e6 / max(1, fastest):
        times.sort(key=lambda entry: entry.threads != 1)
        run_peak_bytes = max(run_peak_bytes, beside_peak_bytes)
        several = together.AsOne()
    else:
        beside, several = _Beside(), together.AsOne()
    best = answers[times[0].threads]
    return Measured(
        times=times,
        load_us=load_us,
        load_peak_bytes=load_peak_bytes,
        steady_bytes=min(steady_bytes, load_peak_bytes),
        run_peak_bytes=run_peak_bytes,
        outputs=best.outputs,
        not_finite=best.not_finite,
        lanes=beside.lanes,
        together=several.runs,
    )


def _as_one(  # noqa: PLR0913, PLR0917 what was measured so far
    session: Session, fd: int, cases: Sequence[Case], plan: Plan, alone: Times, run_peak_bytes: int
) -> together.AsOne:
    if alone.p50_us > together.MOST_RUN_US:
        return together.AsOne()
    return together.measured(session, fd, [case.inputs for case in cases], plan.seconds / 2, run_peak_bytes)


class _Beside(NamedTuple):
    lanes: int = 1
    per_second: float = 0.0


def _side_by_side(session: Session, cases: Sequence[Case], seconds: float, lanes: int) -> _Beside:
    """Return how much `lanes` callers of one session do together; nothing where there is no memory for that."""
    done = [0] * lanes
    until = time.perf_counter() + seconds

    def call(lane: int) -> None:
        with contextlib.suppress(EdgeAgentError):
            for case in cycle(cases):
                session.run(case.inputs, case.outputs, max_output_bytes=2**63)
                done[lane] += 1
                if time.perf_counter() >= until:
                    return

    started = time.perf_counter()
    limits.count_stacks(lanes)
    callers = [threading.Thread(target=call, args=(lane,)) for lane in range(lanes)]
    try:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    except RuntimeError:  # no thread can be made
        return _Beside()
    finally:
        limits.count_stacks(-lanes)
    return _Beside(lanes, sum(done) / (time.perf_counter() - started) if all(done) else 0.0)


class _Answers(NamedTuple):
    outputs: list[list[Output]]
    not_finite: str


def _answers(session: Session, cases: Sequence[Case], plan: Plan) -> _Answers:
    if not plan.cases:  # large, and of no use to the daemon, which has nothing to hold them against
        return _Answers([], samples.not_finite(session.run(cases[0].inputs, (), 2**63)))
    left = plan.max_output_bytes
    outputs = []
    for case in cases:
        outputs.append(session.run(case.inputs, case.outputs, left))
        left -= sum(len(output.data) for output in outputs[-1])
    return _Answers(outputs, "")


def _time_runs(session: Session, cases: Sequence[Case], seconds: float, threads: int) -> Times:
    """Return the times of single runs after a warm-up."""
    times_us: list[int] = []
    begun = time.perf_counter_ns()
    until = begun + int(seconds * 1e9)
    warm_until = begun + int(seconds * MAX_WARM_UP_FRACTION * 1e9)
    warm_ups = WARM_UP_RUNS
    cpu_before = time.process_time_ns()
    for case in cycle(cases):
        started = time.perf_counter_ns()
        if warm_ups and started < warm_until:
            session.run(case.inputs, case.outputs, max_output_bytes=2**63)
            warm_ups -= 1
            cpu_before = time.process_time_ns()
            continue
        warm_ups = 0
        session.run(case.inputs, case.outputs, max_output_bytes=2**63)
        ended = time.perf_counter_ns()
        times_us.append((ended - started) // 1000)
        if ended >= until or len(times_us) >= MAX_RUNS:
            break
    cpu_us = (time.process_time_ns() - cpu_before) // 1000 // len(times_us)
    times_us.sort()
    return Times(threads, times_us[len(times_us) // 2], times_us[len(times_us) * 95 // 100], cpu_us, len(times_us))
