"""A short run of every parser that meets foreign bytes, and everything that a long one ever found."""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from pathlib import Path

import cbor2
import pytest
from mutation import CORPUS, HANG_SECONDS, Tally, attempt, fuzz, mutated, samples_of
from structure import reshaped
from target import Target
from targets import BY_NAME, TARGETS

RUNS = 400
NAMES = [target.name for target in TARGETS]


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_finds_nothing(name: str) -> None:
    """No exception that is not declared, no hang, no memory; the same inputs each time."""
    tally = fuzz(BY_NAME[name], RUNS, seed=20)
    assert tally.found == []
    assert tally.runs == RUNS


@pytest.mark.parametrize("name", NAMES)
def test_the_samples_reach_the_parser(name: str) -> None:
    """A good sample is accepted by every parser that may accept: what is refused at once fuzzes nothing."""
    target = BY_NAME[name]
    tally = Tally()
    for data in target.samples():
        attempt(target, data, tally)
    assert tally.found == []
    assert name in {"coordinator", "agent"} or tally.refused < tally.runs


def test_the_judge_sees_what_must_not_happen() -> None:
    """A crash and a hang; a declared error is none."""

    def slow(_: bytes) -> None:
        end = time.thread_time() + 1.5 * HANG_SECONDS
        while time.thread_time() < end:
            pass

    for parse, errors, kinds in (
        (lambda data: data[10**6], (), ["crash"]),
        (lambda data: data[10**6], (IndexError,), []),
        (slow, (), ["hang"]),
    ):
        tally = Tally()
        attempt(Target("x", parse, errors, lambda: [b""], "tests"), b"", tally)
        assert [found.kind for found in tally.found] == kinds


def test_the_judge_sees_memory_also_after_an_earlier_peak() -> None:
    """One run that takes 100 MiB and gives them back is found, though this process has had far more before."""
    runs = itertools.count()

    def hoards(_: bytes) -> None:
        if next(runs) == 50:
            assert len(bytearray(b"x") * (100 << 20))

    def frugal(_: bytes) -> None:
        pass

    earlier = bytearray(b"x") * (300 << 20)
    assert len(earlier) > 0
    del earlier
    for parse, kinds in ((hoards, {"memory"}), (frugal, set())):
        tally = fuzz(Target("x", parse, (), lambda: [b"x"], "tests"), 300, seed=1)
        assert {found.kind for found in tally.found} - {"hang"} == kinds


def test_mutations_are_repeatable_and_differ() -> None:
    """By their seed."""
    samples = samples_of(BY_NAME["cbor"])
    first, second, other = (
        [mutated(random.Random(seed), samples) for _ in range(1)] + [mutated(rng, samples) for _ in range(50)]
        for seed, rng in ((1, random.Random(1)), (1, random.Random(1)), (2, random.Random(2)))
    )
    assert first == second != other
    assert len(set(first)) > 25


def test_the_table_of_parsers_is_complete() -> None:
    """docs/security.md names each of them, and nothing else; the corpus belongs to parsers that exist."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text()
    section = re.search(r"^## Parsers that are fuzzed\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert re.findall(r"^\| `([\w-]+)` \|", section[1], re.MULTILINE) == NAMES
    assert {folder.name for folder in CORPUS.iterdir()} <= set(NAMES)


def test_mutations_of_values_are_well_formed_and_differ() -> None:
    """CBOR and JSON whose values were changed: most of them are in that form still, and none is the sample."""
    for name, read in (("statement", cbor2.loads), ("options", json.loads)):
        samples = list(BY_NAME[name].samples())
        rng = random.Random(4)
        made = [reshaped(rng, rng.choice(samples), BY_NAME[name].shape, 0) for _ in range(200)]
        written = [data for data in made if data is not None]
        assert len(written) > 150
        assert len(set(written) - set(samples)) > 100
        for data in written:
            read(data)
