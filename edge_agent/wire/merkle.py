"""The Merkle tree of RFC 9162, sections 2.1.1 to 2.1.5, with SHA-256: hashes, roots, proofs, and checks of both.

Pure, and without the leaves: a tree of n leaves is seen as its complete subtrees, which never change once they
are full. The one at `Place(level, position)` covers the leaves from `position << level` up to, but without,
`(position + 1) << level`; level 0 are the leaves themselves. Roots and proofs are made of the hashes of O(log n) such
places, which the caller reads from wherever they are kept.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from edge_agent.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HASH_BYTES: Final = 32
MAX_SIZE: Final = 2**53 - 1
"""Leaves of a tree: what a number in a statement holds exactly."""
MAX_INCLUSION_PATH: Final = 53
"""Hashes of the longest inclusion proof in a tree of `MAX_SIZE` leaves."""
MAX_CONSISTENCY_PATH: Final = 54
"""Hashes of the longest consistency proof between two trees of at most `MAX_SIZE` leaves."""
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Of the tree without leaves."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


class Place(NamedTuple):
    """A complete subtree: 2**level leaves, the first of which is number `position << level`."""

    level: int
    position: int


class Span(NamedTuple):
    """The leaves from `start` up to, but without, `end`."""

    start: int
    end: int


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf with this content."""
    return hashlib.sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node with these two children."""
    return hashlib.sha256(_NODE + left + right).digest()


# -- growing ------------------------------------------------------------------------------------------------------


class Frontier:
    """What must be known of a tree to append to it: its size and the hashes of `places(Span(0, size))`.

    Args:
        size: leaves so far.
        hashes: one for each of these places, in that order: as many as `size` has bits that are set.

    Raises:
        ValueError: another number of hashes.
    """

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        if len(hashes) != size.bit_count():
            raise ValueError(f"A tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(hashes)}.")
        self.size = size
        self._hashes = list(hashes)

    def append(self, leaf: bytes) -> list[tuple[Place, bytes]]:
        """Append the hash of a leaf; return every place that became complete, with its hash: the leaf comes first."""
        place = Place(0, self.size)
        complete = [(place, leaf)]
        while place.position & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            place = Place(place.level + 1, place.position >> 1)
            complete.append((place, leaf))
        self._hashes.append(leaf)
        self.size += 1
        return complete

    @property
    def root(self) -> bytes:
        """The root of the tree as it is now."""
        return fold(self._hashes)


def places(span: Span) -> list[Place]:
    """Return the fewest complete subtrees that cover a span of the tree, left to right."""
    found = []
    start, end = span
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        found.append(Place(level, start >> level))
        start += 1 << level
    return found


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root of a span from the hashes of its `places`.

    The span must be one that the tree is split into: it starts at a multiple of a power of two that is not smaller
    than its length. Those of proofs and whole trees are.
    """
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


# -- proofs -------------------------------------------------------------------------------------------------------


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Return the spans whose roots prove that leaf `index` is in the tree of `size` leaves (section 2.1.3.1).

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"A tree of {size} leaves has no leaf {index}.")
    spans = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """Return the spans whose roots prove that a tree of `new` leaves starts with that of `old` (section 2.1.4.1).

    Raises:
        ValueError: not 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise ValueError(f"A tree of {new} leaves does not start with {old}.")
    if old in {0, new}:
        return []
    spans = []
    start, end = 0, new
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    if start:  # else it is the whole old tree, whose root whoever checks knows
        spans.append(Span(start, end))
    return spans[::-1]


def path_of(spans: Sequence[Span], hash_at: Callable[[Place], bytes]) -> list[bytes]:
    """Return the roots of these spans: the proof itself.

    Args:
        spans: by `inclusion_spans` or `consistency_spans`.
        hash_at: gives the hash of a complete subtree.
    """
    return [fold([hash_at(place) for place in places(span)]) for span in spans]


# -- checks -------------------------------------------------------------------------------------------------------


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Return if `path` proves that `leaf` has the number `index` in the tree of `size` leaves (section 2.1.3.2).

    Args:
        leaf: the hash of the leaf.
        index: its number, from 0.
        size: of the tree.
        path: the proof.
        root: of the tree, 32 bytes.

    Raises:
        RefusedError: `wrong-proof`.
    """
    if root_above(leaf, index, size, path) != root:
        raise _wrong("it does not lead to the root that was signed")


