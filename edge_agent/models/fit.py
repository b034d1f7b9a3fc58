"""What a variant will cost on a machine, predicted before it is ever loaded. Pure: numbers in, intervals out.

Memory is in bytes above an idle worker (onnxruntime imported, no session yet), for one sample at a time and
with onnxruntime's arena as it is by default. The constants are from measurements of onnxruntime on CPUs;
the width of an interval is how far its measurements lay apart. A prediction decides only what is worth
trying: what is offered has been measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.models.catalogue import Costs, Variant

MIB = 1024 * 1024

# Expected values: load = 14 MB + W + max(1.25 · Wconv, largest), steady = 3 MB + 1.02 · W, run = 9 MB +
# 1.02 · W + 0.8 · L with W all constants, Wconv weights of float convolutions (packed anew), L the peak of
# living intermediates.
LOAD_BASE_BYTES = 14 * MIB
STEADY_BASE_BYTES = 3 * MIB
RUN_BASE_BYTES = 9 * MIB
FIRST_SESSION_BYTES = 10 * MIB
"""What the first session of a process takes on top, whatever the model: thread pool, kernel registry,
arena.
"""
MISS_BYTES = 6 * MIB
"""How far above the expected value a model unknown to the predictor has been seen."""
AT_LEAST = 0.9
"""Of the constants, this share is in memory whatever else is saved."""
CONV_PACKING = 1.25
STEADY_FACTOR = 1.02
LIVENESS_FACTOR = 0.8
LIVENESS_WORST = 2.25
"""The arena grows by powers of two and layouts are changed through copies: large images took 2.1 times
their liveness.
"""

RUN_OVERHEAD_US = (3.0, 8.0, 50.0)
NODE_OVERHEAD_US = (0.3, 1.5, 15.0)
GMACS_PER_CPU = (0.3, 4.0, 100.0)
"""Milliards of float multiply-accumulates a second of one CPU, from an in-order board to a server with
AVX-512.
"""
MEMORY_GB_PER_SECOND = (1.0, 4.0, 40.0)
MEASURED_SPREAD = (0.5, 1.0, 2.0)
"""What a kernel reaches of a measured rate, as factors."""
EIGHT_BIT_SPEED = (0.1, 1.3, 4.0)
"""8-bit against float kernels: the same model in 8 bits was seen up to 4 times as fast, and far slower than
in floats.
"""

_EIGHT_BIT = frozenset({"qdq", "qoperator", "dynamic"})


@dataclass(frozen=True, slots=True)
class Interval:
    """A prediction: between `low` and `high`, most likely `expected`.

    Raises:
        ValueError: the three are not in order or not all at least 0.
    """

    low: float
    expected: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.expected <= self.high:
            raise ValueError(f"not an interval: {self.low}, {self.expected}, {self.high}")


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What is known about the machine; None is what nobody has measured yet, and makes intervals wider.

    Raises:
        ValueError: a fact that is not above 0.
    """

    cpus: float
    """CPUs that a worker may use, quotas included (1.5 is one and a half)."""
    gmacs_per_second: float | None = None
    """Measured float multiply-accumulates of all those CPUs together, in milliards a second."""
    memory_gb_per_second: float | None = None

    def __post_init__(self) -> None:
        for value in (self.cpus, self.gmacs_per_second, self.memory_gb_per_second):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"a machine's facts are above 0, not {value}")


@dataclass(frozen=True, slots=True)
class Fit:
    """The predicted costs of one variant: memory in bytes above an idle worker, time for one sample."""

    load_peak_bytes: Interval
    steady_bytes: Interval
    run_peak_bytes: Interval
    latency_ms: Interval
    reasons: tuple[str, ...]

    @property
    def peak_bytes(self) -> Interval:
        """The most memory at any time, loading or running."""
        load, run = self.load_peak_bytes, self.run_peak_bytes
        return Interval(max(load.low, run.low), max(load.expected, run.expected), max(load.high, run.high))


