from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.models.catalogue import builtin
from edge_agent.models.fit import MIB, Fit, Interval, MachineFacts, predict

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.models.catalogue import Variant

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
)


def _not_above(one: Interval, other: Interval) -> bool:
    return one.low <= other.low and one.expected <= other.expected and one.high <= other.high


@given(
    data=st.data(),
    machine=_FACTS,
    form=st.sampled_from(["fp32", "qdq", "dynamic"]),
    cost=st.sampled_from(_COSTS),
)
def test_more_of_any_cost_never_predicts_less(
    data: st.DataObject, machine: MachineFacts, form: str, cost: str, make_variant: Callable[..., Variant]
) -> None:
    """A larger graph is never said to need less memory or time: otherwise pruning would favour it."""
    costs = {name: data.draw(_SIZES, label=name) for name in _COSTS}
    larger = {**costs, cost: costs[cost] + data.draw(_SIZES, label="more")}
    small = predict(make_variant(format=form, **costs), machine)
    large = predict(make_variant(format=form, **larger), machine)
    for name in _INTERVALS:
        assert _not_above(getattr(small, name), getattr(large, name)), name
    assert _not_above(small.peak_bytes, large.peak_bytes)


@given(machine=_FACTS, factor=st.floats(1, 100))
def test_a_faster_machine_never_predicts_more_time(
    machine: MachineFacts, factor: float, make_variant: Callable[..., Variant]
) -> None:
    """Rates and bandwidth shorten the time or leave it; memory does not depend on them."""
    faster = MachineFacts(
        machine.cpus * factor,
        machine.gmacs_per_second and machine.gmacs_per_second * factor,
        machine.memory_gb_per_second and machine.memory_gb_per_second * factor,
    )
    variant = make_variant(macs=10**9, initializer_bytes=10**8)
    before, after = predict(variant, machine), predict(variant, faster)
    assert _not_above(after.latency_ms, before.latency_ms)
    assert after.peak_bytes == before.peak_bytes


def _known(make_variant: Callable[..., Variant], mebibytes: tuple[float, float, float, float]) -> Fit:
    total, largest, conv, alive = (int(part * MIB) for part in mebibytes)
    variant = make_variant(
        initializer_bytes=total,
        largest_initializer_bytes=largest,
        conv_fp32_initializer_bytes=conv,
        activation_peak_bytes=alive,
    )
    return predict(variant, MachineFacts(cpus=2))


# Measured with onnxruntime 1.32, MALLOC_ARENA_MAX=2. In MiB: all constants, the largest, those of
# convolutions, living intermediates; then load peak, steady and run peak above the process without this session.
_MEASURED = [
    pytest.param((95.4, 23.8, 0.0, 0.02), (119.4, 95.8, 96.0), id="four matrices"),
    pytest.param((90.0, 9.0, 90.0, 0.77), (206.9, 90.0, 91.7), id="ten convolutions"),
    pytest.param((0.43, 0.14, 0.43, 128.0), (1.15, 0.4, 264.9), id="large images"),
    pytest.param((0.02, 0.015, 0.007, 0.004), (10.3, 10.2, 11.0), id="digits"),
]


@pytest.mark.parametrize(("costs", "seen"), _MEASURED)
def test_measured_models_lie_inside_the_intervals(
    costs: tuple[float, float, float, float],
    seen: tuple[float, float, float],
    make_variant: Callable[..., Variant],
) -> None:
    """Above all, none is higher than the interval: that would be offered and then killed."""
    fit = _known(make_variant, costs)
    for interval, value in zip((fit.load_peak_bytes, fit.steady_bytes, fit.run_peak_bytes), seen, strict=True):
        assert interval.low <= value * MIB <= interval.high


def test_the_words_name_the_cause(make_variant: Callable[..., Variant]) -> None:
    """Convolutions are packed, others have a second copy; what is not measured is said to be a guess."""
    conv = " ".join(_known(make_variant, (90, 9, 90, 1)).reasons)
    dense = " ".join(_known(make_variant, (90, 30, 0, 1)).reasons)
    assert "packed anew" in conv
    assert "second copy" in dense
    assert "not measured" in dense
    measured = predict(make_variant(format="qdq", macs=10**9), MachineFacts(4, 10.0, 5.0))
    told = " ".join(measured.reasons)
    assert "not measured" not in told
    assert "8-bit" in told
    assert "arithmetic" in told


def test_a_measured_machine_gives_a_narrower_interval(make_variant: Callable[..., Variant]) -> None:
    """Measuring pays."""
    variant = make_variant(macs=10**10)
    guess = predict(variant, MachineFacts(4)).latency_ms
    known = predict(variant, MachineFacts(4, 16.0, 8.0)).latency_ms
    assert known.high / known.low < guess.high / guess.low
    assert known.expected == pytest.approx(10**10 / 16e6, rel=0.01)


def test_the_digits_fit_a_small_board() -> None:
    """The built-in family needs a few dozen megabytes and well under its latency target."""
    family = builtin().family("digits")
    for variant in family.variants:
        fit = predict(variant, MachineFacts(cpus=1))
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
