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

from edge_agent.agent.events import Command, LoadModel, Note, RunCanary, StartWorker, StopWorker
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
from edge_agent.wire.messages import Offer, VariantClass

PROVIDER = "CPUExecutionProvider"
RESTART_FIRST_SECONDS = 0.1
RESTART_MAX_SECONDS = 60.0
STABLE_SECONDS = 30.0
MAX_MODEL_DEATHS = 3
"""A variant that cannot be loaded, or kills the worker while it is, this often is withdrawn."""


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
    load_failures: int = 0


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
        return tuple(self._offer(plan.family, plan.chosen) for plan in self.plans if plan.chosen is not None)

    def offered(self, variant: bytes) -> VariantClass | None:
        """Return the class in which a variant is served here, or None when it is not."""
        return self._class(variant) if self._serving(variant) else None

    def _offer(self, family: Family, chosen: Measured) -> Offer:
        return Offer(
            family=family.name,
            variant=chosen.variant.digest_bytes,
            variant_name=chosen.variant.name,
            klass=self._class(chosen.variant.digest_bytes),
            latency_us=chosen.p50_us,
            max_in_flight=self._policy.max_in_flight,
        )

    def _class(self, variant: bytes) -> VariantClass:
        return VariantClass(variant=variant, runtime=self._runtime, provider=PROVIDER, isa=self._isa)

    # -- choosing ---------------------------------------------------------------------------------------------------

    def begin(self) -> list[Command]:
        """Predict, leave out what cannot fit, and start measuring the rest."""
        for family in self._catalogue.families:
            refused = self._policy.refuses_family(family.name)
            if refused is not None:
                self.plans.append(Plan(family, deque(), [Lost(v, refused) for v in family.variants], []))
                continue
            fits = {variant.digest: predict(variant, self._machine) for variant in family.variants}
            pruned = prune(family, fits, self._budget)
            self.plans.append(Plan(family, deque(pruned.candidates), list(pruned.rejected), []))
        if not any(plan.candidates for plan in self.plans):
            self.decided = True
            return [Note(logging.WARNING, "Nothing of the catalogue fits this machine", "nothing-fits")]
        self.worker = WorkerState.STARTING
        return [StartWorker(self._threads)]

    def on_worker_event(self, event: WorkerEvent, now: Now) -> list[Command]:  # noqa: PLR0911 one branch an event
        """Take note of what the worker says and ask for the next thing."""
        match event:
            case WorkerStarted():
                self.worker = WorkerState.UP
                self._runtime = event.runtime
                self._started_at = now.monotonic
                self._leave_out_newer()
                return self._next()
            case CanaryDone():
                return self._measured(event)
            case CanaryFailed():
                plan = self._measuring(event.digest)
                if plan is None:
                    return []
                variant = plan.candidates.popleft()
                plan.lost.append(Lost(variant, f"it did not run here: {event.message}"))
                return self._next()
            case ModelLoaded():
                for plan in self._serving(event.digest):
                    plan.loaded = True
                return self._next()
            case LoadFailed():
                return self._on_load_failed(event)
            case _:
                return []

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

    def _measured(self, event: CanaryDone) -> list[Command]:
        plan = self._measuring(event.digest)
        if plan is None:
            return []
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
        return self._next()

    def _next(self) -> list[Command]:
        """Measure what is not measured, then choose, then load what was chosen and is not loaded."""
        if self.worker is not WorkerState.UP:
            return []
        for plan in self.plans:
            if plan.candidates:
                return [RunCanary(plan.candidates[0])]
        commands: list[Command] = []
        if not self.decided:
            commands += [note for plan in self.plans for note in self._choose(plan)]
            self.decided = True
        for plan in self.plans:
            if plan.chosen is not None and not plan.loaded:
                return [*commands, LoadModel(plan.chosen.variant)]
        return commands

    def _choose(self, plan: Plan) -> list[Command]:
        if not plan.measured:
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

    def _on_load_failed(self, event: LoadFailed) -> list[Command]:
        commands: list[Command] = []
        for plan in self._serving(event.digest):
            plan.load_failures += 1
            # A dead worker says nothing about the model yet; a refusal to load does.
            if event.code != "worker-died" or plan.load_failures >= MAX_MODEL_DEATHS:
                if plan.chosen is not None:
                    plan.lost.append(Lost(plan.chosen.variant, f"it can no longer be loaded: {event.message}"))
                plan.chosen = None
                text = f"Withdrew {plan.family.name}: {event.message}"
                commands.append(Note(logging.ERROR, text, "withdrawn", (("code", event.code),)))
        return [*commands, *self._next()]

    def on_worker_died(self, event: WorkerDied, now: Now) -> list[Command]:
        """Start another one: at once after a long life, later and later after short ones."""
        self.worker = WorkerState.OFF
        for plan in self.plans:
            plan.loaded = False
        lived = now.monotonic - self._started_at
        self._deaths = 1 if lived >= STABLE_SECONDS else self._deaths + 1
        wait = min(RESTART_FIRST_SECONDS * 2 ** (self._deaths - 1), RESTART_MAX_SECONDS) if self._deaths > 1 else 0.0
        self._restart_at = now.monotonic + wait
        text = f"The worker ended: {event.message}"
        note = Note(logging.WARNING, text, event.code, (("pid", event.pid), ("restart_ms", int(wait * 1000))))
        return [note, *self.on_tick(now)]

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which the worker is to be started again, if any."""
        return self._restart_at

    def on_tick(self, now: Now) -> list[Command]:
        """Start the worker again when it is time."""
        if self._restart_at is None or self._restart_at > now.monotonic:
            return []
        self._restart_at = None
        self.worker = WorkerState.STARTING
        return [StartWorker(self._threads)]

    def sleep(self) -> list[Command]:
        """End the worker, to free its memory while there is nothing to do."""
        if self.worker is not WorkerState.UP:
            return []
        self.worker = WorkerState.ASLEEP
        for plan in self.plans:
            plan.loaded = False
        return [StopWorker(), Note(logging.INFO, "The worker sleeps: there is nothing to do", "worker-asleep")]

    def wake(self) -> list[Command]:
        """Start the worker if it sleeps."""
        if self.worker is not WorkerState.ASLEEP:
            return []
        self.worker = WorkerState.STARTING
        return [StartWorker(self._threads)]


def _version(text: str) -> tuple[int, int]:
    """Read the first two numbers of a version, such as `1.27` or `onnxruntime 1.32.0`."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