def predict(variant: Variant, machine: MachineFacts) -> Fit:
    """Return what `variant` is expected to cost on `machine`, and why in words.

    Raises:
        ValueError: nobody has counted the costs of its graph.
    """
    if variant.costs is None:
        raise ValueError(f"the costs of {variant.name} are not known")
    load, load_reason = _load_peak(variant.costs)
    steady, run, run_reason = _resident(variant.costs)
    latency, latency_reasons = _latency(variant, variant.costs, machine)
    return Fit(load, steady, run, latency, (load_reason, run_reason, *latency_reasons))


def _load_peak(costs: Costs) -> tuple[Interval, str]:
    weights = costs.initializer_bytes
    packed = CONV_PACKING * costs.conv_fp32_initializer_bytes
    extra = max(packed, costs.largest_initializer_bytes)
    expected = LOAD_BASE_BYTES + weights + extra
    why = "its convolutions' weights packed anew" if packed >= extra else "a second copy of its largest constant"
    reason = (
        f"loading takes about {_mb(expected)}: {_mb(weights)} of constants, {_mb(extra)} for {why}, "
        f"{_mb(LOAD_BASE_BYTES)} for a session"
    )
    return Interval(AT_LEAST * weights, expected, 1.05 * expected + MISS_BYTES), reason


def _resident(costs: Costs) -> tuple[Interval, Interval, str]:
    weights, alive = costs.initializer_bytes, costs.activation_peak_bytes
    held = STEADY_FACTOR * weights
    steady = Interval(
        AT_LEAST * weights, STEADY_BASE_BYTES + held, STEADY_BASE_BYTES + 1.05 * held + FIRST_SESSION_BYTES
    )
    run_expected = RUN_BASE_BYTES + held + LIVENESS_FACTOR * alive
    run_high = RUN_BASE_BYTES + 1.05 * held + LIVENESS_WORST * alive + MISS_BYTES
    reason = (
        f"running takes about {_mb(run_expected)}: {_mb(held)} of weights, {_mb(LIVENESS_FACTOR * alive)} "
        f"between the layers, {_mb(RUN_BASE_BYTES)} for the session and its arena"
    )
    return steady, Interval(AT_LEAST * weights, run_expected, run_high), reason


def _latency(variant: Variant, costs: Costs, machine: MachineFacts) -> tuple[Interval, list[str]]:
    """Return the time of one run: the slower of computing and moving bytes, and what every node costs."""
    reasons = []
    if machine.gmacs_per_second is None:
        rates = tuple(rate * machine.cpus for rate in GMACS_PER_CPU)
        reasons.append("how fast this machine multiplies is not measured, so that its latency is a wide guess")
    else:
        rates = tuple(machine.gmacs_per_second * factor for factor in MEASURED_SPREAD)
    if machine.memory_gb_per_second is None:
        speeds = MEMORY_GB_PER_SECOND
    else:
        speeds = (
            machine.memory_gb_per_second * MEASURED_SPREAD[0],
            machine.memory_gb_per_second,
            machine.memory_gb_per_second * MEASURED_SPREAD[2],
        )
    if variant.format in _EIGHT_BIT:
        rates = tuple(rate * factor for rate, factor in zip(rates, EIGHT_BIT_SPEED, strict=True))
        reasons.append("8-bit kernels may be faster or much slower than float ones here: only a measurement tells")
    moved = costs.initializer_bytes + 2 * costs.activation_peak_bytes
    slow, usual, fast = (
        # 1e9 a second is 1e6 a millisecond.
        max(costs.macs / (rate * 1e6), moved / (speed * 1e6))
        for rate, speed in zip(rates, speeds, strict=True)
    )
    least, overhead, most = (
        (run + node * costs.nodes) / 1e3 for run, node in zip(RUN_OVERHEAD_US, NODE_OVERHEAD_US, strict=True)
    )
    latency = Interval(fast + least, usual + overhead, slow + most)
    bound = "fixed costs of its nodes" if overhead > usual else "arithmetic and memory"
    reasons.append(f"one sample takes about {latency.expected:.3g} ms, mostly {bound}")
    return latency, reasons


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
