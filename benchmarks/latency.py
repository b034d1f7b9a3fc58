"""What the whole way adds to one inference, one client, p50 and p99.

HTTP → coordinator → broker → agent → worker and back, two signatures made and checked, over the same model called
in this process with the same session options, in the same run. `python benchmarks/latency.py [--jobs N] [--embedded]`
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from contextlib import ExitStack
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import onnxruntime as ort
from brokers import mosquitto
from networks import running_network

from edge_agent.local.demo import input_of
from edge_agent.models.catalogue import builtin
from edge_agent.models.scans import load_scans
from edge_agent.models.store import Store
from edge_agent.wire.oip_json import tensor_to_json

WARM_UP = 50


def bare_ms(variant_name: str, calls: int) -> list[float]:
    """Time the same session in this process, one thread, spinning off, milliseconds a call."""
    variant = builtin().family("digits").variant_named(variant_name)
    assert variant is not None
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(Store().path_of(variant), options, providers=["CPUExecutionProvider"])
    tensor = input_of(load_scans()[0])
    feed = {tensor.spec.name: np.frombuffer(tensor.data, "<f4").reshape(tensor.spec.shape)}
    times = []
    for _ in range(calls + WARM_UP):
        started = time.perf_counter()
        session.run(None, feed)
        times.append((time.perf_counter() - started) * 1000)
    return times[WARM_UP:]


def network_ms(base_url: str, calls: int) -> list[float]:
    """Time jobs through the network, one after the other over one connection, milliseconds a job."""
    address = urllib.parse.urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    bodies = [json.dumps({"inputs": [tensor_to_json(input_of(scan))]}).encode() for scan in load_scans()[:50]]
    times = []
    for number in range(calls + WARM_UP):
        started = time.perf_counter()
        connection.request("POST", "/v2/models/digits/infer", bodies[number % len(bodies)])
        response = connection.getresponse()
        answer = response.read()
        times.append((time.perf_counter() - started) * 1000)
        assert response.status == 200, answer
    return times[WARM_UP:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--embedded", action="store_true", help="the embedded broker instead of Mosquitto")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        more: list[str] = []
        name = "amqtt (embedded)"
        if not args.embedded:
            port = stack.enter_context(mosquitto(folder, "allow_anonymous true"))
            more = ["--broker", f"mqtt://127.0.0.1:{port}"]
            version = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True, check=False).stdout
            name = version.splitlines()[0] if version else "mosquitto"
        network = stack.enter_context(running_network(folder, "--log-level", "warning", *more))
        status = json.loads((network.state / "agent" / "status.json").read_text())
        variant = status["families"][0]["chosen"]
        whole = network_ms(network.about["http"], args.jobs)
        bare = bare_ms(variant, args.jobs)
    p50, p99 = statistics.median(whole), statistics.quantiles(whole, n=100)[98]
    floor = statistics.median(bare)
    print(f"broker {name}; digits {variant}; onnxruntime {ort.__version__}; {args.jobs} jobs, one client")
    print(f"bare session  p50 {floor:8.3f} ms")
    print(f"whole way     p50 {p50:8.3f} ms   p99 {p99:.3f} ms")
    print(f"added         p50 {p50 - floor:8.3f} ms")


if __name__ == "__main__":
    main()
