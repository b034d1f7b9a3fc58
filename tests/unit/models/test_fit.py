from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.models.catalogue import Costs, builtin
from edge_agent.models.entries import Work
from edge_agent.models.fit import MIB, Interval, MachineFacts, predict
from edge_agent.models.rates import Point, Rates

_SIZES = st.integers(0, 4 * 1024**3)
_FACTS = st.builds(
    MachineFacts,
    st.floats(0.1, 64),
    st.none() | st.floats(0.1, 1000),
    st.none() | st.floats(0.1, 500),
)
_INTERVALS = ("load_peak_bytes", "steady_bytes", "run_peak_bytes", "latency_ms")
_COSTS = (
    "initializer_bytes",
    "largest_initializer_bytes",
    "conv_fp32_initializer_bytes",
    "activation_peak_bytes",
    "macs",
    "nodes",
    "held_bytes",
    "packed_initializer_bytes",
    "largest_packed_bytes",
    "widened_bytes",
    "arena_bytes",
    "turned_bytes",
    "input_bytes",
    "output_bytes",
    "file_nodes",
)


def _not_above(one: Interval, other: Interval) -> bool:
    return one.low <= other.low and one.expected <= other.expected and one.high <= other.high


def _costs(**changes: int) -> Costs:
    return Costs(**{**dict.fromkeys(_COSTS, 0), **changes})


@given(data=st.data(), machine=_FACTS, cost=st.sampled_from(_COSTS))
def test_more_of_any_cost_never_predicts_less(data: st.DataObject, machine: MachineFacts, cost: str) -> None:
    """A larger graph is never said to need less memory or time: otherwise pruning would favour it."""
    costs = {name: data.draw(_SIZES, label=name) for name in _COSTS}
    larger = {**costs, cost: costs[cost] + data.draw(_SIZES, label="more")}
    small, large = predict(_costs(**costs), machine), predict(_costs(**larger), machine)
    for name in _INTERVALS:
        assert _not_above(getattr(small, name), getattr(large, name)), name
    assert _not_above(small.peak_bytes, large.peak_bytes)


@given(machine=_FACTS, factor=st.floats(1, 100))
def test_a_faster_machine_never_predicts_more_time(machine: MachineFacts, factor: float) -> None:
    """Rates and bandwidth shorten the time or leave it; memory does not depend on them."""
    faster = MachineFacts(
        machine.cpus * factor,
        machine.gmacs_per_second and machine.gmacs_per_second * factor,
        machine.memory_gb_per_second and machine.memory_gb_per_second * factor,
    )
    costs = _costs(macs=10**9, initializer_bytes=10**8)
    before, after = predict(costs, machine), predict(costs, faster)
    assert _not_above(after.latency_ms, before.latency_ms)
    assert after.peak_bytes == before.peak_bytes


def _costs_of(figures: dict[str, float]) -> Costs:
    return _costs(
        **{name: int(value * 1e6) if name.endswith("bytes") else int(value) for name, value in figures.items()}
    )


# Measured with onnxruntime 1.32 and MALLOC_ARENA_MAX=2, in MB (10^6 bytes): what was counted, then load peak, steady
# and run peak above the idle worker.
_MEASURED = [
    pytest.param(
        {"initializer_bytes": 102.1, "held_bytes": 102.1, "largest_initializer_bytes": 9.4,
         "conv_fp32_initializer_bytes": 117.9, "arena_bytes": 13.0, "activation_peak_bytes": 5.2, "input_bytes": 0.6,
         "nodes": 58, "file_nodes": 122}, (232.5, 114.5, 129.6), id="ResNet50-shaped, fp32",
    ),
    pytest.param(
        {"initializer_bytes": 44.0, "held_bytes": 44.0, "largest_initializer_bytes": 31.3, "arena_bytes": 2.1,
         "activation_peak_bytes": 1.2, "nodes": 99, "file_nodes": 211}, (86.3, 56.1, 62.4), id="BERT-mini-shaped, fp32",
    ),
    pytest.param(
        {"initializer_bytes": 51.1, "held_bytes": 102.1, "widened_bytes": 51.0, "largest_initializer_bytes": 4.7,
         "conv_fp32_initializer_bytes": 117.9, "arena_bytes": 13.0, "activation_peak_bytes": 5.2, "input_bytes": 0.6,
         "nodes": 60, "file_nodes": 124}, (233.7, 115.6, 130.8), id="ResNet50-shaped, fp16",
    ),
    pytest.param(
        {"initializer_bytes": 7.7, "held_bytes": 7.7, "largest_initializer_bytes": 2.4,
         "conv_fp32_initializer_bytes": 11.8, "arena_bytes": 23.1, "activation_peak_bytes": 8.4, "nodes": 34,
         "file_nodes": 38}, (30.4, 19.0, 48.0), id="U-Net, large tensors",
    ),
    pytest.param({"nodes": 7, "file_nodes": 8}, (11.0, 11.0, 12.2), id="digits"),
]  # fmt: skip


