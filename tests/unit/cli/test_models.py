"""`edge-agent models`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge_agent.agent.status import StatusFile
from edge_agent.cli import main
from edge_agent.cli.table import render
from edge_agent.models.catalogue import builtin


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command and return what it printed."""
    assert main(["models", *arguments]) == 0
    return capsys.readouterr().out


def test_all_families_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each family with its variants, and how to see more."""
    text = output(capsys)
    for family in builtin().families:
        (line,) = [line for line in text.splitlines() if line.startswith(f"{family.name} ")]
        assert family.title in line
        assert ", ".join(variant.name for variant in family.variants) in line
    assert "edge-agent models FAMILY" in text


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1, "x", -1], ids=["runs", "is gone", "no number", "negative"])
def test_the_list_says_what_is_here_and_served(
    pid: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Served is only what an agent that runs says of itself."""
    monkeypatch.setenv("EDGE_AGENT_AGENT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("EDGE_AGENT_MODELS_DIR", str(tmp_path / "models"))
    status = {"pid": pid, "families": [{"family": "digits", "chosen": "int8-static"}, {"family": "x", "chosen": None}]}
    StatusFile(tmp_path).write(status)
    document = json.loads(output(capsys, "list", "--json"))
    assert document["families"] == builtin().model_dump(mode="json")["families"]
    assert document["here"] == {"digits": [variant.name for variant in builtin().family("digits").variants]}
    assert document["served"] == ({"digits": "int8-static"} if pid == os.getpid() else {})
    (line,) = [line for line in output(capsys, "list").splitlines() if line.startswith("digits ")]
    assert "3 of 3" in line
    assert line.endswith("int8-static") == (pid == os.getpid())


def test_one_family_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """What goes in and comes out, and for each variant its measured quality and what speaks for it."""
    text = output(capsys, "digits")
    family = builtin().family("digits")
    for port in (*family.inputs, *family.outputs):
        assert f" {port.name} " in text
        assert port.datatype in text
    lines = text.splitlines()
    for variant in family.variants:
        (line,) = [line for line in lines if line.startswith(f"{variant.name} ")]
        assert f"{variant.quality.value:.2%}" in line
        assert variant.digest[:12] in line
        assert ("same bits" in line) == variant.reproducible
    assert family.licence in text
    assert "[N, 1, 8, 8]" in text


def test_json_is_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    """All of it, and of one family all of that."""
    document = json.loads(output(capsys, "--json"))
    assert document == builtin().model_dump(mode="json")
    assert json.loads(output(capsys, "digits", "--json")) == document["families"][0]


def test_unknown_family_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 65 and a hint."""
    assert main(["models", "digit"]) == 65
    assert "Did you mean 'digits'?" in capsys.readouterr().err


def test_tables_are_aligned() -> None:
    """Columns two spaces apart, numbers to the right, no spaces at the ends of lines."""
    assert render(("name", "n"), [("a", "1"), ("long", "10")], right=(1,)) == "name   n\na      1\nlong  10"
    assert render(("name", "last"), [("a", "")]) == "name  last\na"


def test_public_models_are_shown_when_they_are_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what their sources say, in their own metric; and what is not known is said."""
    assert "squeezenet-1.0" not in output(capsys)
    monkeypatch.setenv("EDGE_AGENT_CATALOGUE_PUBLIC_MODELS", "on")
    assert "squeezenet-1.0" in output(capsys)
    text = output(capsys, "shufflenet-v2")
    assert "top1-error (less is better) on ImageNet (ILSVRC 2012) validation; its source says so" in text
    assert "is refused, wherever it comes from" in text
    assert "Its inputs and outputs are not known" in output(capsys, "pp-resnet50")
    assert "30.64%" in next(line for line in output(capsys).splitlines() if line.startswith("shufflenet-v2"))


def test_a_catalogue_that_was_never_fetched_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On standard error, so that scripts still read the table; the built-in families stay."""
    monkeypatch.setenv("EDGE_AGENT_AGENT_STATE_DIR", str(tmp_path))
    arguments = ["models", "--catalogue", "http://127.0.0.1:9/", "--catalogue-root", str(tmp_path / "root.json")]
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert "note: the catalogue was not fetched yet" in captured.err
    assert [family["name"] for family in json.loads(captured.out)["families"]] == ["digits"]
