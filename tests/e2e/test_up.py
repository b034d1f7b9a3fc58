"""`edge-agent up`: what scripts lean on, and that nothing is left running."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from brokers import mosquitto
from certificates import issuer
from needs import module
from networks import Network, clean_environment, running_network

from edge_agent.local.demo import input_of
from edge_agent.models.scans import load_scans
from edge_agent.wire.oip_json import tensor_to_json

GONE_SECONDS = 15
START_SECONDS = 60
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Run one network for those tests that leave it as it was, but for jobs."""
    with running_network(tmp_path_factory.mktemp("shared")) as found:
        yield found


def edge_agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "edge_agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=clean_environment())


def request_of_first_scan() -> dict[str, object]:
    """Make a request of the Open Inference Protocol from real input."""
    return {"inputs": [tensor_to_json(input_of(load_scans()[0]))]}


def test_ready_file_names_four_live_processes(shared: Network) -> None:
    """The ready file is written once the first offer is in, and every process that it names runs."""
    about = shared.about
    assert set(about) == {"http", "mqtt", "grpc", "agent_id", "coordinator_key", "api_key_file", "pids"}
    assert about["grpc"] is None
    assert set(about["pids"]) == {"broker", "coordinator", "agent", "worker"}
    assert all(psutil.pid_exists(pid) for pid in about["pids"].values())
    assert httpx.get(f"{about['http']}/v2/models/digits/ready", trust_env=False).json()["ready"] is True
    assert Path(about["coordinator_key"]).read_text().startswith("-----BEGIN PUBLIC KEY-----")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_keeps_running(network: Network, how: signal.Signals) -> None:
    """After Ctrl-C, SIGTERM, or the death of the supervisor itself, all four processes end."""
    processes = [psutil.Process(pid) for pid in network.about["pids"].values()]
    network.process.send_signal(how)
    status = network.process.wait(30)
    _, alive = psutil.wait_procs(processes, timeout=GONE_SECONDS)
    assert alive == []
    assert status == (-9 if how is signal.SIGKILL else 0)
    assert network.ready_file.exists() is (how is signal.SIGKILL)


def test_submit_and_verify_as_a_user_would(shared: Network, tmp_path: Path) -> None:
    """Submit prints the outputs, verify proves the receipt offline, and each altered file is told."""
    about = shared.about
    request, receipt, answer = tmp_path / "in.json", tmp_path / "job.receipt", tmp_path / "out.json"
    request.write_text(json.dumps(request_of_first_scan()))
    to = ["--coordinator", about["http"]]
    done = edge_agent(
        "submit", "digits", "--input", str(request), "--receipt", str(receipt), "--output", str(answer), *to
    )
    assert (done.returncode, done.stderr) == (0, "")

    key = ["--coordinator-key", about["coordinator_key"]]
    files = ["--input", str(request), "--output", str(answer)]
    good = edge_agent("verify", str(receipt), *key, *files)
    assert good.returncode == 0, good.stderr
    assert about["agent_id"] in good.stdout
    assert "receipts in the coordinator's log" in good.stdout

    heads = tmp_path / "heads.jsonl"
    for _ in range(2):
        audit = edge_agent("log", "audit", *to, *key, "--heads", str(heads), "--compare", str(receipt))
        assert audit.returncode == 0, audit.stderr
    assert str(receipt) in audit.stdout

    cut = tmp_path / "cut.receipt"
    cut.write_bytes(receipt.read_bytes()[:-1])
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"inputs": [tensor_to_json(input_of(load_scans()[1]))]}))
    for arguments in (
        [str(cut), *key],
        [str(receipt), *key, "--input", str(other)],
        [str(receipt), "--coordinator-key", str(shared.state / "agent" / "agent.pub")],
    ):
        bad = edge_agent("verify", *arguments)
        assert bad.returncode not in (0, 70), bad.stderr
        assert bad.stderr.startswith("edge-agent: error: ")
        assert "hint: " in bad.stderr


