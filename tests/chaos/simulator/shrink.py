"""Makes a failing script smaller until every step in it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.oracle import Violation, check
from simulator.script import REQUESTS, Kind, Script
from simulator.simulation import Simulation

MAX_RUNS = 2000


def violations(script: Script) -> list[Violation]:
    """Run a script and return what it violates."""
    return check(Simulation(script).run())


def shrink(script: Script, fails: Callable[[Script], bool]) -> Script:
    """Return a smallest script that still fails: no step of it can be left out, no number made rounder.

    Args:
        script: one that fails.
        fails: whether a script fails in the same way.
    """
    left = MAX_RUNS

    def still(candidate: Script) -> bool:
        nonlocal left
        left -= 1
        return left > 0 and fails(candidate)

    script = _weather_as_single_fates(script, still)
    before = None
    while before != script:
        before = script
        script = _without_needless_steps(script, still)
        script = _rounder(script, still)
    return script


def _weather_as_single_fates(script: Script, still: Callable[[Script], bool]) -> Script:
    """Replace weather by the fates of the messages that it hit."""
    if all(step.kind is not Kind.WEATHER for step in script.steps):
        return script
    hit = Simulation(script).run().broker.affected
    rest = [step for step in script.steps if step.kind is not Kind.WEATHER]
    named = {(step.who, step.text, step.count) for step in rest}
    single = [replace(step, at=round(step.at, 3)) for step in hit if (step.who, step.text, step.count) not in named]
    # Fates apply from the start; the end of the script must stay where it was.
    candidate = replace(script, steps=tuple(sorted([*rest, *single], key=lambda step: step.at)))
    return candidate if still(candidate) else script


def _without_needless_steps(script: Script, still: Callable[[Script], bool]) -> Script:
    """Leave out halves, quarters, … and single steps as long as it still fails (delta debugging)."""
    size = max(1, len(script.steps) // 2)
    while True:
        at = 0
        while at < len(script.steps):
            candidate = script.without(frozenset(range(at, at + size)))
            if still(candidate):
                script = candidate
            else:
                at += size
        if size == 1:
            return script
        size //= 2


def _rounder(script: Script, still: Callable[[Script], bool]) -> Script:
    """Try simpler numbers, one at a time."""
    for name, simple in (("agents", 2), ("agents", 1), ("worker_idle_seconds", 0.0), ("agent_room", 4)):
        needed = max((step.who + 1 for step in script.steps), default=0) if name == "agents" else 0
        worse = getattr(script, name) > simple if name == "agents" else getattr(script, name) != simple
        if worse and needed <= simple:
            candidate = replace(script, **{name: simple})
            if still(candidate):
                script = candidate
    for position in range(len(script.steps)):
        for name, simple in (("text", ""), ("sync", False), ("count", 0), ("at", None), ("seconds", 1.0)):
            step = script.steps[position]
            if name in {"text", "count"} and step.kind in REQUESTS | {Kind.LOSE, Kind.REPEAT, Kind.DELAY}:
                continue
            value = round(step.at, 1) if name == "at" else simple
            if getattr(step, name) == value:
                continue
            steps = list(script.steps)
            steps[position] = replace(step, **{name: value})
            candidate = replace(script, steps=tuple(sorted(steps, key=lambda step: step.at)))
            if still(candidate):
                script = candidate
    return script
