"""Hold predictions and choices against what measuring every variant showed."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.models import quality
from edge_agent.models.entries import Family, Variant
from edge_agent.models.fit import Fit, Interval, MachineFacts, predict
from edge_agent.models.rates import Rates
from edge_agent.models.selection import DEFAULT_RULES, Measured, choose
from edge_agent.models.trials import Trials, forecast

from . import families, rivals
from .machines import Machine
from .verdict import SLOW_MS, Tally, Verdict

EQUAL_TIMES = 0.10
"""Times that differ by less are no order: two measurements of one variant differ by as much."""
OURS = "edge-agent"
CALM = "edge-agent, times as CPU time a thread"


def path_of(folder: Path, machine: str, family: str) -> Path:
    """Return where the measurement of a family on a machine is kept."""
    return folder / "results" / machine / f"{family}.json"


@dataclass(frozen=True)
class Idle:
    """CPU time of the whole machine so far, in ticks: idle, taken by the hypervisor, and all."""

    idle: int
    steal: int
    total: int

    def since(self, before: Idle) -> dict[str, float]:
        """Return the fractions since then."""
        total = max(1, self.total - before.total)
        return {"idle": (self.idle - before.idle) / total, "steal": (self.steal - before.steal) / total}


def steal_and_idle() -> Idle:
    """Return the state now (proc_stat(5))."""
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
    return Idle(ticks[3] + ticks[4], ticks[7] if len(ticks) > 7 else 0, sum(ticks[:8]))


@dataclass(frozen=True)
class Result:
    """One family on one machine."""

    machine: Machine
    name: str
    document: dict[str, Any]
    calibration: Path
    """Where the machine's rates are kept."""


def read(folder: Path, chosen: Sequence[Machine], names: Sequence[str]) -> list[Result]:
    """Return what was measured."""
    found = []
    for machine in chosen:
        for name in names:
            path = path_of(folder, machine.name, name)
            if path.exists():
                kept = folder / "state" / machine.name / "calibration.json"
                found.append(Result(machine, name, json.loads(path.read_text(encoding="utf-8")), kept))
    return found


def judge(results: Iterable[Result], folder: Path) -> Verdict:
    """Return the figures of all results."""
    verdict = Verdict()
    results = list(results)
    for result in results:
        entry = families.load(result.name, folder)
        verdict.names.add(result.name)
        verdict.machines[result.machine.name] = result.machine
        verdict.idle.append(result.document.get("others", {}).get("idle", 1.0))
        if result.document["calibration_seconds"] > 1:
            verdict.calibration.append(result.document["calibration_seconds"])
        _predict_again(result, entry.family)
        _predictions(verdict, result, entry)
        if result.machine.cpus == 1:
            _cpu_times(verdict, result, entry)
        _choices(verdict, result, entry.family)
    _orders_again(verdict, results, folder)
    return verdict


def _predict_again(result: Result, family: Family) -> None:
    """Predict from the machine's kept rates, and how busy it was then, so that old measurements judge new rules."""
    document = result.document
    if result.calibration.exists():
        kept = json.loads(result.calibration.read_text(encoding="utf-8"))["rates"]
        document["rates"] = {**kept, "share": document["rates"]["share"]}
    rates = Rates.from_json(document["rates"])
    facts = MachineFacts(float(document["threads"]), rates=rates, quota_cpus=document["quota_cpus"])
    for variant in family.variants:
        if variant.costs is not None:
            fit = forecast(variant.costs, facts, document["threads"])
            document["fits"][variant.digest] = fit_json(fit)


def fit_json(fit: Fit) -> dict[str, list[float]]:
    """Return a prediction as plain values: low, expected, high."""
    names = ("load_peak_bytes", "steady_bytes", "run_peak_bytes", "peak_bytes", "latency_ms")
    intervals = {name: getattr(fit, name) for name in names}
    return {name: [value.low, value.expected, value.high] for name, value in intervals.items()}


