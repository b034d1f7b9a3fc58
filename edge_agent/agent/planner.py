"""Decides what this machine offers: predict, measure in canary runs, choose on what was measured, and keep it served.

Pure: it is told what workers say and answers with commands. Canary runs go on in workers of their own, which neither
wait for the serving worker nor it for them; `measuring` says when.
"""

from __future__ import annotations

import logging

from edge_agent.agent.deaths import Deaths
from edge_agent.agent.estimates import is_usual
from edge_agent.agent.events import CancelCanary, Command, FetchModels, LoadModel, UnloadModel
from edge_agent.agent.keeper import Keeper, WorkerState
from edge_agent.agent.measuring import Measuring
from edge_agent.agent.offering import Offering
from edge_agent.agent.outcomes import Outcomes
from edge_agent.agent.pipeline import Pipeline, pipeline_of
from edge_agent.agent.plans import Plan, forget_loads
from edge_agent.agent.policy import Policy
from edge_agent.agent.prospects import Circumstances, Prospects
from edge_agent.agent.serving import Serving
from edge_agent.clock import Now
from edge_agent.inference.events import (
    CANCELLED,
    CanaryDone,
    CanaryFailed,
    CopyMade,
    CopyWanted,
    LoadFailed,
    ModelLoaded,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
)
from edge_agent.models.catalogue import Catalogue
from edge_agent.models.fit import MachineFacts
from edge_agent.models.selection import IDLE_WORKER_BYTES
from edge_agent.notes import Note
from edge_agent.wire.messages import Offer, VariantClass
from edge_agent.wire.tensors import Tensor

__all__ = ["Circumstances", "Planner", "WorkerState"]

REVIEW_SECONDS = 900.0
"""How often the set of families is looked at again with the demand of late, and failures with the time that passed."""


