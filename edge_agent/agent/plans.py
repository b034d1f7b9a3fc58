"""What is known and decided about one family on this machine. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_agent.models.selection import Lost, Measured, choose

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_agent.models.catalogue import Family, Variant
    from edge_agent.models.selection import Rules
    from edge_agent.models.trials import Trials


@dataclass(slots=True)
class Plan:
    """One family.

    Attributes:
        family: as the catalogue has it.
        trials: the search for its variant; None if the family is not considered at all.
        why: why its variant was chosen, or why the family is not served.
        chosen: what is served; None if the family is not.
        loaded: whether the worker has it.
        over: whether the search is.
        reasons: why each variant that is not served is not, once that is known.
    """

    family: Family
    trials: Trials | None = None
    why: str = ""
    chosen: Measured | None = None
    loaded: bool = False
    over: bool = False
    reasons: list[Lost] = field(default_factory=list)

    @property
    def candidates(self) -> tuple[Variant, ...]:
        """The variants that are neither measured nor ruled out, while the search goes on."""
        return () if self.trials is None or self.over else self.trials.open

    @property
    def measured(self) -> list[Measured]:
        """What was measured, or is remembered."""
        return [] if self.trials is None else self.trials.measured

    @property
    def lost(self) -> list[Lost]:
        """Why each variant that is not served is not, as far as that is known by now."""
        if self.trials is None:
            return self.reasons
        if not self.over:
            return list(self.trials.lost)
        served = None if self.chosen is None else self.chosen.variant
        return [lost for lost in self.reasons if lost.variant != served]

    def take_over(self, old: Plan | None) -> None:
        """Keep serving what an older plan serves, if it can still be served, until the search says otherwise."""
        if old is None or old.chosen is None or self.trials is None:
            return
        variant = old.chosen.variant
        kept = self.family.variant(variant.digest) == variant
        if kept and all(lost.variant != variant for lost in self.trials.lost):
            self.chosen, self.loaded = old.chosen, old.loaded

    def finish(self) -> Measured | None:
        """End the search; return the best variant, if any, with `why` and the reasons for all others in place."""
        if self.trials is None:
            return None
        self.over = True
        choice = self.trials.choice()
        self.why, self.reasons = choice.why, list(choice.lost)
        return choice.chosen

    def options(self, rules: Rules) -> tuple[Measured, ...]:
        """Return what may serve the family, the best first, each next one the best of what is left."""
        if self.trials is None:
            return ()
        if not self.over:
            return () if self.chosen is None else (self.chosen,)
        left = list(self.trials.measured)
        found: list[Measured] = []
        while (best := choose(left, self.family, rules=rules).chosen) is not None:
            found.append(best)
            left.remove(best)
        return tuple(found)


def forget_loads(plans: Iterable[Plan]) -> None:
    """Take note that the worker is gone, and with it all that it had loaded."""
    for plan in plans:
        plan.loaded = False