def _predictions(verdict: Verdict, result: Result, entry: families.Entry) -> None:
    document = result.document
    room = document["room_bytes"]
    times = []
    for variant in entry.family.variants:
        fit = document["fits"].get(variant.digest)
        outcome = document["runs"][0]["outcomes"].get(variant.digest)
        if fit is None or outcome is None:
            continue
        verdict.variants += 1
        truth = _fits(outcome, room)
        low, _, high = fit["peak_bytes"]
        if high <= room:
            verdict.called_fitting += 1
            verdict.false_fits += not truth
        if truth:
            verdict.fitting += 1
            verdict.false_rejects += low > room
        if "p50_us" not in outcome:
            continue
        for what, name in (("load", "load_peak_bytes"), ("run", "run_peak_bytes"), ("steady", "steady_bytes")):
            seen = outcome[name]
            verdict.errors.setdefault(what, []).append((abs(fit[name][1] - seen), seen))
        seen = outcome["p50_us"] / 1e3
        low, predicted, high = fit["latency_ms"]
        verdict.latency.append((result.machine.name, result.name, predicted, seen, entry.real))
        verdict.inside.append(low <= seen <= high)
        if variant.name != families.BROKEN:
            times.append((predicted, seen))
    tau = kendall(times)
    if tau is not None:
        verdict.taus.append(tau)
        if statistics.median(seen for _, seen in times) > SLOW_MS:
            verdict.slow_taus.append(tau)


def _orders_again(verdict: Verdict, results: Sequence[Result], folder: Path) -> None:
    """Hold measurements against each other that should agree: no prediction can be nearer to them than they are."""
    alike: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        machine = result.machine
        alike.setdefault((result.name, machine.cpus, machine.quota_cpus, machine.busy), []).append(result)
    for (name, *_), group in alike.items():
        variants = families.load(str(name), folder).family.variants
        digests = [variant.digest for variant in variants if variant.name != families.BROKEN]
        times = [_times(result) for result in group]
        for one, other in itertools.permutations(times, 2):
            tau = kendall([(one[digest], other[digest]) for digest in digests if digest in one and digest in other])
            verdict.again_taus += [] if tau is None else [tau]
        common = [digest for digest in digests if all(digest in seen for seen in times)]
        if len(group) < 3:
            continue
        median = {digest: statistics.median(seen[digest] for seen in times) for digest in common}
        for result in group:
            fits = result.document["fits"]
            tau = kendall([(fits[d]["latency_ms"][1], median[d]) for d in common if d in fits])
            verdict.calm_taus += [] if tau is None else [tau]


def _times(result: Result) -> dict[str, float]:
    outcomes = result.document["runs"][0]["outcomes"]
    return {digest: outcome["p50_us"] for digest, outcome in outcomes.items() if "p50_us" in outcome}


def _cpu_times(verdict: Verdict, result: Result, entry: families.Entry) -> None:
    rates = replace(Rates.from_json(result.document["rates"]), share=1.0)
    pairs = []
    for variant in entry.family.variants:
        seen = result.document["runs"][0]["measured"].get(variant.digest)
        if seen is None or not seen["cpu_us"] or variant.costs is None:
            continue
        predicted = predict(variant.costs, MachineFacts(1, rates=rates), 1).latency_ms.expected
        pairs.append((predicted, seen["cpu_us"] / 1e3))
        verdict.cpu.append((*pairs[-1], entry.real))
    tau = kendall(pairs)
    if tau is not None and statistics.median(seen for _, seen in pairs) > SLOW_MS:
        verdict.cpu_taus.append(tau)


