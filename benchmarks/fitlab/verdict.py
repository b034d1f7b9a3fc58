"""What came out of holding predictions and choices against measurements, and the page's table of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .machines import Machine

ALLOWED_BYTES, ALLOWED_FRACTION = 12e6, 0.15
SLOW_MS = 1.0


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
    again_taus: list[float] = field(default_factory=list)
    """How far the order measured on one machine agrees with that on another one which differs in memory alone."""
    calm_taus: list[float] = field(default_factory=list)
    """The prediction against the median time on at least three machines that differ in memory alone."""
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
        if self.again_taus:
            told = statistics.mean(self.again_taus)
            rows.append(f"| of two measurements, on machines that differ in memory alone | | {told:.2f} |")
        if self.calm_taus:
            told = statistics.mean(self.calm_taus)
            rows.append(f"| of the prediction and the median time on three or four such machines | | {told:.2f} |")
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


def _quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)] if ordered else 0.0
