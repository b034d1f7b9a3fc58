"""When canary runs are made: one at a time, while no job runs, and in memory that nothing else needs. Pure.

Optimised copies of what is served are made likewise, when nothing is left to be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.agent.events import CancelCanary, Command, MakeCopy, RunCanary
from edge_agent.agent.plans import Plan
from edge_agent.clock import Now
from edge_agent.inference.events import CopyMade, CopyWanted
from edge_agent.models.catalogue import Variant
from edge_agent.models.selection import IDLE_WORKER_BYTES

PATIENCE_SECONDS = 120.0
"""An outcome that has not come by then never will."""
QUIET_SECONDS = 1.0
"""A canary run begins when no job has run for so long …"""
MAX_WAIT_SECONDS = 120.0
"""… or when it has waited for that for so long; then what it measures is used, and measured again."""
MAX_DISTURBED = 2
"""A variant that jobs disturbed this often while it was measured is judged by that."""


@dataclass(slots=True)
class Canary:
    """The run that goes on.

    Attributes:
        until: monotonic second at which its outcome is given up.
        limit_bytes: what it may take.
        disturbed: whether a job ran meanwhile.
        counted: whether it is one of the search's runs, and not one of what is served already.
        copies: whether a copy is made, and nothing is measured.
    """

    plan: Plan
    variant: Variant
    until: float
    limit_bytes: int
    disturbed: bool
    counted: bool
    copies: bool = False


class Measuring:
    """The canary run that goes on, and those that wait."""

    def __init__(self) -> None:
        self.canary: Canary | None = None
        self.resting = False
        """Whether none is made for now."""
        self.retry_at: float | None = None
        """When to look again whether the one that waits can begin; None if none waits for a moment of its own."""
        self._active = 0
        self._quiet_at = 0.0
        self._waits_since: float | None = None
        self._again: dict[str, tuple[Plan, Variant]] = {}
        self._uncopied: set[str] = set()
        self._disturbed: dict[str, int] = {}
        self._alone: set[str] = set()

    def on_load(self, active: int, now: Now) -> None:
        """Take note of how many jobs wait or run."""
        self._active = active
        if active:
            self._quiet_at = now.monotonic + QUIET_SECONDS
            if self.canary is not None:
                self.canary.disturbed = True

    def again(self, plan: Plan, variant: Variant) -> None:
        """Measure what is served already once more, when there is time."""
        self._again[variant.digest] = (plan, variant)

    def on_copy(self, event: CopyWanted | CopyMade) -> None:
        """Have an optimised copy made of a variant that is served, when there is time; or take note that it was."""
        if isinstance(event, CopyWanted):
            self._uncopied.add(event.digest.hex())
        elif self.canary is not None and self.canary.copies:
            self.end(event.digest)

    def due(self, plans: Sequence[Plan]) -> tuple[Plan, Variant] | None:
        """Return what is next: searches in the order of the plans, what is to be measured again, copies."""
        for plan in plans:
            if plan.trials is not None and not plan.over and (variant := plan.trials.next()) is not None:
                return plan, variant
        for digest, (plan, variant) in list(self._again.items()):
            if any(plan is other for other in plans) and plan.trials is not None and plan.over:
                return plan, variant
            del self._again[digest]
        served = {plan.chosen.variant.digest: plan for plan in plans if plan.chosen is not None and plan.over}
        self._uncopied &= served.keys()
        if self._uncopied and (plan := served[min(self._uncopied)]).chosen is not None:
            return plan, plan.chosen.variant
        return None

    def needs_sleep(self, plan: Plan, variant: Variant, held_bytes: int, room_bytes: int) -> bool:
        """Return whether a run does not fit beside what the serving worker holds."""
        if plan.trials is None or not held_bytes:
            return False
        beside = held_bytes + IDLE_WORKER_BYTES + plan.trials.fit(variant).peak_bytes.high
        return variant.digest in self._alone or beside > room_bytes

    def may_begin(self, now: Now, *, ends_worker: bool) -> bool:
        """Return whether a run that is due may begin; if not, `retry_at` says when to look again.

        Args:
            now: the present moment.
            ends_worker: whether the serving worker would have to sleep for it, which jobs never have to wait for.
        """
        self.retry_at = None
        if self.resting:
            return False
        if not self._active and now.monotonic >= self._quiet_at:
            return True
        if self._waits_since is None:
            self._waits_since = now.monotonic
        give_up_at = self._waits_since + MAX_WAIT_SECONDS
        if self._active and ends_worker:
            return False  # a change in the load is what is waited for
        if now.monotonic >= give_up_at:
            return True
        self.retry_at = give_up_at if self._active else self._quiet_at
        return False

    def begin(self, plan: Plan, variant: Variant, limit_bytes: int, now: Now) -> Command:
        """Make a run."""
        counted = not plan.over
        copies = not counted and variant.digest not in self._again
        if counted and plan.trials is not None:
            plan.trials.begin()
        if copies:
            self._uncopied.discard(variant.digest)
        self._again.pop(variant.digest, None)
        self._waits_since = self.retry_at = None
        disturbed = bool(self._active) or now.monotonic < self._quiet_at
        self.canary = Canary(plan, variant, now.monotonic + PATIENCE_SECONDS, limit_bytes, disturbed, counted, copies)
        if copies:
            return MakeCopy(variant, plan.family, limit_bytes)
        return RunCanary(variant, plan.family, limit_bytes)

    def nothing_due(self) -> None:
        """Take note that nothing waits."""
        self._waits_since = self.retry_at = None

    def end(self, digest: bytes) -> Canary | None:
        """Take note of an outcome; None if it is late, or was never asked for."""
        canary = self.canary
        if canary is None or canary.variant.digest_bytes != digest:
            return None
        self.canary = None
        return canary

    def cancel(self) -> list[Command]:
        """Call off the run that goes on; it counts for nothing and is made again."""
        canary, self.canary = self.canary, None
        if canary is None:
            return []
        self.uncount(canary)
        return [CancelCanary()]

    def uncount(self, canary: Canary) -> None:
        """Take note that a run said nothing."""
        if canary.copies:
            self._uncopied.add(canary.variant.digest)
        elif canary.counted and canary.plan.trials is not None:
            canary.plan.trials.runs -= 1
        elif not canary.counted:
            self.again(canary.plan, canary.variant)

    def lacked_room(self, canary: Canary, code: str, room_bytes: int) -> bool:
        """Return whether a run may have failed only because others held memory; it is then made again alone."""
        short = canary.limit_bytes < room_bytes and code in {"resource-exhausted", "worker-died"}
        if short and canary.variant.digest not in self._alone:
            self._alone.add(canary.variant.digest)
            self.uncount(canary)
            return True
        return False

    def was_disturbed(self, canary: Canary) -> bool:
        """Return whether a measurement is only good enough for now; it is then taken again when there is time."""
        times = self._disturbed.get(canary.variant.digest, 0)
        if canary.disturbed and times < MAX_DISTURBED:
            self._disturbed[canary.variant.digest] = times + 1
            self.again(canary.plan, canary.variant)
            return True
        self._disturbed.pop(canary.variant.digest, None)
        return False
