"""Jobs from the real `mosquitto_rr` through a real Mosquitto, and what other clients of the broker cannot do."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tied
from brokers import mosquitto
from fakes import scan
from gateways import NETWORK, REQUEST, FakeService
from needs import tool
from signing import SigningService

from edge_agent.clock import system_now
from edge_agent.coordinator.access import Access, KeyRecord, Scope
from edge_agent.coordinator.gateway import mqtt_jobs
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.gateway.mqtt_jobs import MqttJobs
from edge_agent.coordinator.gateway.reading import LONG_BYTES
from edge_agent.coordinator.key_table import new_token
from edge_agent.mqtt import BrokerAddress, LinkOptions

TOKENS: dict[str, str] = {}
KEYS = []
for _name, _scope in {"kitchen": Scope.MQTT, "cellar": Scope.MQTT, "ada": Scope.OPERATOR}.items():
    _id, TOKENS[_name], _digest = new_token()
    KEYS.append(KeyRecord(_id, _name, _digest, frozenset({_scope}), 0, requests_per_minute=1000, jobs_per_day=1000))
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "http.md").read_text()
JOBS = f"ea1/{NETWORK}/clients/kitchen/jobs"
RESULTS = f"ea1/{NETWORK}/clients/kitchen/results"
MAX_OPTION_CHARACTERS = 1000
"""Of a line in the file of options of `mosquitto_rr`."""
BODY = {"model_name": "digits", **REQUEST}


@contextmanager
def gateway(service: FakeService, port: int, *, max_request_bytes: int = 20_000) -> Iterator[MqttJobs]:
    """Serve clients of this broker, in a thread of its own, until the block ends."""
    access = Access(required=False, clock=system_now)  # as on loopback: HTTP asks for no key, MQTT always does
    access.adopt(KEYS)
    intake = Intake(max_request_bytes=max_request_bytes, max_bytes=4 * max_request_bytes)
    options = LinkOptions(address=BrokerAddress.parse(f"mqtt://127.0.0.1:{port}"), client_id="gateway", protocol="5")
    jobs = MqttJobs(service, access, intake, options, wait_seconds=1.0)
    ready, loops = threading.Event(), []

    async def run() -> None:
        task = asyncio.create_task(jobs.run())
        loops.append((asyncio.get_running_loop(), task))
        while not (hasattr(jobs, "_link") and jobs._link.connected):  # noqa: ASYNC110 the link is another thread's
            await asyncio.sleep(0.005)
        ready.set()
        await asyncio.wait([task])
        intake.reader.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(30)
        yield jobs
    finally:
        loop, task = loops[0]
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        assert intake.held_bytes == 0


@pytest.fixture
def service() -> FakeService:
    """Return a service that accepts and succeeds."""
    return SigningService()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Run a broker that lets everybody in."""
    with mosquitto(tmp_path, "allow_anonymous true") as found:
        yield found


def ask(
    port: int,
    folder: Path,
    body: object = BODY,
    *,
    key: str | None = TOKENS["kitchen"],
    topic: str = JOBS,
    where: str = RESULTS,
    wait: int = 10,
    more: tuple[str, ...] = (),
) -> Any:  # noqa: ANN401 JSON is any
    """Send a request with `mosquitto_rr` and return what comes back; None if nothing does."""
    if isinstance(body, dict) and key is not None:
        body = {"api_key": key, **body}
    options = folder / "mosquitto_rr"  # its -f and -s send nothing in the version of Debian 12
    text = body if isinstance(body, str) else json.dumps(body)
    options.write_text(f"-m {text}\n" if len(text) < MAX_OPTION_CHARACTERS else "-q 1\n")
    command = [tool("mosquitto_rr"), "-V", "5", "-p", str(port), "-t", topic, "-e", where, "-q", "1", "-W", str(wait)]
    if not isinstance(body, dict) and key is not None:
        command += ["-D", "publish", "user-property", "api-key", key]
    if len(text) >= MAX_OPTION_CHARACTERS:
        command += ["-m", text]
    environ = {**os.environ, "XDG_CONFIG_HOME": str(folder)}
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=30, env=environ, check=False)
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_a_job_and_its_result(port: int, tmp_path: Path, service: FakeService) -> None:
    """With nothing but an MQTT client, the options and parameters of every other interface."""
    with gateway(service, port):
        answer = ask(port, tmp_path, {**BODY, "parameters": {"deadline_seconds": 3, "receipt_inline": True}})
    assert answer["outputs"][1]["data"] == [3]
    assert (answer["id"], answer["parameters"]["verification"]) == ("mine", "signed")
    assert "receipt_cose" in answer["parameters"]
    (submitted,) = service.submitted
    assert submitted["inputs"] == (scan(3),)
    assert (submitted["options"].client, submitted["options"].deadline_seconds) == ("kitchen", 3)


