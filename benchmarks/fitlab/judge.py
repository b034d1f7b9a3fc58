"""Hold predictions and choices against what measuring every variant showed."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
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

ALLOWED_BYTES, ALLOWED_FRACTION = 12e6, 0.15
EQUAL_TIMES = 0.10
"""Times that differ by less are no order: two measurements of one variant differ by as much."""
SLOW_MS = 1.0
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


@dataclass
class Tally:
    """What one way of picking came to."""

    cases: int = 0
    nothing_there: int = 0
    """Where no variant fits at all."""
    false_fits: int = 0
    """Picked, and then killed or failed for memory, or took more than there is room for."""
    false_rejects: int = 0
    """Nothing picked although something fits."""
    broken: int = 0
    same: int = 0
    as_good: int = 0
    """The same, or within 3 % of its time at the same quality."""
    regrets: list[float] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass
class Verdict:
    """All figures."""

    errors: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """What → (absolute error in bytes, measured bytes)."""
    latency: list[tuple[str, str, float, float, bool]] = field(default_factory=list)
    """Machine, family, predicted and measured milliseconds, whether the family is a real model."""
    cpu: list[tuple[float, float, bool]] = field(default_factory=list)
    """Predicted without other load and measured CPU milliseconds with one thread, and whether the model is real."""
    cpu_taus: list[float] = field(default_factory=list)
    inside: list[bool] = field(default_factory=list)
    taus: list[float] = field(default_factory=list)
    slow_taus: list[float] = field(default_factory=list)
    called_fitting: int = 0
    false_fits: int = 0
    fitting: int = 0
    false_rejects: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    variants: int = 0
    names: set[str] = field(default_factory=set)
    machines: dict[str, Machine] = field(default_factory=dict)
    idle: list[float] = field(default_factory=list)
    calibration: list[float] = field(default_factory=list)

    def text(self) -> str:
        """Return the table as Markdown."""
        return "\n".join([*self._head(), "", *self._predictions(), "", *self._choices()])

    def write(self, path: Path) -> None:
        """Put the table between the marks in the page."""
        start, end = "<!-- table: begin -->", "<!-- table: end -->"
        page = path.read_text(encoding="utf-8")
        before, rest = page.split(start, 1)
        _, after = rest.split(end, 1)
        path.write_text(f"{before}{start}\n{self.text()}\n{end}{after}", encoding="utf-8")

    def _head(self) -> list[str]:
        told = "; ".join(f"*{name}*: {machine.told}" for name, machine in self.machines.items())
        idle = statistics.median(self.idle) if self.idle else 1.0
        return [
            f"{len(self.names)} models, {self.variants} measurements, {len(self.machines)} machines ({told}).",
            f"This machine was idle for {idle:.0%} of the time (median) while it measured.",
        ]

    def _predictions(self) -> list[str]:
        rows = ["| Prediction, before any run | Wanted | Came out |", "|---|---|---|"]
        for what, told in (("load", "Load peak"), ("run", "Run peak"), ("steady", "Held")):
            entries = self.errors.get(what, [])
            if not entries:
                continue
            ratios = [error / max(ALLOWED_BYTES, ALLOWED_FRACTION * seen) for error, seen in entries]
            p95 = _quantile([error for error, _ in entries], 0.95)
            rows.append(
                f"| {told}: p95 of the error | ≤ 15 % or 12 MB | {p95 / 1e6:.1f} MB; {sum(r > 1 for r in ratios)} of "
                f"{len(entries)} beyond |"
            )
        rows += self._times()
        if self.inside:
            rows.append(f"| Latency within its interval | | {sum(self.inside) / len(self.inside):.0%} |")
        if self.taus:
            rows.append(f"| Order of variants: Kendall's τ, mean | ≥ 0.8 | {statistics.mean(self.taus):.2f} |")
        if self.cpu_taus:
            told = statistics.mean(self.cpu_taus)
            rows.append(f"| the same by CPU time, models that take more than {SLOW_MS:g} ms | | {told:.2f} |")
        if self.slow_taus:
            told = statistics.mean(self.slow_taus)
            rows.append(f"| the same, models that take more than {SLOW_MS:g} ms | | {told:.2f} |")
        rows.append(f"| False fits | 0 | {self.false_fits} of {self.called_fitting} |")
        share = self.false_rejects / self.fitting if self.fitting else 0.0
        rows.append(f"| False rejects | ≤ 5 % | {share:.1%} ({self.false_rejects} of {self.fitting}) |")
        if self.calibration:
            rows.append(f"| Calibration, once a machine | ≤ 3 s | {statistics.median(self.calibration):.1f} s |")
        return rows

    def _times(self) -> list[str]:
        errors = [(abs(p / s - 1), machine, real, s) for machine, _, p, s, real in self.latency if s]
        parts = {
            "Latency: median of the error": errors,
            "the same, real models only": [entry for entry in errors if entry[2]],
            f"the same, where a sample takes more than {SLOW_MS:g} ms": [
                entry for entry in errors if entry[3] > SLOW_MS
            ],
            **{f"the same, machine *{name}*": [e for e in errors if e[1] == name] for name in self.machines},
        }
        cpu = [(abs(p / s - 1), "", real, s) for p, s, real in self.cpu if s]
        parts["By CPU time with one thread, which other load hardly changes"] = cpu
        parts[f"the same, where a sample takes more than {SLOW_MS:g} ms "] = [e for e in cpu if e[3] > SLOW_MS]
        return [
            f"| {told} | {'≤ 25 %' if part is errors else ''} | {statistics.median(e[0] for e in part):.0%} |"
            for told, part in parts.items()
            if part
        ]

    def _choices(self) -> list[str]:
        columns = (
            *("Picked by", "same as the oracle", "as good", "regret, mean", "false fits"),
            *("nothing, though something fits", "broken", "canary runs", "seconds, median and most"),
        )
        rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for name, tally in self.tallies.items():
            could = max(1, tally.cases - tally.nothing_there)
            runs = f"{statistics.mean(tally.runs):.1f}, at most {max(tally.runs)}" if tally.runs else "0"
            seconds = f"{statistics.median(tally.seconds):.1f}, {max(tally.seconds):.1f}" if tally.seconds else ""
            rows.append(
                f"| {name} | {tally.same / could:.0%} | {tally.as_good / could:.0%} "
                f"| {statistics.mean(tally.regrets) if tally.regrets else 0:.1%} | {tally.false_fits} "
                f"| {tally.false_rejects} | {tally.broken} | {runs} | {seconds} |"
            )
        rows.append("")
        cases = next(iter(self.tallies.values())).cases if self.tallies else 0
        none = next(iter(self.tallies.values())).nothing_there if self.tallies else 0
        rows.append(f"{cases} choices; in {none} of them no variant fits.")
        return rows


def judge(results: Iterable[Result], folder: Path) -> Verdict:
    """Return the figures of all results."""
    verdict = Verdict()
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


def _quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)] if ordered else 0.0
