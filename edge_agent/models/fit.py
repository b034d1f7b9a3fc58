"""What a variant will cost on a machine, predicted before it is ever loaded. Pure: numbers in, intervals out.

Memory is in bytes above an idle worker (onnxruntime imported, no session yet), resident pages of all kinds, for one
sample at a time and with onnxruntime's arena as it is by default. The constants are from measurements of onnxruntime
on CPUs (docs/fit.md); the width of an interval is how far measurements lay apart. A prediction decides only what is
worth trying: what is offered has been measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent.models.rates import assumed_us

if TYPE_CHECKING:
    from edge_agent.models.entries import Costs
    from edge_agent.models.rates import Rates

MIB = 1024 * 1024

SESSION_BYTES = 11_400_000
"""What the first session of a process takes, whatever the model: thread pool, kernel registry, pages of the library."""
LOADING_BYTES = 10_700_000
"""The same while constants are read: the last of it comes later."""
EIGHT_BIT_BYTES = 200_000
"""Pages of the library that only 8-bit operators need."""
NODE_BYTES = 7_500
"""What a session keeps for an operator that runs."""
GONE_NODE_BYTES = 5_000
"""What is left in the heap of an operator of the file that was fused away."""
RUN_BYTES = 2_400_000
"""What the first runs take, whatever the model: more pages of the library, the arena's first piece."""
RUN_NODE_BYTES = 9_000
"""What an operator leaves behind in its first runs: pages of its code, small pieces of the heap."""
ARENA_FACTOR = 0.93
"""Of what the arena touches by its rules, this share was seen."""
SURE_BYTES = 6_000_000
"""How far above the expected value a model unknown to the predictor has been seen, at least."""
SURE_FRACTION = 0.03
ARENA_SPREAD = 0.7
"""How much more of the arena was touched than expected, where copies are made that the graph does not show."""
AT_LEAST = 0.9
"""Of the constants, this share is in memory whatever else is saved."""
GUESSED_SPREAD = 1.0
"""Where the graph does not say all, intermediate tensors may take so much more."""

NODE_US = (0.3, 1.0, 8.0)
RUN_US = (3.0, 20.0, 100.0)
GMACS_PER_CPU = (0.3, 6.0, 150.0)
"""Milliards of float multiply-accumulates a second of one CPU, from an in-order board to a server with
AVX-512.
"""
MEMORY_GB_PER_SECOND = (1.0, 4.0, 40.0)
GUESS_SPREAD = (0.3, 3.0)
"""Where only the rate of float products is measured, other kinds of work lie within these factors."""
CURVE_SPREAD = (0.6, 1.9)
"""Where every kind of work was measured, whole models lay within these factors of the sum."""
LEAST_SHARE = 0.05
"""A busier moment than this is not taken for what will be."""
SLICE_MS = 2.0
"""How long the kernel lets one program run before another has its turn, about."""
QUOTA_PERIOD_MS = 100.0
"""The kernel hands out a CPU quota by the tenth of a second, unless somebody changed that."""


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
    rates: Rates | None = None
    """Each kind of work, measured with onnxruntime on this machine."""
    quota_cpus: float | None = None
    """What a control group allows, in CPUs; None without such a limit."""

    def __post_init__(self) -> None:
        for value in (self.cpus, self.gmacs_per_second, self.memory_gb_per_second, self.quota_cpus):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"a machine's facts are above 0, not {value}")

    @property
    def threads(self) -> int:
        """The threads that a run gets if nobody says otherwise: whole CPUs, at least one."""
        return max(1, int(self.cpus))


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


def predict(costs: Costs, machine: MachineFacts, threads: int | None = None) -> Fit:
    """Return what a graph with these costs is expected to take on `machine`, and why in words.

    Args:
        costs: counted by `models.costs`.
        machine: what is known about it.
        threads: inside an operator; None for as many as the machine has whole CPUs.
    """
    load, load_reason = _load_peak(costs)
    steady, run, run_reason = _resident(costs)
    latency, latency_reasons = _latency(costs, machine, threads or machine.threads)
    guessed = tuple(f"the graph does not say all: {guess}" for guess in costs.guesses[:3])
    return Fit(load, steady, run, latency, (load_reason, run_reason, *latency_reasons, *guessed))


