"""Pick a family's variant on this machine, for real: predict, rule out, measure a few, choose. Waits for the runs.

The agent's planner does the same, one event at a time, while it serves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_agent.errors import EdgeAgentError
from edge_agent.inference.canary_run import LIMIT_SECONDS, CanaryRun
from edge_agent.inference.events import CanaryDone, CanaryFailed
from edge_agent.inference.launch import Options
from edge_agent.inference.measurements import SECONDS, measurement, request
from edge_agent.models.obstacles import Here, obstacle
from edge_agent.models.selection import DEFAULT_RULES, Choice, Measured, Rules
from edge_agent.models.trials import MAX_RUNS, Trials, outlook

if TYPE_CHECKING:
    from edge_agent.models.catalogue import Family, Variant
    from edge_agent.models.experience import Experience, Place
    from edge_agent.models.fit import Fit, MachineFacts
    from edge_agent.models.store import Store


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pick may take.

    Attributes:
        room_bytes: memory of one model above an idle worker, reserve taken off; the worker's own limit, too.
        threads: at most, for one inference.
        max_runs: canary runs; None measures every variant that can be tried, which is what the choice of few is held
            against.
        seconds: how long runs are repeated with each number of threads.
        limit_seconds: a canary run that takes longer is killed.
        memory_limit_bytes: of the worker, where it is to be another than the room.
    """

    room_bytes: int
    threads: int
    max_runs: int | None = MAX_RUNS
    seconds: float = SECONDS
    limit_seconds: float = LIMIT_SECONDS
    memory_limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered here; a pick adds to it."""

    experience: Experience
    place: Place
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Picked:
    """What came of it.

    Attributes:
        choice: the winner and why, and why each other lost.
        fits: what was predicted, by variant digest.
        measured: what was measured or remembered.
        runs: how many canary runs were made.
        seconds: how long all of it took.
        outcomes: what each canary run said, by variant digest; of two runs the last.
    """

    family: Family
    choice: Choice
    fits: Mapping[str, Fit]
    measured: tuple[Measured, ...]
    runs: int
    seconds: float
    outcomes: Mapping[str, CanaryDone | CanaryFailed] = field(default_factory=dict)


def pick(  # noqa: PLR0913 each is a fact of its own
    family: Family,
    store: Store,
    machine: MachineFacts,
    limits: Limits,
    *,
    rules: Rules = DEFAULT_RULES,
    here: Here | None = None,
    past: Past | None = None,
    log: logging.Logger | None = None,
    on_run: Callable[[Variant], None] | None = None,
) -> Picked:
    """Return the variant of a family that serves best on this machine, and why each other does not.

    Args:
        family: whose variants.
        store: where their files are.
        machine: what the predictor goes by.
        limits: what a model and the pick may take.
        rules: the owner's.
        here: what this machine has.
        past: what was learnt before: measurements that hold are used, failures are not tried again too soon.
        log: of the workers' starts and ends.
        on_run: called before each canary run.
    """
    started = time.monotonic()
    here = here or Here()
    log = log or logging.getLogger("edge_agent.canary")
    ruled_out = {variant.digest: _reason(variant, family, here, past) for variant in family.variants}
    known = [entry for variant in family.variants if past and (entry := _known(variant, family, past))]
    trials = Trials(
        family,
        outlook(family, machine, limits.threads),
        limits.room_bytes,
        rules=rules,
        ruled_out=ruled_out,
        known=known,
        max_runs=MAX_RUNS if limits.max_runs is None else limits.max_runs,
    )
    limit = limits.room_bytes if limits.memory_limit_bytes is None else limits.memory_limit_bytes
    options = Options(limits.threads, limit, store.readable)
    outcomes: dict[str, CanaryDone | CanaryFailed] = {}
    while (variant := _next(trials, everything=limits.max_runs is None)) is not None:
        if on_run is not None:
            on_run(variant)
        trials.begin()
        outcome = outcomes[variant.digest] = _run(family, variant, store, options, limits, log)
        if isinstance(outcome, CanaryFailed):
            if not trials.failed(variant, outcome.code, outcome.message) and past is not None:
                past.experience.failed(variant, outcome.message, past.place, past.wall_ms, family.extents)
            continue
        entry = measurement(variant, outcome)
        trials.add(entry)
        if past is not None and entry.golden_ok:
            past.experience.succeeded(entry, past.place, past.wall_ms, family.extents)
        elif past is not None:
            past.experience.failed(variant, entry.why, past.place, past.wall_ms, family.extents)
    return Picked(
        family=family,
        choice=trials.choice(),
        fits={variant.digest: trials.fit(variant) for variant in family.variants},
        measured=tuple(trials.measured),
        runs=trials.runs,
        seconds=time.monotonic() - started,
        outcomes=outcomes,
    )


def _next(trials: Trials, *, everything: bool) -> Variant | None:
    if everything:
        return next(iter(trials.open), None)
    return trials.next()


def _reason(variant: Variant, family: Family, here: Here, past: Past | None) -> str:
    reason = obstacle(variant, family, here)
    if not reason and past is not None:
        reason = past.experience.refusal(variant, past.place, past.wall_ms, family.extents)
    return reason


def _known(variant: Variant, family: Family, past: Past) -> Measured | None:
    return past.experience.measured(variant, past.place, past.wall_ms, family.extents)


def _run(  # noqa: PLR0913, PLR0917 what a run needs
    family: Family, variant: Variant, store: Store, options: Options, limits: Limits, log: logging.Logger
) -> CanaryDone | CanaryFailed:
    try:
        asked = request(family, variant, store, limits.threads, limits.seconds)
    except EdgeAgentError as error:
        return CanaryFailed(variant.digest_bytes, error.error_code, error.message)
    return CanaryRun(asked, options, log, limit_seconds=limits.limit_seconds).run()
