"""How the link learns a limit that the broker does not tell."""

from __future__ import annotations

from edge_agent.mqtt.learnt import FORGET_SECONDS, LEAST_BYTES, STRIKES, LearntLimit

MIB = 2**20


def test_three_ends_in_a_row_over_a_large_packet_are_a_limit_for_ten_minutes() -> None:
    """Just below the smallest of them; then it may be tried again."""
    learnt = LearntLimit()
    assert [learnt.on_end([size, 100], 90_000, 0.0) for size in (3 * MIB, 2 * MIB)] == [None, None]
    assert learnt.limit(0.0) is None
    assert learnt.on_end([5 * MIB], 0, 10.0) == 2 * MIB - 1
    assert learnt.limit(10.0 + FORGET_SECONDS - 1) == 2 * MIB - 1
    assert learnt.limit(10.0 + FORGET_SECONDS) is None
    assert learnt.on_end([5 * MIB], 0, 1000.0) is None


def test_an_acknowledged_packet_of_that_size_clears_the_suspicion() -> None:
    """The network it was, and not the size."""
    learnt = LearntLimit()
    for _ in range(STRIKES - 1):
        learnt.on_end([2 * MIB], 0, 0.0)
    assert learnt.on_end([2 * MIB], 2 * MIB, 0.0) is None
    assert learnt.on_end([2 * MIB], 0, 0.0) is None
    assert learnt.limit(0.0) is None


def test_an_end_without_a_large_packet_breaks_the_row() -> None:
    """A broker that is restarted again and again is not one with a limit."""
    learnt = LearntLimit()
    for _ in range(10):
        assert learnt.on_end([2 * MIB], 0, 0.0) is None
        assert learnt.on_end([LEAST_BYTES], 0, 0.0) is None
        assert learnt.on_end([], 0, 0.0) is None
    assert learnt.limit(0.0) is None
