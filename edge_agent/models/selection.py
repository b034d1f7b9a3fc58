"""Which variant of a family to serve: leave out what cannot fit, then take the best of what was measured.

Pure, and independent of the order in which variants are given. Every variant that does not win gets its
reason in words. The order of the wishes: right outputs, within memory, within the family's latency target,
best quality, fastest, reproducible, smallest. Quality and speed that differ too little to matter count as
equal, and the next wish decides; each comparison is with the best one, so that chains of small differences
do not add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from edge_agent.models.catalogue import Family, Quality, Variant
    from edge_agent.models.fit import Fit

RESERVE_FRACTION = 0.10
RESERVE_BYTES = 128_000_000
"""What is left to the machine whatever the model: the larger of 10 % of the budget and 128 MB."""
MAX_CANDIDATES = 4
"""How many variants of a family are worth a canary run."""
Z_95 = 1.96
"""Two qualities count as equal if chance alone gives such a difference in one of 20 pairs of equal
variants.
"""
EQUAL_SPEED_FRACTION = 0.05
"""Repeated measurements of one variant differ by as much."""
EQUAL_SPEED_OF_TARGET = 0.01
"""A hundredth of what the family's users are content to wait is nothing that they notice."""


class Lost(NamedTuple):
    """A variant that is not served, and why, in words that continue "it lost because"."""

    variant: Variant
    reason: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """What is worth measuring, most promising first, and what is not."""

    candidates: tuple[Variant, ...]
    rejected: tuple[Lost, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a canary run showed; without `golden_ok`, `why` tells what was wrong and the numbers mean nothing.

    Raises:
        ValueError: a negative number.
    """

    variant: Variant
    p50_us: int
    """Median time of one sample after warm-up, microseconds."""
    peak_bytes: int
    """Most memory above an idle worker, loading or running."""
    golden_ok: bool
    why: str = ""

    def __post_init__(self) -> None:
        if self.p50_us < 0 or self.peak_bytes < 0:
            raise ValueError("times and sizes are not negative")


@dataclass(frozen=True, slots=True)
class Choice:
    """The winner with the reason, or None with the reason, and all others with theirs, by name."""

    chosen: Measured | None
    why: str
    lost: tuple[Lost, ...]


def usable_bytes(budget_bytes: int) -> int:
    """Return what a worker's models may take of `budget_bytes`: all but the reserve, at least 0."""
    reserve = max(math.ceil(budget_bytes * RESERVE_FRACTION), RESERVE_BYTES)
    return max(0, budget_bytes - reserve)


def prune(
    family: Family, fits: Mapping[str, Fit], budget_bytes: int, *, max_candidates: int = MAX_CANDIDATES
) -> Pruned:
    """Leave out the variants that cannot fit, and those beyond the most promising `max_candidates`.

    Args:
        family: whose variants.
        fits: predictions by variant digest; a variant without one is left out.
        budget_bytes: memory that the owner and the machine allow, before the reserve.
        max_candidates: at most so many are worth measuring.
    """
    room = usable_bytes(budget_bytes)
    rejected: list[Lost] = []
    fitting: list[Variant] = []
    for variant in family.variants:
        fit = fits.get(variant.digest)
        if fit is None:
            rejected.append(Lost(variant, "nothing is known about what it would cost here"))
        elif fit.peak_bytes.high > room:
            rejected.append(
                Lost(
                    variant,
                    f"it may take {_mb(fit.peak_bytes.high)}, and of {_mb(budget_bytes)} only {_mb(room)} may be used",
                )
            )
        else:
            fitting.append(variant)

    def promise(variant: Variant) -> tuple[object, ...]:
        latency = fits[variant.digest].latency_ms
        hopeless = latency.low > family.latency_target_ms
        return (
            hopeless,
            tuple(-part for part in _quality_rank(variant.quality)),
            latency.expected,
            variant.size_bytes,
            variant.digest,
        )

    fitting.sort(key=promise)
    rejected += [
        Lost(variant, f"{max_candidates} others promise more, by their quality and predicted speed")
        for variant in fitting[max_candidates:]
    ]
    return Pruned(tuple(fitting[:max_candidates]), _by_name(rejected))


def choose(measured: Sequence[Measured], family: Family, *, budget_bytes: int | None = None) -> Choice:
    """Return the best of the variants that were measured.

    Args:
        measured: at most one measurement of each variant.
        family: whose variants they are.
        budget_bytes: as for `prune`; None if the canary runs had that limit themselves.

    Raises:
        ValueError: a variant that is measured twice or is not of the family.
    """
    digests = [entry.variant.digest for entry in measured]
    if len(set(digests)) != len(digests):
        raise ValueError("a variant is measured twice")
    if any(family.variant(digest) != entry.variant for digest, entry in zip(digests, measured, strict=True)):
        raise ValueError(f"a measured variant is not of the family {family.name}")
    lost: list[Lost] = []
    left = list(measured)

    def keep(stays: Callable[[Measured], bool], reason: Callable[[Measured], str]) -> None:
        lost.extend(Lost(entry.variant, reason(entry)) for entry in left if not stays(entry))
        left[:] = [entry for entry in left if stays(entry)]

    keep(lambda entry: entry.golden_ok, lambda entry: f"it does not work here: {entry.why or 'wrong outputs'}")
    if budget_bytes is not None:
        room = usable_bytes(budget_bytes)
        keep(
            lambda entry: entry.peak_bytes <= room,
            lambda entry: f"it took {_mb(entry.peak_bytes)}, and {_mb(room)} may be used",
        )
    if not left:
        why = "no variant works here within the memory there is" if measured else "no variant was measured"
        return Choice(None, why, _by_name(lost))
    target_us = family.latency_target_ms * 1000
    in_time = any(entry.p50_us <= target_us for entry in left)
    if in_time:
        keep(
            lambda entry: entry.p50_us <= target_us,
            lambda entry: f"it takes {_time(entry.p50_us)}, and {_time(target_us)} are wanted",
        )
        _keep_best_quality(left, keep)
    _keep_fastest(left, keep, target_us)
    _keep_preferred(left, keep)
    (winner,) = left
    return Choice(winner, _praise(winner, lost, target_us), _by_name(lost))


_Keep = Callable[[Callable[[Measured], bool], Callable[[Measured], str]], None]


def _keep_best_quality(left: list[Measured], keep: _Keep) -> None:
    best = max((entry.variant.quality for entry in left), key=_quality_rank)
    if best is None:
        return
    keep(
        lambda entry: entry.variant.quality is not None and equal_quality(best, entry.variant.quality),
        lambda entry: _worse(best, entry.variant.quality),
    )


def _keep_fastest(left: list[Measured], keep: _Keep, target_us: float) -> None:
    fastest = min(entry.p50_us for entry in left)
    limit = fastest + max(EQUAL_SPEED_FRACTION * fastest, EQUAL_SPEED_OF_TARGET * target_us)
    keep(
        lambda entry: entry.p50_us <= limit,
        lambda entry: f"it is not better, and takes {_time(entry.p50_us)} against {_time(fastest)}",
    )


def _keep_preferred(left: list[Measured], keep: _Keep) -> None:
    """Leave one of variants that are equal in quality and speed."""
    if any(entry.variant.reproducible for entry in left):
        keep(
            lambda entry: entry.variant.reproducible,
            lambda _: "it is as good and as fast, but other kinds of machines cannot check its outputs bit for bit",
        )
    smallest = min(entry.variant.size_bytes for entry in left)
    keep(
        lambda entry: entry.variant.size_bytes == smallest,
        lambda entry: f"it is no better, and has {entry.variant.size_bytes} bytes against {smallest}",
    )
    first = min(entry.variant.digest for entry in left)
    keep(
        lambda entry: entry.variant.digest == first,
        lambda _: "it is equal in all that counts, and its digest comes later",
    )


def equal_quality(best: Quality, other: Quality) -> bool:
    """Return whether `other` may in truth be as good as `best`.

    The 95 % interval of a difference of two proportions, with one success and one failure added to each
    side, which keeps it honest near 0 and 1 (A. Agresti and B. Caffo, The American Statistician 54 (2000)
    280-288).
    """
    variance = 0.0
    for quality in (best, other):
        n = quality.n or 0
        share = (quality.value * n + 1) / (n + 2)
        variance += share * (1 - share) / (n + 2)
    return abs(best.value - other.value) <= Z_95 * math.sqrt(variance)


def _worse(best: Quality, other: Quality | None) -> str:
    if other is None:
        return f"nobody has measured its quality, and the best reaches {best.metric} {best.value:.3g}"
    if best.metric == "top1":
        told = f"it is right in {other.value:.1%} of the samples against {best.value:.1%}"
    else:
        told = f"its {best.metric} is {other.value:.4g} against {best.value:.4g}"
    return f"{told}, which is more than chance explains"


def _quality_rank(quality: Quality | None) -> tuple[float, int]:
    if quality is None:
        return -math.inf, 0
    # Of two equal values the one from more samples is the stricter standard.
    return (quality.value if quality.higher_is_better else -quality.value), quality.n or 0


def _praise(winner: Measured, lost: Iterable[Lost], target_us: float) -> str:
    quality = winner.variant.quality
    told = _time(winner.p50_us) + " a sample"
    if quality is not None and quality.metric == "top1":
        told = f"right in {quality.value:.1%} of {quality.n} samples, {told}"
    if winner.p50_us > target_us:
        return f"{told}: no variant keeps the {_time(target_us)} that are wanted, and this is among the fastest"
    if winner.variant.reproducible:
        told += ", and other kinds of machines can check its outputs bit for bit"
    return told if any(True for _ in lost) else f"{told}; no other variant was measured"


def _by_name(lost: Iterable[Lost]) -> tuple[Lost, ...]:
    return tuple(sorted(lost, key=lambda entry: (entry.variant.name, entry.variant.digest)))


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


def _time(microseconds: float) -> str:
    return f"{microseconds / 1000:.3g} ms" if microseconds >= 1000 else f"{microseconds:.0f} µs"
