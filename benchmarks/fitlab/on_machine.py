"""What runs on one of the machines: calibrate, predict all variants of families, and measure every one of them.

Prints one JSON document a family. Measuring every variant is what the choice of a few is held against.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from edge_agent.agent.assemble import summarise
from edge_agent.inference.calibration import calibrate, present_share
from edge_agent.inference.picking import Limits, pick
from edge_agent.models.selection import Measured, room_bytes
from edge_agent.models.trials import forecast
from hardware import profile

from . import families
from .judge import fit_json

SECONDS = 0.2
LIMIT_SECONDS = 40.0


def main(arguments: list[str]) -> int:
    """Measure the families whose names are given, in the folder that comes first."""
    folder, state, repeats, *names = arguments
    found = profile()
    started = time.monotonic()
    summary = summarise(found)
    rates = calibrate(found, Path(state))
    calibrated = time.monotonic() - started
    log = logging.getLogger("fit")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    for name in names:
        entry = families.load(name, Path(folder))
        room = room_bytes(summary.budget_bytes)
        rates = dataclasses.replace(rates, share=present_share(found))
        facts = dataclasses.replace(summary.facts, rates=rates)
        limits = Limits(room, found.usable_threads, max_runs=None, seconds=SECONDS, limit_seconds=LIMIT_SECONDS)
        runs = []
        for _ in range(int(repeats)):
            seconds: dict[str, float] = {}
            before = time.monotonic()
            last: list[str] = []

            def note(variant: Any, last: list[str] = last, seconds: dict[str, float] = seconds) -> None:  # noqa: ANN401
                seconds[variant.digest] = time.monotonic()
                last.append(variant.digest)

            # An oracle that believes nothing: also what was ruled out by prediction is measured.
            free = Limits(
                2**40, limits.threads, None, limits.seconds, limits.limit_seconds, memory_limit_bytes=max(1, room)
            )
            picked = pick(entry.family, entry.store, facts, free, log=log, on_run=note)
            ends = [*[seconds[digest] for digest in last[1:]], time.monotonic()]
            took = {digest: end - seconds[digest] for digest, end in zip(last, ends, strict=True)}
            runs.append(
                {
                    "outcomes": {digest: _outcome(outcome) for digest, outcome in picked.outcomes.items()},
                    "measured": {m.variant.digest: _measured(m) for m in picked.measured},
                    "lost": {lost.variant.digest: lost.reason for lost in picked.choice.lost},
                    "took": took,
                    "seconds": time.monotonic() - before,
                }
            )
        document = {
            "family": name,
            "room_bytes": room,
            "budget_bytes": summary.budget_bytes,
            "threads": limits.threads,
            "calibration_seconds": calibrated,
            "rates": rates.to_json(),
            "quota_cpus": found.cpu.quota_cpus,
            "fits": {
                v.digest: fit_json(forecast(v.costs, facts, limits.threads)) for v in entry.family.variants if v.costs
            },
            "runs": runs,
        }
        print(json.dumps(document), flush=True)
    return 0


def _outcome(outcome: Any) -> dict[str, Any]:  # noqa: ANN401 - either of two
    fields = ("p50_us", "load_peak_bytes", "steady_bytes", "run_peak_bytes", "peak_bytes", "golden_ok", "threads")
    fields += ("code", "message", "why", "tried")
    return {name: getattr(outcome, name) for name in fields if hasattr(outcome, name)}


def _measured(entry: Measured) -> dict[str, Any]:
    fields = ("p50_us", "p95_us", "peak_bytes", "steady_bytes", "load_peak_bytes", "run_peak_bytes", "cpu_us")
    fields += ("threads", "golden_ok", "why", "checked")
    return {name: getattr(entry, name) for name in fields}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
