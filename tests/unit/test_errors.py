"""The error tree and docs/errors.md say the same, and every code that is raised is one that its class declares."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from edge_agent import cli, errors
from edge_agent.errors import EdgeAgentError, RefusedError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text()
SOURCES = sorted((ROOT / "edge_agent").rglob("*.py"))


def tree(base: type[EdgeAgentError] = EdgeAgentError) -> list[type[EdgeAgentError]]:
    """Return `base` and all classes below it that errors.py has."""
    below = [found for child in base.__subclasses__() if child.__module__ == errors.__name__ for found in tree(child)]
    return [base, *below]


TREE = tree()
BY_NAME = {cls.__name__: cls for cls in TREE}


def rows() -> list[tuple[str, int, str, str]]:
    """Return code, status, meaning and what to do of every row of the tables of codes."""
    found = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    return [(code, int(status), meaning, hint) for code, status, meaning, hint in found]


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_every_class_is_documented(cls: type[EdgeAgentError]) -> None:
    """Each of its codes has one row with its exit status, and its own code also has its hint."""
    for code in (cls.code, *cls.codes):
        matching = [row for row in rows() if row[0] == code]
        assert len(matching) == 1, code
        assert matching[0][1] == cls.exit_status
        if code == cls.code:
            assert matching[0][3] == cls.default_hint


def test_no_row_is_left_over() -> None:
    """The page lists no code that the tree does not have."""
    declared = {code for cls in TREE for code in (cls.code, *cls.codes)}
    assert {row[0] for row in rows()} == declared


def test_codes_are_unique() -> None:
    """A code belongs to one class, so that it means one thing."""
    declared = [code for cls in TREE for code in (cls.code, *cls.codes)]
    assert len(declared) == len(set(declared))


def test_exit_statuses_are_documented() -> None:
    """The table of exit statuses has each one that a command can end with, and no other."""
    listed = {int(status) for status in re.findall(r"^\| (\d+) \| ", PAGE, re.MULTILINE)}
    ours = {cls.exit_status for cls in TREE}
    assert listed == ours | {0, cli.INTERRUPTED, cli.BROKEN_PIPE, cli.DEFECT}


def test_all_errors_are_in_one_module() -> None:
    """No other module grows the tree, where neither this test nor the page would see it."""
    for path in SOURCES:
        if path == ROOT / "edge_agent" / "errors.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert bases & BY_NAME.keys() == set(), f"{path}: {node.name}"


def test_every_code_that_is_raised_is_declared() -> None:
    """`SomeError(..., code="x")` with an x that the class does not have would be a ValueError on a rare path."""
    seen = 0
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in BY_NAME:
                continue
            for keyword in node.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    cls = BY_NAME[node.func.id]
                    seen += 1
                    assert keyword.value.value in (cls.code, *cls.codes), f"{path}:{node.lineno}"
    assert seen > 20


def test_an_error_carries_message_code_and_hint() -> None:
    """The class's own code and hint hold unless more precise ones are given."""
    plain = RefusedError("It was refused.")
    assert (str(plain), plain.error_code, plain.hint) == ("It was refused.", "refused", RefusedError.default_hint)
    precise = RefusedError("It was refused.", code="stale-epoch", hint="Nothing.")
    assert (precise.error_code, precise.hint) == ("stale-epoch", "Nothing.")


def test_an_undeclared_code_is_a_defect() -> None:
    """Nobody invents a code on the way."""
    with pytest.raises(ValueError, match="does not declare the code 'made-up'"):
        RefusedError("It was refused.", code="made-up")
