"""How two qualities compare: which is better, which are equal, and which is too far below to be served.

Pure. A metric is a share of samples (right or wrong ones), or a figure of another kind; each kind has a rule of
its own for when a difference is too small to mean anything. A quality that nobody has measured is None, and
counts as neither good nor bad: what is known goes before it, and among unknown ones the original goes before
what was made from it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_agent.models.catalogue import Format, Quality, Variant

Z_95 = 1.96
"""Two shares count as equal if chance alone gives such a difference in one of 20 pairs of equal variants."""
SHARES = frozenset({"top1", "top5", "accuracy", "exact-match", "top1-error", "top5-error", "error-rate"})
"""Metrics that are a share of independent samples, right or wrong."""
EQUAL_ABSOLUTE = {"psnr": 0.5, "cosine": 0.005, "ssim": 0.005}
"""What nobody notices, in the metric's own unit: half a decibel, half a hundredth of similarity."""
EQUAL_OTHER = 0.005
"""For all other metrics from 0 to 1, and for shares of an unknown number of samples: half a point of a hundred."""
EQUAL_RELATIVE = 0.01
"""For metrics without an upper end (an absolute error, a perplexity): one part in a hundred."""
UNBOUNDED = frozenset({"mae", "perplexity"})
MAX_DROP = 0.02
"""How far below the best of its family, in parts of that one, a variant may be and still be served."""

_NEAR_THE_ORIGINAL: dict[Format, int] = {"fp32": 2, "fp16": 1}


def rank(variant: Variant) -> tuple[int, float, int, int]:
    """Return a key that is greater for a better quality; what is known goes before what is not."""
    quality = variant.quality
    original = _NEAR_THE_ORIGINAL.get(variant.format, 0)
    if quality is None:
        return 0, 0.0, 0, original
    # Of two equal values the one from more samples is the stricter standard.
    return 1, quality.value if quality.higher_is_better else -quality.value, quality.n or 0, original


def best_of(variants: Iterable[Variant]) -> Variant | None:
    """Return the variant of the best quality, or None if there is none."""
    return max(variants, key=lambda variant: (rank(variant), variant.digest), default=None)


def equal(best: Variant, other: Variant) -> bool:
    """Return whether `other` may in truth be as good as `best`, which has the greatest rank."""
    if best.quality is None or other.quality is None:
        return best.quality is other.quality and rank(best) == rank(other)
    return equal_quality(best.quality, other.quality)


def equal_quality(best: Quality, other: Quality) -> bool:
    """Return whether the difference of two qualities is within chance, or too small for anybody to notice.

    For shares this is the 95 % interval of a difference of two proportions, with one success and one failure added
    to each side, which keeps it honest near 0 and 1 (A. Agresti and B. Caffo, The American Statistician 54 (2000)
    280-288).
    """
    apart = abs(best.value - other.value)
    if best.metric in SHARES and best.n is not None and other.n is not None:
        variance = 0.0
        for quality, n in ((best, best.n), (other, other.n)):
            share = (quality.value * n + 1) / (n + 2)
            variance += share * (1 - share) / (n + 2)
        return apart <= Z_95 * math.sqrt(max(0.0, variance))
    if best.metric in UNBOUNDED:
        return apart <= EQUAL_RELATIVE * max(best.value, other.value)
    return apart <= EQUAL_ABSOLUTE.get(best.metric, EQUAL_OTHER)


def share(best: Quality | None, other: Quality | None) -> float:
    """Return how much of the best quality another one has, 0 to 1; an unknown one has all of an unknown one."""
    if best is None:
        return 1.0
    if other is None:
        return 0.0
    if best.metric in UNBOUNDED:
        return 1.0 if other.value <= best.value else best.value / other.value
    # An error rate stays an error rate; what is left to be right is what is compared.
    good, own = (q.value if q.higher_is_better else 1.0 - q.value for q in (best, other))
    return min(1.0, max(0.0, own) / good) if good > 0 else 1.0


def drop(best: Quality | None, other: Quality | None, max_drop: float) -> str:
    """Return in words that a quality is too far below the best one, or nothing.

    A difference within chance is no drop, and an unknown quality is not known to have dropped.
    """
    if best is None or other is None or equal_quality(best, other):
        return ""
    lost = 1.0 - share(best, other)
    if lost <= max_drop:
        return ""
    return (
        f"its {told(other)} is {lost:.1%} below the family's best, {told(best)}; agent.max_quality_drop_share allows "
        f"{max_drop:.1%}"
    )


def told(quality: Quality) -> str:
    """Return a quality as people read it."""
    if quality.metric == "psnr":
        return f"psnr of {quality.value:.1f} dB"
    if quality.metric in UNBOUNDED:
        return f"{quality.metric} of {quality.value:.3g}"
    if quality.metric in {"cosine", "ssim"}:
        return f"{quality.metric} of {quality.value:.4f}"
    return f"{quality.metric} of {quality.value:.2%}"
