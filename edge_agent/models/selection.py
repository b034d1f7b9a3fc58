"""Which variant of a family to serve, of those that were measured on this machine.

Pure, and independent of the order in which variants are given. Every variant that does not win gets its reason in
words. The order of the wishes: right outputs, within memory, quality not broken, within the family's latency target,
best quality, the owner's weights (speed, unless they say otherwise), reproducible, smallest. If no variant keeps the
latency target, the owner's weights decide alone. What differs too little to matter counts as equal, and the next wish
decides; each comparison is with the best one, so that chains of small differences do not add up.

`trials` decides which variants are measured at all; `docs/models.md` says what the choice is held against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.models import quality

if TYPE_CHECKING:
    from edge_agent.models.catalogue import Family, Variant

RESERVE_FRACTION = 0.10
RESERVE_BYTES = 128_000_000
"""What is left to the machine whatever the model: the larger of 10 % of the budget and 128 MB …"""
RESERVE_MOST_FRACTION = 0.25
"""… but never more than a quarter: a board of 256 MB is to be of use, too."""
IDLE_WORKER_BYTES = 32_000_000
"""What a worker takes before it has a model: Python, numpy and onnxruntime, without what the kernel can drop."""
EQUAL_SPEED_FRACTION = 0.05
"""Repeated measurements of one variant differ by as much."""
EQUAL_SPEED_OF_TARGET = 0.01
"""A hundredth of what the family's users are content to wait is nothing that they notice …"""
UNNOTICED_US = 500
"""… as long as it is no more than what a job takes around the model's own time: whoever serves many jobs would serve a
quarter as many with a variant of 12 ms as with one of 3 ms, whatever one user is content to wait."""
EQUAL_MEMORY_BYTES = 4_000_000
"""Repeated measurements of one variant differ by as much."""


class Lost(NamedTuple):
    """A variant that is not served, and why, in words that continue "it lost because"."""

    variant: Variant
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What a canary run showed; without `golden_ok`, `why` tells what was wrong and the numbers mean nothing.

    Raises:
        ValueError: a negative number.
    """

    variant: Variant
    p50_us: int
    """Median time of one sample after warm-up, microseconds, with `threads`."""
    peak_bytes: int
    """Most memory above an idle worker, loading or running."""
    golden_ok: bool
    why: str = ""
    p95_us: int = 0
    load_peak_bytes: int = 0
    steady_bytes: int = 0
    """Memory above an idle worker that the loaded model holds between runs."""
    run_peak_bytes: int = 0
    cpu_us: int = 0
    """CPU time of one sample over all threads, microseconds: what stands for energy; 0 if it was not measured."""
    threads: int = 0
    """The fastest number of threads; 0 if only the default was tried."""
    checked: bool = True
    """Whether there were golden outputs to hold it against; if not, it is only known to run."""
    lanes: int = 1
    """How many runs side by side do the most; with more than one, each has one thread."""
    together: int = 1
    """How many waiting runs are best made one: more than one where that pays, and leaves every bit as it was."""

    def __post_init__(self) -> None:
        numbers = (self.p50_us, self.peak_bytes, self.p95_us, self.steady_bytes, self.cpu_us, self.threads)
        if min(*numbers, self.load_peak_bytes, self.run_peak_bytes) < 0:
            raise ValueError("times and sizes are not negative")

    @property
    def held_bytes(self) -> int:
        """Memory that it holds as long as it is served; all it ever took if that is all that is known."""
        return self.steady_bytes or self.peak_bytes


@dataclass(frozen=True, slots=True)
class Weights:
    """What an owner thinks of the qualities of a variant; each counts by its share of the sum.

    Raises:
        ValueError: a negative weight, or only zeros.
    """

    quality: float = 1.0
    speed: float = 1.0
    memory: float = 0.0
    energy: float = 0.0

    def __post_init__(self) -> None:
        every = (self.quality, self.speed, self.memory, self.energy)
        if min(every) < 0 or not 0 < sum(every) < math.inf:
            raise ValueError("weights are from 0 on, and not all 0")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the choice goes by beside the family's own target: the owner's settings."""

    weights: Weights = Weights()
    max_quality_drop: float = quality.MAX_DROP
    """How far below the best quality of its family a variant may be, in parts of that one."""


DEFAULT_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Choice:
    """The winner with the reason, or None with the reason, and all others with theirs, by name."""

    chosen: Measured | None
    why: str
    lost: tuple[Lost, ...]