def _session(costs: Costs) -> float:
    gone = max(0, costs.file_nodes - costs.nodes)
    eight_bit = EIGHT_BIT_BYTES if any(".u8" in entry.kind for entry in costs.work) else 0
    return SESSION_BYTES + NODE_BYTES * costs.nodes + GONE_NODE_BYTES * gone + eight_bit


def _held(costs: Costs) -> float:
    """Return what the session keeps of constants; old entries of a catalogue only know those of the file."""
    return float(costs.held_bytes or costs.initializer_bytes)


def _load_peak(costs: Costs) -> tuple[Interval, str]:
    """Return the highest of the moments of loading: reading, widening, repacking, packing."""
    held, in_file = _held(costs), costs.initializer_bytes
    session = _session(costs)
    reading = LOADING_BYTES + session - SESSION_BYTES
    moments = {
        "a second copy of the largest constant while it is read": (
            reading + in_file,
            costs.largest_initializer_bytes,
        ),
        "16-bit floats beside their 32-bit copies": (reading + in_file, 2 * costs.widened_bytes),
        "its convolutions' weights packed anew": (reading + held, costs.conv_fp32_initializer_bytes),
        "a second copy of the largest weight while it is packed": (
            session + held + costs.turned_bytes,
            costs.largest_packed_bytes,
        ),
    }
    why, (before, extra) = max(moments.items(), key=lambda moment: sum(moment[1]))
    expected = float(before + extra)
    reason = (
        f"loading takes about {_mb(expected)}: {_mb(held)} of constants, {_mb(extra)} for {why}, "
        f"{_mb(session)} for a session of {costs.nodes} operators"
    )
    return _above(expected, AT_LEAST * min(held, in_file), 0.0), reason


def _resident(costs: Costs) -> tuple[Interval, Interval, str]:
    held = _held(costs)
    least = AT_LEAST * min(held, costs.initializer_bytes)
    steady = _session(costs) + held + costs.turned_bytes
    arena = ARENA_FACTOR * max(costs.arena_bytes, costs.activation_peak_bytes)
    given = costs.input_bytes + costs.output_bytes
    first = RUN_BYTES + RUN_NODE_BYTES * costs.nodes
    grown = max(RUN_BYTES / 2, first + arena - costs.turned_bytes)
    expected = steady + given + grown
    spread = (ARENA_SPREAD + (GUESSED_SPREAD if costs.guesses else 0.0)) * arena
    reason = (
        f"running takes about {_mb(expected)}: {_mb(held)} of weights, {_mb(arena)} between the layers, "
        f"{_mb(given)} of inputs and outputs, {_mb(expected - held - arena - given)} for the session itself"
    )
    return _above(steady, least, 0.0), _above(expected, least, spread), reason


def _above(expected: float, least: float, spread: float) -> Interval:
    low = max(min(least, expected), (1 - 2 * SURE_FRACTION) * expected - SURE_BYTES - spread)
    return Interval(low, expected, (1 + SURE_FRACTION) * expected + SURE_BYTES + spread)


# -- time --------------------------------------------------------------------------------------------------------


def _latency(costs: Costs, machine: MachineFacts, threads: int) -> tuple[Interval, list[str]]:
    """Return the time of one run: the slower of computing and moving bytes, and what every node costs."""
    if machine.rates is not None and costs.work:
        times, reasons = _measured_ms(costs, machine.rates, threads)
        share = machine.rates.share
    else:
        times, reasons = _assumed_ms(costs, machine, threads)
        share = 1.0
    stopped = waiting = times
    quota = machine.quota_cpus
    if quota is not None and quota < threads:
        least, usual, most = (_under_quota(value, threads, quota) for value in times)
        stopped = (least, usual, most)
        reasons.append(f"a quota of {quota:g} CPUs stops it for part of the time")
    if share < 0.95:
        waiting = (times[0], _among_others(times[1], share), times[2] / max(share, LEAST_SHARE))
        reasons.append(f"other programs take {1 - share:.0%} of a CPU now")
    # Who waits for others does not use a quota up meanwhile.
    low, expected, high = (max(pair) for pair in zip(stopped, waiting, strict=True))
    latency = Interval(low, max(low, expected), max(low, expected, high))
    many = "s" if threads > 1 else ""
    reasons.append(f"one sample takes about {latency.expected:.3g} ms with {threads} thread{many}")
    return latency, reasons


