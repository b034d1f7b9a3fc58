"""Logs of receipts as a coordinator keeps them, in memory and with real signatures; also forked and rewritten ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wire_samples

from edge_agent.wire import cose, merkle, strict_cbor
from edge_agent.wire.bundles import Bundle
from edge_agent.wire.envelope import CONTENT_TYPE, seal
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.merkle import Frontier, Place, Span
from edge_agent.wire.messages import TreeHead
from edge_agent.wire.receipts import Countersigned, make_receipt, make_receipts, receipt_leaf


def receipt(number: int, *, network: str = wire_samples.NETWORK, coordinator: SigningKey | None = None) -> bytes:
    """Return a receipt, another one for each number."""
    statement = wire_samples.result().model_copy(update={"epoch": number + 1, "network": network})
    signed = cose.sign1(wire_samples.AGENT, strict_cbor.encode(statement.model_dump()), content_type=CONTENT_TYPE)
    return make_receipt(
        coordinator or wire_samples.COORDINATOR,
        result=signed,
        agent_key=wire_samples.AGENT.public,
        network=network,
        salt=wire_samples.SALT,
        accepted_ms=wire_samples.NOW_MS,
    )


def together(count: int) -> list[bytes]:
    """Return receipts that share a signature, each with its proof."""
    results = (wire_samples.result().model_copy(update={"epoch": number + 1}) for number in range(count))
    encoded = (strict_cbor.encode(result.model_dump()) for result in results)
    signed = [cose.sign1(wire_samples.AGENT, data, content_type=CONTENT_TYPE) for data in encoded]
    some = [Countersigned(each, wire_samples.AGENT.public, wire_samples.SALT) for each in signed]
    return make_receipts(wire_samples.COORDINATOR, some, network=wire_samples.NETWORK, accepted_ms=wire_samples.NOW_MS)


class Log:
    """A tree with all of its nodes."""

    def __init__(self) -> None:
        self.frontier = Frontier()
        self.nodes: dict[Place, bytes] = {}

    def append(self, leaf: bytes) -> None:
        """Append a leaf."""
        self.nodes.update(self.frontier.append(leaf))

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return self.frontier.size

    @property
    def root(self) -> bytes:
        """The present root."""
        return self.frontier.root

    def root_at(self, size: int) -> bytes:
        """The root that it had."""
        return merkle.fold([self.nodes[place] for place in merkle.places(Span(0, size))])

    def statement(self, **change: Any) -> TreeHead:  # noqa: ANN401 any field
        """What would be signed."""
        fields = {"network": wire_samples.NETWORK, "issued_ms": wire_samples.NOW_MS, "size": self.size}
        return TreeHead(**{**fields, "root": self.root, **change})

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """A proof."""
        return merkle.path_of(merkle.inclusion_spans(index, size or self.size), self.nodes.__getitem__)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """A proof."""
        return merkle.path_of(merkle.consistency_spans(old, new), self.nodes.__getitem__)


def log_of(receipts: Sequence[bytes]) -> Log:
    """Return the log of these receipts."""
    log = Log()
    for data in receipts:
        log.append(receipt_leaf(data))
    return log


def head(log: Log, key: SigningKey | None = None, **change: Any) -> bytes:  # noqa: ANN401 any field
    """Return its signed tree head."""
    return seal(key or wire_samples.COORDINATOR, log.statement(**change))


def bundle(log: Log, receipts: Sequence[bytes], index: int) -> bytes:
    """Return a receipt with its proof."""
    return Bundle(receipts[index], head(log), index, tuple(log.inclusion(index))).encode()