def test_tritons_client_gets_the_same_verified_result_in_both_forms(shared: Network, tmp_path: Path) -> None:
    """Unmodified, against the real system: JSON and binary data, at once and later; the receipt proves the answer."""
    module("tritonclient.http")
    import tritonclient.http as triton  # noqa: PLC0415 - skipped where it cannot be imported

    about = shared.about
    tensor = input_of(load_scans()[0])
    array = np.frombuffer(tensor.data, "<f4").reshape(tensor.spec.shape)
    client = triton.InferenceServerClient(about["http"].removeprefix("http://"))
    found = []
    for binary in (True, False):
        image = triton.InferInput("image", list(array.shape), "FP32")
        image.set_data_from_numpy(array, binary_data=binary)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("logits", "label")]
        found.append(client.infer("digits", [image], outputs=wanted))
        found.append(client.async_infer("digits", [image], outputs=wanted).get_result())
    ready = [line["version"] for line in client.get_model_repository_index() if line["state"] == "READY"]
    client.close()
    assert ready == [found[0].get_response()["model_version"]]
    assert len({result.as_numpy("logits").tobytes() for result in found}) == 1
    response = found[-1].get_response()
    request, receipt, answer = tmp_path / "in.json", tmp_path / "job.receipt", tmp_path / "out.json"
    request.write_text(json.dumps(request_of_first_scan()))
    answer.write_text(json.dumps(response))
    receipt.write_bytes(httpx.get(f"{about['http']}{response['parameters']['receipt']}", trust_env=False).content)
    key = ["--coordinator-key", about["coordinator_key"], "--input", str(request), "--output", str(answer)]
    done = edge_agent("verify", str(receipt), *key)
    assert (done.returncode, about["agent_id"] in done.stdout) == (0, True), done.stderr


def test_grpc_is_offered_where_it_is_asked_for(tmp_path: Path) -> None:
    """`up --grpc`: the example with Triton's client gets a verified result, also from a coordinator started anew."""
    module("tritonclient.grpc")
    import tritonclient.grpc as triton  # noqa: PLC0415 - skipped where it cannot be imported
    from tritonclient.utils import InferenceServerException  # noqa: PLC0415 - as above

    def ready(client: triton.InferenceServerClient) -> bool:
        try:
            return bool(client.is_model_ready("digits"))
        except InferenceServerException:
            return False

    with running_network(tmp_path, "--grpc", "127.0.0.1:0") as network:
        address, coordinator = network.about["grpc"], network.about["pids"]["coordinator"]
        psutil.Process(coordinator).kill()
        network.wait_for_new_pid("coordinator", coordinator)
        assert network.about["grpc"] == address
        with triton.InferenceServerClient(address) as client:
            deadline = time.monotonic() + START_SECONDS
            while not ready(client):
                assert time.monotonic() < deadline, network.log("coordinator")
                time.sleep(0.05)  # polls a process that is being started again; the deadline decides
        command = [sys.executable, str(EXAMPLES / "triton_grpc.py"), address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=clean_environment())
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"It is a {load_scans()[0].label}, says digits, ")
        (job,) = httpx.get(f"{network.about['http']}/api/v1/jobs", trust_env=False).json()
        assert job["job_id"] in done.stdout


