"""`edge-agent models pull, import, verify, gc, pin, unpin`, against a real server on loopback."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import mirrors
import pytest
from mirrors import mirror

from edge_agent.cli import main
from edge_agent.models import catalogue as catalogue_module
from edge_agent.models import known as known_module
from edge_agent.models.catalogue import BUILTIN_DIR, Catalogue, builtin
from edge_agent.models.content import Content

VARIANT = builtin().family("digits").variants[0]
DATA = (BUILTIN_DIR / VARIANT.file).read_bytes()


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Content:
    """Return an empty store that the commands use."""
    monkeypatch.setenv("EDGE_AGENT_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("EDGE_AGENT_MODELS_KEEP_FREE_BYTES", "0")
    return Content(tmp_path / "models")


def offer(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    """Have the catalogue say that there is one family, whose only variant is to be had at these addresses."""
    variant = VARIANT.model_copy(update={"file": "toy.onnx", "urls": urls, "golden": None})
    family = builtin().family("digits").model_copy(update={"name": "toy", "variants": (variant,)})
    found = Catalogue(version=1, families=(family,))
    for module in (catalogue_module, known_module):
        monkeypatch.setattr(module, "builtin", lambda: found)


def test_pull_fetches_and_says_so(
    content: Content, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is there under its digest; the second time it is there already."""
    with mirror(DATA) as server:
        offer(monkeypatch, server.url)
        assert main(["models", "pull", "toy"]) == 0
        assert "toy/fp32: fetched, 23.5 kB" in capsys.readouterr().out
        assert main(["models", "pull", "toy/fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["was_here"] is True
    assert content.path(VARIANT.digest).read_bytes() == DATA
    assert len(server.requests) == 1


def test_pull_of_other_bytes_is_refused(
    content: Content, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 76, the reason and a hint, and an empty store."""
    with mirror(DATA, mirrors.lie) as server:
        offer(monkeypatch, server.url)
        assert main(["models", "pull", "toy"]) == 76
    said = capsys.readouterr().err
    assert "other bytes than the catalogue's" in said
    assert "hint: " in said
    assert content.entries() == content.partials() == []


def test_pull_leaves_out_what_cannot_be_served_here(
    content: Content, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variant that needs more memory than there is is not fetched, unless all are wanted."""
    with mirror(DATA) as server:
        costs = VARIANT.costs
        assert costs is not None
        huge = costs.model_copy(update={"initializer_bytes": 10**13})
        variant = VARIANT.model_copy(update={"file": "toy.onnx", "urls": (server.url,), "golden": None, "costs": huge})
        family = builtin().family("digits").model_copy(update={"name": "toy", "variants": (variant,)})
        for module in (catalogue_module, known_module):
            monkeypatch.setattr(module, "builtin", lambda: Catalogue(version=1, families=(family,)))
        assert main(["models", "pull", "toy"]) == 0
        assert "toy/fp32: not fetched" in capsys.readouterr().err
        assert content.entries() == []
        assert main(["models", "pull", "toy", "--all"]) == 0
    assert [entry.digest for entry in content.entries()] == [VARIANT.digest]


def test_pull_names_what_there_is(content: Content, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown family or variant is an error with the right names in its hint."""
    assert main(["models", "pull", "digit"]) == 65
    assert "Did you mean 'digits'?" in capsys.readouterr().err
    assert main(["models", "pull", "digits/int4"]) == 64
    assert "fp32, int8-static, int8-dynamic" in capsys.readouterr().err
    assert not content.root.exists()


def test_import_takes_what_the_catalogue_knows(
    content: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file with a digest of the catalogue is taken, another one is refused and not kept."""
    assert main(["models", "import", str(BUILTIN_DIR / VARIANT.file)]) == 0
    assert "taken as digits/fp32" in capsys.readouterr().out
    other = tmp_path / "other.onnx"
    other.write_bytes(DATA[:-1])
    assert main(["models", "import", str(other)]) == 76
    assert main(["models", "import", str(tmp_path / "missing")]) == 64
    assert [entry.digest for entry in content.entries()] == [VARIANT.digest]


def test_verify_names_and_removes_what_is_damaged(content: Content, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0 while all is well, 76 for a damaged file, which stays until its removal is asked for."""
    assert main(["models", "import", str(BUILTIN_DIR / VARIANT.file)]) == 0
    assert main(["models", "verify"]) == 0
    path = content.path(VARIANT.digest)
    path.chmod(0o600)
    path.write_bytes(DATA[:-1] + b"x")
    assert main(["models", "verify"]) == 76
    assert VARIANT.digest in capsys.readouterr().out
    assert path.exists()
    assert main(["models", "verify", "--remove"]) == 76
    assert not path.exists()
    assert main(["models", "verify"]) == 0


def test_gc_removes_what_no_catalogue_names(content: Content, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run changes nothing; pinned files and known ones stay."""
    assert main(["models", "import", str(BUILTIN_DIR / VARIANT.file)]) == 0
    for data in (b"old", b"pinned"):
        digest = hashlib.sha256(data).hexdigest()
        with content.incoming(digest) as incoming:
            incoming.append(data)
            incoming.finish()
    content.pin(hashlib.sha256(b"pinned").hexdigest())
    capsys.readouterr()
    assert main(["models", "gc", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [item["digest"] for item in told["removed"]] == [hashlib.sha256(b"old").hexdigest()]
    assert len(content.entries()) == 3
    assert main(["models", "gc"]) == 0
    assert "Removed 1 files" in capsys.readouterr().out
    assert {entry.digest for entry in content.entries()} == {VARIANT.digest, hashlib.sha256(b"pinned").hexdigest()}


def test_gc_removes_optimised_copies_before_models(
    content: Content, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of unknown models always, all of them over the limit; a dry run none."""
    assert main(["models", "import", str(BUILTIN_DIR / VARIANT.file)]) == 0
    for digest in (VARIANT.digest, "ab" * 32):
        content.make_optimised().joinpath(f"{digest}.ort").write_bytes(bytes(1000))
    (content.optimised_folder / "making-0.part").write_bytes(b"a start")
    capsys.readouterr()
    assert main(["models", "gc", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["optimised"] == ["ab" * 32]
    assert said["abandoned_bytes"] == 7
    assert len(content.optimised()) == 3
    assert main(["models", "gc"]) == 0
    assert content.optimised() == {VARIANT.digest: 1000}
    monkeypatch.setenv("EDGE_AGENT_MODELS_MAX_BYTES", str(VARIANT.size_bytes + 500))
    assert main(["models", "gc"]) == 0
    assert content.optimised() == {}
    assert [entry.digest for entry in content.entries()] == [VARIANT.digest]


def test_gc_keeps_to_the_limit(
    content: Content, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over models.max_bytes, the files used longest ago go; a pinned variant stays, and an unpinned one may go."""
    names = [variant.file for variant in builtin().family("digits").variants]
    assert main(["models", "import", *(str(BUILTIN_DIR / name) for name in names)]) == 0
    assert main(["models", "pin", "digits/fp32"]) == 0
    monkeypatch.setenv("EDGE_AGENT_MODELS_MAX_BYTES", "24000")
    assert main(["models", "gc"]) == 0
    assert [entry.digest for entry in content.entries()] == [VARIANT.digest]
    monkeypatch.setenv("EDGE_AGENT_MODELS_MAX_BYTES", "10")
    assert main(["models", "gc"]) == 0
    assert "pinned" in capsys.readouterr().err
    assert main(["models", "unpin", "digits/fp32"]) == 0
    assert main(["models", "gc"]) == 0
    assert content.entries() == []