class Planner:
    """The plan for every family of the catalogue.

    Args:
        catalogue: families and variants.
        policy: the owner's rules.
        machine: what the predictor needs to know.
        isa: the instruction set path, part of the class of every result.
        budget_bytes: memory that is free for models on this machine.
        threads: for one inference.
        circumstances: what else is known.
    """

    def __init__(  # noqa: PLR0913 each is a fact of its own
        self,
        catalogue: Catalogue,
        policy: Policy,
        machine: MachineFacts,
        *,
        isa: str,
        budget_bytes: int,
        threads: int,
        circumstances: Circumstances | None = None,
    ) -> None:
        self.decided = False
        self.plans: list[Plan] = []
        self.catalogue = catalogue
        self._policy = policy
        self._prospects = Prospects(policy, machine, circumstances or Circumstances(), budget_bytes, threads)
        self._keeper = Keeper(threads)
        self._deaths = Deaths()
        self._measuring = Measuring()
        self._outcomes = Outcomes(self._measuring, self._prospects)
        self._serving = Serving(policy)
        self._offering = Offering(policy, self._prospects, self._serving.estimates, isa)
        self._paused = False  # the serving worker sleeps so that a canary run has its memory
        self._review_at: float | None = None

    # -- what is offered ----------------------------------------------------------------------------------------------

    @property
    def worker(self) -> WorkerState:
        """What is known of the serving worker."""
        return self._keeper.state

    @property
    def ready(self) -> bool:
        """Whether the worker is up and everything that is offered is loaded."""
        return self.decided and self.worker is WorkerState.UP and all(p.loaded for p in self.plans if p.chosen)

    @property
    def offering(self) -> tuple[tuple[str, bool], ...]:
        """The digest of each variant that is offered, and whether it is loaded."""
        return self._offering.brief(self.plans) if self.decided else ()

    def offers(self) -> tuple[Offer, ...]:
        """Return what can be leased to this machine; nothing before a choice is made."""
        return self._offering.offers(self.plans) if self.decided else ()

    def offered(self, variant: bytes) -> VariantClass | None:
        """Return the class in which a variant is served here, or None when it is not."""
        return self._offering.class_of(variant) if self._plans_of(variant) else None

    def pipeline(self, variant: bytes) -> Pipeline:
        """Return how the worker is kept busy with a variant."""
        return pipeline_of(self._plans_of(variant), self._serving.estimates, self._keeper.threads, self._deaths)

    def use_threads(self, threads: int) -> None:
        """Take another number of threads from the next start of the worker on."""
        self._keeper.threads = threads

    def _plans_of(self, digest: bytes) -> list[Plan]:
        return [p for p in self.plans if p.chosen and p.chosen.variant.digest_bytes == digest]

    # -- what is considered -------------------------------------------------------------------------------------------

    def begin(self, now: Now) -> list[Command]:
        """Predict, leave out what cannot be served, take what is remembered, and start measuring the rest."""
        return self._consider(self.catalogue, now)

    def on_catalogue(self, catalogue: Catalogue, now: Now) -> list[Command]:
        """Consider another catalogue, or other files; what is served stays until the search says otherwise."""
        return self._consider(catalogue, now)

    def on_machine(self, facts: MachineFacts) -> None:
        """Predict with these facts from now on; what is planned already stays."""
        self._prospects.has_speed(facts)

    def on_conditions(self, budget_bytes: int, conditions: str, now: Now) -> list[Command]:
        """Plan anew if the machine has another amount of memory, or works under other conditions."""
        if self._prospects.has_conditions(budget_bytes, conditions):
            return self._consider(self.catalogue, now)
        return [*self._replan(now), *self._next(now)] if self.decided else []

    def _consider(self, catalogue: Catalogue, now: Now) -> list[Command]:
        """Make the plans anew, from what is remembered, and go on from there."""
        commands = self._measuring.cancel()
        self.catalogue = catalogue
        old = {plan.family.name: plan for plan in self.plans}
        loaded = {plan.chosen.variant.digest_bytes for plan in self.plans if plan.loaded and plan.chosen}
        # What is worth more to the owner is measured first.
        families = sorted(catalogue.families, key=lambda family: -self._policy.value_of(family.name))
        self.plans = [self._prospects.plan(family, now) for family in families]
        for plan in self.plans:
            plan.take_over(old.get(plan.family.name))
        kept = {plan.chosen.variant.digest_bytes for plan in self.plans if plan.chosen}
        commands += [UnloadModel(digest) for digest in sorted(loaded - kept)]
        if self._review_at is None:
            self._review_at = now.monotonic + REVIEW_SECONDS
        commands += self._search(now)
        if self._measuring.due(self.plans) is None:
            self.decided = True
            if not any(plan.chosen for plan in self.plans):
                text = "Nothing of the catalogue can be served on this machine"
                commands.append(Note(logging.WARNING, text, "nothing-fits"))
        return [*commands, *self._fetch(now), *self._next(now)]

    def _fetch(self, now: Now) -> list[Command]:
        """Ask for the files that would be measured if they were here."""
        if not self._policy.download or self._measuring.resting:
            return []
        return [FetchModels(self._prospects.absent((plan.family for plan in self.plans), now))]

    # -- what workers say ---------------------------------------------------------------------------------------------

    def on_worker_event(self, event: WorkerEvent, now: Now) -> list[Command]:
        """Take note of what a worker says and ask for the next thing."""
        commands: list[Command] = []
        if self._keeper.resting and not isinstance(event, CanaryDone | CanaryFailed):
            return []  # it was said before the worker was ended
        match event:
            case WorkerStarted():
                self._keeper.started(event)
                if self._prospects.has_runtime(event.runtime):
                    text = f"onnxruntime is another one now, {event.runtime}: measuring anew"
                    commands = [Note(logging.INFO, text, "runtime-changed"), *self._consider(self.catalogue, now)]
            case CanaryDone() | CanaryFailed():
                commands = self._on_canary(event, now)
            case ModelLoaded():
                self._keeper.answered()
                for plan in self._plans_of(event.digest):
                    plan.loaded = True
            case LoadFailed():
                self._keeper.answered()
                for plan in self._plans_of(event.digest):
                    commands += self._withdraw(plan, event.code, f"it can no longer be loaded: {event.message}", now)
            case _:
                return []
        return [*commands, *self._next(now)]

    def on_copy(self, event: CopyWanted | CopyMade, now: Now) -> list[Command]:
        """Take note that an optimised copy of a model is wanted, or of what became of one."""
        self._measuring.on_copy(event)
        return self._next(now)

    def on_worker_died(self, event: WorkerDied, computing: tuple[bytes, bytes] | None, now: Now) -> list[Command]:
        """Start another one; `computing` is the run that it was at, if any: the variant, and a digest of the inputs."""
        suspect, inputs = computing or (self._keeper.asked, None)
        note = self._keeper.died(event, now)
        if note is None:
            return []
        forget_loads(self.plans)
        blamed: list[Command] = []
        if suspect and (why := self._deaths.blame(suspect, inputs, event.message, now)):  # once says nothing yet
            for plan in self._plans_of(suspect):
                blamed += self._withdraw(plan, event.code, why, now)
        return [note, *blamed, *self.on_tick(now)]

    def _withdraw(self, plan: Plan, code: str, why: str, now: Now) -> list[Command]:
        """Serve a variant no longer, but the next best one that was measured, if there is one."""
        if plan.chosen is None or plan.trials is None:
            return []
        variant = plan.chosen.variant
        plan.trials.rule_out(variant, why)
        self._serving.leave(plan)
        plan.over = False
        text = f"Withdrew {variant.name} of {plan.family.name}: {why}"
        note = Note(logging.ERROR, text, "withdrawn", (("code", code),))
        commands = [note, *self._outcomes.remember_failure(plan, variant, code, why, now), *self._search(now)]
        if plan.over and not plan.measured:
            plan.why = why
        return commands

    # -- canary runs --------------------------------------------------------------------------------------------------

    def _on_canary(self, event: CanaryDone | CanaryFailed, now: Now) -> list[Command]:
        if isinstance(event, CanaryFailed) and event.code == CANCELLED:
            return []  # the run that goes on now, perhaps of the same variant, is another one
        if (canary := self._measuring.end(event.digest)) is None or canary.copies:
            return []
        return [*self._outcomes.take(canary, event, now), *self._search(now)]

    def _search(self, now: Now) -> list[Command]:
        """End the searches that are over, and plan the set with what they found."""
        running = None if self._measuring.canary is None else self._measuring.canary.plan
        ended = [
            plan
            for plan in self.plans
            if plan.trials is not None and not plan.over and plan is not running and plan.trials.next() is None
        ]
        commands: list[Command] = []
        for plan in ended:
            if plan.finish() is None:
                text = f"No variant of {plan.family.name} can be served here: {plan.why}"
                commands.append(Note(logging.WARNING, text, "no-variant", (("family", plan.family.name),)))
        return [*commands, *self._replan(now)] if ended else commands

    def _measure(self, now: Now) -> list[Command]:
        """Begin the next canary run, if one is due and nothing is in its way."""
        if self._measuring.canary is not None:
            return []
        if (due := self._measuring.due(self.plans)) is None:
            self._measuring.nothing_due()
            return []
        if self.worker is WorkerState.STARTING or self._keeper.asked is not None:
            return []  # it would measure how fast the machine is while it does something else
        plan, variant = due
        room = self._prospects.room_bytes
        held = sum(p.chosen.held_bytes for p in self.plans if p.chosen is not None and p.loaded)
        alone = self._measuring.needs_sleep(plan, variant, held, room)
        if not self._measuring.may_begin(now, ends_worker=alone):
            return []
        commands: list[Command] = []
        if alone:
            commands = self._keeper.sleep()
            forget_loads(self.plans)
            self._paused = True
        limit = room if alone or not held else room - held - IDLE_WORKER_BYTES
        return [*commands, self._measuring.begin(plan, variant, limit, now)]

    # -- the set ------------------------------------------------------------------------------------------------------

    def _replan(self, now: Now) -> list[Command]:
        """Choose the families to serve together, and serve them."""
        self.decided = True
        return self._serving.replan(self.plans, self._prospects.rules, self._room_bytes, now)

    @property
    def _room_bytes(self) -> int:
        """What models may take now: a worker that runs keeps the limit that it was started with."""
        room, limit = self._prospects.room_bytes, self._keeper.limit_bytes
        runs = self.worker in {WorkerState.STARTING, WorkerState.UP}
        return min(room, limit) if limit is not None and runs else room

    def _start(self, now: Now) -> list[Command]:
        """Start the serving worker, with as much memory as there is now."""
        self._keeper.limit_bytes = self._room_bytes
        return self._keeper.start(now)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def on_job(self, family: str, now: Now) -> None:
        """Take note that a job of a family was taken on."""
        self._serving.demand.saw(family, now.monotonic)

    def on_job_done(self, variant: bytes, inputs: tuple[Tensor, ...], run_us: int, now: Now) -> None:
        """Take note of how long a job ran; measure anew when that is far from what was measured, for long."""
        for plan in self._plans_of(variant):
            drifted = is_usual(plan.family, inputs) and self._serving.estimates.saw(variant, run_us, now.monotonic)
            if drifted and plan.chosen is not None:
                self._measuring.again(plan, plan.chosen.variant)

    def on_load(self, active: int, now: Now) -> list[Command]:
        """Take note of how many jobs wait or run; begin what waited for a quiet moment."""
        self._measuring.on_load(active, now)
        return self._measure(now)

    # -- keeping the worker up ----------------------------------------------------------------------------------------

    def _next(self, now: Now) -> list[Command]:
        """Start the worker if there is something to serve, load what is not loaded, measure what is not measured."""
        wanted = [plan for plan in self.plans if plan.chosen is not None]
        if self._keeper.idle:
            waiting = next((plan.chosen for plan in wanted if plan.chosen and not plan.loaded), None)
            if waiting is not None:
                self._keeper.ask(waiting.variant.digest_bytes, now)
                return [LoadModel(waiting.variant, waiting.threads, waiting.lanes, self._deaths.together(waiting))]
        elif wanted and self.decided and self.worker is WorkerState.OFF:
            return self._start(now)
        commands = self._measure(now)
        if self._paused and self._measuring.canary is None:
            self._paused = False
            commands += self._start(now)
        return commands

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which something here is due, if any."""
        canary = self._measuring.canary
        due = [self._keeper.next_deadline(), self._measuring.retry_at, canary.until if canary else None]
        if self._can_change():
            due.append(self._review_at)
        return min((moment for moment in due if moment is not None), default=None)

    def _can_change(self) -> bool:
        """Whether anything may change by itself: a set of several, what failed once, files that are not here yet."""
        return self.decided and (len(self.plans) > 1 or any(plan.trials and plan.trials.lost for plan in self.plans))

    def on_tick(self, now: Now) -> list[Command]:
        """Do what is due: the worker's restart, an outcome that never came, a canary run that waited, a review."""
        commands: list[Command] = []
        canary = self._measuring.canary
        if canary is not None and canary.until <= now.monotonic:
            lost = CanaryFailed(canary.variant.digest_bytes, "worker-hung", "No outcome of its canary run came.")
            commands += [CancelCanary(), *self._on_canary(lost, now), *self._next(now)]
        if self.worker is WorkerState.OFF:
            self._keeper.limit_bytes = self._room_bytes
        commands += self._keeper.on_tick(now, wanted=any(plan.chosen for plan in self.plans))
        if self._review_at is not None and self._review_at <= now.monotonic and self._can_change():
            self._review_at = now.monotonic + REVIEW_SECONDS
            commands += self._review(now)
        return [*commands, *self._measure(now)]

    def _review(self, now: Now) -> list[Command]:
        """Give variants another try that can be had now, or failed long enough ago; look at the set with the demand."""
        for index, old in enumerate(self.plans):
            ruled_out = len(old.trials.lost) if old.trials is not None else len(old.family.variants)
            plan = self._prospects.plan(old.family, now)
            if plan.trials is not None and (old.trials is None or old.over) and len(plan.trials.lost) < ruled_out:
                plan.take_over(old)
                self.plans[index] = plan
        return [*self._search(now), *self._replan(now), *self._next(now)]

    def sleep(self) -> list[Command]:
        """End the worker, to free its memory while there is nothing to do."""
        if not (commands := self._keeper.sleep()):
            return []
        forget_loads(self.plans)
        return [*commands, Note(logging.INFO, "The worker sleeps: there is nothing to do", "worker-asleep")]

    def wake(self, now: Now) -> list[Command]:
        """Start the worker if it sleeps; a canary run, which may have its memory, is called off."""
        if self.worker is not WorkerState.ASLEEP:
            return []
        self._paused = False
        return [*self._measuring.cancel(), *self._start(now)]

    def quieten(self) -> list[Command]:
        """Measure and fetch nothing for now; what is served stays."""
        self._measuring.resting = True
        return [*self._measuring.cancel(), *([FetchModels(())] if self._policy.download else [])]

    def rest(self, *, at_once: bool) -> list[Command]:
        """End the worker, and start none until `rise`; what was chosen stays chosen."""
        forget_loads(self.plans)
        self._paused = False
        return self._keeper.rest(at_once=at_once)

    def rise(self, now: Now) -> list[Command]:
        """Serve what was chosen, and go on with what was left."""
        self._measuring.resting = False
        self._keeper.rise()
        return [*self._fetch(now), *self._next(now)]
