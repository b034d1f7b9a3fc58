"""The Merkle tree against a second, naive one that follows RFC 9162 word by word; every altered proof is refused."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import RefusedError
from edge_agent.wire import merkle
from edge_agent.wire.merkle import Frontier, Place, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 66
"""Every size up to this one is tried: a whole tree of 64 leaves and what comes behind it."""


# -- the second implementation: recursive, over the leaves themselves, section 2.1 of RFC 9162 ----------------------


def naive_split(n: int) -> int:
    """Return the largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def naive_root(entries: Sequence[bytes]) -> bytes:
    """MTH(D_n), section 2.1.1."""
    n = len(entries)
    if n == 0:
        return hashlib.sha256().digest()
    if n == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = naive_split(n)
    return hashlib.sha256(b"\x01" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def naive_path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D_n), section 2.1.3.1."""
    n = len(entries)
    if n == 1:
        return []
    k = naive_split(n)
    if m < k:
        return [*naive_path(m, entries[:k]), naive_root(entries[k:])]
    return [*naive_path(m - k, entries[k:]), naive_root(entries[:k])]


def naive_subproof(m: int, entries: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF(m, D_n, b), section 2.1.4.1."""
    n = len(entries)
    if m == n:
        return [] if whole else [naive_root(entries)]
    k = naive_split(n)
    if m <= k:
        return [*naive_subproof(m, entries[:k], whole=whole), naive_root(entries[k:])]
    return [*naive_subproof(m - k, entries[k:], whole=False), naive_root(entries[:k])]


# -- the tree under test, with every node kept -----------------------------------------------------------------------

ENTRIES = [b"entry %d" % number for number in range(MOST)]
NODES: dict[Place, bytes] = {}
ROOTS = [merkle.EMPTY_ROOT]
_growing = Frontier()
for _entry in ENTRIES:
    NODES.update(_growing.append(merkle.leaf_hash(_entry)))
    ROOTS.append(_growing.root)


def inclusion(index: int, size: int) -> list[bytes]:
    """Return our proof."""
    return merkle.path_of(merkle.inclusion_spans(index, size), NODES.__getitem__)


def consistency(old: int, new: int) -> list[bytes]:
    """Return our proof."""
    return merkle.path_of(merkle.consistency_spans(old, new), NODES.__getitem__)


def includes(index: int, size: int, path: Sequence[bytes], *, leaf: bytes | None = None, root: bytes = b"") -> bool:
    """Say whether a proof of inclusion is taken."""
    try:
        merkle.check_inclusion(leaf or merkle.leaf_hash(ENTRIES[index]), index, size, path, root or ROOTS[size])
    except RefusedError as error:
        return error.error_code != "wrong-proof"
    return True


def continues(old: int, new: int, path: Sequence[bytes], *, old_root: bytes = b"", new_root: bytes = b"") -> bool:
    """Say whether a proof of consistency is taken."""
    try:
        merkle.check_consistency(old, old_root or ROOTS[old], new, new_root or ROOTS[new], path)
    except RefusedError as error:
        return error.error_code != "wrong-proof"
    return True


def flipped(data: bytes, bit: int) -> bytes:
    """Return the bytes with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_known_roots() -> None:
    """The empty tree, and the tree of the well-known eight entries of Certificate Transparency's own tests."""
    entries = [
        bytes.fromhex(text)
        for text in (
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        )
    ]
    tree = Frontier()
    assert tree.root.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for entry in entries:
        tree.append(merkle.leaf_hash(entry))
    assert tree.root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert merkle.leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


def test_every_root_is_the_naive_one() -> None:
    """Of every size."""
    assert [naive_root(ENTRIES[:size]) for size in range(MOST + 1)] == ROOTS


def test_every_inclusion_proof_is_the_naive_one_and_verifies() -> None:
    """Of every leaf in every size; and it proves nothing of any other leaf, place or size."""
    for size in range(1, MOST + 1):
        for index in range(size):
            path = inclusion(index, size)
            assert path == naive_path(index, ENTRIES[:size])
            assert includes(index, size, path)
            assert not includes(index, size, path, leaf=merkle.leaf_hash(ENTRIES[index - 1] + b"!"))
            assert not includes(index, size, [*path, path[-1] if path else bytes(32)])
            assert not (path and includes(index, size, path[:-1]))
            assert not any(includes(other, size, path) for other in range(size) if other != index)


