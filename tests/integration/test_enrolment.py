"""Enrolment as people do it: a real coordinator, a real broker, and the commands."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tied
from broker_processes import free_port
from brokers import mosquitto
from networks import clean_environment

from edge_agent.cli import main
from edge_agent.settings import load
from edge_agent.wire.keys import PublicKey

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    """A coordinator that runs."""

    folder: Path
    http: str
    mqtt: str
    log: Path

    @property
    def state(self) -> list[str]:
        """Its state directory, as a flag."""
        return ["--state", str(self.folder)]

    def token(self, capsys: pytest.CaptureFixture[str]) -> str:
        """Make one."""
        capsys.readouterr()
        assert main(["coordinator", "token", "--owner", "ada", "--json", *self.state]) == 0
        found: str = json.loads(capsys.readouterr().out)["token"]
        return found

    def agents(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        """Return what is known of the agents, by id."""
        capsys.readouterr()
        assert main(["coordinator", "agents", "--json", *self.state]) == 0
        return {each["agent_id"]: each for each in json.loads(capsys.readouterr().out)}


@contextlib.contextmanager
def coordinator(folder: Path, port: int) -> Iterator[Running]:
    """Start one, and wait until it works."""
    state, ready, log = folder / "coordinator", folder / "ready.json", folder / "coordinator.log"
    command = [sys.executable, "-m", "edge_agent", "coordinator", "--broker", f"mqtt://127.0.0.1:{port}"]
    command += ["--http", f"127.0.0.1:{free_port()}", "--state", str(state), "--ready-file", str(ready)]
    with log.open("wb") as out:
        process = tied.start(command, stdout=out, stderr=out, env=clean_environment())
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while not ready.exists() or not ready.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        yield Running(state, json.loads(ready.read_text())["http"], f"mqtt://127.0.0.1:{port}", log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A coordinator on a Mosquitto."""
    folder = tmp_path_factory.mktemp("enrolment")
    with mosquitto(folder, "allow_anonymous true") as port, coordinator(folder, port) as made:
        yield made


def test_token_over_http_and_over_the_broker(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Afterwards `run` needs nothing but the state directory; a second machine with the same token is refused."""
    pinned = PublicKey.from_file(running.folder / "coordinator.pub")
    for name, url in (("http", running.http), ("mqtt", running.mqtt)):
        token_file = tmp_path / f"{name}.token"
        token_file.write_text(running.token(capsys) + "\n")
        state = tmp_path / name
        asked = ["enrol", url, "--token-file", str(token_file), "--json", "--wait", "60"]
        assert main([*asked, "--state", str(state)]) == 0
        said = json.loads(capsys.readouterr().out)
        assert PublicKey.from_file(state / "coordinator.pub") == pinned
        found = load(None, {"HOME": str(tmp_path)}, {"agent.state_dir": state})
        assert (found.settings.broker.url, found.settings.network.name) == (running.mqtt, "home")
        assert found.sources["broker.url"].startswith("enrolment")
        known = running.agents(capsys)[said["agent_id"]]
        assert (known["approved"], known["owner"]) == (True, "ada")
        assert main([*asked, "--state", str(tmp_path / f"thief of {name}")]) == 76
        assert "token-used" in capsys.readouterr().err
        assert not (tmp_path / f"thief of {name}" / "coordinator.pub").exists()
    assert "somebody has a copy" in running.log.read_text()


def test_code_that_both_sides_show(running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a token the operator compares, approves the code, and the agent goes on by itself."""
    done: list[int] = []
    asked = ["enrol", running.mqtt, "--wait", "60", "--state", str(tmp_path / "agent")]
    enrolling = threading.Thread(target=lambda: done.append(main(asked)))
    enrolling.start()
    end = time.monotonic() + PATIENCE_SECONDS
    code = ""
    while not code:
        assert time.monotonic() < end
        lines = [line for line in running.log.read_text().splitlines() if "shows the code" in line]
        code = lines[-1].split("shows the code ")[1][:9] if lines else ""
        time.sleep(0.02)
    assert main(["coordinator", "approve", code, "--owner", "bob", *running.state]) == 0
    enrolling.join(PATIENCE_SECONDS)
    assert done == [0]
    said = capsys.readouterr()
    assert code in said.err
    assert "as one of bob's" in said.out


def test_new_key_in_the_place_of_the_old_one(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Owner and admission pass over; the old key is listed as revoked."""
    state = tmp_path / "agent"
    assert main(["enrol", running.http, running.token(capsys), "--state", str(state)]) == 0
    old = PublicKey.from_file(state / "agent.pub").id
    sealing = (state / "sealing.key").read_bytes()
    assert main(["keygen", "--rotate", "--state", str(state)]) == 0  # over the broker of the enrolment
    new = PublicKey.from_file(state / "agent.pub").id
    assert new != old
    assert (state / "sealing.key").read_bytes() != sealing
    known = running.agents(capsys)
    assert (known[new]["approved"], known[new]["owner"], known[old]["approved"]) == (True, "ada", False)
    assert known[old]["revoked"] == "replaced by a new key"
    assert [path.name for path in state.glob("*.next*")] == []


def test_registrar_that_lies_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A token alone lets nobody in: the certificate comes from another machine, and only for what its agent signed."""
    assert main(["registrar", "init", str(tmp_path / "safe")]) == 0
    (tmp_path / "coordinator").mkdir(mode=0o700)
    (tmp_path / "coordinator" / "registrar.pub").write_bytes((tmp_path / "safe" / "registrar.pub").read_bytes())
    with mosquitto(tmp_path, "allow_anonymous true") as port, coordinator(tmp_path, port) as running:
        assert not (running.folder / "registrar.key").exists()
        asked = ["enrol", running.http, running.token(capsys), "--state", str(tmp_path / "agent"), "--wait", "2"]
        assert main(asked) == 75
        requests, certificates = str(tmp_path / "requests"), str(tmp_path / "certificates")
        assert main(["coordinator", "requests", requests, *running.state]) == 0
        key = ["--key", str(tmp_path / "safe" / "registrar.key")]
        assert main(["registrar", "sign", requests, *key, "--out", certificates]) == 0
        assert main(["coordinator", "certify", certificates, *running.state]) == 0
        assert main(asked) == 0
        forged = ["--key", str(running.folder / "coordinator.key")]  # whoever stole the coordinator
        assert main(["registrar", "sign", requests, *forged, "--out", certificates]) == 0
        assert main(["coordinator", "certify", certificates, *running.state]) == 76
