"""Sealed jobs over real processes: the broker's traffic and the coordinator's files hold nothing of what was asked."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import Client as BrokerClient
from brokers import options
from networks import Network, clean_environment

from edge_agent.client import Client, JobOptions, Placement, infer_sealed
from edge_agent.errors import EdgeAgentError, InputError
from edge_agent.models.scans import load_scans
from edge_agent.mqtt import Connected, Message
from edge_agent.wire.hpke import HYBRID
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.oip_json import response_from_json, tensor_to_json
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

SCAN = load_scans()[0]
OFFSET = 1e-3 * 3.14159
"""Makes the input one that stands nowhere else."""


def _image() -> Tensor:
    values = [value + OFFSET for value in struct.unpack("<64f", SCAN.image)]
    return Tensor(TensorSpec("image", DataType.FP32, (1, 1, 8, 8)), struct.pack("<64f", *values))


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=120, check=False)


def _everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.timeout(180)
def test_neither_broker_nor_coordinator_can_read_a_sealed_job(network: Network, tmp_path: Path) -> None:
    """A plain job shows that the search would find it; the sealed one's input and output are found nowhere.

    The inputs of jobs that were waited for are in no file at all, sealed or not.
    """
    about, image = network.about, _image()
    port = int(about["mqtt"].rpartition(":")[2])
    coordinator = PublicKey.from_file(about["coordinator_key"])
    with BrokerClient(options(port, "curious"), ["ea1/#"]) as curious, Client(about["http"]) as client:
        curious.expect(Connected)
        found = infer_sealed(client, "digits", (image,), agent=about["agent_id"], coordinator=coordinator)
        again = infer_sealed(client, "digits", (image,), salt=found.salt, outputs=("label",))
        sealed_files = _everything(network.state / "coordinator")
        plain = client.infer("digits", (image,))
        seen = b""
        while image.data not in seen:  # the plain job, which came last, ends the search
            seen += curious.skip_to(Message).payload
    assert found.outputs == plain.tensors
    assert [tensor.name for tensor in again.outputs] == ["label"]
    assert found.answer.job_id != again.answer.job_id
    assert found.question.data in seen
    assert found.question.data[0] == found.answer.outputs[0].data[0] == HYBRID
    assert seen.count(image.data) == 1
    logits = plain.tensors[0].data
    assert image.data not in sealed_files
    assert logits not in sealed_files
    assert found.answer.outputs[0].data in sealed_files
    files = _everything(network.state / "coordinator")
    assert logits in files
    assert image.data not in files


@pytest.mark.timeout(180)
def test_the_command_line_seals_and_the_receipt_is_checked_offline(network: Network, tmp_path: Path) -> None:
    """As a user types it; the files that the receipt is about need no secret to be checked."""
    about = network.about
    request, receipt = tmp_path / "request.json", tmp_path / "r.receipt"
    request.write_text(json.dumps({"inputs": [tensor_to_json(_image())]}))
    base = ["submit", "digits", "--coordinator", about["http"], "--input", str(request)]
    sealed = _command(*base, "--seal", about["agent_id"], "--receipt", str(receipt))
    plain = _command(*base)
    assert (sealed.returncode, plain.returncode) == (0, 0), sealed.stderr + plain.stderr
    assert response_from_json(sealed.stdout.encode()).outputs == response_from_json(plain.stdout.encode()).outputs
    assert json.loads(sealed.stdout)["parameters"]["sealed_to"] == about["agent_id"]
    files = ["--input", f"{receipt}.request.json", "--output", f"{receipt}.response.json"]
    verify = ["verify", str(receipt), "--coordinator-key", about["coordinator_key"]]
    assert _command(*verify, *files).returncode == 0
    assert _command(*verify, "--input", str(request)).returncode != 0
    assert _command(*base, "--seal", "--async").returncode == 64
    stranger = _command(*base, "--seal", "a" * 32)
    assert (stranger.returncode, "not been here" in stranger.stderr) == (76, True), stranger.stderr


@pytest.mark.timeout(180)
def test_sealed_rubbish_is_refused_and_the_agent_works_on(network: Network, tmp_path: Path) -> None:
    """Sealed to nobody, without an agent, with outputs asked for in the clear."""
    about = network.about
    rubbish = Tensor(TensorSpec("#sealed", DataType.UINT8, (100,)), bytes(range(100)))
    placed = JobOptions(placement=Placement(agents=(about["agent_id"],)), deadline_seconds=30.0)
    with Client(about["http"]) as client:
        with pytest.raises(EdgeAgentError) as refused:
            client.infer("digits", (rubbish,), options=placed)
        assert refused.value.error_code in {"bad-input", "job-failed", "wrong-input"}
        assert "sealed" in refused.value.message
        for inputs, outputs, chosen in (((rubbish,), (), JobOptions()), ((rubbish,), ("label",), placed)):
            with pytest.raises(InputError, match="sealed"):
                client.infer("digits", inputs, outputs=outputs, options=chosen)
        assert infer_sealed(client, "digits", (_image(),)).agent_id == about["agent_id"]
    assert network.about["pids"] == about["pids"]
