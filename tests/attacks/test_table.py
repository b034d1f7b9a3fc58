"""The table of attacks in docs/security.md and the tests stay in step."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
ROW = re.compile(
    r"^\| (?P<attack>[^|]+) \| (?P<outcome>[^|]+) \| `(?P<file>[\w/]+\.py)::(?P<test>\w+)` \|$", re.MULTILINE
)
LEAST = 40


def _section() -> str:
    found = re.search(r"^## Attacks that are tried\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@cache
def _tests(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_line_names_a_test_that_exists() -> None:
    """No attack is claimed to be tried that is not."""
    missing = [
        f"{row['file']}::{row['test']}" for row in ROW.finditer(_section()) if row["test"] not in _tests(row["file"])
    ]
    assert missing == []


def test_every_line_of_the_tables_is_read_here() -> None:
    """A line in another form would be passed over."""
    lines = [line for line in _section().splitlines() if line.startswith("|") and "---" not in line]
    heads = [line for line in lines if line.startswith("| attack |")]
    assert len(lines) - len(heads) == len(list(ROW.finditer(_section())))


def test_there_are_enough_and_no_test_stands_twice() -> None:
    """Each line is an attack of its own."""
    named = [(row["file"], row["test"]) for row in ROW.finditer(_section())]
    assert len(named) == len(set(named)) >= LEAST


def test_every_file_of_attacks_is_in_the_table() -> None:
    """Whoever writes a file of attacks writes at least a line about it."""
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).name}
    named = {row["file"].removeprefix("attacks/") for row in ROW.finditer(_section())}
    assert files <= named
