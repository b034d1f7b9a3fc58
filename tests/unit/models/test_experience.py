from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import StateError
from edge_agent.models import experience_file
from edge_agent.models.experience import (
    MAX_AGE_MS,
    MAX_DOCUMENT_BYTES,
    MAX_ENTRIES,
    RETRY_FIRST_MS,
    RETRY_MAX_MS,
    Experience,
    Place,
    parse,
)
from edge_agent.models.selection import Measured

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge_agent.models.catalogue import Variant

    MakeVariant = Callable[..., Variant]

HERE = Place("onnxruntime 1.32.0", "6.12.1", "performance, 4 threads", 500_000_000)
NOW = 1_800_000_000_000
NOTHING: dict[str, int] = {}


def _entry(variant: Variant) -> Measured:
    return Measured(
        variant,
        p50_us=1200,
        peak_bytes=80_000_000,
        golden_ok=True,
        p95_us=1500,
        load_peak_bytes=80_000_000,
        steady_bytes=40_000_000,
        run_peak_bytes=60_000_000,
        cpu_us=2300,
        threads=2,
    )


def _measured(variant: Variant) -> Experience:
    experience = Experience()
    experience.succeeded(_entry(variant), HERE, NOW, NOTHING)
    return experience


def test_a_measurement_is_remembered_as_it_was(make_variant: MakeVariant) -> None:
    """Through the document and back, number by number."""
    variant = make_variant()
    experience = parse(_measured(variant).document().encode())
    assert experience.measured(variant, HERE, NOW, NOTHING) == _entry(variant)


@pytest.mark.parametrize("changed", ["runtime", "kernel", "conditions"])
def test_a_measurement_does_not_hold_elsewhere(changed: str, make_variant: MakeVariant) -> None:
    """Another onnxruntime, kernel, governor or throttling makes other numbers."""
    variant = make_variant()
    there = dataclasses.replace(HERE, **{changed: "another"})
    assert _measured(variant).measured(variant, there, NOW, NOTHING) is None


def test_a_measurement_does_not_hold_for_a_worker_with_other_threads(make_variant: MakeVariant) -> None:
    """Another number of them, or of lanes, may be best there; however long the conditions are."""
    variant = make_variant()
    for conditions in ("performance, 4 threads", "x" * 300):
        two, four = (Place.of("onnxruntime 1.32.0", "6.12.1", conditions, 500_000_000, threads) for threads in (2, 4))
        experience = Experience()
        experience.succeeded(_entry(variant), two, NOW, NOTHING)
        experience = parse(experience.document().encode())
        assert experience.measured(variant, two, NOW, NOTHING) == _entry(variant)
        assert experience.measured(variant, four, NOW, NOTHING) is None


def test_a_measurement_holds_with_more_or_less_memory(make_variant: MakeVariant) -> None:
    """What it takes is known; whether that fits is the choice's to say."""
    variant = make_variant()
    there = dataclasses.replace(HERE, room_bytes=50_000_000)
    assert _measured(variant).measured(variant, there, NOW, NOTHING) == _entry(variant)


@pytest.mark.parametrize("later", [MAX_AGE_MS, -MAX_AGE_MS])
def test_an_old_measurement_is_taken_again(later: int, make_variant: MakeVariant) -> None:
    """Also one from a future that the clock came back from."""
    variant = make_variant()
    assert _measured(variant).measured(variant, HERE, NOW + later, NOTHING) is None


def test_with_other_answers_a_measurement_says_nothing(make_variant: MakeVariant) -> None:
    """The catalogue has a stricter golden file now: the outputs have to be checked against that."""
    variant = make_variant()
    assert variant.golden is not None
    stricter = variant.model_copy(update={"golden": variant.golden.model_copy(update={"atol": 0.0001})})
    experience = _measured(variant)
    assert experience.measured(stricter, HERE, NOW, NOTHING) is None
    experience.failed(variant, "wrong", HERE, NOW, NOTHING)
    assert experience.refusal(variant, HERE, NOW, NOTHING)
    assert experience.refusal(stricter, HERE, NOW, NOTHING) == ""


def test_other_extents_are_other_inputs_where_there_are_no_answers(make_variant: MakeVariant) -> None:
    """Made-up inputs have the family's usual shapes."""
    variant = make_variant().model_copy(update={"golden": None})
    experience = Experience()
    experience.succeeded(_entry(variant), HERE, NOW, {"N": 128})
    assert experience.measured(variant, HERE, NOW, {"N": 128}) is not None
    assert experience.measured(variant, HERE, NOW, {"N": 512}) is None


def test_a_failure_is_left_alone_for_longer_and_longer(make_variant: MakeVariant) -> None:
    """An hour, two, four, up to a week; then it gets another chance each time."""
    variant, experience, now = make_variant(), Experience(), NOW
    waits = []
    for _ in range(12):
        experience.failed(variant, "it hangs", HERE, now, NOTHING)
        low, high = 0, 2 * RETRY_MAX_MS
        while low < high:  # the first moment at which it is not refused
            middle = (low + high) // 2
            low, high = (
                (middle + 1, high) if experience.refusal(variant, HERE, now + middle, NOTHING) else (low, middle)
            )
        waits.append(low)
        now += low
    assert waits[:3] == [RETRY_FIRST_MS, 2 * RETRY_FIRST_MS, 4 * RETRY_FIRST_MS]
    assert waits[-1] == RETRY_MAX_MS
    assert waits == sorted(waits)


