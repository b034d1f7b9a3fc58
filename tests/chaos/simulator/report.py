"""What is said of a script that breaks a promise: its smallest form, how it went, and how to play it again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simulator.generate import generate
from simulator.oracle import Violation, check
from simulator.script import Script
from simulator.shrink import shrink
from simulator.simulation import Simulation
from simulator.wire import TokenWire

REPLAY = "python benchmarks/simulator.py --script"


@dataclass(slots=True)
class Tally:
    """What a number of runs came to."""

    runs: int = 0
    commands: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take another tally in."""
        self.runs += other.runs
        self.commands += other.commands
        self.seconds += other.seconds
        self.counts += other.counts
        self.failures += other.failures


def play(script: Script, wire: TokenWire | None) -> tuple[Simulation, list[Violation]]:
    """Run a script and hold it against the promises."""
    if wire is not None:
        wire.clear()
    simulation = Simulation(script).run()
    return simulation, check(simulation)


def play_all(seeds: range, wire: TokenWire | None, profile: str | None = None) -> Tally:
    """Run the scripts of these seeds."""
    tally = Tally()
    for seed in seeds:
        script = generate(seed, profile)
        simulation, violations = play(script, wire)
        tally.runs += 1
        tally.seconds += simulation.ended_at
        tally.commands += simulation.coordinator.commands + sum(agent.commands for agent in simulation.agents)
        tally.counts += simulation.world.counts
        if violations:
            tally.failures.append(explain(script, violations, wire))
    return tally


def explain(script: Script, violations: list[Violation], wire: TokenWire | None) -> str:
    """Make a failing script smaller and say all that helps to understand it."""
    target = violations[0]

    def fails(candidate: Script) -> bool:
        return any(alike(violation, target) for violation in play(candidate, wire)[1])

    smallest = shrink(script, fails)
    simulation = Simulation(smallest, log=True).run()
    lines = [
        f"Seed {script.seed} breaks a promise: {target}",
        f"{len(violations)} violations; the smallest script that has this one:",
        str(smallest),
        "How it went:",
        *(simulation.world.log or [])[:200],
        *map(str, check(simulation)),
        f"Play it again: {REPLAY} '{smallest.to_json()}'",
        f"The whole script: python benchmarks/simulator.py --seed {script.seed} --profile {script.profile}",
    ]
    return "\n".join(lines)


def alike(one: Violation, other: Violation) -> bool:
    """Whether two violations are the same but for the jobs and numbers in them."""
    return one.promise is other.promise and _words(one.sentence) == _words(other.sentence)


def _words(sentence: str) -> list[str]:
    return [word for word in sentence.split() if word.isalpha()]
