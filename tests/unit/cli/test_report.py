"""`edge-agent report`: jobs, credit, energy and cost, as lines, CSV and JSON, and whose figures these are."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest

from edge_agent.agent.account.book import Book, Row, Usage
from edge_agent.cli import main

TODAY = time.strftime("%Y-%m-%d")


def account(folder: Path, **rows: Row) -> None:
    """Write an account of today."""
    book = Book(folder)
    book.add({(TODAY, family): row for family, row in rows.items()}, {TODAY: Usage(seconds=60.0)}, [])
    book.close()


def report(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """Return what is printed."""
    capsys.readouterr()
    assert main(["report", "--state", str(folder), *flags]) == 0
    return capsys.readouterr().out


def test_credit_stands_beside_jobs_energy_and_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By day and model, and together; and it is said whose figure it is, and where the other one is."""
    account(
        tmp_path,
        digits=Row(finished=3, accepted=2, credit=14, measured_joules=3.6e6, cost=0.25),
        minilm=Row(finished=1, accepted=1, credit=1_000),
    )
    lines = report(tmp_path, capsys).splitlines()
    assert [line.split()[-1] for line in lines[:4]] == ["Mmac", "14", "1000", "1014"]
    assert lines[1].split() == [TODAY, "digits", "3", "0.0", "s", "1.00000", "0.2500", "14"]
    text = "\n".join(lines)
    assert "this machine's own count" in text
    assert "edge-agent report --compare" in text
    rows = list(csv.DictReader(io.StringIO(report(tmp_path, capsys, "--csv"))))
    assert [(row["family"], row["accepted"], row["credit_mmac"]) for row in rows] == [
        ("digits", "2", "14"),
        ("minilm", "1", "1000"),
    ]
    document = json.loads(report(tmp_path, capsys, "--json"))
    assert [row["credit_mmac"] for row in document["rows"]] == [14, 1_000]
    assert "own count" in document["credit"]
    assert json.loads(report(tmp_path, capsys, "--json", "--month"))["rows"][0]["credit_mmac"] == 14


def test_what_was_accepted_before_credit_was_counted_is_unknown_and_not_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dash where there were results, a nought where there were none, and no word on credit then."""
    account(tmp_path, digits=Row(finished=3, accepted=3))
    assert report(tmp_path, capsys).splitlines()[1].split()[-1] == "–"
    other = tmp_path / "other"
    other.mkdir()
    account(other, digits=Row(failed=1))
    shown = report(other, capsys)
    assert shown.splitlines()[1].split()[-1] == "0"
    assert "credit" not in shown


def test_the_picture_has_credit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what draws it; elsewhere it is said what is missing."""
    pytest.importorskip("matplotlib")
    account(tmp_path, digits=Row(finished=3, accepted=3, credit=21))
    picture = tmp_path / "report.png"
    report(tmp_path, capsys, "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