def root_above(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root to which `path` leads from the hash of leaf `index` in a tree of `size` leaves.

    Raises:
        RefusedError: `wrong-proof`: no tree of this size has a path of that length there.
    """
    if not 0 <= index < size:
        raise _wrong(f"it is for leaf {index} of a tree of {size}")
    found = leaf
    for sibling, is_left in _way_up(index, size - 1, path):
        found = node_hash(sibling, found) if is_left else node_hash(found, sibling)
    return found


def whole_tree(leaves: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """Return the root of a small tree, and the inclusion proof of each of its leaves.

    Args:
        leaves: their hashes, at least one.
    """
    paths: list[list[bytes]] = [[] for _ in leaves]
    nodes = [(leaf, [index]) for index, leaf in enumerate(leaves)]
    while len(nodes) > 1:
        above = []
        for (left, lefts), (right, rights) in zip(nodes[::2], nodes[1::2], strict=False):
            for index in lefts:
                paths[index].append(right)
            for index in rights:
                paths[index].append(left)
            above.append((node_hash(left, right), lefts + rights))
        nodes = above + nodes[len(nodes) & ~1 :]  # one without a neighbour goes up as it is
    return nodes[0][0], paths


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Return if `path` proves that the tree of `new` leaves starts with that of `old` (section 2.1.4.2).

    Args:
        old: size of the earlier tree.
        old_root: of the earlier tree, 32 bytes.
        new: size of the later tree.
        new_root: of the later tree, 32 bytes.
        path: the proof; empty when `old` is 0 or `new`.

    Raises:
        RefusedError: `wrong-proof`.
    """
    if not 0 <= old <= new:
        raise _wrong(f"a tree of {new} leaves cannot start with one of {old}")
    if old in {0, new}:
        _check_without_path(old, old_root, new, new_root)
        if path:
            raise _wrong("it has hashes where none are needed")
        return
    hashes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not hashes:
        raise _wrong("it is empty")
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    found_old = found_new = hashes[0]
    for sibling, is_left in _way_up(number, last, hashes[1:]):
        if is_left:
            found_old = node_hash(sibling, found_old)
        found_new = node_hash(sibling, found_new) if is_left else node_hash(found_new, sibling)
    if (found_old, found_new) != (old_root, new_root):
        raise _wrong("it does not lead to both roots")


def _way_up(number: int, last: int, siblings: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each sibling on the way to the root, and whether it stands to the left.

    Args:
        number: of the node to start from, on its level.
        last: the number of the last node on that level.
        siblings: the proof; it must end exactly at the root.

    Raises:
        RefusedError: `wrong-proof`.
    """
    for sibling in siblings:
        if not last:
            raise _wrong("it has more hashes than such a tree needs")
        is_left = bool(number & 1) or number == last
        while is_left and number and not number & 1:
            number, last = number >> 1, last >> 1
        number, last = number >> 1, last >> 1
        yield sibling, is_left
    if last:
        raise _wrong("it has fewer hashes than such a tree needs")


def _check_without_path(old: int, old_root: bytes, new: int, new_root: bytes) -> None:
    """Two trees of one size have one root, and that without leaves has its own."""
    if (old == new and old_root != new_root) or (not old and old_root != EMPTY_ROOT):
        raise _wrong("two trees of one size have one root, and that without leaves has its own")


def _split(leaves: int) -> int:
    """Return the largest power of two that is smaller than `leaves`, which is 2 or more."""
    return 1 << ((leaves - 1).bit_length() - 1)


def _wrong(why: str) -> RefusedError:
    return RefusedError(f"The proof from the log proves nothing: {why}.", code="wrong-proof")
