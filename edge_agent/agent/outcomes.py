"""What the outcomes of canary runs mean for the plans, and what of them is remembered. Pure."""

from __future__ import annotations

import logging

from edge_agent.agent.events import Command
from edge_agent.agent.measuring import Canary, Measuring
from edge_agent.agent.plans import Plan
from edge_agent.agent.prospects import Prospects
from edge_agent.clock import Now
from edge_agent.inference.events import CANCELLED, CanaryDone, CanaryFailed
from edge_agent.inference.measurements import measurement
from edge_agent.models.catalogue import Variant
from edge_agent.notes import Note

FILE_FAULTS = frozenset({"state", "digest-mismatch", "malformed"})
"""What is wrong with a file says nothing about the model: a fetch mends it."""


class Outcomes:
    """Takes outcomes in.

    Args:
        measuring: where runs go that have to be made again.
        prospects: where what was learnt is kept.
    """

    def __init__(self, measuring: Measuring, prospects: Prospects) -> None:
        self._measuring = measuring
        self._prospects = prospects

    def take(self, canary: Canary, event: CanaryDone | CanaryFailed, now: Now) -> list[Command]:
        """Put an outcome into its plan, whose search goes on then."""
        if isinstance(event, CanaryFailed):
            return self._failed(canary, event, now)
        return self._done(canary, event, now)

    def remember_failure(self, plan: Plan, variant: Variant, code: str, why: str, now: Now) -> list[Command]:
        """Remember that a variant does not work here, unless its file is to blame."""
        return [] if code in FILE_FAULTS else [self._prospects.failed(plan.family, variant, why, now)]

    def _failed(self, canary: Canary, event: CanaryFailed, now: Now) -> list[Command]:
        plan, variant = canary.plan, canary.variant
        if event.code == CANCELLED:
            self._measuring.uncount(canary)
            return []
        if self._measuring.lacked_room(canary, event.code, self._prospects.room_bytes):
            return []
        if plan.trials is None or plan.trials.failed(variant, event.code, event.message):
            if not canary.counted:
                self._measuring.again(plan, variant)
            return []
        plan.over = False
        text = f"Left {variant.name} of {plan.family.name} out: it did not run here: {event.message}"
        note = Note(logging.WARNING, text, "canary-failed", (("code", event.code),))
        return [note, *self.remember_failure(plan, variant, event.code, event.message, now)]

    def _done(self, canary: Canary, event: CanaryDone, now: Now) -> list[Command]:
        self._prospects.has_runtime(event.runtime)
        plan, variant = canary.plan, canary.variant
        entry = measurement(variant, event)
        if plan.trials is not None:
            plan.trials.add(entry)
        plan.over = False
        if not entry.golden_ok:
            text = f"{variant.name} of {plan.family.name} does not work here: {entry.why}"
            note = Note(logging.WARNING, text, "canary-wrong", (("family", plan.family.name),))
            return [note, *self.remember_failure(plan, variant, "wrong-output", entry.why, now)]
        if self._measuring.was_disturbed(canary):  # good enough to go on with, not good enough to be remembered
            text = f"Jobs ran while {variant.name} of {plan.family.name} was measured"
            return [Note(logging.INFO, text, "canary-disturbed")]
        return [self._prospects.succeeded(plan.family, entry, now)]
