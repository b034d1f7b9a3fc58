"""Random bytes that are drawn in one piece and given out in many: none of them twice."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.entropy import POOL_BYTES, Entropy


@given(st.lists(st.integers(0, POOL_BYTES), max_size=40))
def test_no_byte_is_given_twice(sizes: list[int]) -> None:
    """Whatever the sizes are: each piece has its length, and all pieces are apart in what was drawn."""
    drawn = bytearray()
    numbers = itertools.count()

    def source(size: int) -> bytes:
        piece = b"".join(next(numbers).to_bytes(4, "big") for _ in range(size // 4))
        drawn.extend(piece)
        return piece

    entropy, at = Entropy(source), 0
    for size in sizes:
        taken = entropy.take(size)
        assert len(taken) == size
        at = drawn.index(taken, at) + size


def test_pieces_differ() -> None:
    """The system's own."""
    entropy = Entropy()
    assert len({entropy.take(16) for _ in range(1000)}) == 1000