def usable_bytes(budget_bytes: int) -> int:
    """Return what a worker's models may take of `budget_bytes`: all but the reserve, at least 0."""
    reserve = max(
        math.ceil(budget_bytes * RESERVE_FRACTION),
        min(RESERVE_BYTES, math.ceil(budget_bytes * RESERVE_MOST_FRACTION)),
    )
    return max(0, budget_bytes - reserve)


def room_bytes(budget_bytes: int, share: float = 1.0) -> int:
    """Return what models may take, above an idle worker that has not been started yet.

    Args:
        budget_bytes: memory that is free.
        share: how much of it the owner gives to models, 0 to 1.
    """
    return max(0, min(int(budget_bytes * share), usable_bytes(budget_bytes) - IDLE_WORKER_BYTES))


def choose(
    measured: Sequence[Measured],
    family: Family,
    *,
    room_bytes: int | None = None,
    rules: Rules = DEFAULT_RULES,
) -> Choice:
    """Return the best of the variants that were measured.

    Args:
        measured: at most one measurement of each variant.
        family: whose variants they are.
        room_bytes: what one model may take; None if the canary runs had that limit themselves.
        rules: the owner's.

    Raises:
        ValueError: a variant that is measured twice or is not of the family.
    """
    digests = [entry.variant.digest for entry in measured]
    if len(set(digests)) != len(digests):
        raise ValueError("a variant is measured twice")
    if any(family.variant(digest) != entry.variant for digest, entry in zip(digests, measured, strict=True)):
        raise ValueError(f"a measured variant is not of the family {family.name}")
    field = _Field(list(measured), family, rules)
    field.keep(lambda entry: entry.golden_ok, lambda entry: f"it does not work here: {entry.why or 'wrong outputs'}")
    if room_bytes is not None:
        field.keep(
            lambda entry: entry.peak_bytes <= room_bytes,
            lambda entry: f"it took {told_mb(entry.peak_bytes)}, and {told_mb(room_bytes)} may be used",
        )
    field.keep_sound()
    if not field.left:
        why = "no variant works here within the memory there is" if measured else "no variant was measured"
        return Choice(None, why, by_name(field.lost))
    if field.keep_in_time():
        field.keep_best_quality()
    field.keep_heaviest()
    field.keep_preferred()
    (winner,) = field.left
    return Choice(winner, _praise(winner, field), by_name(field.lost))


