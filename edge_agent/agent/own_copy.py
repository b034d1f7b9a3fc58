"""The agent's own signed copy of the results that were accepted of it: blocks that each name the one before. Pure.

A block is a COSE_Sign1 by the agent's key over a small CBOR map; an entry of it is 36 bytes: the job, the epoch, and
the first half of the SHA-256 of the signed result, which the coordinator's receipt carries whole.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from edge_agent.errors import MalformedError, RefusedError
from edge_agent.wire import strict_cbor
from edge_agent.wire.cose import parse_sign1, sign1, verify_sign1
from edge_agent.wire.keys import PublicKey, SigningKey

CONTENT_TYPE = "application/edge-agent-own-copy+cbor"
MAX_BLOCK_ENTRIES = 4096
MAX_BLOCK_BYTES = 256 * 1024
NO_BLOCK = bytes(32)
"""Stands for the block before the first one."""
_ENTRY = struct.Struct(">16sI16s")


class Entry(NamedTuple):
    """A result that was accepted.

    Attributes:
        job: its id, 16 bytes.
        epoch: of the attempt.
        digest: the first 16 bytes of the SHA-256 of the signed result.
    """

    job: bytes
    epoch: int
    digest: bytes

    @classmethod
    def of(cls, job: bytes, epoch: int, signed_result: bytes) -> Entry:
        """Make the entry of a signed result."""
        return cls(job, epoch, hashlib.sha256(signed_result).digest()[:16])


@dataclass(frozen=True, slots=True)
class Block:
    """What one block says.

    Attributes:
        number: counts from 1.
        before: SHA-256 of the block before.
        from_ms: Unix milliseconds of the first entry.
        to_ms: of the last one.
        left_out: accepted results that there was no room for.
        entries: in the order in which they were settled.
    """

    number: int
    before: bytes
    from_ms: int
    to_ms: int
    left_out: int
    entries: tuple[Entry, ...]


def seal(key: SigningKey, network: str, block: Block) -> bytes:
    """Sign a block."""
    entries = b"".join(_ENTRY.pack(*entry) for entry in block.entries)
    fields = {
        "v": 1,
        "kind": "own-copy",
        "network": network,
        "agent_id": key.public.id,
        "number": block.number,
        "before": block.before,
        "from_ms": block.from_ms,
        "to_ms": block.to_ms,
        "left_out": block.left_out,
        "entries": entries,
    }
    return sign1(key, strict_cbor.encode(fields), content_type=CONTENT_TYPE)


def open_block(data: bytes, key: PublicKey, network: str) -> Block:
    """Verify a block.

    Raises:
        PeerError: it is not signed by this key, for this network, or not a block.
    """
    fields: Any = strict_cbor.decode(verify_sign1(parse_sign1(data, MAX_BLOCK_BYTES), key), max_bytes=MAX_BLOCK_BYTES)
    try:
        if (fields["v"], fields["kind"], fields["agent_id"]) != (1, "own-copy", key.id):
            raise RefusedError("it is no block of this agent's own copy", code="wrong-kind")
        if fields["network"] != network:
            raise RefusedError(f"it is of the network {str(fields['network'])[:32]}", code="wrong-network")
        entries = tuple(Entry(*fields_) for fields_ in _ENTRY.iter_unpack(fields["entries"]))
        numbers = [int(fields[name]) for name in ("number", "from_ms", "to_ms", "left_out")]
        number, from_ms, to_ms, left_out = numbers
        return Block(number, bytes(fields["before"]), from_ms, to_ms, left_out, entries)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise MalformedError(f"it is no block of an own copy: {type(error).__name__}") from error


def check_chain(blocks: Sequence[bytes], key: PublicKey, network: str) -> tuple[list[Block], str]:
    """Verify blocks and that each follows the one before.

    Args:
        blocks: in their order; the first of them may follow some that are no longer kept.
        key: the agent's.
        network: theirs.

    Returns:
        The blocks, and what is wrong with the chain, or nothing.

    Raises:
        PeerError: a block is not ours.
    """
    opened = [open_block(data, key, network) for data in blocks]
    for earlier, data, later in zip(opened, blocks, opened[1:], strict=False):
        if later.number != earlier.number + 1 or later.before != hashlib.sha256(data).digest():
            return opened, f"block {later.number} does not follow block {earlier.number}"
    return opened, ""


class OwnCopy:
    """Collects entries until they are sealed.

    Args:
        key: the agent's.
        network: theirs.
        max_waiting: entries that may wait to be sealed; further ones are only counted.
    """

    def __init__(self, key: SigningKey, network: str, max_waiting: int) -> None:
        self._key = key
        self._network = network
        self._number, self._before = 0, NO_BLOCK
        self._max_waiting = max_waiting
        self._entries: list[tuple[Entry, int]] = []
        self._left_out = 0

    def add(self, entry: Entry, wall_ms: int) -> None:
        """Take note of an accepted result."""
        if len(self._entries) >= self._max_waiting:
            self._left_out += 1
        else:
            self._entries.append((entry, wall_ms))

    def go_on(self, number: int, before: bytes) -> None:
        """Go on after a block: its number, and its SHA-256."""
        self._number, self._before = number, before

    def sealed(self) -> list[tuple[int, int, bytes]]:
        """Seal what waits; return each block's number, the Unix milliseconds of its end, and the block.

        All of it waits on until `written` says that these blocks are kept: a disk may refuse them.
        """
        sealed: list[tuple[int, int, bytes]] = []
        number, before = self._number, self._before
        for part in _parts(self._entries):
            left_out = self._left_out if not sealed else 0
            number += 1
            block = Block(number, before, part[0][1], part[-1][1], left_out, tuple(e for e, _ in part))
            data = seal(self._key, self._network, block)
            before = hashlib.sha256(data).digest()
            sealed.append((number, block.to_ms, data))
        return sealed

    def written(self, sealed: Sequence[tuple[int, int, bytes]]) -> None:
        """Take note that what `sealed` gave is kept, before anything is added: the next block follows it."""
        if sealed:
            number, _, data = sealed[-1]
            self.go_on(number, hashlib.sha256(data).digest())
            self._entries, self._left_out = [], 0


def _parts(entries: Sequence[tuple[Entry, int]]) -> Iterable[Sequence[tuple[Entry, int]]]:
    return (entries[at : at + MAX_BLOCK_ENTRIES] for at in range(0, len(entries), MAX_BLOCK_ENTRIES))
