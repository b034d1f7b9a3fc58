"""A cheat among strangers, with everything real: broker, coordinator, and four agents that enrolled for four owners.

One of them answers with falsified outputs (`tests/cheating_agent.py`). Nothing of it is given out, it is found within
its first ten jobs, it rests and is paid nothing, everybody who asks is told so, and the operator can let it try again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from brokers import mosquitto
from networks import PATIENCE_SECONDS, child, coordinator, wait_until

from edge_agent.cli import main
from edge_agent.client import Client, JobOptions, Placement
from edge_agent.errors import EdgeAgentError
from edge_agent.local.demo import input_of, predicted_digit
from edge_agent.models.scans import load_scans
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.oip_json import tensor_to_json
from edge_agent.wire.receipts import verify_receipt

FIRST_JOBS = 10
"""A cheat must be found within so many."""
MOST_JOBS = 40
SCANS = load_scans()
CHEATING = str(Path(__file__).parent.parent / "cheating_agent.py")
HONEST = ("ada", "bob", "cy")


@dataclass
class Strangers:
    """The running network, as an operator and a client see it."""

    folder: Path
    http: str
    agents: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    @property
    def state(self) -> list[str]:
        """The coordinator's state directory, as a flag."""
        return ["--state", str(self.folder / "coordinator")]

    @property
    def key(self) -> Path:
        """The coordinator's public key."""
        return self.folder / "coordinator" / "coordinator.pub"

    def about(self, owner: str) -> dict[str, Any]:
        """Return what the coordinator says of an owner's machine."""
        with Client(self.http) as client:
            return next(agent for agent in client.agents() if agent["agent_id"] == self.agents[owner])

    def dashboard(self, page: str) -> dict[str, Any]:
        """Return what a page of the dashboard is made of."""
        connection = http.client.HTTPConnection(self.http.removeprefix("http://"), timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", f"/dashboard/api/{page}")
            found: dict[str, Any] = json.load(connection.getresponse())
        return found

    def given(self, owner: str) -> int:
        """Return how many jobs, checks among them, an owner's machine was given."""
        with contextlib.closing(sqlite3.connect(self.folder / "coordinator" / "coordinator.db")) as database:
            found = database.execute("SELECT count(*) FROM attempts WHERE agent_id = ?", (self.agents[owner],))
            return int(found.fetchone()[0])

    def ask(self) -> Path:
        """Run a job; see that its answer is right and no cheat's. Return the file of its receipt."""
        scan = SCANS[self.asked % len(SCANS)]
        self.asked += 1
        tensor = input_of(scan)
        with Client(self.http) as client:
            answer = client.infer_json("digits", json.dumps({"inputs": [tensor_to_json(tensor)]}).encode())
            receipt = client.receipt(answer.job_id)
        verified = verify_receipt(receipt, PublicKey.from_file(self.key))
        verified.check_outputs(answer.outputs)
        assert predicted_digit(answer.outputs) == scan.label
        assert answer.agent_id == verified.agent.id != self.agents["mal"]
        path = self.folder / f"{self.asked}.receipt"
        path.write_bytes(receipt)
        return path

    def insist_on(self, owner: str, until: Callable[[], bool]) -> None:
        """Ask for an owner's machine and no other; get nothing of it all the same, since each result is held."""
        request = json.dumps({"inputs": [tensor_to_json(input_of(SCANS[0]))]}).encode()
        options = JobOptions(placement=Placement(owner=owner), deadline_seconds=3.0)
        for _ in range(MOST_JOBS):
            if until():
                return
            with Client(self.http) as client, pytest.raises(EdgeAgentError):
                client.infer_json("digits", request, options=options)
        raise AssertionError("it never came to be so")


def _enrol(network: Strangers, owner: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Let an owner's machine in; return the flag of its state directory."""
    capsys.readouterr()
    assert main(["coordinator", "token", "--owner", owner, "--json", *network.state]) == 0
    token = json.loads(capsys.readouterr().out)["token"]
    state = ["--state", str(network.folder / owner)]
    assert main(["enrol", network.http, token, "--json", "--wait", "60", *state]) == 0
    network.agents[owner] = json.loads(capsys.readouterr().out)["agent_id"]
    return state


@pytest.fixture
def strangers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Strangers]:
    """Ada's, Bob's and Cy's machine, and Mal's."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(mosquitto(tmp_path, "allow_anonymous true"))
        http_address = stack.enter_context(coordinator(tmp_path, "--broker", f"mqtt://127.0.0.1:{port}"))
        network = Strangers(tmp_path, http_address)
        for owner in (*HONEST, "mal"):
            program = [CHEATING] if owner == "mal" else ["-m", "edge_agent"]
            flags = _enrol(network, owner, capsys)
            stack.enter_context(child(tmp_path / f"{owner}.log", *program, "run", "--threads", "1", *flags))
        for owner in network.agents:
            wait_until(lambda owner=owner: bool(network.about(owner)["offers"]), tmp_path / f"{owner}.log")  # type: ignore[misc] # bound now
        yield network


@pytest.mark.timeout(400)
def test_a_machine_with_falsified_outputs_is_found_rests_is_not_paid_and_can_come_back(
    strangers: Strangers, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way, as its operator, its owner and the clients see it."""
    for _ in range(FIRST_JOBS):
        strangers.ask()
    strangers.insist_on("mal", until=lambda: strangers.about("mal")["wrong_results"] > 0)
    assert strangers.about("mal")["wrong_results"] == 1
    assert all(strangers.about(owner)["wrong_results"] == 0 for owner in HONEST)
    given = strangers.given("mal")
    assert 1 <= given <= FIRST_JOBS

    # It rests: the others do the work.
    receipts = [strangers.ask() for _ in range(5)]
    assert strangers.given("mal") == given
    assert strangers.about("mal")["resting_until_ms"] > time.time() * 1000

    # Whoever asks is told.
    cheat = strangers.agents["mal"]
    coordinator, key = ["--coordinator", strangers.http], ["--coordinator-key", str(strangers.key)]
    capsys.readouterr()
    assert main(["agents", *coordinator]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if cheat in line]
    assert "distrusted until" in line
    assert main(["coordinator", "agents", *strangers.state]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if cheat in line]
    assert "a result was proven wrong" in line
    checks = strangers.dashboard("checks")
    assert {row["name"] for row in checks["standings"] if row["failures"]} == {cheat, "owner:=mal"}
    assert [entry["agent_id"] for entry in checks["incidents"] if entry["action"] == "wrong-result"] == [cheat]
    kept = ["--keys", str(strangers.folder / "keys.json")]
    assert main(["checks", "audit", *coordinator, *key, *kept, "--receipt", *map(str, receipts), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["draws"]) == len(receipts)

    # It is paid nothing, and the books add up.
    assert main(["ledger", "audit", *coordinator, *key]) == 0
    capsys.readouterr()
    assert main(["ledger", "show", *coordinator, "--json"]) == 0
    accounts = json.loads(capsys.readouterr().out)["accounts"]
    assert any("ada" in name and amount > 0 for name, amount in accounts.items())
    assert not any("mal" in name or cheat in name for name, amount in accounts.items() if amount)

    # The operator lets it try again; it has learnt nothing, and is found again.
    assert main(["coordinator", "reinstate", cheat, *strangers.state]) == 0
    strangers.insist_on("mal", until=lambda: strangers.about("mal")["wrong_results"] > 1)
    assert given < strangers.given("mal") <= given + FIRST_JOBS
    assert all(strangers.about(owner)["wrong_results"] == 0 for owner in HONEST)
