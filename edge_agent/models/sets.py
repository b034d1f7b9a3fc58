"""Which families to serve together, in the memory that there is. Pure.

A served model holds its steady memory all the time; while it runs or loads it takes more for a moment, and one model
runs at a time. So a set fits if the sum of what its members hold and the largest moment of any of them stay within
the room. Among the sets that fit, the one of the greatest worth is served: each family counts its owner's value times
its demand. Small numbers of families are tried in all combinations; of more, those of the most worth for their memory
are taken first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from edge_agent.models.selection import Measured, told_mb

EXACT_UP_TO = 10
"""Families whose combinations are all tried: about a thousand."""
SWITCH_FACTOR = 1.3
"""Another set has to be worth so much more than the one that is served: loading models has its price."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A family that could be served.

    Attributes:
        family: its name.
        options: the measured variants that may serve it, the best first; never empty.
        worth: the owner's value times the demand, above 0.
    """

    family: str
    options: tuple[Measured, ...]
    worth: float


@dataclass(frozen=True, slots=True)
class Served:
    """The set: a variant for each family that is served, and for every other family why it is not."""

    chosen: dict[str, Measured]
    left_out: dict[str, str]
    worth: float


def plan(wishes: Sequence[Wish], room_bytes: int, current: frozenset[str] = frozenset()) -> Served:
    """Return the set to serve.

    Args:
        wishes: each family once.
        room_bytes: what all models together may take at any moment.
        current: the families that are served now; they stay unless another set is clearly worth more.
    """
    possible = [wish for wish in wishes if any(_peak(option) <= room_bytes for option in wish.options)]
    found = _best(possible, room_bytes)
    kept = {wish.family for wish in possible} & current
    if kept and not kept <= found.keys():
        stay = _with_kept([wish for wish in possible if wish.family in kept], possible, room_bytes)
        if stay is not None and _worth(wishes, found) < SWITCH_FACTOR * _worth(wishes, stay):
            found = stay
    left_out = {
        wish.family: _why(wish, found, room_bytes, fits_alone=wish in possible)
        for wish in wishes
        if wish.family not in found
    }
    return Served(found, left_out, _worth(wishes, found))


def fits(chosen: Sequence[Measured], room_bytes: int) -> bool:
    """Return whether these models can be held together and each be run and loaded."""
    return _total(chosen) <= room_bytes


def _peak(entry: Measured) -> int:
    return max(entry.peak_bytes, entry.held_bytes)


def _total(chosen: Sequence[Measured]) -> int:
    held = sum(entry.held_bytes for entry in chosen)
    return held + max((_peak(entry) - entry.held_bytes for entry in chosen), default=0)


def _worth(wishes: Sequence[Wish], chosen: dict[str, Measured]) -> float:
    return sum(wish.worth for wish in wishes if wish.family in chosen)


def _best(wishes: Sequence[Wish], room_bytes: int) -> dict[str, Measured]:
    firsts = {wish.family: wish.options[0] for wish in wishes}
    if fits(list(firsts.values()), room_bytes):
        return firsts
    if len(wishes) <= EXACT_UP_TO:
        return _exact(wishes, room_bytes)
    return _greedy(wishes, room_bytes)


def _exact(wishes: Sequence[Wish], room_bytes: int) -> dict[str, Measured]:
    """Try all combinations, the worthiest first; the same worth by fewer bytes, then by name."""
    ordered = sorted(wishes, key=lambda wish: wish.family)
    best: tuple[float, int, dict[str, Measured]] = (0.0, 0, {})
    for size in range(1, len(ordered) + 1):
        for members in combinations(ordered, size):
            worth = sum(wish.worth for wish in members)
            if worth < best[0]:
                continue
            chosen = _squeeze(members, room_bytes)
            if chosen is None:
                continue
            total = _total(list(chosen.values()))
            if worth > best[0] or total < best[1]:
                best = (worth, total, chosen)
    return best[2]


def _squeeze(members: Sequence[Wish], room_bytes: int) -> dict[str, Measured] | None:
    """Return a variant for every member so that all fit: the best of each, or smaller ones as far as it takes."""
    chosen = {wish.family: 0 for wish in members}
    options = {wish.family: wish.options for wish in members}

    def picked() -> dict[str, Measured]:
        return {family: options[family][index] for family, index in chosen.items()}

    while not fits(list(picked().values()), room_bytes):
        # The step down that frees the most, taken by the family that is worth the least for it.
        before = _total(list(picked().values()))
        steps = []
        for wish in members:
            for index in range(chosen[wish.family] + 1, len(wish.options)):
                trial = {**picked(), wish.family: wish.options[index]}
                freed = before - _total(list(trial.values()))
                if freed > 0:
                    steps.append((wish.worth / freed, wish.family, index))
        if not steps:
            return None
        _, family, index = min(steps)
        chosen[family] = index
    return picked()


def _greedy(wishes: Sequence[Wish], room_bytes: int) -> dict[str, Measured]:
    def density(wish: Wish) -> tuple[float, str]:
        smallest = min(option.held_bytes for option in wish.options)
        return -wish.worth / max(1, smallest), wish.family

    taken: list[Wish] = []
    found: dict[str, Measured] = {}
    for wish in sorted(wishes, key=density):
        trial = _squeeze([*taken, wish], room_bytes)
        if trial is not None:
            taken.append(wish)
            found = trial
    single = max(wishes, key=lambda wish: (wish.worth, wish.family))
    if single.worth > _worth(wishes, found):
        found = _squeeze([single], room_bytes) or found
    return found


def _with_kept(kept: Sequence[Wish], wishes: Sequence[Wish], room_bytes: int) -> dict[str, Measured] | None:
    """Return the families that are served now and whatever fits beside them; None if they fit no longer."""
    taken = list(kept)
    found = _squeeze(taken, room_bytes)
    if found is None:
        return None
    for wish in sorted(wishes, key=lambda wish: (-wish.worth, wish.family)):
        if wish.family not in found and (trial := _squeeze([*taken, wish], room_bytes)) is not None:
            taken.append(wish)
            found = trial
    return found


def _why(wish: Wish, found: dict[str, Measured], room_bytes: int, *, fits_alone: bool) -> str:
    smallest = min(_peak(option) for option in wish.options)
    if not fits_alone:
        return f"it takes {told_mb(smallest)} at the least, and {told_mb(room_bytes)} may be used"
    others = ", ".join(sorted(found)[:5]) + (", …" if len(found) > 5 else "")
    return (
        f"it takes {told_mb(smallest)} at the least, which does not fit beside {others} in {told_mb(room_bytes)}; "
        f"those are worth more by the owner's values and by demand"
    )
