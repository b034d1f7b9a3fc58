"""Which variants of a family come into question on this machine, and what is remembered of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from edge_agent.agent.events import SaveExperience, Wanted
from edge_agent.agent.plans import Plan
from edge_agent.agent.policy import Policy
from edge_agent.clock import Now
from edge_agent.models.catalogue import Family, Variant
from edge_agent.models.experience import Experience, Place
from edge_agent.models.fit import MachineFacts
from edge_agent.models.obstacles import Here, everything_is_here, obstacle
from edge_agent.models.selection import DEFAULT_RULES, Lost, Measured, Rules
from edge_agent.models.trials import MIN_RUNS, Trials, outlook

BUDGET_CHANGE = 0.1
"""Free memory goes up and down all the time; a smaller change than this is none."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of the machine beside its facts, and of the owner's wishes beside the policy.

    Attributes:
        here: what is installed, and which files are there.
        kernel: its release.
        conditions: whatever else a speed depends on; compared, not read.
        experience: what was learnt before; it is added to.
        rules: for the choice of a variant.
    """

    here: Here = field(default_factory=Here)
    kernel: str = ""
    conditions: str = ""
    experience: Experience = field(default_factory=Experience)
    rules: Rules = DEFAULT_RULES


class Prospects:
    """Makes the plans of families.

    Args:
        policy: the owner's rules.
        machine: what the predictor needs to know.
        circumstances: what else is known.
        budget_bytes: memory that is free for models on this machine.
        threads: for one inference, at most.
    """

    def __init__(
        self, policy: Policy, machine: MachineFacts, circumstances: Circumstances, budget_bytes: int, threads: int
    ) -> None:
        self._policy = policy
        self._machine = machine
        self._circumstances = circumstances
        self._budget_bytes = budget_bytes
        self._threads = threads

    @property
    def rules(self) -> Rules:
        """For the choice of a variant."""
        return self._circumstances.rules

    @property
    def runtime(self) -> str:
        """The onnxruntime here; empty where that is not known yet."""
        return self._circumstances.here.runtime

    @property
    def room_bytes(self) -> int:
        """Memory for models, all together, above an idle worker."""
        return self._policy.room_bytes(self._budget_bytes)

    @property
    def remembers(self) -> bool:
        """Whether anything was ever learnt."""
        return len(self._circumstances.experience) > 0

    def has_speed(self, machine: MachineFacts) -> None:
        """Take note of how fast the machine is."""
        self._machine = machine

    def has_runtime(self, runtime: str) -> bool:
        """Take note of the onnxruntime here; return whether it is another one than was known."""
        before = self.runtime
        if runtime and runtime != before:
            here = replace(self._circumstances.here, runtime=runtime)
            self._circumstances = replace(self._circumstances, here=here)
        return bool(before and runtime and before != runtime)

    def has_conditions(self, budget_bytes: int, conditions: str) -> bool:
        """Take note of the memory and the conditions here; return whether what was measured says nothing about them."""
        before = self._place()
        if abs(budget_bytes - self._budget_bytes) > BUDGET_CHANGE * self._budget_bytes:
            self._budget_bytes = budget_bytes
        self._circumstances = replace(self._circumstances, conditions=conditions)
        now = self._place()
        return (before.conditions, before.memory_class) != (now.conditions, now.memory_class)

    def plan(self, family: Family, now: Now) -> Plan:
        """Return the plan of a family: nothing if it cannot be served, else what is ruled out and remembered."""
        here = self._circumstances.here
        why = self._policy.refuses_family(family.name) or ""
        if not why and not any(here.present(variant) for variant in family.variants):
            pull = f"`edge-agent models pull {family.name}` fetches one"
            why = f"none of its files is here; {'they are being fetched' if self._policy.download else pull}"
        if why:
            return Plan(family, why=why, reasons=[Lost(variant, why) for variant in family.variants])
        return Plan(family, self._trials(family, here, now))

    def absent(self, families: Iterable[Family], now: Now) -> tuple[Wanted, ...]:
        """Return the variants that would be measured first if their files were here, as far as they are not."""
        return tuple(wanted for family in families for wanted in self._absent(family, now))

    def _absent(self, family: Family, now: Now) -> list[Wanted]:
        if self._policy.refuses_family(family.name) or not self._policy.value_of(family.name):
            return []
        here = self._circumstances.here
        trials = self._trials(family, replace(here, present=everything_is_here), now)
        wanted = []
        for _ in range(MIN_RUNS):
            if (variant := trials.next()) is None:
                break
            if not here.present(variant):
                wanted.append(Wanted(family.name, variant.name, variant.digest))
            trials.rule_out(variant, "it is looked at already")
        return wanted

    def _trials(self, family: Family, here: Here, now: Now) -> Trials:
        experience, place = self._circumstances.experience, self._place()
        ruled_out: dict[str, str] = {}
        remembered: list[Measured] = []
        for variant in family.variants:
            ruled_out[variant.digest] = obstacle(variant, family, here) or experience.refusal(
                variant, place, now.wall_ms, family.extents
            )
            if (entry := experience.measured(variant, place, now.wall_ms, family.extents)) is not None:
                remembered.append(entry)
        fits = outlook(family, self._machine, self._threads)
        return Trials(family, fits, self.room_bytes, rules=self.rules, ruled_out=ruled_out, known=remembered)

    def succeeded(self, family: Family, entry: Measured, now: Now) -> SaveExperience:
        """Remember a measurement."""
        experience = self._circumstances.experience
        experience.succeeded(entry, self._place(), now.wall_ms, family.extents)
        return SaveExperience(experience.document())

    def failed(self, family: Family, variant: Variant, why: str, now: Now) -> SaveExperience:
        """Remember a failure."""
        experience = self._circumstances.experience
        experience.failed(variant, why, self._place(), now.wall_ms, family.extents)
        return SaveExperience(experience.document())

    def _place(self) -> Place:
        known = self._circumstances
        return Place.of(self.runtime, known.kernel, known.conditions, self.room_bytes, self._threads)
