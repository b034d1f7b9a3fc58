"""onnxruntime's arena, followed allocation by allocation: how much of it is really touched.

The arena asks the system for regions that double in size, gives out the smallest free piece that is large enough, cuts
it, and joins free neighbours again. After the first run it plans one block for all intermediate tensors of a run; that
block often does not fit into what is free and comes on top. Rules from onnxruntime's `bfc_arena` and `mem_pattern`
sources; sizes are rounded as there.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import NamedTuple

ROUND_BYTES = 256
FIRST_REGION_BYTES = 1 << 20
MAX_GROWTH_BYTES = 1 << 30
MAX_DEAD_BYTES = 128 << 20
PAGE_BYTES = 4096


class Take(NamedTuple):
    """A tensor comes to life."""

    name: str
    size: int
    planned: bool
    """Whether it is part of the planned block; what leaves the graph is not."""


class Give(NamedTuple):
    """A tensor is not needed any longer."""

    name: str


Trace = list[Take | Give]


class _Piece:
    __slots__ = ("end", "free", "start")

    def __init__(self, start: int, end: int, *, free: bool) -> None:
        self.start, self.end, self.free = start, end, free


class Arena:
    """Regions one after the other in one line of addresses; `touched_bytes` is what was ever written to."""

    def __init__(self) -> None:
        self._regions: list[list[_Piece]] = []
        self._tops: list[list[tuple[int, int]]] = []
        self._growth = FIRST_REGION_BYTES
        self._held: dict[str, tuple[int, _Piece]] = {}

    @property
    def touched_bytes(self) -> int:
        """Return the bytes of all pages that were written to."""
        return sum(_covered(spans) for spans in self._tops)

    def take(self, name: str, size: int) -> None:
        """Allocate and write `size` bytes."""
        rounded = _rounded(size)
        if not rounded or name in self._held:
            return
        index, piece = self._find(rounded)
        pieces = self._regions[index]
        if piece.end - piece.start >= 2 * rounded or piece.end - piece.start - rounded >= MAX_DEAD_BYTES:
            rest = _Piece(piece.start + rounded, piece.end, free=True)
            piece.end = rest.start
            pieces.insert(pieces.index(piece) + 1, rest)
        piece.free = False
        insort(self._tops[index], (piece.start, piece.start + rounded))
        self._tops[index] = _merged(self._tops[index])
        self._held[name] = (index, piece)

    def give(self, name: str) -> None:
        """Free what `take` allocated under this name."""
        if name not in self._held:
            return
        index, piece = self._held.pop(name)
        pieces = self._regions[index]
        piece.free = True
        at = pieces.index(piece)
        if at + 1 < len(pieces) and pieces[at + 1].free:
            piece.end = pieces.pop(at + 1).end
        if at and pieces[at - 1].free:
            pieces[at - 1].end = piece.end
            pieces.pop(at)

    def give_all(self) -> None:
        """Free everything."""
        for name in list(self._held):
            self.give(name)

    def _find(self, rounded: int) -> tuple[int, _Piece]:
        best: tuple[int, int, int, _Piece] | None = None
        for index, pieces in enumerate(self._regions):
            for piece in pieces:
                size = piece.end - piece.start
                if piece.free and size >= rounded and (best is None or (size, index, piece.start) < best[:3]):
                    best = (size, index, piece.start, piece)
        if best is not None:
            return best[1], best[3]
        grown = False
        while self._growth < rounded:
            self._growth *= 2
            grown = True
        piece = _Piece(0, self._growth, free=True)
        if not grown and self._growth < MAX_GROWTH_BYTES:
            self._growth *= 2
        self._regions.append([piece])
        self._tops.append([])
        return len(self._regions) - 1, piece


def planned_bytes(trace: Iterable[Take | Give]) -> int:
    """Return the size of the block into which the planned tensors of a run are packed, smallest gap first."""
    blocks: list[tuple[int, int, str]] = []
    peak = 0
    for event in trace:
        if isinstance(event, Give):
            blocks = [block for block in blocks if block[2] != event.name]
        elif event.planned and event.size:
            size = _rounded(event.size)
            at, waste, last = -1, -1, 0
            for start, end, _ in blocks:
                gap = start - last
                if gap >= size and (waste < 0 or gap - size < waste):
                    at, waste = last, gap - size
                last = max(last, end)
            if at < 0:
                at = last
            insort(blocks, (at, at + size, event.name))
            peak = max(peak, at + size)
    return peak


def touched_bytes(trace: Trace) -> tuple[int, int]:
    """Return what the arena has touched after several runs of one shape, and the size of the planned block."""
    arena = Arena()
    for event in trace:
        if isinstance(event, Take):
            arena.take(event.name, event.size)
        else:
            arena.give(event.name)
    arena.give_all()
    block = planned_bytes(trace)
    for _ in range(2):
        arena.take("planned block", block)
        for event in trace:
            if isinstance(event, Give):
                arena.give(event.name)
            elif not event.planned:
                arena.take(event.name, event.size)
        arena.give_all()
    return arena.touched_bytes, block


def _rounded(size: int) -> int:
    return -(-size // ROUND_BYTES) * ROUND_BYTES


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _covered(spans: list[tuple[int, int]]) -> int:
    return sum(-(-end // PAGE_BYTES) * PAGE_BYTES - start // PAGE_BYTES * PAGE_BYTES for start, end in spans)
