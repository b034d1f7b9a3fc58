from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.models.fit import Fit, Interval
from edge_agent.models.selection import Measured, Rules, choose
from edge_agent.models.trials import MAX_RUNS, Trials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_agent.models.catalogue import Family, Variant

    MakeVariant = Callable[..., Variant]
    MakeFamily = Callable[..., Family]

MB = 1_000_000
ROOM = 500 * MB
ANY_QUALITY = Rules(max_quality_drop=1.0)


def _fit(latency_ms: float, peak: float = 50 * MB, spread: float = 2.0) -> Fit:
    memory = Interval(peak / 1.2, peak, peak * 1.2)
    return Fit(memory, memory, memory, Interval(latency_ms / spread, latency_ms, latency_ms * spread), ())


def _truth(variant: Variant, latency_ms: float, peak: float = 50 * MB, *, golden_ok: bool = True) -> Measured:
    return Measured(variant, int(latency_ms * 1000), int(peak), golden_ok=golden_ok)


def _search(trials: Trials, truth: dict[str, Measured]) -> list[str]:
    """Measure until the search is over; return the names in the order in which they were measured."""
    names = []
    while (variant := trials.next()) is not None:
        trials.begin()
        trials.add(truth[variant.digest])
        names.append(variant.name)
    return names


_WORLDS = st.lists(
    st.fixed_dictionaries(
        {
            "quality": st.sampled_from([0.80, 0.79, 0.75, 0.70]),
            "latency": st.floats(0.5, 60.0),
            "peak": st.integers(10 * MB, 700 * MB),
            "off": st.floats(0.6, 1.6),
            "golden_ok": st.sampled_from([True, True, True, False]),
            "reproducible": st.booleans(),
        }
    ),
    min_size=1,
    max_size=9,
)


def _world(
    points: Sequence[dict[str, float]], make_variant: MakeVariant, make_family: MakeFamily, machine: float = 1.0
) -> tuple[Family, dict[str, Fit], dict[str, Measured]]:
    variants = [
        make_variant(f"v{number}", quality=point["quality"], n=50_000, reproducible=bool(point["reproducible"]))
        for number, point in enumerate(points)
    ]
    fits, truth = {}, {}
    for variant, point in zip(variants, points, strict=True):
        fits[variant.digest] = _fit(point["latency"] * point["off"] * machine, point["peak"])
        truth[variant.digest] = _truth(variant, point["latency"], point["peak"], golden_ok=bool(point["golden_ok"]))
    return make_family(*variants), fits, truth


