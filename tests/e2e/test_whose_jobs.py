"""Whose jobs a machine takes, with everything real: broker, coordinator with API keys, and two agents of two owners.

Ada's machine is quick and works for her clients alone; Bob's works for everybody. A stranger's jobs are all done by
Bob's, Ada's by hers, and when Bob's machine is away the stranger hears at once that nobody works for him.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from brokers import mosquitto
from networks import PATIENCE_SECONDS, child, coordinator, wait_until

from edge_agent.agent.ask import ask
from edge_agent.cli import main
from edge_agent.client import Client, JobOptions, Placement
from edge_agent.errors import DeniedError, EdgeAgentError, JobFailedError
from edge_agent.local.demo import input_of, predicted_digit
from edge_agent.models.scans import load_scans
from edge_agent.wire.ledger import owner_of
from edge_agent.wire.oip_json import tensor_to_json

SCANS = load_scans()
JOBS = 5


@dataclass
class Town:
    """The running network.

    Attributes:
        agents: each owner's agent's id.
        keys: each client's API key.
    """

    folder: Path
    http: str = ""
    agents: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def infer(self, client: str, number: int, **options: object) -> None:
        """Run a job of a client, and see that its answer is right."""
        scan = SCANS[number]
        request = json.dumps({"inputs": [tensor_to_json(input_of(scan))]}).encode()
        with Client(self.http, api_key=self.keys[client]) as found:
            answer = found.infer_json("digits", request, options=JobOptions(**options))  # type: ignore[arg-type] # as given
        assert predicted_digit(answer.outputs) == scan.label

    def done_by(self) -> dict[tuple[str, str], int]:
        """Return how many attempts, checks among them, each owner's machine was given of each client's jobs."""
        owners = {agent: owner for owner, agent in self.agents.items()}
        with contextlib.closing(sqlite3.connect(self.folder / "coordinator" / "coordinator.db")) as database:
            rows = database.execute(
                "SELECT agent_id, client, count(*) FROM attempts JOIN jobs ON jobs.id = attempts.job_id GROUP BY 1, 2"
            ).fetchall()
        return {(owners[agent], client): count for agent, client, count in rows}

    def earned(self, owner: str) -> int:
        """Return what the coordinator's ledger has for an owner, what still waits in escrow included."""
        with Client(self.http, api_key=self.keys["operator"]) as client:
            accounts = json.loads(client.get("/api/v1/ledger/balances"))["accounts"]
        return sum(amount for name, amount in accounts.items() if owner_of(name) == owner)

    def offers(self, owner: str) -> bool:
        """Whether an owner's machine offers something."""
        with Client(self.http, api_key=self.keys["operator"]) as client:
            return any(agent["agent_id"] == self.agents.get(owner) and agent["offers"] for agent in client.agents())

    def knows(self, client: str) -> bool:
        """Whether the coordinator has read of a client's key, which another process wrote."""
        with Client(self.http, api_key=self.keys[client]) as found:
            try:
                found.get("/api/v1/jobs?limit=1")
            except DeniedError:
                return False
        return True

    def write(self, owner: str, rules: str) -> None:
        """Write an owner's settings."""
        (self.folder / f"{owner}.toml").write_text(f"[policy]\n{rules}\n")


