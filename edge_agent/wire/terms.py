"""Whose jobs a machine takes, and of which labels: an agent says it with its offers, and both ends judge by it. Pure.

A client is known by the name that the operator gave to its API key. An agent hears the name of a job's client only if
its owner named that client, and of a job's labels only those that its owner named: strangers stay unknown to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, TypeAlias

from pydantic import Field

from edge_agent.wire.statements import MAX_LABELS, Label, Part, ShortText

MAX_CLIENTS: Final = 128
"""Clients whose jobs alone are taken."""
MAX_FIRST: Final = 64
"""Clients whose jobs go before others'."""

ClientName: TypeAlias = ShortText
JobLabels: TypeAlias = Annotated[tuple[Label, ...], Field(max_length=MAX_LABELS, strict=False)]


class Terms(Part):
    """What jobs a machine takes.

    Attributes:
        clients: whose alone; None for everybody's.
        first: whose go before others'.
        labels: of which a job must have one; None where it needs none.
        denied: of which a job must have none.
    """

    clients: Annotated[tuple[ClientName, ...], Field(min_length=1, max_length=MAX_CLIENTS, strict=False)] | None
    first: Annotated[tuple[ClientName, ...], Field(max_length=MAX_FIRST, strict=False)]
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=MAX_LABELS, strict=False)] | None
    denied: JobLabels

    @property
    def restrict(self) -> bool:
        """Whether any job could be refused by them."""
        return bool(self.clients is not None or self.labels is not None or self.denied)

    @property
    def named(self) -> frozenset[str]:
        """All clients that they name."""
        return frozenset((*(self.clients or ()), *self.first))

    def why_not_client(self, client: str | None) -> str | None:
        """Say why the jobs of a client are not taken, or None; a client of None is one that they do not name."""
        if self.clients is None or client in self.clients:
            return None
        return "its owner takes the jobs of other clients only"

    def why_not_labels(self, labels: Iterable[str]) -> str | None:
        """Say why a job with these labels is not taken, or None."""
        had = frozenset(labels)
        if denied := had.intersection(self.denied):
            return f"its owner takes no jobs labelled {', '.join(sorted(denied))}"
        if self.labels is not None and had.isdisjoint(self.labels):
            return f"its owner takes only jobs labelled {' or '.join(self.labels)}"
        return None

    def why_not(self, client: str | None, labels: Iterable[str]) -> str | None:
        """Say why a job is not taken, or None."""
        return self.why_not_client(client) or self.why_not_labels(labels)

    def name_for(self, client: str) -> str | None:
        """Return what is told of a job's client: its name if they name it, else nothing."""
        return client if client in self.first or client in (self.clients or ()) else None

    def labels_for(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return what is told of a job's labels: those that they name."""
        return tuple(label for label in labels if label in self.denied or label in (self.labels or ()))
