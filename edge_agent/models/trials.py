"""Which variants of a family to measure, one after the other, so that few runs find what all runs would have found.

Pure. What cannot fit or cannot run is ruled out with its reason. Of the rest, that one is measured next which would
win if it kept its promise (its predicted time and memory) against what was measured already. Once the winner is one
that was measured, the search goes on only among those that would still win at the best they may be; what would not
is predicted too far from the best. Each measurement corrects the predictions of the others: a machine that is twice
as fast as was thought is so for all of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edge_agent.models import quality
from edge_agent.models.fit import Fit, Interval, MachineFacts, predict
from edge_agent.models.selection import (
    DEFAULT_RULES,
    Choice,
    Lost,
    Measured,
    Rules,
    by_name,
    choose,
    told_mb,
    told_us,
)

if TYPE_CHECKING:
    from edge_agent.models.catalogue import Costs, Family, Variant

MIN_RUNS = 2
"""So many are measured if there are so many: the second is there to fall back on."""
MAX_RUNS = 4
"""How many variants of a family are worth a canary run."""
MAX_CORRECTION = 10.0
"""A prediction that is wrong by more is not corrected further."""
UNSEEN_BASE_BYTES = 14 * 1024 * 1024
UNSEEN_FILE_FACTORS = (0.5, 2.25, 4.0)
"""Memory of a variant whose graph nobody has counted, in sizes of its file."""


class Trials:
    """The search for one family's variant.

    Args:
        family: whose variants.
        fits: predictions by variant digest; a variant without one is judged by the size of its file.
        room_bytes: what one model may take, reserve taken off.
        rules: the owner's.
        ruled_out: reasons by variant digest why a variant is not even considered.
        known: what was measured before and still holds.
        max_runs: at most so many canary runs.
    """

    def __init__(  # noqa: PLR0913 each is a fact of its own
        self,
        family: Family,
        fits: Mapping[str, Fit],
        room_bytes: int,
        *,
        rules: Rules = DEFAULT_RULES,
        ruled_out: Mapping[str, str] | None = None,
        known: Iterable[Measured] = (),
        max_runs: int = MAX_RUNS,
    ) -> None:
        self.family = family
        self.runs = 0
        self.measured: list[Measured] = []
        self._rules = rules
        self._room = room_bytes
        self._max_runs = max_runs
        self._lost: dict[str, Lost] = {}
        self._died: set[str] = set()
        # Sorted, so that nothing depends on the order in which a catalogue lists them.
        self._open = sorted(family.variants, key=lambda variant: variant.digest)
        self._fits = {variant.digest: fits.get(variant.digest) or unseen(variant) for variant in family.variants}
        best = quality.best_of(family.variants)
        for variant in tuple(self._open):
            reason = (ruled_out or {}).get(variant.digest) or self._cannot_win(variant, best)
            if reason:
                self.rule_out(variant, reason)
        for entry in known:
            self.add(entry)

    def _cannot_win(self, variant: Variant, best: Variant | None) -> str:
        if broken := quality.drop(best.quality if best else None, variant.quality, self._rules.max_quality_drop):
            return broken
        peak = self._fits[variant.digest].peak_bytes
        if peak.low > self._room:
            return f"it takes at least {told_mb(peak.low)}, likely {told_mb(peak.expected)}, of {told_mb(self._room)}"
        return ""

    # -- what became of it ----------------------------------------------------------------------------------------

    @property
    def open(self) -> tuple[Variant, ...]:
        """The variants that are neither measured nor ruled out."""
        return tuple(self._open)

    @property
    def lost(self) -> tuple[Lost, ...]:
        """Those that were ruled out, by name."""
        return by_name(self._lost.values())

    def fit(self, variant: Variant) -> Fit:
        """Return what was predicted for a variant."""
        return self._fits[variant.digest]

    def rule_out(self, variant: Variant, reason: str) -> None:
        """Consider a variant no longer: it cannot be had, does not run, or was withdrawn."""
        self._open = [other for other in self._open if other.digest != variant.digest]
        self.measured = [entry for entry in self.measured if entry.variant.digest != variant.digest]
        self._lost[variant.digest] = Lost(variant, reason)

    def failed(self, variant: Variant, code: str, why: str) -> bool:
        """Take a canary run in that gave nothing; return whether the variant is tried once more.

        One death of a worker says nothing yet about the model: it may have been killed from outside.
        """
        if code == "worker-died" and variant.digest not in self._died:
            self._died.add(variant.digest)
            return True
        self.rule_out(variant, f"it did not run here: {why}")
        return False

    def add(self, entry: Measured) -> None:
        """Take a measurement in; one of a variant that was ruled out is left aside."""
        if entry.variant.digest in self._lost:
            return
        self._open = [other for other in self._open if other.digest != entry.variant.digest]
        self.measured = [other for other in self.measured if other.variant.digest != entry.variant.digest]
        self.measured.append(entry)

    def again(self, variant: Variant) -> None:
        """Forget what was measured of a variant, so that it can be measured anew, and one more run with it."""
        self.measured = [entry for entry in self.measured if entry.variant.digest != variant.digest]
        if variant.digest not in self._lost and variant not in self._open:
            self._open = sorted([*self._open, variant], key=lambda other: other.digest)
        self.runs = max(0, self.runs - 1)

    def choice(self) -> Choice:
        """Return the best of what was measured, and for every other variant why it is not."""
        found = choose(self.measured, self.family, room_bytes=self._room, rules=self._rules)
        unmeasured = [Lost(variant, self._why_not_measured(variant, found.chosen)) for variant in self._open]
        why = found.why
        if found.chosen is None and not self.measured and self._lost and not self._open:
            why = "no variant can be served here"
        return Choice(found.chosen, why, by_name([*found.lost, *self._lost.values(), *unmeasured]))

    def _why_not_measured(self, variant: Variant, chosen: Measured | None) -> str:
        if chosen is None:
            return "it was not measured"
        promise = self._promise(variant)
        against = choose([chosen, promise], self.family, room_bytes=self._room, rules=self._rules)
        why = next((lost.reason for lost in against.lost if lost.variant == variant), "")
        predicted = f"it was not measured; predicted to take {told_us(promise.p50_us)} a sample"
        return f"{predicted}: {why}" if why else f"{predicted}, and {self._max_runs} others promised more"

    # -- what is next ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Count a canary run."""
        self.runs += 1

    def next(self) -> Variant | None:
        """Return the variant that is worth the next canary run, or None when the search is over."""
        if not self._open or self.runs >= self._max_runs:
            return None
        healthy = [entry for entry in self.measured if entry.golden_ok]
        promised = [self._promise(variant) for variant in self._open]
        winner = self._winner([*healthy, *promised])
        if winner is None:  # none is expected to fit, but some may: the likeliest first
            return min(self._open, key=lambda variant: (self._fits[variant.digest].peak_bytes.expected, variant.digest))
        if winner in self._open:
            return winner
        hopeful = [
            self._promise(variant)
            for variant in self._open
            if self._winner([*healthy, self._promise(variant, at_best=True)]) == variant
        ]
        if not hopeful and len(healthy) < MIN_RUNS:
            hopeful = promised
        if not hopeful:
            return None
        best = self._winner(hopeful)
        return best if best is not None else min((e.variant for e in hopeful), key=lambda variant: variant.digest)

    def _winner(self, entries: list[Measured]) -> Variant | None:
        chosen = choose(entries, self.family, room_bytes=self._room, rules=self._rules).chosen
        return None if chosen is None else chosen.variant

    def _promise(self, variant: Variant, *, at_best: bool = False) -> Measured:
        """Return a variant as it would be measured if its prediction came true, or the best of it did."""
        fit = self._corrected(variant)

        def of(interval: Interval) -> int:
            return int(min(interval.low if at_best else interval.expected, 2**62))

        latency_us = int(min((fit.latency_ms.low if at_best else fit.latency_ms.expected) * 1000, 2**62))
        return Measured(
            variant=variant,
            p50_us=latency_us,
            peak_bytes=of(fit.peak_bytes),
            steady_bytes=of(fit.steady_bytes),
            golden_ok=True,
            cpu_us=latency_us,
            checked=variant.golden is not None,
        )

    def _corrected(self, variant: Variant) -> Fit:
        """Return a prediction with what the measured ones showed of this machine: floats by floats, bytes by bytes."""
        fit = self._fits[variant.digest]
        ratios = [
            (self._is_float(entry.variant) == self._is_float(variant), entry.p50_us / 1000 / expected)
            for entry in self.measured
            if entry.golden_ok
            and entry.p50_us > 0
            and (expected := self._fits[entry.variant.digest].latency_ms.expected) > 0
        ]
        alike = [ratio for same, ratio in ratios if same] or [ratio for _, ratio in ratios]
        if not alike:
            return fit
        mean = math.exp(sum(math.log(ratio) for ratio in alike) / len(alike))
        factor = min(max(mean, 1 / MAX_CORRECTION), MAX_CORRECTION)
        old = fit.latency_ms
        return dataclasses.replace(fit, latency_ms=Interval(old.low * factor, old.expected * factor, old.high * factor))

    @staticmethod
    def _is_float(variant: Variant) -> bool:
        return variant.format in {"fp32", "fp16"}


