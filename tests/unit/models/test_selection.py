from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.models.quality import equal_quality
from edge_agent.models.selection import (
    IDLE_WORKER_BYTES,
    RESERVE_BYTES,
    Choice,
    Measured,
    Rules,
    Weights,
    choose,
    room_bytes,
    usable_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.models.catalogue import Family, Variant

    MakeVariant = Callable[..., Variant]
    MakeFamily = Callable[..., Family]

MB = 1_000_000
ANY_QUALITY = Rules(max_quality_drop=1.0)
"""For tests of what is between sound variants; the gate has its own."""


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
    return measured, choose(
        measured, family, room_bytes=None if budget is None else usable_bytes(budget), rules=ANY_QUALITY
    )


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
    assert (
        choose(measured, family, room_bytes=None if budget is None else usable_bytes(budget), rules=ANY_QUALITY)
        == choice
    )


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
    """10 % or 128 MB, whichever is more, but no more than a quarter; more memory never gives less room."""
    room = usable_bytes(budget)
    assert budget - room >= budget // 10
    assert budget - room >= min(RESERVE_BYTES, budget // 4)
    assert room >= 3 * budget // 4 - 1
    assert room <= usable_bytes(budget + more)


def test_the_reserve_by_example() -> None:
    """A quarter up to 512 MB, 128 MB from there on, and a tenth from 1.28 GB on: small boards are of use, too."""
    assert usable_bytes(100 * MB) == 75 * MB
    assert usable_bytes(256 * MB) == 192 * MB
    assert usable_bytes(512 * MB) == 384 * MB
    assert usable_bytes(4000 * MB) == 3600 * MB
    assert usable_bytes(0) == 0


@given(budget=st.integers(0, 10**12), more=st.integers(0, 10**11), share=st.floats(0.01, 1.0))
def test_the_room_keeps_the_reserve_the_share_and_a_worker(budget: int, more: int, share: float) -> None:
    """What models may take is never above the owner's share, nor does it leave less than the reserve and a worker."""
    room = room_bytes(budget, share)
    assert room <= budget * share
    assert room == 0 or room + IDLE_WORKER_BYTES <= usable_bytes(budget)
    assert room <= room_bytes(budget + more, share)


def _duel(
    make_family: MakeFamily, *entries: Measured, target_ms: float = 20.0, rules: Rules = ANY_QUALITY
) -> tuple[str | None, dict[str, str], str]:
    family = make_family(*(entry.variant for entry in entries), target_ms=target_ms)
    choice = choose(entries, family, rules=rules)
    name = choice.chosen.variant.name if choice.chosen else None
    return name, {lost.variant.name: lost.reason for lost in choice.lost}, choice.why


def test_clearly_better_quality_beats_speed(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """Ten times slower, but right where the other is wrong, and within the target."""
    good = Measured(make_variant("good", quality=0.99), 10_000, MB, golden_ok=True)
    quick = Measured(make_variant("quick", quality=0.90), 1_000, MB, golden_ok=True)
    name, lost, why = _duel(make_family, good, quick)
    assert name == "good"
    assert lost["quick"] == "its top1 of 90.00% is worse than top1 of 99.00% by more than chance explains"
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


def test_a_patient_target_does_not_make_a_slow_variant_as_good_as_a_fast_one(
    make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """A hundredth of a second is little to one user, but four times the work to the machine."""
    quick = Measured(make_variant("quick", size_bytes=200), 3_000, MB, golden_ok=True)
    small = Measured(make_variant("small", size_bytes=100), 12_000, MB, golden_ok=True)
    name, lost, _ = _duel(make_family, quick, small, target_ms=1000.0)
    assert name == "quick"
    assert lost["small"] == "it is not better, and takes 12 ms against 3 ms"
    close = Measured(make_variant("close", size_bytes=100), 3_400, MB, golden_ok=True)
    assert _duel(make_family, quick, close, target_ms=1000.0)[0] == "close"


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


def test_a_variant_whose_reported_quality_is_broken_is_never_chosen(
    make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """As the public 8-bit PP-ResNet50, 82.28 % to 0.22 %: not even alone, or where all others are too slow."""
    good = Measured(make_variant("good", quality=0.8228, n=50_000), 900_000, MB, golden_ok=True)
    broken = Measured(make_variant("broken", quality=0.0022, n=50_000), 100, MB, golden_ok=True)
    name, lost, _ = _duel(make_family, good, broken, rules=Rules())
    assert name == "good"
    assert "agent.max_quality_drop" in lost["broken"]
    family = make_family(good.variant, broken.variant)
    assert choose([broken], family).chosen is None


def test_the_owner_decides_how_large_a_drop_is_served(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """What the gate allows is slower or faster, better or worse, and no longer broken."""
    good = Measured(make_variant("good", quality=0.80, n=50_000), 50_000, MB, golden_ok=True)
    worse = Measured(make_variant("worse", quality=0.76, n=50_000), 1_000, MB, golden_ok=True)
    assert _duel(make_family, good, worse, rules=Rules())[0] == "good"
    assert _duel(make_family, good, worse, rules=Rules(max_quality_drop=0.06))[0] == "worse"


def test_what_nobody_measured_goes_behind_what_is_known(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """An unknown quality is no perfect one; of unknown ones the original goes first, within the target."""
    known = Measured(make_variant("known", quality=0.7), 5_000, MB, golden_ok=True)
    unknown = Measured(make_variant("unknown").model_copy(update={"quality": None}), 1_000, MB, golden_ok=True)
    name, lost, _ = _duel(make_family, known, unknown)
    assert name == "known"
    assert "nobody has measured its quality" in lost["unknown"]
    int8 = make_variant("int8", format="qdq").model_copy(update={"quality": None})
    quick = Measured(int8, 500, MB, golden_ok=True)
    name, lost, why = _duel(make_family, unknown, quick)
    assert name == "unknown"
    assert "nobody has measured what its form costs" in lost["int8"]
    assert "its quality is not known" in why
    assert _duel(make_family, unknown, quick, target_ms=0.8)[0] == "int8"


def test_the_owners_weights_decide_between_equally_good_ones(
    make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """Speed unless they say otherwise; memory and energy where they do."""
    quick = Measured(make_variant("quick"), 5_000, 400 * MB, golden_ok=True, steady_bytes=300 * MB, cpu_us=20_000)
    small = Measured(make_variant("small"), 9_000, 100 * MB, golden_ok=True, steady_bytes=60 * MB, cpu_us=15_000)
    thrifty = Measured(make_variant("thrifty"), 12_000, 200 * MB, golden_ok=True, steady_bytes=150 * MB, cpu_us=6_000)
    entries = (quick, small, thrifty)
    assert _duel(make_family, *entries)[0] == "quick"
    name, lost, _ = _duel(make_family, *entries, rules=Rules(Weights(quality=1, speed=1, memory=3)))
    assert name == "small"
    assert "by the owner's weights" in lost["quick"]
    assert _duel(make_family, *entries, rules=Rules(Weights(quality=1, speed=0, energy=1)))[0] == "thrifty"


def test_without_anybody_in_time_the_weights_weigh_quality_too(
    make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """An owner who cares for nothing but quality gets it, late as it is."""
    good = Measured(make_variant("good", quality=0.99, n=50_000), 900_000, MB, golden_ok=True)
    quick = Measured(make_variant("quick", quality=0.97, n=50_000), 400_000, MB, golden_ok=True)
    assert _duel(make_family, good, quick)[0] == "quick"
    assert _duel(make_family, good, quick, rules=Rules(Weights(quality=1, speed=0), 1.0))[0] == "good"


def test_outputs_that_were_checked_go_before_unchecked_ones(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """Of equals; and the winner says that nothing was there to check it against."""
    sure = Measured(make_variant("sure", size_bytes=9), 100, MB, golden_ok=True)
    loose = Measured(make_variant("loose", size_bytes=1), 100, MB, golden_ok=True, checked=False)
    name, lost, _ = _duel(make_family, sure, loose)
    assert name == "sure"
    assert "nothing to check its outputs against" in lost["loose"]
    assert "unchecked" in _duel(make_family, loose)[2]


@pytest.mark.parametrize("weights", [(0, 0, 0, 0), (-1, 1, 0, 0), (float("inf"), 1, 0, 0)])
def test_weights_that_weigh_nothing_are_refused(weights: tuple[float, ...]) -> None:
    """A defect of the caller, or a setting that was not checked."""
    with pytest.raises(ValueError, match="weights"):
        Weights(*weights)