@given(points=_WORLDS)
def test_a_search_without_a_limit_finds_what_measuring_everything_finds(
    points: list[dict[str, float]], make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """As long as the truth lies in the predicted intervals, what was not measured could not have won."""
    family, fits, truth = _world(points, make_variant, make_family)
    trials = Trials(family, fits, ROOM, rules=ANY_QUALITY, max_runs=100)
    _search(trials, truth)
    every = choose(list(truth.values()), family, room_bytes=ROOM, rules=ANY_QUALITY).chosen
    found = trials.choice().chosen
    if every is None:
        assert found is None
    else:
        assert found is not None
        # Near-equals may stand for each other; in what counts nothing is lost.
        assert found.p50_us <= max(every.p50_us * 1.05 + 200, 20_000) or found == every


@given(points=_WORLDS, machine=st.sampled_from([0.2, 1.0, 5.0]))
def test_few_runs_and_everything_is_accounted_for(
    points: list[dict[str, float]], machine: float, make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """Never more than four; the winner works, fits and is sound; every other variant has its reason."""
    family, fits, truth = _world(points, make_variant, make_family, machine)
    trials = Trials(family, fits, ROOM, rules=ANY_QUALITY)
    names = _search(trials, truth)
    assert len(names) == len(set(names)) == trials.runs <= MAX_RUNS
    choice = trials.choice()
    if choice.chosen is not None:
        assert choice.chosen.golden_ok
        assert choice.chosen.peak_bytes <= ROOM
        assert choice.chosen.variant.name in names
    told = [lost.variant.name for lost in choice.lost] + ([choice.chosen.variant.name] if choice.chosen else [])
    assert sorted(told) == sorted(variant.name for variant in family.variants)
    assert all(lost.reason for lost in choice.lost)


@given(points=_WORLDS, seed=st.integers(0, 1000))
def test_the_order_in_the_catalogue_does_not_matter(
    points: list[dict[str, float]], seed: int, make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """The same runs in the same order, and the same choice."""
    family, fits, truth = _world(points, make_variant, make_family)
    variants = list(family.variants)
    random.Random(seed).shuffle(variants)
    one, other = Trials(family, fits, ROOM), Trials(make_family(*variants), fits, ROOM)
    assert _search(one, truth) == _search(other, truth)
    assert one.choice() == other.choice()


def test_what_cannot_fit_is_never_measured(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """It is told with the numbers; what may fit is tried, the limit of the worker protects the machine."""
    large, doubtful = make_variant("large"), make_variant("doubtful")
    fits = {large.digest: _fit(1, 700 * MB), doubtful.digest: _fit(1, 550 * MB)}
    trials = Trials(make_family(large, doubtful), fits, ROOM)
    assert trials.next() == doubtful
    (lost,) = trials.lost
    assert lost.variant == large
    assert lost.reason == "it takes at least 583 MB, likely 700 MB, of 500 MB"


def test_what_is_predicted_far_from_the_best_is_not_measured(
    make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """A variant that could not win at its best costs no run, and is told what it was up against."""
    variants = [make_variant(f"v{number}") for number in range(4)]
    latencies = dict(zip((v.digest for v in variants), (1.0, 1.2, 30.0, 40.0), strict=True))
    fits = {digest: _fit(ms, spread=1.3) for digest, ms in latencies.items()}
    trials = Trials(make_family(*variants), fits, ROOM)
    names = _search(trials, {v.digest: _truth(v, latencies[v.digest]) for v in variants})
    assert sorted(names) == ["v0", "v1"]
    reasons = {lost.variant.name: lost.reason for lost in trials.choice().lost}
    assert (
        reasons["v3"] == "it was not measured; predicted to take 40 ms a sample: it takes 40 ms, and 20 ms are wanted"
    )


def test_one_measurement_corrects_the_predictions_of_the_others(
    make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """A machine that is five times slower than thought is so for all: the target decides otherwise than predicted."""
    good, quick = make_variant("good", quality=0.80, n=50_000), make_variant("quick", quality=0.795, n=50_000)
    slow = make_variant("slow", quality=0.787, n=50_000)
    fits = {good.digest: _fit(10), quick.digest: _fit(3), slow.digest: _fit(9)}
    trials = Trials(make_family(good, slow, quick), fits, ROOM)
    assert trials.next() == good
    trials.begin()
    trials.add(_truth(good, 50))
    assert trials.next() == quick
    trials.begin()
    trials.add(_truth(quick, 15))
    assert trials.next() is None
    chosen = trials.choice().chosen
    assert chosen is not None
    assert chosen.variant == quick


def test_a_second_one_is_measured_to_fall_back_on(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """Even if it cannot win; after a withdrawal it serves at once."""
    best, other = make_variant("best"), make_variant("other")
    trials = Trials(make_family(best, other), {best.digest: _fit(1), other.digest: _fit(15, spread=1.1)}, ROOM)
    assert _search(trials, {best.digest: _truth(best, 1), other.digest: _truth(other, 15)}) == ["best", "other"]
    trials.rule_out(best, "it can no longer be loaded")
    chosen = trials.choice().chosen
    assert chosen is not None
    assert chosen.variant == other
    assert trials.next() is None


def test_after_a_failure_the_next_best_gets_its_turn(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """One death says nothing yet; a second one, or a refusal, does."""
    first, second = make_variant("first"), make_variant("second")
    trials = Trials(make_family(first, second), {first.digest: _fit(1), second.digest: _fit(2)}, ROOM)
    assert trials.next() == first
    assert trials.failed(first, "worker-died", "It was killed.")
    assert trials.next() == first
    assert not trials.failed(first, "worker-died", "It was killed again.")
    assert trials.next() == second
    assert not trials.failed(second, "model-load", "No such operator.")
    assert trials.next() is None
    choice = trials.choice()
    assert choice.chosen is None
    assert [lost.reason for lost in choice.lost] == [
        "it did not run here: It was killed again.",
        "it did not run here: No such operator.",
    ]


def test_what_is_remembered_costs_no_run(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """A start with all of it known chooses at once."""
    variants = [make_variant(f"v{number}") for number in range(3)]
    fits = {variant.digest: _fit(2) for variant in variants}
    known = [_truth(variant, 1 + number) for number, variant in enumerate(variants)]
    trials = Trials(make_family(*variants), fits, ROOM, known=known, ruled_out={variants[0].digest: "it is not here"})
    assert trials.next() is None
    choice = trials.choice()
    assert choice.chosen == known[1]
    assert {lost.variant.name: lost.reason for lost in choice.lost}["v0"] == "it is not here"


def test_a_graph_that_nobody_counted_is_judged_by_its_file(make_variant: MakeVariant, make_family: MakeFamily) -> None:
    """Only a file that surely takes too much is left out; how fast it is, only a run can tell."""
    small = make_variant("small").model_copy(update={"costs": None, "size_bytes": 100 * MB})
    large = make_variant("large").model_copy(update={"costs": None, "size_bytes": 2000 * MB})
    trials = Trials(make_family(small, large), {}, ROOM)
    assert trials.next() == small
    assert [lost.variant for lost in trials.lost] == [large]


def test_a_variant_that_was_measured_anew_counts_by_its_last_measurement(
    make_variant: MakeVariant, make_family: MakeFamily
) -> None:
    """Throttled, it may lose to one that was slower before."""
    one, other = make_variant("one"), make_variant("other")
    trials = Trials(make_family(one, other), {one.digest: _fit(1), other.digest: _fit(2)}, ROOM)
    _search(trials, {one.digest: _truth(one, 1), other.digest: _truth(other, 2)})
    trials.add(_truth(one, 9))
    chosen = trials.choice().chosen
    assert chosen is not None
    assert chosen.variant == other
