from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.models.fit import Fit, Interval
from edge_agent.models.selection import (
    RESERVE_BYTES,
    Choice,
    Measured,
    choose,
    equal_quality,
    prune,
    usable_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.models.catalogue import Family, Variant

    MakeVariant = Callable[..., Variant]
    MakeFamily = Callable[..., Family]

MB = 1_000_000
PLENTY = 8000 * MB


def _fit(peak: float, latency_ms: float = 1.0) -> Fit:
    memory, time = Interval(0, peak / 2, peak), Interval(latency_ms / 2, latency_ms, latency_ms * 2)
    return Fit(memory, memory, memory, time, ())


_POINTS = st.lists(
    st.fixed_dictionaries(
        {
            "quality": st.sampled_from([0.5, 0.9, 0.96, 0.98, 0.985, 0.99, 1.0]),
            "n": st.sampled_from([20, 364, 50_000]),
            "p50_us": st.integers(0, 60_000) | st.sampled_from([100, 104, 19_999, 20_000, 20_001]),
            "peak_bytes": st.integers(0, 900 * MB),
            "golden_ok": st.booleans(),
            "reproducible": st.booleans(),
            "size_bytes": st.integers(1, 5),
        }
    ),
    min_size=1,
    max_size=6,
)


def _measured(points: list[dict[str, int]], make_variant: MakeVariant) -> list[Measured]:
    return [
        Measured(
            make_variant(
                f"v{number}",
                quality=point["quality"],
                n=point["n"],
                reproducible=point["reproducible"],
                size_bytes=point["size_bytes"],
            ),
            point["p50_us"],
            point["peak_bytes"],
            bool(point["golden_ok"]),
            "" if point["golden_ok"] else "element 0 is wrong",
        )
        for number, point in enumerate(points)
    ]


def _run(
    points: list[dict[str, int]], budget: int | None, make_variant: MakeVariant, make_family: MakeFamily
) -> tuple[list[Measured], Choice]:
    measured = _measured(points, make_variant)
    family = make_family(*(entry.variant for entry in measured))
    return measured, choose(measured, family, budget_bytes=budget)


@given(points=_POINTS, budget=st.integers(0, 2000 * MB))
def test_what_is_chosen_works_fits_and_nothing_is_clearly_better(
    points: list[dict[str, int]], budget: int, make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """Never a broken one or one too large; within the target if any is; among the best in quality."""
    measured, choice = _run(points, budget, make_variant, make_family)
    room = usable_bytes(budget)
    possible = [entry for entry in measured if entry.golden_ok and entry.peak_bytes <= room]
    assert {entry.variant.name for entry in measured} == {lost.variant.name for lost in choice.lost} | (
        {choice.chosen.variant.name} if choice.chosen else set()
    )
    assert all(lost.reason for lost in choice.lost)
    if choice.chosen is None:
        assert possible == []
        return
    chosen = choice.chosen
    assert chosen in possible
    assert len(choice.lost) == len(measured) - 1
    in_time = [entry for entry in possible if entry.p50_us <= 20_000]
    if in_time:
        assert chosen in in_time
        best = max(entry.variant.quality.value for entry in in_time)
        of_best = max((e.variant.quality for e in in_time if e.variant.quality.value == best), key=lambda q: q.n)
        assert equal_quality(of_best, chosen.variant.quality)
    fastest = min(entry.p50_us for entry in possible)
    if not in_time:
        assert chosen.p50_us <= fastest * 1.05 + 200


@given(points=_POINTS, budget=st.none() | st.integers(0, 2000 * MB), seed=st.integers(0, 1000))
def test_the_order_of_the_measurements_does_not_matter(
    points: list[dict[str, int]],
    budget: int | None,
    seed: int,
    make_variant: MakeVariant,
    make_family: MakeFamily,
) -> None:
    """The same winner, and the same words for the others."""
    measured, choice = _run(points, budget, make_variant, make_family)
    family = make_family(*(entry.variant for entry in measured))
    random.Random(seed).shuffle(measured)
    assert choose(measured, family, budget_bytes=budget) == choice


@given(points=_POINTS, budget=st.integers(0, 2000 * MB), more=st.integers(0, 2000 * MB))
def test_more_memory_never_leaves_less_to_choose(
    points: list[dict[str, int]],
    budget: int,
    more: int,
    make_variant: MakeVariant,
    make_family: MakeFamily,
) -> None:
    """What can be served with less memory can be served with more, and none drops out for its size."""
    _, small = _run(points, budget, make_variant, make_family)
    _, large = _run(points, budget + more, make_variant, make_family)
    assert small.chosen is None or large.chosen is not None

    def too_large(choice: Choice) -> set[str]:
        return {lost.variant.name for lost in choice.lost if "may be used" in lost.reason}

    assert too_large(large) <= too_large(small)


@given(budget=st.integers(0, 10**13), more=st.integers(0, 10**12))
def test_the_reserve_is_kept_and_grows_with_the_machine(budget: int, more: int) -> None:
    """10 % or 128 MB, whichever is more; more memory never gives less room."""
    room = usable_bytes(budget)
    assert room == 0 or (budget - room >= RESERVE_BYTES and budget - room >= budget // 10)
    assert room <= usable_bytes(budget + more)


def test_the_reserve_by_example() -> None:
    """At 512 MB the fixed part counts, at 4 GB the share."""
    assert usable_bytes(512 * MB) == 384 * MB
    assert usable_bytes(4000 * MB) == 3600 * MB
    assert usable_bytes(100 * MB) == 0


@given(
    peaks=st.lists(st.integers(0, 900 * MB), min_size=1, max_size=8),
    budget=st.integers(0, 1500 * MB),
    more=st.integers(0, 500 * MB),
    seed=st.integers(0, 1000),
)
def test_pruning_keeps_only_what_surely_fits(
    peaks: list[int],
    budget: int,
    more: int,
    seed: int,
    *,
    make_variant: MakeVariant,
    make_family: MakeFamily,
) -> None:
    """Bounded in number, monotone in memory, independent of order, and every variant is accounted for."""
    variants = [make_variant(f"v{number}", quality=0.9) for number in range(len(peaks))]
    fits = {v.digest: _fit(peak, 1 + peak / MB) for v, peak in zip(variants, peaks, strict=True)}
    pruned = prune(make_family(*variants), fits, budget)
    for variant in pruned.candidates:
        assert fits[variant.digest].peak_bytes.high <= usable_bytes(budget)
    assert len(pruned.candidates) <= 4
    assert len(pruned.candidates) + len(pruned.rejected) == len(variants)
    roomy = prune(make_family(*variants), fits, budget + more, max_candidates=8)
    assert set(pruned.candidates) <= set(roomy.candidates)
    random.Random(seed).shuffle(variants)
    assert prune(make_family(*variants), fits, budget) == pruned


def test_the_most_promising_come_first(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """Quality, then speed; what surely misses the target comes last; beyond the limit it says so."""
    good, quick = make_variant("good", quality=0.99), make_variant("quick", quality=0.95)
    slow, brisk = make_variant("slow", quality=1.0), make_variant("brisk", quality=0.95)
    unknown = make_variant("unknown")
    fits = {
        good.digest: _fit(MB, 5),
        quick.digest: _fit(MB, 1),
        brisk.digest: _fit(MB, 2),
        slow.digest: _fit(MB, 100),
    }
    pruned = prune(make_family(slow, brisk, quick, good, unknown), fits, PLENTY, max_candidates=3)
    assert pruned.candidates == (good, quick, brisk)
    assert [(lost.variant.name, lost.reason) for lost in pruned.rejected] == [
        ("slow", "3 others promise more, by their quality and predicted speed"),
        ("unknown", "nothing is known about what it would cost here"),
    ]


def test_what_does_not_fit_is_told_with_the_numbers(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """The owner sees what it would take and what there is."""
    variant = make_variant()
    pruned = prune(make_family(variant), {variant.digest: _fit(400 * MB)}, 512 * MB)
    assert pruned.candidates == ()
    assert pruned.rejected[0].reason == "it may take 400 MB, and of 512 MB only 384 MB may be used"


def _duel(
    make_family: MakeFamily, *entries: Measured, target_ms: float = 20.0
) -> tuple[str | None, dict[str, str], str]:
    family = make_family(*(entry.variant for entry in entries), target_ms=target_ms)
    choice = choose(entries, family)
    name = choice.chosen.variant.name if choice.chosen else None
    return name, {lost.variant.name: lost.reason for lost in choice.lost}, choice.why


def test_clearly_better_quality_beats_speed(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """Ten times slower, but right where the other is wrong, and within the target."""
    good = Measured(make_variant("good", quality=0.99), 10_000, MB, golden_ok=True)
    quick = Measured(make_variant("quick", quality=0.90), 1_000, MB, golden_ok=True)
    name, lost, why = _duel(make_family, good, quick)
    assert name == "good"
    assert "90.0% of the samples against 99.0%" in lost["quick"]
    assert "right in 99.0% of 364 samples, 10 ms" in why


def test_a_difference_by_chance_leaves_the_word_to_speed(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """One scan more or less of 364 says nothing; a factor of 5 in time does."""
    good = Measured(make_variant("good", quality=0.9945), 10_000, MB, golden_ok=True)
    quick = Measured(make_variant("quick", quality=0.9918), 2_000, MB, golden_ok=True)
    name, lost, _ = _duel(make_family, good, quick)
    assert name == "quick"
    assert lost["good"] == "it is not better, and takes 10 ms against 2 ms"


def test_the_same_difference_on_many_samples_is_no_chance(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """What n cannot tell apart, a hundred times n can."""
    good = Measured(make_variant("good", quality=0.9945, n=36_400), 10_000, MB, golden_ok=True)
    quick = Measured(make_variant("quick", quality=0.9918, n=36_400), 2_000, MB, golden_ok=True)
    assert _duel(make_family, good, quick)[0] == "good"


def test_small_steps_down_do_not_add_up(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """Each is compared with the best, not with its neighbour, so that a chain of near-equals ends soon."""
    entries = [
        Measured(make_variant(f"v{step}", quality=0.99 - 0.01 * step), 10_000 - 1000 * step, MB, golden_ok=True)
        for step in range(6)
    ]
    assert equal_quality(entries[4].variant.quality, entries[5].variant.quality)
    # 97 % may in truth be 99 % on 364 samples; 96 % may not, though it may be 97 %.
    assert _duel(make_family, *entries)[0] == "v2"


def test_what_nobody_notices_leaves_the_word_to_reproducibility(
    make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """Some microseconds of a target of milliseconds weigh less than outputs that strangers can check."""
    quick = Measured(make_variant("quick"), 13, MB, golden_ok=True)
    sure = Measured(make_variant("sure", reproducible=True), 43, MB, golden_ok=True)
    name, lost, why = _duel(make_family, quick, sure)
    assert name == "sure"
    assert "bit for bit" in lost["quick"]
    assert "bit for bit" in why
    assert _duel(make_family, quick, sure, target_ms=0.1)[0] == "quick"


def test_among_equals_the_smaller_wins(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """And among equals in that too, always the same one."""
    large = Measured(make_variant("large", size_bytes=200), 100, MB, golden_ok=True)
    small = Measured(make_variant("small", size_bytes=100), 100, MB, golden_ok=True)
    name, lost, _ = _duel(make_family, large, small)
    assert name == "small"
    assert "200 bytes against 100" in lost["large"]
    twin = Measured(make_variant("twin", size_bytes=100), 100, MB, golden_ok=True)
    name, lost, _ = _duel(make_family, small, twin)
    assert {name, *lost} == {"small", "twin"}
    assert "digest" in next(iter(lost.values()))


def test_a_missed_target_excludes_unless_all_miss_it(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """Then the fastest serves as a last resort, and the words say so."""
    good = Measured(make_variant("good", quality=1.0), 50_000, MB, golden_ok=True)
    quick = Measured(make_variant("quick", quality=0.9), 10_000, MB, golden_ok=True)
    name, lost, _ = _duel(make_family, good, quick)
    assert (name, lost["good"]) == ("quick", "it takes 50 ms, and 20 ms are wanted")
    name, lost, why = _duel(make_family, good, quick, target_ms=1.0)
    assert name == "quick"
    assert "no variant keeps the 1 ms" in why


def test_a_broken_variant_loses_whatever_its_numbers(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """The reason of the canary run is passed on; with nothing left, nothing is chosen."""
    broken = Measured(make_variant("broken", quality=1.0), 0, 0, golden_ok=False, why="the worker was killed")
    works = Measured(make_variant("works", quality=0.5), 19_000, MB, golden_ok=True)
    name, lost, _ = _duel(make_family, broken, works)
    assert (name, lost["broken"]) == ("works", "it does not work here: the worker was killed")
    name, _, why = _duel(make_family, broken)
    assert name is None
    assert "no variant works here" in why


def test_without_measurements_nothing_is_chosen(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """An empty list is an answer too."""
    choice = choose([], make_family(make_variant()))
    assert (choice.chosen, choice.why) == (None, "no variant was measured")


def test_a_lone_candidate_says_that_it_was_alone(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """A win without an opponent is told as one."""
    _, _, why = _duel(make_family, Measured(make_variant(), 100, MB, golden_ok=True))
    assert "no other variant was measured" in why


def test_wrong_use_is_refused(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """Measured twice, of another family, or negative: the caller's defect, not a choice."""
    entry = Measured(make_variant(), 100, MB, golden_ok=True)
    with pytest.raises(ValueError, match="twice"):
        choose([entry, entry], make_family(entry.variant))
    with pytest.raises(ValueError, match="not of the family"):
        choose([entry], make_family(make_variant("other")))
    with pytest.raises(ValueError, match="negative"):
        Measured(make_variant(), -1, 0, golden_ok=True)