def kendall(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return how far two orders agree, 1 to -1, over pairs whose second values differ by more than noise."""
    agree = differ = 0
    for index, (one, seen) in enumerate(pairs):
        for other, also in pairs[:index]:
            if abs(seen - also) <= EQUAL_TIMES * max(seen, also):
                continue
            if (one - other) * (seen - also) > 0:
                agree += 1
            else:
                differ += 1
    return (agree - differ) / (agree + differ) if agree + differ else None


def _fits(outcome: dict[str, Any], room: int) -> bool:
    return "p50_us" in outcome and outcome["peak_bytes"] <= room


def _measured(variant: Variant, entry: dict[str, Any]) -> Measured:
    return Measured(variant=variant, **{**entry, "why": entry.get("why", "")})


def _choices(verdict: Verdict, result: Result, family: Family) -> None:
    run = result.document["runs"][0]
    room = result.document["room_bytes"]
    seen = {
        variant.digest: _measured(variant, run["measured"][variant.digest])
        for variant in family.variants
        if variant.digest in run["measured"]
    }
    best = quality.best_of(family.variants)
    allowed = [
        entry
        for entry in seen.values()
        if not quality.drop(best.quality if best else None, entry.variant.quality, DEFAULT_RULES.max_quality_drop)
    ]
    oracle = choose(allowed, family, room_bytes=room, rules=DEFAULT_RULES).chosen
    fits = {digest: _fit(found) for digest, found in result.document["fits"].items()}
    ours, runs, seconds = _replay(result, family, seen, fits)
    _count(verdict, OURS, ours, oracle, seen, room)
    if oracle is not None or runs:
        verdict.tallies[OURS].runs.append(runs)
        verdict.tallies[OURS].seconds.append(seconds)
    for name, variant in rivals.picks(family, result.machine.memory_bytes).items():
        _count(verdict, name, variant, oracle, seen, room)
    # The same once more with times that other programs hardly change.
    calm = {digest: replace(entry, p50_us=_own_time(entry)) for digest, entry in seen.items()}
    oracle = choose(
        [calm[entry.variant.digest] for entry in allowed], family, room_bytes=room, rules=DEFAULT_RULES
    ).chosen
    rates = replace(Rates.from_json(result.document["rates"]), share=1.0)
    facts = MachineFacts(float(result.document["threads"]), rates=rates)
    fits = {v.digest: forecast(v.costs, facts, result.document["threads"]) for v in family.variants if v.costs}
    ours, runs, seconds = _replay(result, family, calm, fits)
    _count(verdict, CALM, ours, oracle, calm, room)
    verdict.tallies[CALM].runs.append(runs)
    verdict.tallies[CALM].seconds.append(seconds)


def _own_time(entry: Measured) -> int:
    return entry.cpu_us // max(1, entry.threads) or entry.p50_us


def _replay(
    result: Result, family: Family, seen: dict[str, Measured], fits: dict[str, Fit]
) -> tuple[Variant | None, int, float]:
    """Choose as an agent does, with the canary runs that were made; return the choice, and what it would have taken."""
    run = result.document["runs"][0]
    trials = Trials(family, fits, result.document["room_bytes"])
    seconds = 0.0
    while (variant := trials.next()) is not None:
        trials.begin()
        seconds += run["took"].get(variant.digest, 0.0)
        if variant.digest in seen:
            trials.add(seen[variant.digest])
        else:
            outcome = run["outcomes"].get(variant.digest, {"code": "absent", "message": "it was not measured"})
            trials.failed(variant, outcome.get("code", "model-load"), outcome.get("message", ""))
    chosen = trials.choice().chosen
    return (None if chosen is None else chosen.variant), trials.runs, seconds


def _fit(found: dict[str, list[float]]) -> Fit:
    names = ("load_peak_bytes", "steady_bytes", "run_peak_bytes", "latency_ms")
    return Fit(*(Interval(*found[name]) for name in names), ())


def _count(  # noqa: PLR0913, PLR0917 - the facts of one case
    verdict: Verdict, name: str, picked: Variant | None, oracle: Measured | None, seen: dict[str, Measured], room: int
) -> None:
    tally = verdict.tallies.setdefault(name, Tally())
    tally.cases += 1
    if oracle is None:
        tally.nothing_there += 1
        tally.false_fits += picked is not None and not _served(picked, seen, room)
        return
    if picked is None:
        tally.false_rejects += 1
        tally.regrets.append(1.0)
        return
    entry = seen.get(picked.digest)
    if entry is None or entry.peak_bytes > room:
        tally.false_fits += 1
        tally.regrets.append(1.0)
        return
    if not entry.golden_ok:
        tally.broken += 1
        tally.regrets.append(1.0)
        return
    regret = _regret(entry, oracle)
    tally.same += picked.digest == oracle.variant.digest
    tally.as_good += regret <= 0.03
    tally.regrets.append(regret)


def _served(picked: Variant, seen: dict[str, Measured], room: int) -> bool:
    entry = seen.get(picked.digest)
    return entry is not None and entry.peak_bytes <= room


def _regret(entry: Measured, oracle: Measured) -> float:
    """Return what the pick loses against the best, at most 1: of its time, and of its quality where that is lower."""
    slower = max(0.0, entry.p50_us / max(1, oracle.p50_us) - 1.0)
    if quality.equal(oracle.variant, entry.variant):
        return min(1.0, slower)
    worse = 1.0 - quality.share(oracle.variant.quality, entry.variant.quality)
    return min(1.0, max(0.0, worse) + slower)