@pytest.fixture
def town(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Town]:
    """Ada's machine for Ada alone, Bob's for everybody, and keys for Ada, for a stranger and for the operator."""
    found = Town(tmp_path)
    with contextlib.ExitStack() as stack:
        broker = f"mqtt://127.0.0.1:{stack.enter_context(mosquitto(tmp_path, 'allow_anonymous true'))}"
        (tmp_path / "coordinator.toml").write_text('[gateway]\nauth = "required"\n')
        own = ["--config", str(tmp_path / "coordinator.toml"), "--broker", broker]
        found.http = stack.enter_context(coordinator(tmp_path, *own))
        flags, log = ["--state", str(tmp_path / "coordinator")], tmp_path / "coordinator.log"

        def run(*arguments: str) -> str:
            capsys.readouterr()
            assert main([*arguments]) == 0
            return capsys.readouterr().out

        for name, scope in (("ada", "infer"), ("stranger", "infer"), ("operator", "operator")):
            found.keys[name] = run("coordinator", "keys", "add", name, "--scope", scope, *flags).strip()
        for name in found.keys:
            wait_until(lambda name=name: found.knows(name), log)  # type: ignore[misc] # bound now
        found.write("ada", 'clients = "mine"\nmy_clients = ["ada"]')
        found.write("bob", 'deny_labels = ["video"]')
        for owner in ("ada", "bob"):
            token = json.loads(run("coordinator", "token", "--owner", owner, "--json", *flags))["token"]
            own = ["--state", str(tmp_path / owner)]
            enrolled = run("enrol", found.http, token, "--wait", "60", "--json", *own)
            found.agents[owner] = json.loads(enrolled)["agent_id"]
            settings = ["--config", str(tmp_path / f"{owner}.toml"), "--threads", "1"]
            process = stack.enter_context(child(tmp_path / f"{owner}.log", "-m", "edge_agent", "run", *settings, *own))
            found.processes[owner] = process
        for owner in found.agents:
            wait_until(lambda owner=owner: found.offers(owner), tmp_path / f"{owner}.log")  # type: ignore[misc] # bound now
        yield found


@pytest.mark.timeout(300)
def test_a_strangers_job_is_done_by_who_works_for_everybody_and_by_nobody_else(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a job, not a check of one; and Ada's machine does hers meanwhile, as if nobody else were there."""
    for number in range(JOBS):
        town.infer("stranger", number)
    assert ("ada", "stranger") not in town.done_by()
    assert town.done_by()["bob", "stranger"] == JOBS

    hers = JobOptions(placement=Placement(owner="ada")).placement
    for number in range(JOBS):
        town.infer("ada", number, placement=hers)
    assert town.done_by()["ada", "ada"] >= JOBS
    assert ("ada", "stranger") not in town.done_by()

    # The owner sees for whom it works, and what it did.
    capsys.readouterr()
    assert main(["status", "--state", str(town.folder / "ada")]) == 0
    shown = capsys.readouterr().out
    assert "only for ada" in shown
    status = ask(town.folder / "ada", {"do": "status"})
    assert status["today"]["digits"]["finished"] == town.done_by()["ada", "ada"]
    assert status["obstacles"] == []

    # It knows what it earned, by its own count, and that is what the coordinator's ledger has for it.
    def counted() -> bool:
        account = ask(town.folder / "ada", {"do": "account"})["account"]
        return bool(account["accepted_today"] == town.done_by()["ada", "ada"])

    wait_until(counted, town.folder / "ada.log")  # the last word that it was accepted may still be on its way
    assert main(["report", "--json", "--state", str(town.folder / "ada")]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert town.earned("ada") == sum(row["credit_mmac"] for row in rows) > 0

    # What no owner wants is said at once, and why: nothing of it is queued or leased.
    before = town.done_by()
    with pytest.raises(JobFailedError, match="of stranger") as refused:
        town.infer("stranger", 0, placement=hers)
    assert (refused.value.error_code, refused.value.retryable) == ("no-taker", False)
    with pytest.raises(JobFailedError, match="labelled video"):
        town.infer("stranger", 0, placement=Placement(job_labels=("video",)))
    assert town.done_by() == before

    # Ada lets the stranger into her circle, while it runs.
    town.write("ada", 'clients = "circle"\nmy_clients = ["ada"]\ncircle = ["stranger"]')
    town.processes["ada"].send_signal(signal.SIGHUP)
    works = "first for ada, then for stranger"
    wait_until(
        lambda: ask(town.folder / "ada", {"do": "status"})["clientele"]["text"] == works, town.folder / "ada.log"
    )
    end = time.monotonic() + PATIENCE_SECONDS
    while ("ada", "stranger") not in town.done_by():
        assert time.monotonic() < end
        with contextlib.suppress(EdgeAgentError):  # until the coordinator has heard of it
            town.infer("stranger", 0, placement=hers)
    (last, *_) = ask(town.folder / "ada", {"do": "history"})["transitions"]
    assert (last["mode"], last["by"], last["works"]) == ("work", "your new rules", works)
