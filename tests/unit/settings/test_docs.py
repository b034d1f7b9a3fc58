"""docs/settings.md and the model say the same; names agree with the wire."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from edge_agent.settings import KEYS, Key, Settings, load
from edge_agent.wire.topics import NETWORK_PATTERN

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "settings.md").read_text()
ROW = re.compile(r"^\| `([a-z]+\.[a-z_]+)` \| (.+?) \| (.+?) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)
SCHEMA = Settings.model_json_schema()["$defs"]


def row(key: Key) -> tuple[str, str, str, str]:
    """Return default, what is allowed, description and flag of the setting's one row."""
    found = [match.groups()[1:] for match in ROW.finditer(PAGE) if match[1] == key.dotted]
    assert len(found) == 1, key.dotted
    default, allowed, description, flag = found[0]
    return default, allowed, description, flag.strip()


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.dotted)
def test_setting_is_documented(key: Key) -> None:
    """With its default, its description and its flag, word by word."""
    default, _, description, flag = row(key)
    plain = key.default_text
    assert default == (plain if plain.startswith("`") or plain == "not set" else f"`{plain}`")
    assert description == key.field.description
    assert flag == (f"`{key.flag.name}`" if key.flag else "")


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.dotted)
def test_limits_are_documented(key: Key) -> None:
    """Every choice, pattern, lowest and highest value that the model enforces stands in the row."""
    section = Settings.model_fields[key.section].annotation
    assert section is not None
    found = SCHEMA[section.__name__]["properties"][key.name]
    found = next((part for part in found.get("anyOf", []) if part.get("type") != "null"), found)
    allowed = row(key)[1]
    limits = [found[name] for name in ("minimum", "exclusiveMinimum", "maximum") if name in found]
    assert [float(number) for number in re.findall(r"\d+(?:\.\d+)?", allowed)] == limits or not limits
    for choice in found.get("enum", []):
        assert f"`{choice}`" in allowed
    if "pattern" in found:
        assert found["pattern"] in allowed


def test_no_row_is_left_over() -> None:
    """The page lists no setting that does not exist, and has a heading for each section."""
    assert {match[1] for match in ROW.finditer(PAGE)} == set(KEYS)
    assert set(re.findall(r"^## \[(\w+)\]$", PAGE, re.MULTILINE)) == set(Settings.model_fields)


def test_the_example_is_valid(tmp_path: Path) -> None:
    """What people will copy loads."""
    example = re.search(r"```toml\n(.+?)```", PAGE, re.DOTALL)
    assert example is not None
    file = tmp_path / "config.toml"
    file.write_text(example[1])
    effective = load(file, {"HOME": "/home/ada"}, {})
    assert len([name for name in effective.sources if effective.sources[name] == f"file {file}"]) == sum(
        len(section) for section in tomllib.loads(example[1]).values()
    )


def test_numbers_carry_their_unit() -> None:
    """A number's name ends in what it counts."""
    units = (
        "_seconds",
        "_per_second",
        "_hours",
        "_bytes",
        "_messages",
        "_jobs",
        "_agents",
        "_connections",
        "_attempts",
        "_results",
        "_in_flight",
        "_share",
        "_celsius",
        "_per_minute",
        "_per_day",
        "_watts",
        "_kwh",
        "threads",
    )
    for key in KEYS.values():
        if key.is_a(int) or key.is_a(float):
            assert key.name.endswith(units), key.dotted


def test_variables_are_unambiguous() -> None:
    """Two settings never share a variable."""
    variables = [key.variable for key in KEYS.values()]
    assert len(variables) == len(set(variables))


def test_network_names_are_those_of_the_topics() -> None:
    """The settings' own pattern, which must not import the wire, is the wire's."""
    section = SCHEMA["Network"]["properties"]["name"]
    assert section["pattern"] == NETWORK_PATTERN