@pytest.mark.parametrize(("figures", "seen"), _MEASURED)
def test_measured_models_lie_inside_the_intervals(figures: dict[str, float], seen: tuple[float, float, float]) -> None:
    """Above all, none is higher than the interval: that would be offered and then killed."""
    fit = predict(_costs_of(figures), MachineFacts(cpus=2))
    for interval, value in zip((fit.load_peak_bytes, fit.steady_bytes, fit.run_peak_bytes), seen, strict=True):
        assert interval.low <= value * 1e6 <= interval.high
        assert abs(interval.expected - value * 1e6) <= max(0.15 * value * 1e6, 12e6)


def test_the_words_name_the_cause() -> None:
    """Convolutions are packed, others have a second copy; what is not measured is said to be a guess."""

    def told(**sizes: int) -> str:
        return " ".join(
            predict(_costs(initializer_bytes=90 * MIB, held_bytes=90 * MIB, **sizes), MachineFacts(2)).reasons
        )

    assert "packed anew" in told(conv_fp32_initializer_bytes=90 * MIB)
    assert "second copy of the largest constant" in told(largest_initializer_bytes=30 * MIB)
    assert "16-bit floats" in told(widened_bytes=45 * MIB)
    assert "not measured" in told()
    measured = predict(_costs(macs=10**9), MachineFacts(4, 10.0, 5.0))
    assert "not measured" not in " ".join(measured.reasons)


def test_a_busy_machine_takes_longer() -> None:
    """Long runs wait for others; short ones are over before their turn ends."""

    def expected(amount: int, share: float) -> float:
        rates = Rates({1: {"matmul.f32": (Point(1e6, 1_000.0),)}}, {1: 1.0}, share)
        work = (Work(kind="matmul.f32", nodes=1, amount=amount, moved_bytes=0),)
        return predict(_costs().model_copy(update={"work": work}), MachineFacts(1, rates=rates)).latency_ms.expected

    assert expected(10**8, 0.5) > 1.8 * expected(10**8, 1.0)
    assert expected(10**5, 0.5) < 1.1 * expected(10**5, 1.0)


def test_what_the_graph_does_not_say_is_told() -> None:
    """A guess of the counter is among the reasons."""
    costs = _costs().model_copy(update={"guesses": ("how often Loop runs is not in the graph: taken as once",)})
    assert "how often Loop runs" in " ".join(predict(costs, MachineFacts(1)).reasons)


def test_a_measured_machine_gives_a_narrower_interval() -> None:
    """Measuring pays: a rate of products, and more so every kind of work by itself."""
    work = (Work(kind="matmul.f32", nodes=10, amount=10**10, moved_bytes=10**7),)
    costs = _costs(macs=10**10).model_copy(update={"work": work})
    guess = predict(costs, MachineFacts(4)).latency_ms
    known = predict(costs, MachineFacts(4, 16.0, 8.0)).latency_ms
    rates = Rates({4: {"matmul.f32": (Point(1e6, 100.0), Point(1e9, 50_000.0))}}, {4: 20.0})
    sure = predict(costs, MachineFacts(4, rates=rates)).latency_ms
    assert sure.high / sure.low < known.high / known.low < guess.high / guess.low
    assert known.expected == pytest.approx(10**10 / 16e6, rel=0.01)
    assert sure.expected == pytest.approx(10 * 50.0, rel=0.01)


def test_a_quota_stops_runs_that_are_longer_than_their_share() -> None:
    """Half a CPU is 50 ms in each 100: a run of 10 ms does not notice, one of 100 ms waits twice."""
    rates = Rates({1: {"matmul.f32": (Point(1e6, 1_000.0), Point(1e9, 1e6))}}, {1: 1.0})

    def took(milliseconds: int) -> float:
        work = (Work(kind="matmul.f32", nodes=1, amount=milliseconds * 10**6, moved_bytes=0),)
        costs = _costs().model_copy(update={"work": work})
        return predict(costs, MachineFacts(1, rates=rates, quota_cpus=0.5)).latency_ms.expected

    assert took(10) == pytest.approx(10, rel=0.02)
    assert took(100) == pytest.approx(200, rel=0.02)


def test_the_digits_fit_a_small_board() -> None:
    """The built-in family needs a few dozen megabytes and well under its latency target."""
    family = builtin().family("digits")
    for variant in family.variants:
        assert variant.costs is not None
        fit = predict(variant.costs, MachineFacts(cpus=1))
        assert fit.peak_bytes.high < 64 * MIB
        assert fit.latency_ms.high < family.latency_target_ms


@pytest.mark.parametrize("values", [(-1, 0, 1), (1, 0, 2), (0, 2, 1), (0, float("nan"), 1)])
def test_what_is_no_interval_cannot_be_made(values: tuple[float, float, float]) -> None:
    """Neither negative, nor out of order, nor not a number."""
    with pytest.raises(ValueError, match="not an interval"):
        Interval(*values)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_facts_are_refused(value: float) -> None:
    """A machine with no CPU, or one that is infinitely fast, is a defect of whoever measured it."""
    for facts in ((value, None, None), (1, value, None), (1, None, value)):
        with pytest.raises(ValueError, match="above 0"):
            MachineFacts(*facts)
