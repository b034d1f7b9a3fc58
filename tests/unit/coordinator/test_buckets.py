"""Token buckets: what is limited anywhere in the coordinator is limited by these."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.coordinator.buckets import Bucket


@given(
    rate=st.floats(0.01, 100.0),
    most=st.integers(1, 50),
    waits=st.lists(st.floats(-10.0, 10.0), max_size=100),
)
def test_no_more_is_taken_than_a_full_bucket_and_what_came_since(rate: float, most: int, waits: list[float]) -> None:
    """Whenever it is asked, and also when the clock it is told goes back."""
    bucket, now, passed, taken = Bucket.full(rate, float(most), 100.0), 100.0, 0.0, 0
    for wait in waits:
        now += wait
        passed += max(0.0, wait)
        if bucket.has_one(now):
            bucket.take()
            taken += 1
    assert taken <= most + passed * rate + 1e-6


def test_an_empty_bucket_says_when_there_is_one_again_and_is_full_after_its_time() -> None:
    """Half a token a second: two seconds for one, and eight for all four."""
    bucket = Bucket.full(0.5, 4.0, 0.0)
    for _ in range(4):
        assert bucket.has_one(0.0)
        bucket.take()
    assert not bucket.has_one(0.0)
    assert bucket.seconds_to_one() == 2.0
    assert not bucket.is_full(7.9)
    assert bucket.is_full(8.0)
    assert not bucket.has_one(1.9)
    assert bucket.has_one(2.0)
    bucket.take()
    bucket.put_back()
    assert bucket.left == 1.0
