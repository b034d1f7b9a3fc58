"""What a result is worth in the ledger: by what the catalogue says of its variant, and by nothing else. Pure.

Whoever has the catalogue comes to the same figure: the coordinator for its ledger, an agent for its own account.
"""

from __future__ import annotations

import math

from edge_agent.models.catalogue import Catalogue, Variant


def amount_of(variant: Variant | None) -> int:
    """Return what one run of a variant is worth: millions of multiply-accumulates, at least 1."""
    costs = variant.costs if variant else None
    return max(1, math.ceil(costs.macs / 1e6)) if costs else 1


def amount_in(catalogue: Catalogue, family: str, variant: bytes) -> int:
    """Return what one run of a catalogue's variant, by its digest, is worth; 1 where it is not there any more."""
    found = next((each for each in catalogue.families if each.name == family), None)
    return amount_of(found.variant(variant) if found is not None else None)
