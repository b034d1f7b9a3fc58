"""The documentation fails the build when it drifts from the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from gateways import FakeService

from edge_agent._version import __version__
from edge_agent.cli import COMMANDS, build_parser
from edge_agent.coordinator.gateway.answers import STATUS_OF_CODE
from edge_agent.coordinator.gateway.app import make_app
from edge_agent.coordinator.gateway.rules import Need, need_of
from edge_agent.coordinator.jobs import diagram
from edge_agent.settings import KEYS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file of the repository."""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_state_diagram_is_made_from_the_table() -> None:
    """docs/http.md shows the transitions as they are."""
    assert diagram() in (ROOT / "docs" / "http.md").read_text()


def test_http_statuses_are_documented() -> None:
    """Every code with a status of its own stands in docs/http.md under that status."""
    text = (ROOT / "docs" / "http.md").read_text()
    for code, status in STATUS_OF_CODE.items():
        if code != "usage":  # a defect of the gateway's own, never sent
            assert re.search(rf"^\| {status} \|[^|]*`{code}`", text, re.MULTILINE), code


def _routes() -> list[tuple[str, str]]:
    app = make_app(FakeService(), max_request_bytes=1024, wait_seconds=1.0)
    return [(method, route.path) for route in app.routes if isinstance(route, APIRoute) for method in route.methods]


def test_calls_in_the_pages_exist() -> None:
    """Each `GET /path` of a page is a route, whatever its parameters are called."""
    routes = [(method, re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path))) for method, path in _routes()]
    for page in PAGES:
        for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^ `?…]*)", page.read_text()):
            assert any(method == known and pattern.fullmatch(path) for known, pattern in routes), (page, method, path)


def test_settings_in_the_pages_exist() -> None:
    """Each `section.name` of a page whose section is one of ours is a setting."""
    sections = {name.partition(".")[0] for name in KEYS}
    for page in PAGES:
        for name in re.findall(r"`([a-z_]+\.[a-z_]+)(?: = [^`]*)?`", page.read_text()):
            section, _, last = name.partition(".")
            if section in sections and last not in {"crt", "db", "json", "key", "md", "pub", "py", "sock", "toml"}:
                assert name in KEYS, (page, name)


def test_calls_without_a_key_are_those_of_the_table() -> None:
    """docs/http.md lists every call that the guard lets through, and no other; the dashboard is one line."""
    text = (ROOT / "docs" / "http.md").read_text()
    section = text.partition("### Without a key\n")[2].partition("\n## ")[0]
    written = set(re.findall(r"`((?:GET|POST|PUT|DELETE) [^`]*)`", section))
    assert "`/dashboard/…`" in section
    calls = _routes()
    there_are = {
        f"{method} {path}"
        for method, path in calls
        if method != "HEAD" and need_of(method, re.sub(r"\{[^}]*\}", "x", path)) is Need.PUBLIC
    }
    assert written == {call for call in there_are if " /dashboard" not in call}


def test_readme_names_only_commands_that_exist() -> None:
    """Each `edge-agent WORD` in the README is a command, and so is each one in the changelog's list."""
    words = set(re.findall(r"edge-agent ([a-z]+)\b", (ROOT / "README.md").read_text()))
    assert words - set(COMMANDS) == set()
    listed = re.search(r"Commands `([^`]+)`", (ROOT / "CHANGELOG.md").read_text())
    assert listed is not None
    assert set(listed[1].split()) == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_command_lines_parse(page: Path) -> None:
    """Each `edge-agent …` of a page's blocks is accepted, with every flag that it shows."""
    for line in re.findall(r"^    .*$", page.read_text().replace("\\\n", " "), re.MULTILINE):
        for words in re.findall(
            r"(?:^    |&& |\| )(?:sudo |[A-Z_]+=\S+ )*edge-agent ([a-z].+?)(?=$| && | \| | > )", line
        ):
            arguments = shlex.split(words, comments=True)
            parsed, unknown = build_parser((arguments[0],)).parse_known_args(arguments)
            assert (parsed.command, unknown) == (arguments[0], [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_flags_of_scripts_exist(page: Path) -> None:
    """Each flag that a page shows with a script of ours stands in that script, each target in the Makefile."""
    text = page.read_text().replace("\\\n", " ")
    scripts = r"((?:benchmarks|tests|packaging|tools)/[\w/]+\.(?:py|sh)|install\.sh)"
    for name, rest in re.findall(rf"{scripts}((?: [^\n`#|&]*)?)", text):
        source = (ROOT / name).read_text()
        for flag in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
            assert flag in source, (name, flag)
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", text, re.MULTILINE)) <= targets


def test_benchmarks_named_in_the_documentation_exist() -> None:
    """A figure's script is there, so that anyone can measure again."""
    for page in PAGES:
        for name in re.findall(r"benchmarks/(\w+\.py)", page.read_text()):
            assert (ROOT / "benchmarks" / name).exists(), (page, name)


def test_version_is_written_once() -> None:
    """The version is a plain release number; packaging reads it from the same file."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert 'path = "edge_agent/_version.py"' in (ROOT / "pyproject.toml").read_text()
