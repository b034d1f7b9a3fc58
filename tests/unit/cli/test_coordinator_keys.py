"""`edge-agent coordinator keys`, and that the client's commands show a key that no argument holds."""

from __future__ import annotations

import json
import stat
from contextlib import closing
from pathlib import Path

import pytest
from http_coordinators import HttpCoordinator

from edge_agent.cli import main
from edge_agent.clock import system_now
from edge_agent.coordinator.access import Access, Scope
from edge_agent.coordinator.key_table import read_keys
from edge_agent.coordinator.store import Store


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return the state directory of a coordinator that was started once."""
    Store(tmp_path / "coordinator.db").close()
    return tmp_path


def keys(state: Path, *arguments: str) -> int:
    """Run the command."""
    return main(["coordinator", "keys", *arguments, "--state", str(state)])


def access(state: Path) -> Access:
    """Return what the coordinator would go by now."""
    with closing(Store(state / "coordinator.db")) as store:
        made = Access(required=True, clock=system_now)
        made.adopt(store.read(read_keys))
        return made


def test_a_key_is_made_listed_and_revoked(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed once; afterwards only its id is shown."""
    assert keys(state, "add", "reports", "--scope", "infer", "--scope", "read", "--jobs-per-day", "5") == 0
    token = capsys.readouterr().out.strip()
    caller = access(state).caller(token)
    assert (caller.name, caller.scopes) == ("reports", {Scope.INFER, Scope.READ})
    assert keys(state, "list") == 0
    listed = capsys.readouterr().out
    assert "reports" in listed
    assert token.split("_")[1] in listed
    assert token.split("_", 2)[2] not in listed
    assert keys(state, "list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["per_day"], row["per_minute"], row["expires"]) == ("active", 5, 6000, None)
    assert keys(state, "revoke", "reports") == 0
    with pytest.raises(Exception, match="revoked"):
        access(state).caller(token)
    assert keys(state, "revoke", "reports") == 64


def test_a_key_goes_into_a_file_of_its_owner_alone(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Never over another file, and then no key is made."""
    file = state / "reports.key"
    assert keys(state, "add", "reports", "--out", str(file), "--ttl", "12h") == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().strip()
    assert token not in capsys.readouterr().out
    assert access(state).caller(token).scopes == {Scope.INFER}
    assert keys(state, "add", "others", "--out", str(file)) == 74
    with closing(Store(state / "coordinator.db")) as store:
        (record,) = store.read(read_keys)
    assert record.expires_ms == record.created_ms + 12 * 3_600_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["add"],
        ["add", "a b"],
        ["add", "x", "--ttl", "soon"],
        ["add", "x", "--jobs-per-day", "-1"],
        ["add", "x", "--jobs-per-day", "0"],
        ["add", "x", "--requests-per-minute", "0"],
        ["add", "x", "--ttl", "0h"],
        ["revoke"],
        ["revoke", "nobody"],
        ["list", "x"],
        ["make", "x"],
        ["add", "x", "--scope", "root"],
    ],
    ids=" ".join,
)
def test_wrong_use_makes_no_key(state: Path, arguments: list[str]) -> None:
    """It is said what is wrong."""
    assert keys(state, *arguments) == 64
    with closing(Store(state / "coordinator.db")) as store:
        assert store.read(read_keys) == []


def test_commands_show_the_key_of_the_environment_or_of_a_file(
    coordinator: HttpCoordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable wins; without either, none is shown."""
    coordinator.answers["GET /api/v1/jobs"] = []
    monkeypatch.setenv("EDGE_AGENT_CLIENT_COORDINATOR", coordinator.url)
    assert main(["jobs"]) == 0
    file = tmp_path / "mine.key"
    file.write_text("ea_file\n")
    monkeypatch.setenv("EDGE_AGENT_CLIENT_API_KEY_FILE", str(file))
    assert main(["jobs"]) == 0
    monkeypatch.setenv("EDGE_AGENT_CLIENT_API_KEY", "ea_variable")
    assert main(["jobs"]) == 0
    file.write_text("two words\n")
    monkeypatch.delenv("EDGE_AGENT_CLIENT_API_KEY")
    assert main(["jobs"]) == 78
    file.unlink()
    assert main(["jobs"]) == 78
    assert coordinator.keys == [None, "Bearer ea_file", "Bearer ea_variable"]
