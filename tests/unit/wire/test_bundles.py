"""Receipt bundles and tree heads: a whole one proves that the receipt is in the log; anything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
import wire_samples
from hypothesis import given
from hypothesis import strategies as st
from receipt_logs import bundle, head, log_of, receipt

from edge_agent.errors import MalformedError, PeerError, SignatureRefusedError, TooLargeError
from edge_agent.wire import merkle, strict_cbor
from edge_agent.wire.bundles import (
    MAX_BUNDLE_BYTES,
    MAX_TREE_HEAD_BYTES,
    Bundle,
    is_bundle,
    verify_bundle,
    verify_tree_head,
)
from edge_agent.wire.envelope import seal
from edge_agent.wire.receipts import without_salt

KEY = wire_samples.COORDINATOR.public
RECEIPTS = [receipt(number) for number in range(7)]
LOG = log_of(RECEIPTS)
GOOD = bundle(LOG, RECEIPTS, 3)


def refused(data: bytes) -> PeerError:
    """Return the error that verifying ends in."""
    with pytest.raises(PeerError) as caught:
        verify_bundle(data, KEY)
    return caught.value


def changed(**change: Any) -> bytes:  # noqa: ANN401 any field
    """Return the bundle with other fields."""
    fields = strict_cbor.decode(GOOD, max_bytes=len(GOOD))
    assert isinstance(fields, dict)
    return strict_cbor.encode({**fields, **change})


def test_every_receipt_of_a_log_is_proven() -> None:
    """With its salt and without; it says of which size and when."""
    for number, data in enumerate(RECEIPTS):
        found = verify_bundle(bundle(LOG, RECEIPTS, number), KEY, network="home")
        assert (found.index, found.tree_head.size, found.tree_head.issued_ms) == (number, 7, wire_samples.NOW_MS)
        assert found.receipt.result.epoch == number + 1
        part = Bundle.decode(bundle(LOG, RECEIPTS, number))
        bare = Bundle(without_salt(data), part.tree_head, part.index, part.path).encode()
        assert verify_bundle(bare, KEY).index == number


def test_a_bundle_is_told_from_a_receipt() -> None:
    """By its first byte: a receipt stays a file that is checked as before."""
    assert is_bundle(GOOD)
    assert not is_bundle(RECEIPTS[0])
    assert not is_bundle(b"")
    assert is_bundle(GOOD[:1])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, flip: int) -> None:
    """Refused, but for the salt, which opens nothing any more when it is another."""
    data = bytearray(GOOD)
    data[at] ^= flip
    try:
        found = verify_bundle(bytes(data), KEY)
    except PeerError:
        return
    assert found.receipt.salt != wire_samples.SALT


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_file_is_refused(length: int) -> None:
    """However much is left."""
    assert isinstance(refused(GOOD[:length]), MalformedError)


@given(st.binary(max_size=300))
def test_other_bytes_are_refused(data: bytes) -> None:
    """Any other file."""
    refused(data)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "receipt"},
        {"v": 2},
        {"v": True},
        {"index": -1},
        {"index": True},
        {"index": "3"},
        {"index": 2**53},
        {"path": b""},
        {"path": [bytes(31)]},
        {"path": ["a" * 32]},
        {"receipt": "text"},
        {"tree_head": None},
        {"more": 1},
        {"receipt": b""},
        {"tree_head": b""},
    ],
)
def test_another_form_is_malformed(change: dict[str, Any]) -> None:
    """Types, versions and fields are exactly ours."""
    assert isinstance(refused(changed(**change)), MalformedError)


def test_a_missing_field_is_malformed() -> None:
    """Each of them."""
    fields = strict_cbor.decode(GOOD, max_bytes=len(GOOD))
    assert isinstance(fields, dict)
    for name in fields:
        assert isinstance(refused(strict_cbor.encode({k: v for k, v in fields.items() if k != name})), MalformedError)


def test_an_oversized_or_deep_bundle_is_refused_before_it_is_built() -> None:
    """Too many bytes, too many hashes, too much nesting."""
    assert isinstance(refused(changed(path=[bytes(32)] * (merkle.MAX_INCLUSION_PATH + 1))), TooLargeError)
    assert isinstance(refused(changed(receipt=bytes(MAX_BUNDLE_BYTES))), TooLargeError)
    assert isinstance(refused(changed(path=[[[]]])), TooLargeError)
    assert isinstance(refused(b"\xa1\x60" + b"\x81" * 10_000), TooLargeError)


def test_tree_heads() -> None:
    """Of the right key and network, and nothing but a tree head; an empty log has the root of an empty log."""
    signed = head(LOG)
    assert len(signed) <= MAX_TREE_HEAD_BYTES
    assert verify_tree_head(signed, KEY).statement.root == LOG.root
    assert verify_tree_head(signed, KEY, network="home").statement.size == 7
    with pytest.raises(PeerError) as caught:
        verify_tree_head(signed, KEY, network="club")
    assert caught.value.error_code == "wrong-network"
    with pytest.raises(SignatureRefusedError) as unknown:
        verify_tree_head(signed, wire_samples.AGENT.public)
    assert unknown.value.error_code == "unknown-key"
    strange = LOG.statement(size=0)
    with pytest.raises(MalformedError, match="empty log"):
        verify_tree_head(seal(wire_samples.COORDINATOR, strange), KEY)
