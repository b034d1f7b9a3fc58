"""Whether a copy is worth its place, and what is made of a process that says something else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference import optimising
from edge_agent.inference.optimising import Failed, Found, Report, Worth, judge

MB = 10**6
MODEL = Found(100_000, 100 * MB, same=True)
GOOD = Found(20_000, 90 * MB, same=True)
HEAVY = Found(20_000, 150 * MB, same=True)
SLOW = Found(95_000, 100 * MB, same=True)
WRONG = Found(20_000, 90 * MB, same=False)


@pytest.mark.parametrize(
    ("in_place", "copied", "used"),
    [
        (GOOD, GOOD, True),
        (HEAVY, GOOD, False),
        (HEAVY, HEAVY, None),
        (SLOW, SLOW, None),
        (WRONG, WRONG, None),
        (Found(100_000, 70 * MB, same=True), SLOW, True),
    ],
    ids=["in-place", "copied", "heavy", "slow", "other-bits", "no-faster-but-lighter"],
)
def test_only_what_is_measured_to_gain_is_used(in_place: Found, copied: Found, used: bool | None) -> None:  # noqa: FBT001 what is expected
    """With the same bits, and no more memory to speak of."""
    found = judge(Report(MODEL, in_place, copied))
    assert found.in_place is used if isinstance(found, Worth) else used is None


def test_a_model_that_answers_by_chance_has_no_copy() -> None:
    """Nothing could be told from a comparison."""
    assert judge(Report(MODEL._replace(same=False), GOOD, GOOD)) == Failed(
        "the model itself gives other bits each time"
    )


@given(
    said=st.one_of(
        st.binary(max_size=100),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5).map(
            lambda value: json.dumps(value).encode()
        ),
        st.fixed_dictionaries(
            dict.fromkeys(("model", "in-place", "copied"), st.dictionaries(st.text(), st.integers()))
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_a_process_that_talks_nonsense_has_made_nothing(said: bytes) -> None:
    """Whatever it is."""
    assert isinstance(optimising._report(said), Failed)


def test_what_a_process_says_is_read_as_it_is_meant() -> None:
    """Three times the same figures."""
    entry = {"load_us": 5, "held_bytes": 7, "same": True}
    said = json.dumps({"model": entry, "in-place": entry, "copied": {**entry, "same": False}}).encode()
    expected = Found(5, 7, same=True)
    assert optimising._report(said) == Report(expected, expected, Found(5, 7, same=False))
    negative = {"model": {**entry, "load_us": -1}, "in-place": entry, "copied": entry}
    assert isinstance(optimising._report(json.dumps(negative).encode()), Failed)
    for passing in (True, False):
        said = json.dumps({"why": "No.", "passing": passing}).encode()
        assert optimising._report(said) == Failed("No.", passing)