def test_a_certificate_in_the_environment_is_served_and_asked_by_up_itself(tmp_path: Path) -> None:
    """`gateway.tls_cert_file` for a name that is not the address: it gets ready, and speaks TLS only."""
    issue = issuer(tmp_path)
    authority = issue("authority")
    served = issue("coordinator", authority, "club.example")
    tls = {"EDGE_AGENT_GATEWAY_TLS_CERT_FILE": str(served.cert), "EDGE_AGENT_GATEWAY_TLS_KEY_FILE": str(served.key)}
    with running_network(tmp_path, **tls) as network:
        address = urlsplit(network.about["http"])
        assert address.scheme == "https"
        context = ssl.create_default_context(cafile=authority.cert)
        with (
            socket.create_connection((address.hostname, address.port)) as plain,
            context.wrap_socket(plain, server_hostname="club.example") as secret,
        ):
            secret.sendall(b"GET /v2/models/digits/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert secret.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_same_idempotency_key_is_one_job(shared: Network) -> None:
    """A repeated call gives the same job and the same bytes; another body under the key is refused."""
    about = shared.about
    url = f"{about['http']}/v2/models/digits/infer"
    headers = {"Idempotency-Key": "scan-0"}
    first = httpx.post(url, json=request_of_first_scan(), headers=headers, trust_env=False)
    again = httpx.post(url, json=request_of_first_scan(), headers=headers, trust_env=False)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    other = {"inputs": [tensor_to_json(input_of(load_scans()[1]))]}
    refused = httpx.post(url, json=other, headers=headers, trust_env=False)
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency-conflict")


def test_asynchronous_job_is_kept(shared: Network) -> None:
    """An asynchronous job is answered with 202, ends, and its status and receipt can be had."""
    about = shared.about
    with httpx.Client(base_url=about["http"], trust_env=False) as client:
        accepted = client.post("/api/v1/models/digits/jobs", json=request_of_first_scan())
        assert accepted.status_code == 202
        where = accepted.headers["Location"]
        # The synchronous form with the same content is not the same job: this one has its own id.
        for _ in range(500):
            state = client.get(where).json()
            if state["state"] == "succeeded":
                break
        assert state["state"] == "succeeded"
        assert "logits" in {output["name"] for output in state["outputs"]}
        assert client.get(state["receipt"]).headers["content-type"] == "application/cose"


def test_options_of_a_job_reach_the_scheduler(network: Network) -> None:
    """A class that an answer names can be asked for again; what no machine is, is refused at once."""
    about = network.about
    with httpx.Client(base_url=about["http"], trust_env=False) as client:

        def infer(**parameters: object) -> httpx.Response:
            return client.post("/v2/models/digits/infer", json={**request_of_first_scan(), "parameters": parameters})

        first = infer(client="reports", priority=3).json()
        klass = first["parameters"]["class"]
        again = infer(**{"class": klass}).json()
        assert (again["parameters"]["class"], again["outputs"]) == (klass, first["outputs"])
        (agent,) = client.get("/api/v1/agents").json()
        assert (agent["classes"], agent["loaded"]) == ({"digits": klass}, ["digits"])
        assert abs(agent["clock_skew_ms"]) < 10_000
        for elsewhere in ({"labels": "gpu"}, {"owner": "ada"}, {"class": "0" * 32}):
            refused = infer(**elsewhere)
            assert (refused.status_code, refused.json()["code"]) == (503, "no-agent")
            assert int(refused.headers["Retry-After"]) > 0
        alone = infer(mode="rechecked")  # there is one owner's machine, and waiting would bring no other
        assert (alone.status_code, alone.json()["code"], alone.json()["retry"]) == (503, "too-few-owners", False)
        assert "Retry-After" not in alone.headers
        assert "coordinator token --owner" in alone.json()["hint"]
        (listed,) = client.get("/api/v1/jobs?client=reports").json()
        assert (listed["job_id"], listed["priority"], listed["class"]) == (first["parameters"]["job_id"], 3, klass)
        assert len(client.get("/api/v1/jobs").json()) == 2


def test_state_directory_is_used_by_one_at_a_time(shared: Network) -> None:
    """A second `up` on the same state says so and changes nothing."""
    second = edge_agent("up", "--state", str(shared.state))
    assert second.returncode == 74
    assert "another process uses the state directory" in second.stderr
    assert shared.process.poll() is None


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_same_on_both_versions_of_mqtt(tmp_path: Path, protocol: str) -> None:
    """On Mosquitto with MQTT 5 and with 3.1.1, a job is done and both sides say which version they speak."""
    with (
        mosquitto(tmp_path, "allow_anonymous true") as port,
        running_network(
            tmp_path, "--broker", f"mqtt://127.0.0.1:{port}", EDGE_AGENT_BROKER_PROTOCOL=protocol
        ) as network,
    ):
        url = f"{network.about['http']}/v2/models/digits/infer"
        answer = httpx.post(url, json=request_of_first_scan(), trust_env=False)
        assert answer.status_code == 200
        assert network.about["pids"]["broker"] is None
        for name in ("agent", "coordinator"):
            assert f"with MQTT {protocol}." in network.log(name)
