"""A double at the wire's seam: statements travel as tokens, so that a hundred thousand scripts can be run.

`seal` and `open_envelope` are the only way in and out of the network, so they are the place to stand in for: signing,
encoding and schema checks cost more than all rules together. What the double keeps is what the rules lean on: who
sealed, what kind, for which network; tensors keep their real digests. A smaller set of scripts runs on the real wire.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_agent.errors import MalformedError, RefusedError, SignatureRefusedError, TooLargeError
from edge_agent.wire import envelope, merkle, receipts
from edge_agent.wire.envelope import Opened
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.messages import Statement

S = TypeVar("S", bound=Statement)


TOKEN_RECEIPT = b"receipt of "
TOKEN_BYTES = 300
"""About what a signed statement has."""


@dataclass(frozen=True, slots=True)
class _Sealed:
    key: PublicKey
    statement: Any
    tensors: tuple[memoryview, ...]


class TokenWire:
    """The table of what was sealed; a token is worth nothing outside of it."""

    def __init__(self) -> None:
        self._sealed: dict[bytes, _Sealed] = {}

    def clear(self) -> None:
        """Forget all tokens, between scripts."""
        self._sealed.clear()

    def seal(self, key: SigningKey, statement: Statement, tensors: Sequence[bytes | memoryview] = ()) -> bytes:
        """Stand in for `envelope.seal`."""
        size = TOKEN_BYTES + sum(map(len, tensors))
        token = (b"token %d " % len(self._sealed)).ljust(size, b".")  # bounds in bytes go by its length
        self._sealed[token] = _Sealed(key.public, statement, tuple(memoryview(tensor) for tensor in tensors))
        return token

    def seal_together(
        self, key: SigningKey, statements: Sequence[tuple[Statement, Sequence[bytes | memoryview]]]
    ) -> list[bytes]:
        """Stand in for `envelope.seal_together`."""
        return [self.seal(key, statement, tensors) for statement, tensors in statements]

    def open_envelope(
        self,
        data: bytes | memoryview,
        key: PublicKey,
        expected: type[S] | tuple[type[S], ...],
        *,
        network: str,
        max_bytes: int,
        max_statement_bytes: int | None = None,
    ) -> Opened[S]:
        """Stand in for `envelope.open_envelope`: the same checks in the same order, on values."""
        if len(data) > max_bytes:
            raise TooLargeError("the message is above the limit")
        sealed = self._find(data)
        if sealed.key is not key and sealed.key.raw != key.raw:
            raise SignatureRefusedError("another key sealed this", code="unknown-key")
        if not isinstance(sealed.statement, expected):
            raise RefusedError("a statement of another kind", code="wrong-kind")
        if sealed.statement.network != network:
            raise RefusedError("a statement for another network", code="wrong-network")
        return Opened(sealed.statement, sealed.tensors, bytes(data), key)

    def announced_key(self, data: bytes | memoryview, _max_bytes: int) -> PublicKey:
        """Stand in for `envelope.announced_key`."""
        return self._find(data).key

    @staticmethod
    def signed_part(data: bytes | memoryview, _max_statement_bytes: int) -> bytes:
        """Stand in for `envelope.signed_part`: a token is as good as its head."""
        return bytes(data)

    def make_receipts(
        self,
        coordinator: SigningKey,
        results: Sequence[receipts.Countersigned],
        **fields: Any,  # noqa: ANN401 as the real one
    ) -> list[bytes]:
        """Stand in for `receipts.make_receipts`: evidence that is kept and compared, not checked offline."""
        return [TOKEN_RECEIPT + one.result for one in results]

    @staticmethod
    def result_in(receipt: bytes) -> bytes:
        """Stand in for `receipts.result_in`."""
        return receipt.removeprefix(TOKEN_RECEIPT)

    def _find(self, data: bytes | memoryview) -> _Sealed:
        sealed = self._sealed.get(bytes(data))
        if sealed is None:
            raise MalformedError("nobody sealed this")
        return sealed


@contextmanager
def token_wire() -> Iterator[TokenWire]:
    """Put the double in the place of the real functions, in every module of ours that has imported them."""
    wire = TokenWire()
    real_and_double: list[tuple[Any, Any]] = [
        (envelope.seal, wire.seal),
        (envelope.open_envelope, wire.open_envelope),
        (envelope.announced_key, wire.announced_key),
        (envelope.signed_part, wire.signed_part),
        (envelope.seal_together, wire.seal_together),
        (receipts.make_receipts, wire.make_receipts),
        (receipts.receipt_leaf, merkle.leaf_hash),
        (receipts.result_in, wire.result_in),
    ]
    replaced: list[tuple[Any, str, Any]] = []
    for module in [module for name, module in sys.modules.items() if name.startswith("edge_agent.")]:
        for name, value in list(vars(module).items()):
            for real, double in real_and_double:
                if value is real:
                    setattr(module, name, double)
                    replaced.append((module, name, real))
    try:
        yield wire
    finally:
        for module, name, real in replaced:
            setattr(module, name, real)
