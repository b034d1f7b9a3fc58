from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.models.rates import KINDS, Point, Rates, along, assumed_us

_CURVE = (Point(1e4, 10.0), Point(1e6, 100.0))


def _rates(**changes: object) -> Rates:
    curves = {1: {"matvec.f32": _CURVE, "view": (Point(1.0, 0.5),)}, 4: {"matvec.f32": (Point(1e6, 40.0),)}}
    return Rates(**{"curves": curves, "run_us": {1: 20.0, 4: 30.0}, "share": 0.9, **changes})  # type: ignore[arg-type]


def test_measured_amounts_are_met_and_others_lie_between() -> None:
    """On a curve, between its points, and beyond both ends."""
    assert along(_CURVE, 1e4) == pytest.approx(10)
    assert along(_CURVE, 1e6) == pytest.approx(100)
    assert along(_CURVE, 1e5) == pytest.approx((10 * 100) ** 0.5)
    assert along(_CURVE, 1e7) == pytest.approx(1000)
    assert along(_CURVE, 1e3) == pytest.approx(1)


@given(st.floats(1, 1e12), st.floats(1, 1e3))
def test_more_work_never_takes_less(amount: float, factor: float) -> None:
    """A curve of measured times only rises."""
    assert along(_CURVE, amount * factor) >= along(_CURVE, amount) * (1 - 1e-9)


def test_the_nearest_number_of_threads_counts() -> None:
    """Three threads are nearer to four than to one; of equal distances the lower."""
    rates = _rates()
    assert [rates.threads_for(count) for count in (1, 2, 3, 8)] == [1, 1, 4, 4]
    assert rates.node_us("matvec.f32", 1e6, 4) == pytest.approx(40)
    assert Rates({}).threads_for(1) is None
    assert Rates({}).node_us("conv.f32", 1e6, 1) is None


def test_a_kind_that_was_not_measured_takes_that_of_its_like() -> None:
    """Products of doubles are taken as twice those of floats; nothing stands for a convolution."""
    rates = _rates()
    single = rates.node_us("matvec.f32", 1e5, 4)
    assert single is not None
    assert rates.node_us("matvec.f64", 1e5, 4) == pytest.approx(2 * single)
    assert rates.node_us("conv.f32", 1e5, 1) is None


def test_what_stands_for_another_is_a_kind_itself() -> None:
    """The table refers to nothing that is not in it, and has a time for every kind but views."""
    for name, kind in KINDS.items():
        assert not kind.stands_for or kind.stands_for in KINDS
        assert assumed_us(name, 1e6, 10.0) > 0 or name == "view"
        assert assumed_us(name, 1e6, 20.0) <= assumed_us(name, 1e6, 10.0)
    assert assumed_us("never heard of", 1e6, 10.0) > 0


def test_rates_come_back_from_json_as_they_were() -> None:
    """What is kept is what was measured, to the digits that matter."""
    rates = _rates()
    assert Rates.from_json(rates.to_json()) == rates


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"curves": {}, "run_us": {}},
        {"curves": {"one": {}}, "run_us": {}, "share": 1},
        {"curves": {"1": {"cheap": [[1]]}}, "run_us": {}, "share": 1},
        {"curves": {"1": {"cheap": []}}, "run_us": {}, "share": 1},
        {"curves": {"1": {"cheap": [[0, 1]]}}, "run_us": {}, "share": 1},
        {"curves": {"1": {"cheap": [[1, "nan"]]}}, "run_us": {}, "share": 1},
        {"curves": {}, "run_us": {}, "share": 0},
        {"curves": 1, "run_us": {}, "share": 1},
    ],
)
def test_what_are_no_rates_is_refused(data: object) -> None:
    """A cut or foreign file is measured again, not believed."""
    with pytest.raises(ValueError, match=r"."):
        Rates.from_json(data)