class _Field:
    """Those who are left, and those who are not."""

    def __init__(self, entries: list[Measured], family: Family, rules: Rules) -> None:
        self.left = entries
        self.lost: list[Lost] = []
        self.target_us = family.latency_target_ms * 1000
        self._rules = rules
        self._best = quality.best_of(family.variants)

    def keep(self, stays: Callable[[Measured], bool], reason: Callable[[Measured], str]) -> None:
        self.lost.extend(Lost(entry.variant, reason(entry)) for entry in self.left if not stays(entry))
        self.left = [entry for entry in self.left if stays(entry)]

    def keep_sound(self) -> None:
        """Leave out what is broken by what is said of it, whatever its outputs were."""
        self.keep(lambda entry: not self._drop(entry), self._drop)

    def _drop(self, entry: Measured) -> str:
        best = None if self._best is None else self._best.quality
        return quality.drop(best, entry.variant.quality, self._rules.max_quality_drop)

    def keep_in_time(self) -> bool:
        """Leave those that keep the target, if any does."""
        if not any(entry.p50_us <= self.target_us for entry in self.left):
            return False
        self.keep(
            lambda entry: entry.p50_us <= self.target_us,
            lambda entry: f"it takes {told_us(entry.p50_us)}, and {told_us(self.target_us)} are wanted",
        )
        return True

    def keep_best_quality(self) -> None:
        best = quality.best_of(entry.variant for entry in self.left)
        assert best is not None  # noqa: S101 - somebody is left
        self.keep(lambda entry: quality.equal(best, entry.variant), lambda entry: _worse(best, entry.variant))

    def keep_heaviest(self) -> None:
        """Leave those whose score by the owner's weights is the highest."""
        scores = self._scores()
        highest = max(scores.values())
        fastest = min(entry.p50_us for entry in self.left)
        weights = self._rules.weights
        by_speed = weights.memory == weights.energy == 0

        def reason(entry: Measured) -> str:
            if by_speed and entry.p50_us > fastest:
                return f"it is not better, and takes {told_us(entry.p50_us)} against {told_us(fastest)}"
            return f"it has {scores[entry.variant.digest]:.3f} against {highest:.3f} by the owner's weights"

        # Sums of the same numbers in another order differ in their last bits.
        self.keep(lambda entry: scores[entry.variant.digest] >= highest - 1e-9, reason)

    def _scores(self) -> dict[str, float]:
        """Return for each that is left the weighted sum of its parts of the best, 0 to 1; what is equal counts as 1."""
        weights = self._rules.weights
        best = quality.best_of(entry.variant for entry in self.left)
        fastest = min(entry.p50_us for entry in self.left)
        unnoticed = min(EQUAL_SPEED_OF_TARGET * self.target_us, UNNOTICED_US)
        soon = fastest + max(EQUAL_SPEED_FRACTION * fastest, unnoticed)
        smallest = min(entry.held_bytes for entry in self.left) + EQUAL_MEMORY_BYTES
        thriftiest = min(entry.cpu_us for entry in self.left) * (1 + EQUAL_SPEED_FRACTION)
        total = weights.quality + weights.speed + weights.memory + weights.energy
        scores = {}
        for entry in self.left:
            same = best is None or quality.equal(best, entry.variant)
            of_best = 1.0 if same or best is None else quality.share(best.quality, entry.variant.quality)
            scores[entry.variant.digest] = (
                weights.quality * of_best
                + weights.speed * _part(soon, entry.p50_us)
                + weights.memory * _part(smallest, entry.held_bytes)
                + weights.energy * _part(thriftiest, entry.cpu_us)
            ) / total
        return scores

    def keep_preferred(self) -> None:
        """Leave one of variants that are equal in quality and in what the owner cares for."""
        if any(entry.checked for entry in self.left):
            self.keep(
                lambda entry: entry.checked,
                lambda _: "it is as good and as fast, but there is nothing to check its outputs against",
            )
        if any(entry.variant.reproducible for entry in self.left):
            self.keep(
                lambda entry: entry.variant.reproducible,
                lambda _: "it is as good and as fast, but other kinds of machines cannot check its outputs bit for bit",
            )
        smallest = min(entry.variant.size_bytes for entry in self.left)
        self.keep(
            lambda entry: entry.variant.size_bytes == smallest,
            lambda entry: f"it is no better, and has {entry.variant.size_bytes} bytes against {smallest}",
        )
        first = min(entry.variant.digest for entry in self.left)
        self.keep(
            lambda entry: entry.variant.digest == first,
            lambda _: "it is equal in all that counts, and its digest comes later",
        )


def _part(best: float, own: float) -> float:
    return 1.0 if own <= best else best / own


def _worse(best: Variant, other: Variant) -> str:
    if best.quality is None:
        return f"nobody has measured what its form costs in quality, and {best.name} is nearer to the original"
    if other.quality is None:
        return f"nobody has measured its quality, and {best.name} has a {quality.told(best.quality)}"
    what = "chance explains" if other.quality.n is not None and best.quality.metric in quality.SHARES else "counts"
    return f"its {quality.told(other.quality)} is worse than {quality.told(best.quality)} by more than {what}"


def _praise(winner: Measured, field: _Field) -> str:
    found = winner.variant.quality
    told = f"{told_us(winner.p50_us)} a sample"
    if found is not None and found.metric in {"top1", "accuracy"} and found.n is not None:
        told = f"right in {found.value:.1%} of {found.n} samples, {told}"
    elif found is not None:
        told = f"{quality.told(found)}{' as its source reports' if found.reported else ''}, {told}"
    else:
        told = f"its quality is not known, {told}"
    if not winner.checked:
        told += ", its outputs unchecked for want of known answers"
    if winner.p50_us > field.target_us:
        return f"{told}: no variant keeps the {told_us(field.target_us)} that are wanted, and this is the best of those"
    if winner.variant.reproducible:
        told += ", and other kinds of machines can check its outputs bit for bit"
    return told if field.lost else f"{told}; no other variant was measured"


def by_name(lost: Iterable[Lost]) -> tuple[Lost, ...]:
    """Return the losers in the order of their names."""
    return tuple(sorted(lost, key=lambda entry: (entry.variant.name, entry.variant.digest)))


def told_mb(size_bytes: float) -> str:
    """Return a size as people read it."""
    return f"{size_bytes / 1e6:.0f} MB"


def told_us(microseconds: float) -> str:
    """Return a time as people read it."""
    return f"{microseconds / 1000:.3g} ms" if microseconds >= 1000 else f"{microseconds:.0f} µs"