@pytest.mark.parametrize(
    "there",
    [
        dataclasses.replace(HERE, runtime="onnxruntime 1.33.0"),
        dataclasses.replace(HERE, kernel="6.13.0"),
        dataclasses.replace(HERE, room_bytes=2 * HERE.room_bytes),
    ],
    ids=["runtime", "kernel", "memory class"],
)
def test_a_failure_does_not_hold_elsewhere(there: Place, make_variant: MakeVariant) -> None:
    """With another onnxruntime, kernel or class of memory it is tried at once."""
    variant, experience = make_variant(), Experience()
    experience.failed(variant, "out of memory", HERE, NOW, NOTHING)
    assert "out of memory" in experience.refusal(variant, HERE, NOW, NOTHING)
    assert experience.refusal(variant, there, NOW, NOTHING) == ""


def test_a_failure_holds_under_other_conditions(make_variant: MakeVariant) -> None:
    """Another governor does not mend a model."""
    variant, experience = make_variant(), Experience()
    experience.failed(variant, "No such operator.", HERE, NOW, NOTHING)
    assert experience.refusal(variant, dataclasses.replace(HERE, conditions="powersave"), NOW, NOTHING)


def test_what_worked_last_and_what_failed_last_replace_each_other(make_variant: MakeVariant) -> None:
    """There is one truth for each variant in each place."""
    variant = make_variant()
    experience = _measured(variant)
    experience.failed(variant, "it can no longer be loaded", HERE, NOW, NOTHING)
    assert experience.measured(variant, HERE, NOW, NOTHING) is None
    experience.succeeded(_entry(variant), HERE, NOW, NOTHING)
    assert experience.refusal(variant, HERE, NOW, NOTHING) == ""


def test_a_clock_that_went_back_keeps_nothing_out_for_ever(make_variant: MakeVariant) -> None:
    """A board without a battery starts in 1970 until it hears the time."""
    variant, experience = make_variant(), Experience()
    experience.failed(variant, "it hangs", HERE, NOW, NOTHING)
    assert experience.refusal(variant, HERE, 0, NOTHING) == ""


def test_the_oldest_is_forgotten(make_variant: MakeVariant) -> None:
    """The document has a bound, whatever the catalogue has."""
    experience = Experience()
    variants = [make_variant(f"v{number}") for number in range(MAX_ENTRIES + 5)]
    for variant in variants:
        experience.succeeded(_entry(variant), HERE, NOW, NOTHING)
    assert len(experience) == MAX_ENTRIES
    assert experience.measured(variants[0], HERE, NOW, NOTHING) is None
    assert experience.measured(variants[-1], HERE, NOW, NOTHING) is not None
    assert len(experience.document()) < MAX_DOCUMENT_BYTES


def test_a_variant_can_be_forgotten(make_variant: MakeVariant) -> None:
    """Both what worked and what failed."""
    variant = make_variant()
    experience = _measured(variant)
    experience.failed(variant, "no", dataclasses.replace(HERE, kernel="older"), NOW, NOTHING)
    experience.forget(variant)
    assert len(experience) == 0


@given(data=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_garbage_is_refused(data: bytes) -> None:
    """A card that lost power, or somebody's editor."""
    with pytest.raises(StateError):
        parse(data)


def test_a_document_with_a_wrong_number_is_refused(make_variant: MakeVariant) -> None:
    """The message names the place; nothing of it is believed."""
    document = json.loads(_measured(make_variant()).document())
    document["entries"][0]["p50_us"] = -1
    with pytest.raises(StateError, match="p50_us"):
        parse(json.dumps(document).encode())
    with pytest.raises(StateError, match="bytes"):
        parse(b" " * (MAX_DOCUMENT_BYTES + 1))


def test_a_damaged_file_is_set_aside(tmp_path: Path, make_variant: MakeVariant) -> None:
    """Everything is measured anew, and what was there can be looked at."""
    assert experience_file.read(tmp_path)[1] == ""
    experience_file.write(tmp_path, _measured(make_variant()).document())
    found, problem = experience_file.read(tmp_path)
    assert (len(found), problem) == (1, "")
    (tmp_path / experience_file.FILE_NAME).write_text('{"version": 1, "entr')
    found, problem = experience_file.read(tmp_path)
    assert len(found) == 0
    assert "is damaged" in problem
    assert (tmp_path / "experience.damaged").read_text() == '{"version": 1, "entr'
    assert experience_file.read(tmp_path)[1] == ""


def test_a_file_that_cannot_be_read_costs_nothing_but_time(tmp_path: Path) -> None:
    """A folder in its place, for example."""
    (tmp_path / experience_file.FILE_NAME).mkdir()
    found, problem = experience_file.read(tmp_path)
    assert len(found) == 0
    assert "cannot be read" in problem
