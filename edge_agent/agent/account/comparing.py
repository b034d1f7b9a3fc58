"""The agent's own copy held against what the coordinator shows: the same results, each in the ledger once. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_agent.agent.own_copy import Entry


class Shown(NamedTuple):
    """What the coordinator shows of a job, verified.

    Attributes:
        agent_id: whose result it is.
        epoch: of the attempt.
        signed_result: the agent's own statement, as its receipt carries it.
        leaf: of the receipt in the coordinator's log, by which the ledger names it.
        family: that was computed, as the agent's statement says.
        accepted_ms: when the coordinator says it accepted it, Unix milliseconds.
    """

    agent_id: str
    epoch: int
    signed_result: bytes
    leaf: bytes
    family: str = ""
    accepted_ms: int = 0


@dataclass(slots=True)
class Comparison:
    """What came of it; jobs by their ids.

    Attributes:
        same: results that the coordinator has as they were signed.
        credited: of them, those that the ledger pays, and what for each.
        missing: that the coordinator has no receipt of (any more).
        others: for which it has another agent's or another attempt's result.
        altered: which it shows with other bytes than the agent signed: evidence against it.
    """

    same: list[bytes] = field(default_factory=list)
    credited: dict[bytes, int] = field(default_factory=dict)
    missing: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    altered: list[bytes] = field(default_factory=list)


def compare(
    agent_id: str, own: Iterable[Entry], shown: Mapping[bytes, Shown], credited: Mapping[bytes, int]
) -> Comparison:
    """Compare.

    Args:
        agent_id: of the agent.
        own: its copy.
        shown: what the coordinator has of each job; what is not there, it does not have.
        credited: what the ledger pays for each leaf.
    """
    found = Comparison()
    for entry in own:
        other = shown.get(entry.job)
        if other is None:
            found.missing.append(entry.job)
        elif (other.agent_id, other.epoch) != (agent_id, entry.epoch):
            found.others.append(entry.job)
        elif hashlib.sha256(other.signed_result).digest()[:16] != entry.digest:
            found.altered.append(entry.job)
        else:
            found.same.append(entry.job)
            if other.leaf in credited:
                found.credited[entry.job] = credited[other.leaf]
    return found


class Credit(NamedTuple):
    """What was credited for a family on a day.

    Attributes:
        results: that the coordinator has as they were signed.
        credited: of them, those that the ledger pays.
        amount: for these together, millions of multiply-accumulates.
    """

    results: int
    credited: int
    amount: int


def credit_by_day(
    found: Comparison, shown: Mapping[bytes, Shown], day_of: Callable[[int], str]
) -> dict[tuple[str, str], Credit]:
    """Add the credit up by (day, family), in that order.

    Args:
        found: what came of the comparison.
        shown: what it was made with.
        day_of: gives the date, such as `2026-09-21`, of Unix milliseconds.
    """
    sums: dict[tuple[str, str], Credit] = {}
    for job in found.same:
        other, amount = shown[job], found.credited.get(job)
        key = (day_of(other.accepted_ms), other.family)
        results, credited, together = sums.get(key, Credit(0, 0, 0))
        sums[key] = Credit(results + 1, credited + (amount is not None), together + (amount or 0))
    return dict(sorted(sums.items()))
