"""The public models that are described with the program: true, complete, and fetched by nobody."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import needs
import pytest

from edge_agent.models.catalogue import PUBLIC_FILE, public_models

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = public_models().families
FREE = {"Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0"}
ADDRESS = re.compile(
    r"https://(?:media\.githubusercontent\.com/media|raw\.githubusercontent\.com)/[\w.-]+/[\w.-]+/[0-9a-f]{40}/\S+\.onnx"
)


def test_there_are_many_and_most_can_be_served() -> None:
    """At least forty of which enough is known to take jobs; of the others it is not made up."""
    assert sum(family.servable for family in FAMILIES) >= 40
    for family in FAMILIES:
        assert bool(family.inputs) == bool(family.outputs)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_says_where_it_is_from(family: object) -> None:
    """A licence that lets everybody use it, a source, and for each file an address of one commit."""
    assert family.licence in FREE  # type: ignore[attr-defined]
    for variant in family.variants:  # type: ignore[attr-defined]
        assert variant.urls
        assert all(ADDRESS.fullmatch(url) for url in variant.urls)
        assert (variant.costs, variant.golden) == (None, None)  # nobody of ours has run it
        assert variant.quality is None or (variant.quality.reported and variant.quality.n is None)


def test_error_rates_stay_error_rates() -> None:
    """What the source calls an error is one here, and less of it is better."""
    by_name = {family.name: family for family in FAMILIES}
    shuffle = by_name["shufflenet-v2"]
    assert shuffle.metric == "top1-error"
    values = {v.name: v.quality.value for v in shuffle.variants if v.quality is not None}
    assert values == {"fp32": 0.3365, "fp32-opset10": 0.3064, "int8": 0.3385, "qdq": 0.3388}
    assert {v.quality.value for v in by_name["mnist"].variants if v.quality is not None} == {0.011}
    assert not any(v.quality.higher_is_better for v in shuffle.variants if v.quality is not None)


def test_broken_files_keep_their_true_figures() -> None:
    """So that nobody who compares them ever picks one."""
    by_name = {family.name: family for family in FAMILIES}
    for name, broken, good in (("pp-resnet50", 0.0022, 0.8228), ("pp-humanseg", 0.3642, 0.9164)):
        quality = {v.name: v.quality.value for v in by_name[name].variants if v.quality is not None}
        assert (quality["int8"], quality["fp32"]) == (broken, good)


def test_inputs_that_have_nothing_to_do_with_each_other_are_not_tied() -> None:
    """A shape's unnamed extents get symbols of their own: samples are not states."""
    silero = next(family for family in FAMILIES if family.name == "silero-vad")
    assert {port.name: port.shape for port in silero.inputs} == {
        "input": ("N", "in0_1"),
        "state": (2, "in1_1", 128),
        "sr": (),
    }
    assert silero.extents == {"in0_1": 512}


def test_the_file_is_what_the_facts_give() -> None:
    """Made again from the collected facts, it is the same, byte by byte."""
    needs.module("onnx")
    reference = needs.reference_data() / "models" / "onnx_models.jsonl"
    facts = {row["sha256"]: row for row in map(json.loads, reference.read_text().splitlines())}
    for family in FAMILIES:
        for variant in family.variants:
            assert facts[variant.digest]["size_bytes"] == variant.size_bytes
    command = [sys.executable, str(ROOT / "tools" / "describe_public_models.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stderr


def test_it_is_one_line_a_family() -> None:
    """A change can be looked through."""
    assert PUBLIC_FILE.read_text().count("\n") == len(FAMILIES) + 2
