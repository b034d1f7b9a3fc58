"""Decides what this machine offers: predict what fits, measure the rest in the worker, choose on what was measured.

Pure: it is told what the worker says and answers with commands. It also keeps the worker running while there is
something to serve, with a pause that doubles when the worker keeps dying.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from edge_agent.agent.events import Command, LoadModel, RunCanary, StartWorker, StopWorker
from edge_agent.agent.policy import Policy
from edge_agent.clock import Now
from edge_agent.inference.events import (
    CanaryDone,
    CanaryFailed,
    LoadFailed,
    ModelLoaded,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
)
from edge_agent.models.catalogue import Catalogue, Family, Variant
from edge_agent.models.fit import MachineFacts, predict
from edge_agent.models.selection import Lost, Measured, choose, prune
from edge_agent.notes import Note
from edge_agent.wire.messages import Offer, VariantClass

PROVIDER = "CPUExecutionProvider"
RESTART_FIRST_SECONDS = 0.1
RESTART_MAX_SECONDS = 60.0
STABLE_SECONDS = 30.0
MAX_MODEL_DEATHS = 3
"""A variant that ends the worker while it is measured or loaded this often in a row is left out."""
PATIENCE_SECONDS = 60.0
"""A worker that takes longer to start, to measure or to load is ended."""


class WorkerState(StrEnum):
    """What the planner knows of the worker."""

    OFF = "off"
    STARTING = "starting"
    UP = "up"
    ASLEEP = "asleep"


@dataclass(slots=True)
class Plan:
    """What is known about one family so far."""

    family: Family
    candidates: deque[Variant]
    lost: list[Lost]
    measured: list[Measured]
    chosen: Measured | None = None
    why: str = ""
    loaded: bool = False
    deaths: int = 0  # of the worker, over the variant that is measured or loaded


class Planner:
    """The plan for every family of the catalogue.

    Args:
        catalogue: families and variants.
        policy: the owner's rules.
        machine: what the predictor needs to know.
        isa: the instruction set path, part of the class of every result.
        budget_bytes: memory that is free for models on this machine.
        threads: for one inference.
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
    ) -> None:
        self.worker = WorkerState.OFF
        self.decided = False
        self._catalogue = catalogue
        self._policy = policy
        self._machine = machine
        self._isa = isa
        self._budget = budget_bytes
        self._threads = threads
        self.plans: list[Plan] = []
        self._runtime = ""
        self._pid = 0
        self._asked: bytes | None = None  # the variant that the worker measures or loads
        self._patience_until: float | None = None
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._deaths = 0

    # -- what is offered ------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the worker is up and everything that is offered is loaded."""
        return self.decided and self.worker is WorkerState.UP and all(p.loaded for p in self.plans if p.chosen)

    def offers(self) -> tuple[Offer, ...]:
        """Return what can be leased to this machine; nothing before the choice is made."""
        if not self.decided:
            return ()
        return tuple(self._offer(plan, plan.chosen) for plan in self.plans if plan.chosen is not None)

    def offered(self, variant: bytes) -> VariantClass | None:
        """Return the class in which a variant is served here, or None when it is not."""
        return self._class(variant) if self._serving(variant) else None

    def _offer(self, plan: Plan, chosen: Measured) -> Offer:
        return Offer(
            family=plan.family.name,
            variant=chosen.variant.digest_bytes,
            variant_name=chosen.variant.name,
            klass=self._class(chosen.variant.digest_bytes),
            latency_us=chosen.p50_us,
            max_in_flight=self._policy.max_in_flight,
            loaded=plan.loaded,
        )

    def _class(self, variant: bytes) -> VariantClass:
        return VariantClass(variant=variant, runtime=self._runtime, provider=PROVIDER, isa=self._isa)

    # -- choosing ---------------------------------------------------------------------------------------------------

    def begin(self, now: Now) -> list[Command]:
        """Predict, leave out what cannot fit, and start measuring the rest."""
        for family in self._catalogue.families:
            refused = self._policy.refuses_family(family.name)
            if refused is not None:
                self.plans.append(Plan(family, deque(), [Lost(v, refused) for v in family.variants], [], why=refused))
                continue
            fits = {v.digest: predict(v.costs, self._machine) for v in family.variants if v.costs}
            pruned = prune(family, fits, self._budget)
            why = "" if pruned.candidates else "no variant fits this machine"
            self.plans.append(Plan(family, deque(pruned.candidates), list(pruned.rejected), [], why=why))
        if not any(plan.candidates for plan in self.plans):
            self.decided = True
            return [Note(logging.WARNING, "Nothing of the catalogue fits this machine", "nothing-fits")]
        return self._start(now)

    def on_worker_event(self, event: WorkerEvent, now: Now) -> list[Command]:
        """Take note of what the worker says and ask for the next thing."""
        commands: list[Command] = []
        match event:
            case WorkerStarted():
                self.worker = WorkerState.UP
                self._runtime = event.runtime
                self._pid = event.pid
                self._leave_out_newer()
            case CanaryDone():
                self._measured(event)
            case CanaryFailed():
                plan = self._measuring(event.digest)
                if plan is not None:
                    commands = self._leave_out(plan, event.code, f"it did not run here: {event.message}")
            case ModelLoaded():
                for plan in self._serving(event.digest):
                    plan.loaded = True
                    plan.deaths = 0
            case LoadFailed():
                for plan in self._serving(event.digest):
                    commands += self._withdraw(plan, event.code, event.message)
            case _:
                return []
        return [*commands, *self._next(now)]

    def _leave_out_newer(self) -> None:
        """Leave out the candidates that need a newer onnxruntime than the worker has."""
        have = _version(self._runtime)
        for plan in self.plans:
            for variant in [v for v in plan.candidates if _version(v.min_runtime) > have]:
                plan.candidates.remove(variant)
                why = f"it needs onnxruntime {variant.min_runtime}, and here is {self._runtime}"
                plan.lost.append(Lost(variant, why))

    def _measuring(self, digest: bytes) -> Plan | None:
        """Return the plan whose next candidate this is: what the worker was asked to measure last."""
        for plan in self.plans:
            if plan.candidates:
                return plan if plan.candidates[0].digest_bytes == digest else None
        return None

    def _serving(self, digest: bytes) -> list[Plan]:
        return [p for p in self.plans if p.chosen and p.chosen.variant.digest_bytes == digest]

    def _leave_out(self, plan: Plan, code: str, why: str) -> list[Command]:
        """Give the variant up that is measured now."""
        plan.deaths = 0
        variant = plan.candidates.popleft()
        plan.lost.append(Lost(variant, why))
        text = f"Left {variant.name} of {plan.family.name} out: {why}"
        return [Note(logging.WARNING, text, "canary-failed", (("code", code),))]

    def _measured(self, event: CanaryDone) -> None:
        plan = self._measuring(event.digest)
        if plan is None:
            return
        plan.deaths = 0
        variant = plan.candidates.popleft()
        plan.measured.append(
            Measured(
                variant=variant,
                p50_us=event.p50_us,
                peak_bytes=event.peak_bytes,
                golden_ok=event.golden_ok,
                why=event.why,
            )
        )

    def _next(self, now: Now) -> list[Command]:
        """Measure what is not measured, then choose, then load what was chosen and is not loaded."""
        if self.worker is not WorkerState.UP:
            return []
        self._asked = None
        self._patience_until = None
        for plan in self.plans:
            if plan.candidates:
                self._ask(plan.candidates[0], now)
                return [RunCanary(plan.candidates[0])]
        commands: list[Command] = []
        if not self.decided:
            commands += [note for plan in self.plans for note in self._choose(plan)]
            self.decided = True
        for plan in self.plans:
            if plan.chosen is not None and not plan.loaded:
                self._ask(plan.chosen.variant, now)
                return [*commands, LoadModel(plan.chosen.variant)]
        return commands

    def _ask(self, variant: Variant, now: Now) -> None:
        self._asked = variant.digest_bytes
        self._patience_until = now.monotonic + PATIENCE_SECONDS

    def _choose(self, plan: Plan) -> list[Command]:
        if plan.why:  # it was decided before anything was measured
            return []
        choice = choose(plan.measured, plan.family)  # the canary runs had the memory limit themselves
        plan.chosen, plan.why = choice.chosen, choice.why
        plan.lost += choice.lost
        if choice.chosen is None:
            text = f"No variant of {plan.family.name} works here: {choice.why}"
            return [Note(logging.WARNING, text, "no-variant")]
        text = f"Chose {choice.chosen.variant.name} for {plan.family.name}: {choice.why}"
        fields = (("family", plan.family.name), ("p50_us", choice.chosen.p50_us))
        return [Note(logging.INFO, text, "chosen", fields)]

    # -- keeping the worker up ----------------------------------------------------------------------------------------

    def _start(self, now: Now) -> list[Command]:
        self.worker = WorkerState.STARTING
        self._started_at = now.monotonic
        self._patience_until = now.monotonic + PATIENCE_SECONDS
        return [StartWorker(self._threads)]

    def _withdraw(self, plan: Plan, code: str, message: str) -> list[Command]:
        """Serve a family no longer."""
        if plan.chosen is not None:
            plan.lost.append(Lost(plan.chosen.variant, f"it can no longer be loaded: {message}"))
        plan.chosen, plan.deaths = None, 0
        plan.why = f"it can no longer be loaded: {message}"
        text = f"Withdrew {plan.family.name}: {message}"
        return [Note(logging.ERROR, text, "withdrawn", (("code", code),))]

    def _blame_model(self, event: WorkerDied) -> list[Command]:
        """Leave out what ends the worker again and again while it is measured or loaded; once says nothing yet."""
        asked, self._asked = self._asked, None
        if asked is None:
            return []
        if (measured := self._measuring(asked)) is not None:
            measured.deaths += 1
            if measured.deaths >= MAX_MODEL_DEATHS:
                return self._leave_out(measured, event.code, f"it ends the worker: {event.message}")
            return []
        commands: list[Command] = []
        for plan in self._serving(asked):
            plan.deaths += 1
            if plan.deaths >= MAX_MODEL_DEATHS:
                commands += self._withdraw(plan, event.code, event.message)
        return commands

    def on_worker_died(self, event: WorkerDied, now: Now) -> list[Command]:
        """Start another one: at once after a long life, later and later after short ones."""
        if self.worker in {WorkerState.ASLEEP, WorkerState.STARTING} and event.pid == self._pid:
            return []  # it died while it was asked to stop: not the one that we start, or need, now
        blamed = self._blame_model(event)
        self.worker = WorkerState.OFF
        self._patience_until = None
        for plan in self.plans:
            plan.loaded = False
        lived = now.monotonic - self._started_at
        self._deaths = 1 if lived >= STABLE_SECONDS else self._deaths + 1
        wait = min(RESTART_FIRST_SECONDS * 2 ** (self._deaths - 1), RESTART_MAX_SECONDS) if self._deaths > 1 else 0.0
        self._restart_at = now.monotonic + wait
        text = f"The worker ended: {event.message}"
        note = Note(logging.WARNING, text, event.code, (("pid", event.pid), ("restart_ms", int(wait * 1000))))
        return [note, *blamed, *self.on_tick(now)]

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which the worker is to be started again or has hung, if any."""
        due = [moment for moment in (self._restart_at, self._patience_until) if moment is not None]
        return min(due, default=None)

    def on_tick(self, now: Now) -> list[Command]:
        """Start the worker again when it is time; end one that does not come back from what it was asked."""
        if self._patience_until is not None and self._patience_until <= now.monotonic:
            self._patience_until = now.monotonic + PATIENCE_SECONDS
            text = f"The worker has not answered for {PATIENCE_SECONDS:g} s; ending it"
            return [Note(logging.WARNING, text, "worker-hung"), StopWorker(hung=True)]
        if self._restart_at is None or self._restart_at > now.monotonic:
            return []
        self._restart_at = None
        return self._start(now)

    def sleep(self) -> list[Command]:
        """End the worker, to free its memory while there is nothing to do."""
        if self.worker is not WorkerState.UP:
            return []
        self.worker = WorkerState.ASLEEP
        self._asked = self._patience_until = None
        for plan in self.plans:
            plan.loaded = False
        return [StopWorker(), Note(logging.INFO, "The worker sleeps: there is nothing to do", "worker-asleep")]

    def wake(self, now: Now) -> list[Command]:
        """Start the worker if it sleeps."""
        return self._start(now) if self.worker is WorkerState.ASLEEP else []


def _version(text: str) -> tuple[int, int]:
    """Read the first two numbers of a version, such as `1.27` or `onnxruntime 1.32.0`."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
