"""`version`, `config` and `keygen`."""

from __future__ import annotations

import json
import stat
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_agent._version import __version__
from edge_agent.cli import main
from edge_agent.settings import KEYS, layers
from edge_agent.wire.keys import PublicKey, SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of this machine have a say."""
    monkeypatch.setattr(layers, "SYSTEM_CONFIG", tmp_path / "none" / "config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that succeeds and return what it printed."""
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_version_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Three lines: ours, Python's, onnxruntime's."""
    lines = output(capsys, "version").splitlines()
    assert lines[0] == f"edge-agent {__version__}"
    assert lines[1].startswith("python CPython 3.")
    assert lines[2] == f"onnxruntime {metadata.version('onnxruntime')}"


def test_version_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The same as one object."""
    document = json.loads(output(capsys, "version", "--json"))
    assert document["version"] == __version__
    assert document["onnxruntime"] == metadata.version("onnxruntime")
    assert set(document) == {"version", "python", "platform", "onnxruntime"}


def test_version_without_onnxruntime(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation is told, not a crash."""

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("edge_agent.cli.version.metadata.version", absent)
    assert "onnxruntime is not installed" in output(capsys, "version")
    assert json.loads(output(capsys, "version", "--json"))["onnxruntime"] is None


def test_config_shows_value_and_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line for each setting, and the file that was read."""
    file = tmp_path / "c.toml"
    file.write_text("[network]\nname = 'club'\n")
    monkeypatch.setenv("EDGE_AGENT_LOG_LEVEL", "debug")
    text = output(capsys, "config", "--config", str(file), "--broker", "mqtt://pi")
    rows = {line.split()[0]: line.split(None, 1)[1] for line in text.splitlines() if "." in line.split(" ")[0]}
    assert set(rows) == set(KEYS)
    assert rows["network.name"].split(None, 1) == ["club", f"file {file}"]
    assert rows["log.level"].split(None, 1) == ["debug", "environment EDGE_AGENT_LOG_LEVEL"]
    assert rows["broker.url"].split(None, 1) == ["mqtt://pi", "flag --broker"]
    assert rows["agent.threads"].split(None, 1) == ["0", "default"]
    assert text.endswith(f"Settings file: {file}\n")


def test_config_says_where_it_looked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a file, both places are named."""
    text = output(capsys, "config")
    assert f"looked for {tmp_path}/none/config.toml and {tmp_path}/none/edge-agent/config.toml" in text


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_config_never_shows_the_password(
    form: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that it is set, and from where."""
    monkeypatch.setenv("EDGE_AGENT_BROKER_PASSWORD", "hunter2")
    text = output(capsys, "config", *form)
    assert "hunter2" not in text
    assert "(set)" in text
    assert "environment EDGE_AGENT_BROKER_PASSWORD" in text


def test_config_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Values keep their JSON types."""
    document = json.loads(output(capsys, "config", "--json", "--families", "digits,minilm-*"))
    assert document["file"] is None
    assert document["settings"]["agent.families"] == {"value": ["digits", "minilm-*"], "source": "flag --families"}
    assert document["settings"]["agent.memory_share"] == {"value": 0.5, "source": "default"}
    assert document["settings"]["broker.username"]["value"] is None
    assert set(document["settings"]) == set(KEYS)


def test_config_with_a_wrong_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 78 and the name of the setting; nothing half is printed."""
    assert main(["config", "--threads", "many"]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "agent.threads = 'many' (flag --threads): must be a valid integer" in captured.err


def test_keygen_writes_a_pair(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The secret one for its owner alone, both of the id that is printed."""
    document = json.loads(output(capsys, "keygen", str(tmp_path / "agent.key"), "--json"))
    secret, public = tmp_path / "agent.key", tmp_path / "agent.pub"
    assert document == {
        "id": SigningKey.from_file(secret).public.id,
        "key_file": str(secret),
        "public_key_file": str(public),
    }
    assert PublicKey.from_file(public).id == document["id"]
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_keygen_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Id and files, and never the key; a name without .key gets .pub behind it."""
    text = output(capsys, "keygen", str(tmp_path / "mine"))
    assert SigningKey.from_file(tmp_path / "mine").public.id in text
    assert str(tmp_path / "mine.pub") in text
    assert "PRIVATE" not in text


@pytest.mark.parametrize("there", ["a.key", "a.pub"])
def test_keygen_overwrites_nothing(there: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Neither half of a pair that is there already, and no new half is left."""
    (tmp_path / there).write_text("precious")
    assert main(["keygen", str(tmp_path / "a.key")]) == 77
    assert "is there already and is not overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


def test_keygen_leaves_no_half_pair(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If the public key cannot be written, the new secret one is taken away again."""
    original: Callable[[PublicKey, Path], None] = PublicKey.write

    def write(key: PublicKey, path: Path) -> None:
        original(key, path / "no" / "such" / "folder")

    monkeypatch.setattr(PublicKey, "write", write)
    assert main(["keygen", str(tmp_path / "a.key")]) == 77
    assert "cannot be written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_keygen_without_its_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A missing folder is told with the path."""
    assert main(["keygen", str(tmp_path / "none" / "a.key")]) == 77
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
