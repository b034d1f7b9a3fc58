"""Tree heads, and receipts that carry their own proof: one file to keep, checked offline.

A receipt bundle is a CBOR map around a receipt, with a signed tree head of the coordinator's log and the path from
the receipt's leaf to its root. The leaf is the receipt without its salt, so that a bundle proves the same with
and without it. A plain receipt stays as good as it was; it proves nothing about the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_agent.errors import MalformedError, TooLargeError
from edge_agent.wire import cbor_items, cose, merkle, strict_cbor
from edge_agent.wire.envelope import Opened, open_envelope
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import TreeHead
from edge_agent.wire.receipts import (
    MAX_RECEIPT_FILE_BYTES,
    VerifiedReceipt,
    receipt_leaf,
    verify_receipt,
)

MEDIA_TYPE: Final = "application/edge-agent-receipt-bundle+cbor"
MAX_TREE_HEAD_BYTES: Final = TreeHead.max_statement_bytes + cose.MAX_OVERHEAD_BYTES
MAX_BUNDLE_BYTES: Final = (
    MAX_RECEIPT_FILE_BYTES + MAX_TREE_HEAD_BYTES + merkle.MAX_INCLUSION_PATH * (merkle.HASH_BYTES + 2) + 128
)
_KIND: Final = "receipt-bundle"
_VERSION: Final = 1
_FIELDS: Final = {"kind", "v", "index", "path", "receipt", "tree_head"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts of a bundle, nothing of which is verified.

    Attributes:
        receipt: as it came, with or without its salt.
        tree_head: the signed one.
        index: of the receipt's leaf in the log, from 0.
        path: from the leaf to the root, at most `merkle.MAX_INCLUSION_PATH` hashes.
    """

    receipt: bytes
    tree_head: bytes
    index: int
    path: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the file."""
        fields = {"kind": _KIND, "v": _VERSION, "receipt": self.receipt, "tree_head": self.tree_head}
        return strict_cbor.encode(fields | {"index": self.index, "path": list(self.path)})

    @classmethod
    def decode(cls, data: bytes) -> Bundle:
        """Take a file apart.

        Raises:
            TooLargeError: `too-large`.
            MalformedError: `malformed`.
        """
        items = 2 * len(_FIELDS) + merkle.MAX_INCLUSION_PATH + 1
        fields = strict_cbor.decode(data, max_bytes=MAX_BUNDLE_BYTES, max_depth=2, max_items=items)
        if not isinstance(fields, dict) or fields.keys() != _FIELDS or fields["kind"] != _KIND:
            raise MalformedError("The file is no receipt bundle: it has other fields.")
        if type(fields["v"]) is not int or fields["v"] != _VERSION:
            raise MalformedError(f"The receipt bundle is of another version than {_VERSION}.")
        receipt, tree_head, index, path = (fields[name] for name in ("receipt", "tree_head", "index", "path"))
        if not (isinstance(receipt, bytes) and isinstance(tree_head, bytes) and isinstance(path, list)):
            raise MalformedError("A field of the receipt bundle is of the wrong type.")
        if type(index) is not int or not 0 <= index < merkle.MAX_SIZE:
            raise MalformedError("The index in the receipt bundle is none.")
        if len(path) > merkle.MAX_INCLUSION_PATH:
            raise TooLargeError(f"The path in the receipt bundle has more than {merkle.MAX_INCLUSION_PATH} hashes.")
        if not all(isinstance(entry, bytes) and len(entry) == merkle.HASH_BYTES for entry in path):
            raise MalformedError("An entry of the path in the receipt bundle is no hash.")
        return cls(receipt, tree_head, index, tuple(path))


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A receipt that was checked, and proven to be in the log; only `verify_bundle` makes one.

    Attributes:
        receipt: as from `verify_receipt`.
        tree_head: of the tree that it is in.
        index: its number in it, from 0.
    """

    receipt: VerifiedReceipt
    tree_head: TreeHead
    index: int


def is_bundle(data: bytes) -> bool:
    """Say whether a file would be a bundle rather than a plain receipt: it starts like a CBOR map."""
    return bool(data) and data[0] >> 5 == cbor_items.MAP


def verify_tree_head(data: bytes, coordinator: PublicKey, *, network: str | None = None) -> Opened[TreeHead]:
    """Check a signed tree head.

    Args:
        data: the COSE_Sign1.
        coordinator: the key that must have signed it.
        network: that it must be for; None takes the one that the coordinator signed.

    Raises:
        TooLargeError: `too-large`.
        MalformedError: `malformed`.
        SignatureRefusedError: `unknown-key`, `wrong-algorithm` or `bad-signature`.
        RefusedError: `wrong-kind`, `wrong-version`, `wrong-network`.
    """
    opened = open_envelope(data, coordinator, TreeHead, network=network, max_bytes=MAX_TREE_HEAD_BYTES)
    if opened.statement.size == 0 and opened.statement.root != merkle.EMPTY_ROOT:
        raise MalformedError("The tree head is of an empty log, but has the root of another.")
    return opened


def verify_bundle(data: bytes, coordinator: PublicKey, *, network: str | None = None) -> VerifiedBundle:
    """Check a bundle, offline: the receipt, the tree head of the same network, and the way from one to the other.

    Args:
        data: the whole file.
        coordinator: the key that must have signed both.
        network: that both must be for; None takes the one that the receipt names.

    Raises:
        PeerError: as `verify_receipt` and `verify_tree_head`; besides `wrong-proof`.
    """
    bundle = Bundle.decode(data)
    receipt = verify_receipt(bundle.receipt, coordinator, network=network)
    head = verify_tree_head(bundle.tree_head, coordinator, network=receipt.result.network).statement
    merkle.check_inclusion(receipt_leaf(bundle.receipt), bundle.index, head.size, bundle.path, head.root)
    return VerifiedBundle(receipt, head, bundle.index)
