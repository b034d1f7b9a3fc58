"""`edge-agent models pick, fit, canary`: with real workers on this machine."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import onnx_models
import pytest

from edge_agent.cli import main
from edge_agent.inference import calibration, containment, installed
from edge_agent.inference.containment import Containment
from edge_agent.models.catalogue import BUILTIN_DIR, Catalogue, builtin
from edge_agent.models.experience_file import FILE_NAME

FAMILY = builtin().family("digits")
FIELDS = ("load_peak_bytes", "steady_bytes", "run_peak_bytes", "latency_ms")


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return what the first command that wants to know how fast this machine is keeps of it."""
    folder = tmp_path_factory.mktemp("rates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_AGENT_STATE_DIR", str(folder / "state"))
        patch.setenv("EDGE_AGENT_MODELS_DIR", str(folder / "models"))
        assert main(["models", "fit", str(BUILTIN_DIR / FAMILY.variants[0].file)]) == 0
    return (folder / "state" / calibration.FILE_NAME).read_bytes()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, rates: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is measured, and fetched models, in a folder of the test; how fast the machine is, is known."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / calibration.FILE_NAME).write_bytes(rates)
    monkeypatch.setenv("EDGE_AGENT_AGENT_STATE_DIR", str(folder))
    monkeypatch.setenv("EDGE_AGENT_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("EDGE_AGENT_AGENT_THREADS", "1")
    return folder


def _file(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return str(path)


def test_pick_measures_chooses_and_remembers(capsys: pytest.CaptureFixture[str], state: Path) -> None:
    """The second time nothing is measured; `--again` measures all the same."""
    shutil.rmtree(state)
    assert main(["models", "pick", "digits", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (family,) = document["families"]
    assert document["room_bytes"] < document["budget_bytes"]
    assert family["chosen"] in {variant.name for variant in FAMILY.variants}
    assert 2 <= family["runs"] <= 4
    for variant in family["variants"]:
        assert (variant["variant"] == family["chosen"]) == (variant["lost"] is None)
        for field in FIELDS:
            interval = variant["predicted"][field]
            assert 0 <= interval["low"] <= interval["expected"] <= interval["high"]
    measured = [variant["measured"] for variant in family["variants"] if variant["measured"]]
    assert len(measured) == family["runs"]
    assert all(found["ok"] and found["checked"] and found["p50_ms"] > 0 for found in measured)
    assert (state / FILE_NAME).exists()
    assert state.stat().st_mode & 0o077 == 0

    assert main(["models", "pick", "digits", "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)["families"]
    assert (again["runs"], again["chosen"]) == (0, family["chosen"])
    assert main(["models", "pick", "digits", "--again", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["families"][0]["runs"] >= 2


def test_pick_explains_itself_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    """A table, the winner with its reason, every other one with its own, and how predictions came about."""
    assert main(["models", "pick", "--explain"]) == 0
    out = capsys.readouterr().out
    assert "digits: Handwritten digits" in out
    assert "chosen   " in out
    assert out.count("not      ") == len(FAMILY.variants) - 1
    for variant in FAMILY.variants:
        assert f"{variant.name} was predicted so:" in out
    assert "canary runs in" in out


def test_pick_says_when_nothing_can_be_served(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 75; the reasons have the numbers."""
    monkeypatch.setenv("EDGE_AGENT_AGENT_MEMORY_SHARE", "0.000001")
    assert main(["models", "pick", "digits"]) == 75
    out = capsys.readouterr().out
    assert "none     " in out
    assert "0 MB" in out


def test_models_of_strangers_are_refused_where_a_worker_cannot_be_contained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of them is run, the reason stands beside each variant, and the owner can decide otherwise."""
    lacking = Containment(missing=(("files", "this kernel has no Landlock"),))
    monkeypatch.setattr(containment, "offered", lambda: lacking)
    assert main(["models", "pick", "digits", "--json"]) == 0  # they came with the program
    capsys.readouterr()
    monkeypatch.setattr(installed, "builtin", lambda: Catalogue(version=1, families=()))
    assert main(["models", "pick", "digits", "--again", "--explain"]) == 75
    out = capsys.readouterr().out
    assert out.count("files (this kernel has no Landlock); `agent.uncontained_models` can allow it") == 3
    assert "0 canary runs" in out
    monkeypatch.setenv("EDGE_AGENT_AGENT_UNCONTAINED_MODELS", "allow")
    assert main(["models", "pick", "digits"]) == 0


def test_an_unknown_family_cannot_be_picked(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured."""
    assert main(["models", "pick", "digit"]) == 65
    assert "Did you mean 'digits'?" in capsys.readouterr().err


def test_fit_and_canary_have_the_same_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Predicted and measured, each as low, expected and high, in bytes above an idle worker."""
    path = str(BUILTIN_DIR / FAMILY.variants[0].file)
    documents = []
    for verb in (["fit"], ["canary", "--repeat", "2"]):
        assert main(["models", *verb, path, "--symbol", "N=4", "--json"]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    for document in documents:
        assert document["extents"] == {"N": 4}
        assert document["fits"] is True
        for field in FIELDS:
            assert set(document[field]) == {"low", "expected", "high"}
            assert 0 <= document[field]["low"] <= document[field]["expected"] <= document[field]["high"]
    predicted, measured = documents
    assert measured["finite"] is True
    assert measured["runs"] > 2
    # The order of magnitude; benchmarks/fit.py says how good predictions are.
    ratio = predicted["load_peak_bytes"]["expected"] / measured["load_peak_bytes"]["expected"]
    assert 0.3 < ratio < 3


@pytest.mark.parametrize("verb", ["fit", "canary"])
def test_people_get_a_table(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And whether it fits."""
    assert main(["models", verb, str(BUILTIN_DIR / FAMILY.variants[0].file)]) == 0
    out = capsys.readouterr().out
    for title in ("above an idle worker", "load peak", "held", "run peak", "one sample", "It fits"):
        assert title in out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["fit", "nowhere.onnx"], 65, "cannot be read"),
        (["canary", "nowhere.onnx"], 65, "cannot be read"),
        (["fit", "."], 65, "cannot be read"),
        (["canary", "."], 65, "it is no regular file"),
        (["canary", "nowhere.onnx", "--repeat", "0"], 64, "--repeat 0"),
        (["fit", "x.onnx", "--symbol", "N"], 64, "not a name and a whole number"),
        (["fit", "x.onnx", "--symbol", "N=-1"], 64, "not a name and a whole number"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With a status and a hint."""
    assert main(["models", *arguments]) == status
    err = capsys.readouterr().err
    assert words in err
    assert "hint: " in err


@pytest.mark.parametrize(
    "arguments",
    [["pick", "unheard-of"], ["fit", "nowhere.onnx"], ["canary", "nowhere.onnx"]],
    ids=lambda given: given[0],
)
def test_wrong_use_is_told_before_anything_is_measured(
    arguments: tuple[str, str], state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a machine of which nothing is known yet, too: nobody waits to read that a name is wrong."""
    (state / calibration.FILE_NAME).unlink()
    assert main(["models", *arguments]) != 0
    assert "measuring" not in capsys.readouterr().err
    assert not (state / calibration.FILE_NAME).exists()


@pytest.mark.parametrize("verb", ["fit", "canary"])
def test_what_is_no_model_is_refused(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its name says."""
    assert main(["models", verb, _file(tmp_path, b"garbage")]) == 70
    assert "ONNX" in capsys.readouterr().err


def test_a_model_that_refuses_made_up_inputs_says_how_to_give_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the right extent it runs."""
    path = _file(tmp_path, onnx_models.failing())
    assert main(["models", "canary", path, "--repeat", "1"]) == 70
    assert "--symbol NAME=N" in capsys.readouterr().err
    assert main(["models", "canary", path, "--repeat", "1", "--symbol", "n=3"]) == 0


def test_a_model_that_takes_more_than_there_is_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 75; nothing was killed for it."""
    monkeypatch.setenv("EDGE_AGENT_AGENT_MEMORY_SHARE", "0.001")
    path = _file(tmp_path, onnx_models.identity("UINT8"))
    assert main(["models", "canary", path, "--repeat", "1", "--symbol", "n=200000000"]) == 75
    assert "may take" in capsys.readouterr().err


def test_fit_without_its_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent has no onnx, and need not have it."""
    monkeypatch.delitem(sys.modules, "edge_agent.models.costs", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["models", "fit", str(BUILTIN_DIR / FAMILY.variants[0].file)]) == 64
    err = capsys.readouterr().err
    assert "edge-agent[publish]" in err
    assert "models canary" in err
