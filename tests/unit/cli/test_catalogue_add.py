"""`edge-agent catalogue add MODEL.onnx`, as an operator types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from float_models import conv_net, pictures, saved

from edge_agent.cli import catalogue_add, main
from edge_agent.models.catalogue import Family
from edge_agent.models.publishing.repository import Repository

ONLY = "fp32,fp16,int8-reproducible"


@pytest.fixture
def repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A repository, a model and samples in one folder."""
    folder = tmp_path / "repository"
    assert main(["catalogue", "init", str(folder)]) == 0
    capsys.readouterr()
    saved(conv_net(), tmp_path)
    np.savez(tmp_path / "samples.npz", image=np.concatenate([feed["image"] for feed in pictures(30).feeds]))
    return folder


def _add(repository: Path, *arguments: str) -> int:
    return main([
        "catalogue", "add", str(repository.parent / "model.onnx"), "--repository", str(repository),
        "--reference-seconds", "0", *arguments,
    ])  # fmt: skip


def _draft(repository: Path) -> Family:
    return Repository(repository).draft.family("spots")


def test_a_model_becomes_a_family_that_can_be_published(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table, the files in the repository, and metadata that `publish` signs."""
    calibrate = ("--calibrate", str(repository.parent / "samples.npz"))
    said = ("--title", "Bright spots", "--licence", "MIT", "--source", "a test")
    assert _add(repository, "--family", "spots", *calibrate, "--only", ONLY, *said) == 0
    text = capsys.readouterr().out
    assert "others can check it" in text
    assert "int8-reproducible" in text
    assert "bit-identical" in text
    assert "spots is in the draft with 3 variants." in text
    family = _draft(repository)
    assert [variant.name for variant in family.variants] == ONLY.split(",")
    assert (family.title, family.licence, family.variants[0].quality.dataset) == ("Bright spots", "MIT", "samples.npz")  # type: ignore[union-attr]
    assert main(["catalogue", "publish", "--repository", str(repository)]) == 0
    for variant in family.variants:
        assert (repository / "public" / variant.urls[0]).stat().st_size == variant.size_bytes


def test_json_has_every_form_with_its_figures(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts: verdicts, reasons, sizes, quality and drop."""
    calibrate = ("--calibrate", str(repository.parent / "samples.npz"))
    assert _add(repository, "--family", "spots", *calibrate, "--only", ONLY, "--gate", "0", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    verdicts = {form["name"]: form["verdict"] for form in found["forms"]}
    assert verdicts == {"fp32": "published", "fp16": "refused", "int8-reproducible": "refused"}
    refused = found["forms"][2]
    assert refused["drop"] > 0
    assert "the gate allows 0.00%" in refused["why"]
    assert [variant["name"] for variant in found["family"]["variants"]] == ["fp32"]


def test_adding_again_keeps_what_was_said_before(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new file of the same family does not lose its title, licence and source."""
    assert _add(repository, "--family", "spots", "--title", "Bright spots", "--licence", "MIT") == 0
    assert "nothing was measured" in capsys.readouterr().out
    assert _draft(repository).variants[0].quality is None
    calibrate = ("--calibrate", str(repository.parent / "samples.npz"))
    assert _add(repository, "--family", "spots", *calibrate, "--only", "fp32") == 0
    family = _draft(repository)
    assert (family.title, family.licence) == ("Bright spots", "MIT")
    assert family.variants[0].quality is not None


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 64, "--family NAME"),
        (("--family", "../x"), 64, "cannot be the name of a family"),
        (("--family", "digits"), 64, "comes with the program"),
        (("--family", "spots", "--gate", "-1"), 64, "makes no sense"),
        (("--family", "spots", "--only", "int3"), 64, "no form 'int3'"),
        (("--family", "spots", "--labels", "labels.txt"), 64, "--calibrate"),
        (("--family", "spots", "--calibrate", "nowhere.npz"), 65, "nowhere.npz"),
    ],
)
def test_what_cannot_be_done_is_said(
    repository: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, message: str
) -> None:
    """With its exit status and a hint, and the draft stays as it was."""
    before = (repository / "catalogue.json").read_bytes()
    assert _add(repository, *arguments) == status
    assert message in capsys.readouterr().err
    assert (repository / "catalogue.json").read_bytes() == before


def test_the_extra_that_is_missing_is_named(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent's machine has no onnx; the hint says what to install."""
    monkeypatch.setattr(catalogue_add, "find_spec", lambda name: None if name == "onnx" else name)
    assert _add(repository, "--family", "spots") == 64
    assert "edge-agent[publish]" in capsys.readouterr().err