def test_every_consistency_proof_is_the_naive_one_and_verifies() -> None:
    """Between every two sizes; and a longer or shorter one is refused."""
    for new in range(1, MOST + 1):
        for old in range(1, new + 1):
            path = consistency(old, new)
            assert path == naive_subproof(old, ENTRIES[:new], whole=True)
            assert continues(old, new, path)
            assert not continues(old, new, [*path, bytes(32)])
            assert not (path and continues(old, new, path[:-1]))
            assert not continues(old, new, path, old_root=flipped(ROOTS[old], 0))
            assert not continues(old, new, path, new_root=flipped(ROOTS[new], 255))


@given(st.data())
def test_no_bit_of_an_inclusion_proof_can_be_changed(data: st.DataObject) -> None:
    """Neither of the leaf, nor of any hash on the way, nor of the root."""
    size = data.draw(st.integers(1, MOST))
    index = data.draw(st.integers(0, size - 1))
    bit = data.draw(st.integers(0, 255))
    path = inclusion(index, size)
    leaf = merkle.leaf_hash(ENTRIES[index])
    assert not includes(index, size, path, leaf=flipped(leaf, bit))
    assert not includes(index, size, path, root=flipped(ROOTS[size], bit))
    for at, sibling in enumerate(path):
        assert not includes(index, size, [*path[:at], flipped(sibling, bit), *path[at + 1 :]])


@given(st.data())
def test_no_bit_of_a_consistency_proof_can_be_changed(data: st.DataObject) -> None:
    """Neither of any hash on the way nor of either root."""
    new = data.draw(st.integers(2, MOST))
    old = data.draw(st.integers(1, new - 1))
    bit = data.draw(st.integers(0, 255))
    path = consistency(old, new)
    for at, sibling in enumerate(path):
        assert not continues(old, new, [*path[:at], flipped(sibling, bit), *path[at + 1 :]])
    assert not continues(old, new, path, old_root=flipped(ROOTS[old], bit))
    assert not continues(old, new, path, new_root=flipped(ROOTS[new], bit))


@given(st.integers(0, MOST), st.integers(0, MOST), st.lists(st.binary(min_size=32, max_size=32), max_size=9))
def test_made_up_proofs_prove_nothing(first: int, second: int, path: list[bytes]) -> None:
    """Whatever sizes and hashes somebody sends."""
    if path:
        assert not includes(min(first, MOST - 1), second, path)
        assert not continues(first, second, path)


def test_a_tree_cannot_shrink_or_have_two_roots() -> None:
    """A shorter tree continues nothing; one size has one root; the empty tree is the start of every one."""
    assert not continues(5, 4, [])
    assert not continues(7, 7, [], new_root=ROOTS[6])
    assert continues(7, 7, [])
    assert continues(0, 9, [])
    assert continues(0, 0, [])
    assert not continues(0, 9, [], old_root=ROOTS[1])
    assert not continues(0, 0, [], new_root=ROOTS[1])
    assert not continues(3, 7, [])
    assert not includes(3, 3, [], leaf=ROOTS[3])
    assert not includes(-1, 3, [], leaf=ROOTS[3])


@given(st.integers(1, merkle.MAX_SIZE), st.data())
def test_proofs_stay_short(size: int, data: st.DataObject) -> None:
    """In any tree that can be: that is what bounds what is read from strangers."""
    index = data.draw(st.integers(0, size - 1))
    assert len(merkle.inclusion_spans(index, size)) <= merkle.MAX_INCLUSION_PATH
    assert len(merkle.consistency_spans(index, size)) <= merkle.MAX_CONSISTENCY_PATH
    for span in (*merkle.inclusion_spans(index, size), *merkle.consistency_spans(index, size)):
        assert len(merkle.places(span)) <= 54


@given(st.integers(0, MOST), st.integers(0, MOST))
def test_places_cover_a_span_once(start: int, length: int) -> None:
    """Left to right, each as large as can be."""
    covered: list[int] = []
    for level, position in merkle.places(Span(start, start + length)):
        covered += range(position << level, (position + 1) << level)
    assert covered == list(range(start, start + length))


def test_appending_goes_on_from_what_is_kept() -> None:
    """A frontier that was read back grows like the first one; a wrong number of hashes is a defect."""
    for size in range(MOST):
        kept = Frontier(size, [NODES[place] for place in merkle.places(Span(0, size))])
        complete = kept.append(merkle.leaf_hash(ENTRIES[size]))
        assert kept.root == ROOTS[size + 1]
        assert all(NODES[place] == found for place, found in complete)
    with pytest.raises(ValueError, match="2 complete subtrees, not 1"):
        Frontier(3, [bytes(32)])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_a_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    """It is a defect to ask for one."""
    with pytest.raises(ValueError, match="has no leaf"):
        merkle.inclusion_spans(index, size)
    with pytest.raises(ValueError, match="does not start with"):
        merkle.consistency_spans(size + 1, size)