def outlook(family: Family, machine: MachineFacts, threads: int) -> dict[str, Fit]:
    """Return the predictions for all variants of a family whose graphs were counted, by digest."""
    return {v.digest: forecast(v.costs, machine, threads) for v in family.variants if v.costs is not None}


def thread_counts(threads: int) -> tuple[int, ...]:
    """Return the numbers of threads worth trying: all, one, and two, as far as there are so many."""
    return tuple(dict.fromkeys(count for count in (threads, 1, 2) if count <= threads))


def forecast(costs: Costs, machine: MachineFacts, threads: int) -> Fit:
    """Return the prediction with the number of threads that is predicted to be the fastest, of up to `threads`.

    Memory is that of all threads, with which it is measured, too.
    """
    fits = [predict(costs, machine, count) for count in thread_counts(threads)]
    fastest = min(fits, key=lambda fit: fit.latency_ms.expected)
    return dataclasses.replace(fits[0], latency_ms=fastest.latency_ms, reasons=fastest.reasons)


def unseen(variant: Variant) -> Fit:
    """Return a very wide prediction for a variant whose graph nobody has counted, from the size of its file alone."""
    low, usual, high = (factor * variant.size_bytes for factor in UNSEEN_FILE_FACTORS)
    memory = Interval(low, UNSEEN_BASE_BYTES + usual, 2 * UNSEEN_BASE_BYTES + high)
    # Every weight is used at least once: a gigabyte takes a fraction of a second at the very least.
    latency = Interval(variant.size_bytes / 1e8, variant.size_bytes / 2e6, max(1.0, variant.size_bytes / 1e4))
    reason = f"nobody has counted its graph; its file has {told_mb(variant.size_bytes)}"
    return Fit(memory, Interval(low, low + UNSEEN_BASE_BYTES, high + UNSEEN_BASE_BYTES), memory, latency, (reason,))
