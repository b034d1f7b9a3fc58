"""Quality is counted as its name says, and broken answers never count as good."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_agent.errors import InputError
from edge_agent.models.publishing.quality import Yardstick, cosine, distance, relative_drop, scale

FLOATS = arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(-100, 100, width=32))


def _answers(*rows: list[float]) -> list[dict[str, np.ndarray]]:
    return [{"logits": np.array([row], np.float32)} for row in rows]


RIGHT = _answers([3, 1, 2], [0, 5, 1], [1, 2, 9], [4, 3, 2])


@pytest.mark.parametrize(
    ("metric", "labels", "answers", "value"),
    [
        ("top1", (0, 1, 2, 1), RIGHT, 0.75),
        ("top5", (1, 0, 0, 2), RIGHT, 1.0),
        ("agreement", None, _answers([9, 1, 2], [6, 5, 1], [1, 2, 3], [5, 3, 2]), 0.75),
        ("cosine", None, RIGHT, 1.0),
        ("cosine", None, [{"logits": -a["logits"]} for a in RIGHT], 0.0),
        ("top1", (0, 1, 2, 0), [{"logits": np.full((1, 3), np.nan, np.float32)}] * 4, 0.0),
        ("cosine", None, [{"logits": np.full((1, 3), np.nan, np.float32)}] * 4, 0.0),
        ("agreement", None, [{"logits": np.full((1, 3), np.inf, np.float32)}] * 4, 0.0),
    ],
)
def test_values(
    metric: str, labels: tuple[int, ...] | None, answers: list[dict[str, np.ndarray]], value: float
) -> None:
    """Worked examples, NaN and infinities included."""
    assert Yardstick(metric, ("logits",), labels).measure(answers, RIGHT) == pytest.approx(value)


def test_exact_match_is_of_all_bytes() -> None:
    """A compressed picture is the same or another one; of different lengths it is another one."""
    right = [{"png": np.arange(size, dtype=np.uint8)} for size in (3, 4, 5, 6)]
    answers = [right[0], right[1], {"png": right[2]["png"][::-1]}, right[0]]
    assert Yardstick("exact-match", ("png",)).measure(answers, right) == 0.5


def test_a_single_whole_number_is_the_class_itself() -> None:
    """A model may end in ArgMax."""
    answers = [{"label": np.array([value], np.int64)} for value in (3, 1, 2)]
    assert Yardstick("top1", ("label",), (3, 1, 0)).measure(answers, answers) == pytest.approx(2 / 3)


def test_the_worst_output_counts() -> None:
    """A detector with right scores and broken boxes is broken."""
    right = [{"scores": np.ones((1, 4), np.float32), "boxes": np.eye(4, dtype=np.float32)}] * 3
    broken = [{"scores": np.ones((1, 4), np.float32), "boxes": np.eye(4, dtype=np.float32)[::-1]}] * 3
    assert Yardstick("cosine", ("scores", "boxes")).measure(broken, right) == 0.0


@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_labels_must_be_there(metric: str) -> None:
    """Without right answers nothing is right or wrong."""
    with pytest.raises(InputError, match="needs the right answers"):
        Yardstick(metric, ("logits",))


def test_unknown_metrics_and_nothing_to_compare_are_refused() -> None:
    """Both say what to do."""
    with pytest.raises(InputError, match="no metric"):
        Yardstick("vibes", ("logits",))
    with pytest.raises(InputError, match="no output"):
        Yardstick("cosine", ())


def test_a_drop_is_relative_to_the_original() -> None:
    """2 points of 0.5 are 4 %; an original that is always wrong is no measure."""
    assert relative_drop(0.48, 0.5) == pytest.approx(0.04)
    assert relative_drop(0.6, 0.5) == pytest.approx(-0.2)
    with pytest.raises(InputError, match="none of the samples right"):
        relative_drop(0.0, 0.0)


@given(FLOATS, FLOATS)
def test_cosine_is_between_minus_one_and_one_and_knows_itself(one: np.ndarray, other: np.ndarray) -> None:
    """Up to rounding; vectors of different lengths have nothing in common."""
    assert cosine(one, one) == pytest.approx(1.0)
    assert -1.0 - 1e-9 <= cosine(one, other) <= 1.0 + 1e-9
    if one.shape != other.shape:
        assert cosine(one, other) == 0.0


@given(FLOATS)
def test_distance_is_the_largest_difference(values: np.ndarray) -> None:
    """Zero to itself, and what was added elsewhere; NaN where there was a number is infinitely far."""
    mine = [{"x": values}]
    assert distance(mine, mine) == 0.0
    moved = values.copy()
    moved[0] += np.float32(1.0)
    assert distance([{"x": moved}], mine) == pytest.approx(1.0, rel=1e-4)
    moved[0] = np.nan
    assert distance([{"x": moved}], mine) == float("inf")
    assert scale(mine) == pytest.approx(float(np.abs(values).max()))
