"""Each promise can fail, and it is seen: every mutation of the production code is caught by the simulator."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mutants
import pytest
from mutations import MUTATIONS, Mutation
from simulator.report import play
from simulator.script import Script
from simulator.wire import token_wire

ROOT = Path(__file__).resolve().parents[2]
PROMISES = range(1, 7)


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    """Run the simulator on every mutation, from a process that has imported nothing of ours; by the mutation's name."""
    command = [sys.executable, str(Path(mutants.__file__))]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1500).stdout.splitlines()
    return {result["name"]: result for result in map(json.loads, lines)}


@pytest.mark.timeout(1600)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_rule_breaks_its_promise_where_the_unbroken_one_keeps_it(
    found: dict[str, dict[str, Any]], mutation: Mutation
) -> None:
    """The mutated code fails a script, by the promise that the table names; the code as it is passes that script."""
    result = found[mutation.name]
    assert any(told.startswith(f"promise {mutation.promise} ") for told in result["violations"]), result
    with token_wire() as wire:
        assert play(Script.from_json(result["script"]), wire)[1] == []


def test_each_promise_has_a_mutation_that_breaks_it() -> None:
    """None is kept only because nothing could break it."""
    assert {mutation.promise for mutation in MUTATIONS} == set(PROMISES)
    assert len(MUTATIONS) >= 12


def test_a_mutation_that_misses_says_so() -> None:
    """When the code changes, its mutation has to follow: it does not pass by changing nothing."""
    mutation = MUTATIONS[0]
    for source in ("", 2 * mutation.old):
        with pytest.raises(ValueError, match=mutation.name):
            mutation.apply(source)
    assert mutation.new in mutation.apply(mutation.old)


def test_the_table_of_mutations_is_in_the_documentation() -> None:
    """docs/reliability.md names each one, its promise, what it breaks, and the test that kills it."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| (\d) \| `([a-z-]+)` \| (.+?) \| `(.+?)` \|$", text, re.MULTILINE)
    wanted = [
        (str(m.promise), m.name, m.breaks, f"test_mutations.py::test_a_broken_rule…[{m.name}]") for m in MUTATIONS
    ]
    assert rows == wanted