def test_a_long_request_is_read_beside_the_others(port: int, tmp_path: Path, service: FakeService) -> None:
    """By the process for long texts, with the key where it can be seen before."""
    with gateway(service, port, max_request_bytes=2 * LONG_BYTES):
        answer = ask(port, tmp_path, json.dumps(BODY) + " " * LONG_BYTES)
        refused = ask(port, tmp_path, json.dumps({**BODY, "model_name": 1}) + " " * LONG_BYTES)
    assert answer["outputs"][1]["data"] == [3]
    assert refused["code"] == "bad-input"
    assert [submitted["inputs"] for submitted in service.submitted] == [(scan(3),)]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{", "bad-input"),
        ("[]", "bad-input"),
        (REQUEST, "bad-input"),
        ({**BODY, "model_name": "digit"}, "unknown-family"),
        ({**BODY, "model_version": "fp8"}, "unknown-version"),
        ({**BODY, "inputs": []}, "bad-input"),
        ({**BODY, "parameters": {"deadline": 1}}, "bad-input"),
        ({**BODY, "parameters": {"client": "cellar"}}, "forbidden"),
        ({**BODY, "id": "x" * 30_000}, "too-large"),
    ],
    ids=["cut", "list", "no-model", "family", "version", "inputs", "option", "client", "large"],
)
def test_what_is_wrong_is_told(port: int, tmp_path: Path, service: FakeService, body: object, code: str) -> None:
    """With the code that it has everywhere, and whether to try again."""
    with gateway(service, port):
        answer = ask(port, tmp_path, body)
    assert (answer["code"], answer["retry"]) == (code, False)
    assert service.submitted == []


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "unauthorized"),
        ("none", "unauthorized"),
        (TOKENS["kitchen"][:20] + TOKENS["cellar"][20:], "unauthorized"),
        (TOKENS["cellar"], "forbidden"),
        (TOKENS["ada"], "forbidden"),
    ],
    ids=["none", "word", "wrong", "another", "operator"],
)
def test_without_the_right_key_nothing_happens(
    port: int, tmp_path: Path, service: FakeService, key: str | None, code: str
) -> None:
    """Also where HTTP asks for none; a key that opens more than this is refused, since the broker has seen it now."""
    with gateway(service, port):
        answer = ask(port, tmp_path, key=key)
    assert answer["code"] == code
    assert service.submitted == []


@pytest.mark.parametrize(
    "where",
    ["homeassistant/light/set", f"ea1/{NETWORK}/clients/cellar/results", f"{RESULTS}/a/b", f"{RESULTS}x"],
)
def test_an_answer_goes_nowhere_but_below_the_clients_own_topic(
    port: int, tmp_path: Path, service: FakeService, where: str
) -> None:
    """The coordinator may write where the client may not: it must not lend its hand."""
    heard = tied.start(
        [tool("stdbuf"), "-oL", tool("mosquitto_sub"), "-p", str(port), "-t", "#", "-v", "-d"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert heard.stdout is not None
    for line in heard.stdout:
        if "SUBACK" in line:
            break
    try:
        with gateway(service, port) as jobs:
            assert ask(port, tmp_path, where=where, wait=1) is None
            assert ask(port, tmp_path)["outputs"]  # the next one is answered: the first was seen
            assert jobs.counters == {"dropped-response-topic": 1}
    finally:
        heard.terminate()
    topics = {line.split()[0] for line in heard.stdout if line.startswith(("ea1", "home"))}
    heard.stdout.close()
    heard.wait()
    assert topics <= {JOBS, RESULTS}
    assert len(service.submitted) == 1


def test_a_flood_without_keys_is_answered_now_and_then(
    port: int, tmp_path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody makes the coordinator shout; who has a key is served all the same."""
    monkeypatch.setattr(mqtt_jobs, "DENIALS_PER_SECOND", 0)
    with gateway(service, port) as jobs:
        flood = [tool("mosquitto_pub"), "-V", "5", "-p", str(port), "-t", JOBS, "-q", "1", "-m", "{}", "--repeat", "50"]
        subprocess.run([*flood, "-D", "publish", "response-topic", RESULTS], check=True, timeout=60)
        assert ask(port, tmp_path)["outputs"]
        assert jobs.counters["dropped-denied"] == 50
    assert len(service.submitted) == 1


def test_a_kept_request_is_no_request(port: int, tmp_path: Path, service: FakeService) -> None:
    """It would be a job with each connection."""
    keep = [tool("mosquitto_pub"), "-V", "5", "-p", str(port), "-t", JOBS, "-r", "-m", json.dumps(BODY)]
    more = ["-D", "publish", "response-topic", RESULTS, "-D", "publish", "user-property", "api-key", TOKENS["kitchen"]]
    subprocess.run([*keep, *more], check=True, timeout=60)
    with gateway(service, port):
        assert ask(port, tmp_path, {**BODY, "id": "another"})["id"] == "another"
    assert len(service.submitted) == 1


def test_access_control_at_the_broker_is_the_second_line(tmp_path: Path, service: FakeService) -> None:
    """As docs/http.md writes it: a client cannot even read what another one gets."""
    rules = re.search(r"For Mosquitto:\n\n(.+?)\n\nThe gateway", PAGE, re.DOTALL)
    assert rules is not None
    acl = tmp_path / "acl"
    lines = [line.strip() for line in rules[1].splitlines() if "user" not in line]
    acl.write_text("\n".join(lines).replace("%u", "%c") + "\n")  # by client id: nobody logs in here
    acl.chmod(0o600)
    with mosquitto(tmp_path, "allow_anonymous true", f"acl_file {acl}") as port, gateway(service, port):
        assert ask(port, tmp_path, more=("-i", "kitchen"))["outputs"]
        assert ask(port, tmp_path, more=("-i", "cellar"), wait=1) is None
    assert len(service.submitted) == 1
