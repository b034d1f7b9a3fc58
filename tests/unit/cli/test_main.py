"""The command line as a whole: help, errors, exit statuses, and how little it loads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from edge_agent import cli
from edge_agent.cli import COMMANDS, main
from edge_agent.cli.parsing import Parser, add_settings, effective
from edge_agent.errors import EdgeAgentError, TransportError

if TYPE_CHECKING:
    import argparse

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "cli.md").read_text()
# These are helpers of the commands, not commands.
HELPERS = {
    "__init__",
    "__main__",
    "catalogue_actions",
    "catalogue_add",
    "child",
    "coordinator_broker",
    "coordinator_identity",
    "coordinator_keys",
    "models_files",
    "models_onnx",
    "models_pick",
    "models_refresh",
    "models_served",
    "models_show",
    "owner",
    "parsing",
    "parts",
    "passphrases",
    "reaching",
    "registrar_revoke",
    "report_compare",
    "report_plot",
    "watching",
    "table",
}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "edge_agent.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environ)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command says what it does, and shows a whole command line to try."""
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert re.search(rf"^examples?:\n  (?:[A-Z_]+=\S+ )?edge-agent {command}\b", text, re.MULTILINE)
    description = text.split("\n\n")[1]
    assert len(description) > 40
    assert re.match(r"[A-Z]", description)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_help_parse(command: str) -> None:
    """What the help shows is accepted by the command's own parser."""
    text = cli.build_parser((command,)).format_help() + _help_of(command)
    examples = re.findall(rf"^  (?:[A-Z_]+=\S+ )*edge-agent ({command}\b.*)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        arguments = example.split("#")[0].replace("'", "").split()
        parsed, unknown = cli.build_parser((command,)).parse_known_args(arguments)
        assert parsed.command == command
        assert unknown == []


def _help_of(command: str) -> str:
    parser = Parser(prog="edge-agent")
    subparsers = parser.add_subparsers(parser_class=Parser)
    import_module(f"edge_agent.cli.{command}").add_parser(subparsers)
    return str(subparsers.choices[command].format_help())


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_documented(command: str) -> None:
    """docs/cli.md has it in its table and in a section with an example."""
    assert f"| [`{command}`](#{command}) | " in PAGE
    section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert re.search(rf"^    (?:[A-Z_]+=\S+ )?edge-agent {command}\b", section[1], re.MULTILINE)


def test_examples_in_the_documentation_parse() -> None:
    """Each command line in docs/cli.md is accepted."""
    examples = re.findall(r"^    (?:[A-Z_]+=\S+ )?edge-agent (.+)$", PAGE, re.MULTILINE)
    assert len(examples) >= len(COMMANDS)
    for example in examples:
        parsed, unknown = cli.build_parser((example.split()[0],)).parse_known_args(example.split())
        assert (parsed.command, unknown) == (example.split()[0], [])


def test_documentation_has_no_other_commands() -> None:
    """No section is left over from a command that is gone."""
    assert set(re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)) == set(COMMANDS)


def test_every_module_is_a_command() -> None:
    """A new module in the package is either registered or a helper named here."""
    modules = {path.stem for path in (ROOT / "edge_agent" / "cli").glob("*.py")}
    assert modules == set(COMMANDS) | HELPERS


def test_top_level_help_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command with a summary, and how to go on."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s+\w", text, re.MULTILINE), command
    assert "edge-agent COMMAND --help" in text


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error: a script that forgot the command gets no output to parse."""
    assert main([]) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: edge-agent" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["confg"], "There is no command 'confg'.", "Did you mean config?"),
        (["qqqq"], "There is no command 'qqqq'.", "Run `edge-agent --help` to see all commands."),
        (["config", "--nope"], "edge-agent config does not take '--nope'.", "edge-agent config --help"),
        (["keygen"], "The following arguments are required: FILE.", "edge-agent keygen --help"),
        (["config", "--conf", "x"], "edge-agent config does not take '--conf'.", "edge-agent config --help"),
        (["--nope"], "edge-agent does not take '--nope'.", "edge-agent --help"),
    ],
)
def test_misuse_is_explained(arguments: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line what, one line what to do, status 64, nothing on standard output."""
    assert main(arguments) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.splitlines()
    assert first == f"edge-agent: error: {message}"
    assert second.startswith("hint: ")
    assert hint in second


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `edge-agent version` raise."""

    def run(_: argparse.Namespace) -> NoReturn:
        raise error

    monkeypatch.setattr("edge_agent.cli.version.run", run)


def test_our_errors_become_two_lines_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback for what is no defect."""
    failing(monkeypatch, TransportError("Nobody answers.", hint="Start the broker."))
    assert main(["version"]) == 69
    assert capsys.readouterr().err == "edge-agent: error: Nobody answers.\nhint: Start the broker.\n"


def test_a_defect_is_shown_in_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Traceback, then a plain request to report it."""
    failing(monkeypatch, ZeroDivisionError("impossible"))
    assert main(["version"]) == cli.DEFECT == EdgeAgentError.exit_status
    text = capsys.readouterr().err
    assert "ZeroDivisionError: impossible" in text
    assert text.endswith("please report it with the lines above.\n")


def test_ctrl_c_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 130 as shells have it, and nothing printed."""
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["version"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`edge-agent config | head -1` ends quietly, whenever the pipe breaks."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "edge_agent.cli", "version"]
    with os.fdopen(write_end, "w") as broken:
        done = subprocess.run(command, stdout=broken, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == cli.BROKEN_PIPE
    assert done.stderr == ""


def test_version_loads_next_to_nothing() -> None:
    """No pydantic, no cryptography, no settings: it answers at once, on a small board too."""
    code = (
        "import sys, json; from edge_agent.cli import main; main(['version']);"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr))
    assert "edge_agent.cli.version" in loaded
    heavy = {"pydantic", "cryptography", "onnxruntime", "numpy", "psutil", "paho", "asyncio", "edge_agent.settings"}
    assert loaded & heavy == set()
    assert {name for name in loaded if name.startswith("edge_agent.cli.")} == {
        "edge_agent.cli.parsing",
        "edge_agent.cli.version",
    }


def test_settings_flags_are_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags that share a name set all their settings; those not given leave the environment alone."""
    monkeypatch.setenv("EDGE_AGENT_LOG_LEVEL", "debug")
    parser = Parser(prog="x")
    add_settings(parser, "agent.state_dir", "coordinator.state_dir", "log.level")
    found = effective(parser.parse_args(["--state", "/s"]))
    assert (str(found.settings.agent.state_dir), str(found.settings.coordinator.state_dir)) == ("/s", "/s")
    assert found.sources["coordinator.state_dir"] == "flag --state"
    assert found.sources["log.level"] == "environment EDGE_AGENT_LOG_LEVEL"


def test_a_setting_without_a_flag_is_a_defect() -> None:
    """A command cannot offer what has no flag."""
    with pytest.raises(ValueError, match=r"broker\.keepalive_seconds has no flag"):
        add_settings(Parser(prog="x"), "broker.keepalive_seconds")


def test_runs_as_a_module() -> None:
    """`python -m edge_agent.cli` is the same program."""
    done = run("version")
    assert done.returncode == 0
    assert done.stdout.startswith("edge-agent ")