def _measured_ms(costs: Costs, rates: Rates, threads: int) -> tuple[tuple[float, float, float], list[str]]:
    total = rates.run_us.get(rates.threads_for(threads) or 0, RUN_US[1])
    by_kind: dict[str, float] = {}
    unsure = 0.0
    gmacs = _rate_of_products(rates, threads)
    for entry in costs.work:
        per_node = entry.amount / entry.nodes if entry.nodes else 0.0
        us = rates.node_us(entry.kind, per_node, threads)
        if us is None:
            us = assumed_us(entry.kind, per_node, gmacs) + NODE_US[1]
            unsure += us * entry.nodes
        by_kind[entry.kind] = by_kind.get(entry.kind, 0.0) + us * entry.nodes
    total += sum(by_kind.values())
    low, high = CURVE_SPREAD
    least = low * (total - unsure) + GUESS_SPREAD[0] * unsure
    most = high * (total - unsure) + GUESS_SPREAD[1] * unsure
    reasons = []
    if by_kind:
        kind, most_of_it = max(by_kind.items(), key=lambda item: item[1])
        reasons.append(f"{most_of_it / total:.0%} of the time goes into {kind}")
    if unsure > total / 10:
        reasons.append("some of its operators were not measured here, so that its latency is less sure")
    return (least / 1e3, total / 1e3, most / 1e3), reasons


def _rate_of_products(rates: Rates, threads: int) -> float:
    us = rates.node_us("matmul.f32", 1e7, threads)
    return GMACS_PER_CPU[1] if us is None else max(1e-3, 1e7 / us / 1e3)


def _assumed_ms(costs: Costs, machine: MachineFacts, threads: int) -> tuple[tuple[float, float, float], list[str]]:
    reasons = []
    if machine.gmacs_per_second is None:
        slow, usual, fast = (rate * min(threads, machine.cpus) for rate in GMACS_PER_CPU)
        reasons.append("how fast this machine multiplies is not measured, so that its latency is a wide guess")
    else:
        usual = machine.gmacs_per_second * min(1.0, threads / machine.threads)
        slow, fast = usual * GUESS_SPREAD[0], usual * GUESS_SPREAD[1]
    if machine.memory_gb_per_second is None:
        speeds = MEMORY_GB_PER_SECOND
    else:
        speeds = (machine.memory_gb_per_second * 0.5, machine.memory_gb_per_second, machine.memory_gb_per_second * 2)
    moved = costs.initializer_bytes + 2 * costs.activation_peak_bytes

    def total(rate: float, speed: float, run_us: float, node_us: float) -> float:
        if costs.work:
            compute = sum(
                entry.nodes * assumed_us(entry.kind, entry.amount / max(1, entry.nodes), rate) for entry in costs.work
            )
        else:
            compute = costs.macs / (rate * 1e3)
        # 1e9 a second is 1e6 a millisecond.
        return max(compute / 1e3, moved / (speed * 1e6)) + (run_us + node_us * costs.nodes) / 1e3

    low = total(fast, speeds[2], RUN_US[0], NODE_US[0])
    expected = total(usual, speeds[1], RUN_US[1], NODE_US[1])
    high = total(slow, speeds[0], RUN_US[2], NODE_US[2])
    return (low, expected, high), reasons


def _among_others(milliseconds: float, share: float) -> float:
    """Return how long a run takes beside other programs; those short against a time slice are rarely interrupted."""
    interrupted = milliseconds**2 / (milliseconds**2 + SLICE_MS**2)
    return milliseconds * (1 + (1 / max(share, LEAST_SHARE) - 1) * interrupted)


def _under_quota(milliseconds: float, threads: int, quota: float) -> float:
    """Return how long a run takes whose group is stopped when it has used up its share of a period.

    In each period of 100 ms all threads together may run for `quota` periods. A run that needs more than that waits
    for the next period, as often as it takes; half of the runs that are shorter than half of it do not wait at all,
    so that the median does not.
    """
    burst = QUOTA_PERIOD_MS * quota / threads  # wall time until the group is stopped
    waits = round(milliseconds / burst)
    return milliseconds + waits * (QUOTA_PERIOD_MS - burst)


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
