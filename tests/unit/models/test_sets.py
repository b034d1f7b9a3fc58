from __future__ import annotations

import random
from itertools import combinations
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.models.selection import Measured
from edge_agent.models.sets import SWITCH_FACTOR, Wish, fits, plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.models.catalogue import Variant

    MakeVariant = Callable[..., Variant]

MB = 1_000_000


def _entry(make_variant: MakeVariant, name: str, steady: int, peak: int) -> Measured:
    return Measured(make_variant(name), 1000, peak * MB, golden_ok=True, steady_bytes=steady * MB)


_MODELS = st.lists(
    st.fixed_dictionaries(
        {
            "worth": st.integers(1, 20),
            "options": st.lists(st.tuples(st.integers(1, 300), st.integers(0, 200)), min_size=1, max_size=3),
        }
    ),
    min_size=1,
    max_size=7,
)


def _wishes(models: list[dict[str, object]], make_variant: MakeVariant) -> list[Wish]:
    return [
        Wish(
            f"f{number}",
            tuple(
                _entry(make_variant, f"f{number}-{index}", steady, steady + transient)
                for index, (steady, transient) in enumerate(model["options"])  # type: ignore[call-overload]
            ),
            float(model["worth"]),  # type: ignore[arg-type]
        )
        for number, model in enumerate(models)
    ]


@given(models=_MODELS, room=st.integers(0, 800))
def test_a_set_fits_and_everybody_is_accounted_for(
    models: list[dict[str, object]], room: int, make_variant: MakeVariant
) -> None:
    """What is held together and the largest moment stay within the room; who is left out is told why."""
    wishes = _wishes(models, make_variant)
    served = plan(wishes, room * MB)
    assert fits(list(served.chosen.values()), room * MB)
    assert served.chosen.keys() | served.left_out.keys() == {wish.family for wish in wishes}
    assert not served.chosen.keys() & served.left_out.keys()
    assert all(served.left_out.values())
    by_name = {wish.family: wish for wish in wishes}
    assert all(entry in by_name[family].options for family, entry in served.chosen.items())


@given(models=_MODELS, room=st.integers(0, 800), seed=st.integers(0, 100))
def test_the_order_of_the_families_does_not_matter(
    models: list[dict[str, object]], room: int, seed: int, make_variant: MakeVariant
) -> None:
    """The same families in the same variants."""
    wishes = _wishes(models, make_variant)
    shuffled = list(wishes)
    random.Random(seed).shuffle(shuffled)
    assert plan(wishes, room * MB).chosen == plan(shuffled, room * MB).chosen


@given(models=_MODELS, room=st.integers(0, 800))
def test_no_set_of_first_choices_that_fits_is_worth_more(
    models: list[dict[str, object]], room: int, make_variant: MakeVariant
) -> None:
    """All combinations of few families are tried."""
    wishes = _wishes(models, make_variant)
    best = plan(wishes, room * MB).worth
    for size in range(1, len(wishes) + 1):
        for members in combinations(wishes, size):
            if fits([wish.options[0] for wish in members], room * MB):
                assert sum(wish.worth for wish in members) <= best


@given(models=_MODELS, room=st.integers(0, 800), more=st.integers(0, 300))
def test_more_memory_is_never_worth_less(
    models: list[dict[str, object]], room: int, more: int, make_variant: MakeVariant
) -> None:
    """What fits in little memory fits in more."""
    wishes = [Wish(wish.family, wish.options[:1], wish.worth) for wish in _wishes(models, make_variant)]
    assert plan(wishes, room * MB).worth <= plan(wishes, (room + more) * MB).worth


def test_everything_is_served_in_its_best_variant_if_it_fits(make_variant: MakeVariant) -> None:
    """With one transient for all of them: one model runs at a time."""
    wishes = [Wish(f"f{n}", (_entry(make_variant, f"f{n}", 100, 180),), 1.0) for n in range(3)]
    assert len(plan(wishes, 380 * MB).chosen) == 3
    assert len(plan(wishes, 379 * MB).chosen) == 2


def test_a_smaller_variant_lets_another_family_in(make_variant: MakeVariant) -> None:
    """Of the family that is worth less."""
    dear = Wish("dear", (_entry(make_variant, "d1", 300, 300), _entry(make_variant, "d2", 100, 100)), 5.0)
    cheap = Wish("cheap", (_entry(make_variant, "c1", 300, 300), _entry(make_variant, "c2", 80, 80)), 1.0)
    served = plan([dear, cheap], 400 * MB)
    assert served.chosen["dear"].variant.name == "d1"
    assert served.chosen["cheap"].variant.name == "c2"


def test_who_is_served_stays_unless_another_is_clearly_worth_more(make_variant: MakeVariant) -> None:
    """Loading has its price, and demand goes up and down."""
    for ratio, winner in ((SWITCH_FACTOR - 0.01, "old"), (SWITCH_FACTOR + 0.01, "new")):
        old = Wish("old", (_entry(make_variant, "o", 200, 200),), 1.0)
        new = Wish("new", (_entry(make_variant, "n", 200, 200),), ratio)
        assert list(plan([old, new], 300 * MB, frozenset({"old"})).chosen) == [winner]


def test_who_fits_no_longer_goes(make_variant: MakeVariant) -> None:
    """Whatever it is worth; the reason has the numbers."""
    large = Wish("large", (_entry(make_variant, "l", 200, 300),), 9.0)
    small = Wish("small", (_entry(make_variant, "s", 50, 60),), 1.0)
    served = plan([large, small], 250 * MB, frozenset({"large"}))
    assert list(served.chosen) == ["small"]
    assert served.left_out["large"] == "it takes 300 MB at the least, and 250 MB may be used"


def test_many_families_are_taken_by_worth_for_memory(make_variant: MakeVariant) -> None:
    """Forty are planned at once; what fits is filled up."""
    wishes = [Wish(f"f{n:02}", (_entry(make_variant, f"f{n}", 10 + n, 15 + n),), 1.0 + n % 3) for n in range(40)]
    served = plan(wishes, 400 * MB)
    assert fits(list(served.chosen.values()), 400 * MB)
    assert len(served.chosen) > 15
    # No family that was left out would have fitted beside them.
    for wish in wishes:
        if wish.family not in served.chosen:
            assert not fits([*served.chosen.values(), wish.options[0]], 400 * MB)
