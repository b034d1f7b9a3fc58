"""A job that the broker cannot take fails at once and says so, however the broker lets that be known."""

from __future__ import annotations

import struct
from pathlib import Path

import httpx
import pytest
from brokers import mosquitto
from networks import running_network

from edge_agent.wire.oip_json import tensor_to_json
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

LIMIT_BYTES = 60_000
BATCH = 400
DEADLINE_SECONDS = 120.0


def request(batch: int) -> dict[str, object]:
    """Make a request whose input has 256 bytes for each scan."""
    image = Tensor(TensorSpec("image", DataType.FP32, (batch, 1, 8, 8)), struct.pack("<f", 1.0) * 64 * batch)
    return {"inputs": [tensor_to_json(image)], "parameters": {"deadline_seconds": DEADLINE_SECONDS}}


@pytest.mark.parametrize(
    ("setting", "protocol", "blame"),
    [
        ("max_packet_size", "5", None),
        ("message_size_limit", "5", "coordinator"),
        ("max_packet_size", "3.1.1", "coordinator"),
    ],
    ids=["announced", "disconnected", "disconnected-3.1.1"],
)
def test_a_job_above_the_brokers_limit_fails_at_once(
    tmp_path: Path, setting: str, protocol: str, blame: str | None
) -> None:
    """The limit is announced, or the connection ends, with either version. Other jobs are served all the same."""
    with (
        mosquitto(tmp_path, f"{setting} {LIMIT_BYTES}", "allow_anonymous true") as port,
        running_network(
            tmp_path, "--broker", f"mqtt://127.0.0.1:{port}", EDGE_AGENT_BROKER_PROTOCOL=protocol
        ) as network,
        httpx.Client(base_url=network.about["http"], trust_env=False, timeout=DEADLINE_SECONDS) as client,
    ):
        refused = client.post("/v2/models/digits/infer", json=request(BATCH))
        body = refused.json()
        assert (refused.status_code, body["code"], body["retry"]) == (413, "too-large", False)
        assert body.get("blame") == blame
        assert refused.elapsed.total_seconds() < DEADLINE_SECONDS / 2
        assert client.post("/v2/models/digits/infer", json=request(1)).status_code == 200
        (agent,) = client.get("/api/v1/agents").json()
        assert agent["in_flight"] == 0
