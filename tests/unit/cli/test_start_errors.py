"""What people get wrong when they start something: told before anything is started, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import folders
from edge_agent.cli import main
from edge_agent.own_keys import signing_key
from edge_agent.settings import layers
from edge_agent.wire.keys import PublicKey, SigningKey

SCAN = str(Path(__file__).parents[3] / "examples" / "scan.json")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings and no log of this machine have a say."""
    monkeypatch.setattr(layers, "SYSTEM_CONFIG", tmp_path / "none" / "config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(folders, "PATIENCE_SECONDS", 0.0)
    for command in ("run", "coordinator", "broker"):
        monkeypatch.setattr(f"edge_agent.cli.{command}.set_up_log", lambda _: None)
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("command", "status", "told", "hint"),
    [
        ("run --state file/x", 74, "cannot be made: Not a directory", "--state"),
        ("coordinator --state file/x", 74, "cannot be made: Not a directory", "--state"),
        ("up --state file/x", 74, "cannot be made: Not a directory", "--state"),
        ("demo --receipts file/x", 74, "cannot be made: Not a directory", ""),
        ("coordinator agents --state typo", 74, "no coordinator's database", "--state"),
        (f"coordinator approve {'a' * 32} --state typo", 74, "no coordinator's database", "--state"),
        ("run --state new", 77, "coordinator.pub is not there", "edge-agent enrol URL TOKEN"),
        ("up --ready-file none/up.json", 64, "none/up.json cannot be written", "folder"),
        ("up --ready-file .", 64, "cannot be written", "folder"),
        ("broker --ready-file none/up.json", 64, "none/up.json cannot be written", "folder"),
        (f"submit digits --input {SCAN} --coordinator 127.0.0.1:8420", 64, "not the address", "http://"),
        (f"submit digits --input {SCAN} --output none/x", 64, "none/x cannot be written", ""),
        (f"submit digits --input {SCAN} --receipt .", 64, ". cannot be written", ""),
        (f"submit digits --input {SCAN} --async --receipt x", 64, "--async does not wait", "later"),
        ("submit digits --input /dev/zero", 65, "/dev/zero has more than", ""),
    ],
)
def test_mistake_is_told(  # noqa: PLR0917 the columns of the table and two fixtures
    command: str, status: int, told: str, hint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each ends with its status, one error line, one hint, no traceback, and nothing made where it does not belong."""
    assert main(command.split()) == status
    error, hinted = capsys.readouterr().err.splitlines()
    assert told in error
    assert hint in hinted
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("command", ["run --state taken", "coordinator --state taken", "up --state taken"])
def test_second_process_on_one_state_directory_is_told(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Two with one key would push each other off the broker for ever: the second does not start."""
    with folders.take(tmp_path / "taken"):
        assert main(command.split()) == 74
    assert "another process uses the state directory" in capsys.readouterr().err


def test_public_half_of_a_lost_key_is_replaced(tmp_path: Path) -> None:
    """A new key gets its own public file, also where that of an old key lies: nobody pins a key that is no more."""
    SigningKey.generate().public.write(tmp_path / "coordinator.pub")
    key = signing_key(tmp_path / "coordinator.key")
    assert PublicKey.from_file(tmp_path / "coordinator.pub").id == key.public.id
    assert signing_key(tmp_path / "coordinator.key").public.id == key.public.id
