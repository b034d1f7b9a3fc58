"""Which families are served together now, and in which variants. Pure."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edge_agent.agent.demand import Demand
from edge_agent.agent.estimates import Estimates
from edge_agent.agent.events import Command, UnloadModel
from edge_agent.agent.plans import Plan
from edge_agent.agent.policy import Policy
from edge_agent.clock import Now
from edge_agent.models.selection import Lost, Measured, Rules
from edge_agent.models.sets import Wish
from edge_agent.models.sets import plan as plan_set
from edge_agent.notes import Note


class Serving:
    """Takes plans into service and out of it.

    Args:
        policy: the owner's rules, with what families are worth.
    """

    def __init__(self, policy: Policy) -> None:
        self.demand = Demand()
        self.estimates = Estimates()
        self._policy = policy

    def replan(self, plans: Sequence[Plan], rules: Rules, room_bytes: int, now: Now) -> list[Command]:
        """Choose the families to serve together in so much memory, and serve them."""
        wishes = [
            Wish(plan.family.name, options, self._worth(plan.family.name, now))
            for plan in plans
            if (options := plan.options(rules))
        ]
        served = plan_set(
            [wish for wish in wishes if wish.worth > 0],
            room_bytes,
            frozenset(plan.family.name for plan in plans if plan.chosen is not None),
        )
        commands: list[Command] = []
        for plan in plans:
            name = plan.family.name
            if (entry := served.chosen.get(name)) is not None:
                commands += self._serve(plan, entry, rules)
                continue
            commands += self._drop(plan)
            if name in served.left_out:
                plan.why = served.left_out[name]
            elif any(wish.family == name for wish in wishes):
                plan.why = "the owner gives it no value (agent.values)"
        return commands

    def leave(self, plan: Plan) -> None:
        """Take note that a family is not served any more."""
        if plan.chosen is not None:
            self.estimates.forget(plan.chosen.variant.digest_bytes)
        plan.chosen, plan.loaded = None, False

    def _worth(self, family: str, now: Now) -> float:
        return self._policy.value_of(family) * self.demand.of(family, now.monotonic)

    def _serve(self, plan: Plan, entry: Measured, rules: Rules) -> list[Command]:
        before = plan.chosen
        if before == entry:
            return []
        plan.chosen = entry
        self.estimates.begin(entry, plan.family.latency_target_ms)
        if (
            before is not None
            and before.variant == entry.variant
            and (before.threads, before.lanes, before.together) == (entry.threads, entry.lanes, entry.together)
        ):
            return []  # measured again, and nothing to be done
        commands: list[Command] = []
        if before is not None and before.variant != entry.variant:
            self.estimates.forget(before.variant.digest_bytes)
            if plan.loaded:
                commands.append(UnloadModel(before.variant.digest_bytes))
        plan.loaded = False
        best = plan.options(rules)[0].variant
        if best != entry.variant:
            plan.why = f"{best.name} would be better, but does not fit beside the other families"
            plan.reasons.append(Lost(best, f"it does not fit beside the other families, and {entry.variant.name} does"))
        text = f"Chose {entry.variant.name} for {plan.family.name}: {plan.why}"
        fields = (("family", plan.family.name), ("p50_us", entry.p50_us), ("peak_bytes", entry.peak_bytes))
        return [*commands, Note(logging.INFO, text, "chosen", fields)]

    def _drop(self, plan: Plan) -> list[Command]:
        """Serve a family no longer."""
        if plan.chosen is None:
            return []
        digest, loaded = plan.chosen.variant.digest_bytes, plan.loaded
        self.leave(plan)
        note = Note(logging.INFO, f"No longer serving {plan.family.name}", "dropped", (("family", plan.family.name),))
        return [UnloadModel(digest), note] if loaded else [note]
