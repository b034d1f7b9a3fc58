from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.models import quality
from edge_agent.models.catalogue import Quality
from edge_agent.models.entries import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.models.catalogue import Variant

    MakeVariant = Callable[..., Variant]


def _quality(metric: str, value: float, n: int | None = 1000) -> Quality:
    return Quality(metric=metric, value=value, dataset="made up", n=n)


_ANY = st.builds(
    lambda metric, pair, n: (_quality(metric, pair[0], n), _quality(metric, pair[1], n)),
    st.sampled_from(sorted(METRICS)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.none() | st.integers(1, 100_000),
)


@given(pair=_ANY)
def test_equality_is_symmetric_and_every_quality_equals_itself(pair: tuple[Quality, Quality]) -> None:
    """Whatever the metric, with or without a number of samples."""
    one, other = pair
    assert quality.equal_quality(one, one)
    assert quality.equal_quality(one, other) == quality.equal_quality(other, one)


@given(pair=_ANY, limit=st.floats(0, 1))
def test_the_better_one_never_drops(pair: tuple[Quality, Quality], limit: float) -> None:
    """Only what is worse can be too much worse, and a greater limit never refuses more."""
    one, other = pair
    better = max(pair, key=lambda q: q.value if q.higher_is_better else -q.value)
    worse = other if better is one else one
    assert quality.drop(worse, better, limit) == ""
    if quality.drop(better, worse, limit):
        assert quality.drop(better, worse, 0.0)
    assert 0.0 <= quality.share(better, worse) <= 1.0
    assert quality.share(better, better) == 1.0


def test_an_error_rate_is_better_when_it_is_lower(make_variant: MakeVariant) -> None:
    """It stays an error rate; nobody turns it into an accuracy."""
    few, many = (
        make_variant(name).model_copy(update={"quality": _quality("top1-error", value, 50_000)})
        for name, value in (("few", 0.23), ("many", 0.30))
    )
    assert quality.best_of([many, few]) is few
    assert not quality.equal(few, many)
    assert "9.1% below" in quality.drop(few.quality, many.quality, 0.02)
    assert quality.drop(_quality("error-rate", 0.002), _quality("error-rate", 0.004), 0.02) == ""


@pytest.mark.parametrize(
    ("metric", "best", "equal", "worse"),
    [
        ("psnr", 31.0, 30.6, 30.4),
        ("cosine", 1.0, 0.996, 0.99),
        ("map", 0.40, 0.396, 0.39),
        ("mae", 10.0, 10.05, 10.3),
        ("perplexity", 20.0, 20.1, 20.5),
    ],
)
def test_metrics_that_are_no_shares_have_rules_of_their_own(
    metric: str, best: float, equal: float, worse: float
) -> None:
    """No chance is claimed where none was sampled: what nobody notices is equal."""
    assert quality.equal_quality(_quality(metric, best), _quality(metric, equal))
    assert not quality.equal_quality(_quality(metric, best), _quality(metric, worse))


def test_a_share_of_an_unknown_number_of_samples_is_compared_by_what_counts(make_variant: MakeVariant) -> None:
    """Half a point of a hundred; chance cannot be computed."""
    assert quality.equal_quality(_quality("top1", 0.76, None), _quality("top1", 0.757, None))
    assert not quality.equal_quality(_quality("top1", 0.76, None), _quality("top1", 0.75, None))


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("psnr", 31.25, "psnr of 31.2 dB"),
        ("cosine", 0.99651, "cosine of 0.9965"),
        ("perplexity", 20.123, "perplexity of 20.1"),
        ("top1", 0.8228, "top1 of 82.28%"),
    ],
)
def test_people_read_a_quality_in_its_own_unit(metric: str, value: float, words: str) -> None:
    """Decibels are no percentages."""
    assert quality.told(_quality(metric, value)) == words


def test_what_nobody_measured_has_not_dropped(make_variant: MakeVariant) -> None:
    """It is not known to be good either, and goes behind."""
    unknown: Any = make_variant("unknown").model_copy(update={"quality": None})
    known = make_variant("known", quality=0.1)
    assert quality.drop(known.quality, None, 0.0) == ""
    assert quality.best_of([unknown, known]) is known
    assert not quality.equal(known, unknown)
    assert quality.equal(unknown, unknown)
    assert quality.share(known.quality, None) == 0.0
    assert quality.share(None, None) == 1.0
