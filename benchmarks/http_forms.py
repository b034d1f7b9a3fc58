"""What the whole way adds to one inference on a picture of 224×224×3 FP32 (600 KB), sent as JSON and as binary data.

The model averages each colour, so that nearly all of the time is the way: HTTP, its form, the coordinator, Mosquitto,
the agent, the worker and back. The same session called in this process is taken off. Reading the form is timed, too.
Then eight clients at once ask for scans of digits, in rounds that follow each other: in JSON over bare connections, in
binary form over the same, and with `tritonclient`, if it is installed, in binary form. With the processor time of the
coordinator and of the clients, which share the machine: what a client library costs by itself is not the server's.
`python benchmarks/http_forms.py [--jobs N]`
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import httpx
import numpy as np
import onnx
import onnxruntime as ort
import psutil
from brokers import mosquitto
from networks import clean_environment, running_network
from onnx import TensorProto, helper

from edge_agent.coordinator.gateway.reading import Reader
from edge_agent.local.demo import input_of
from edge_agent.models.scans import load_scans
from edge_agent.wire.oip_binary import LENGTH_HEADER
from edge_agent.wire.oip_json import OutputForm, body_of
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

FAMILY = "mean-colour"
SHAPE = (1, 3, 224, 224)
WARM_UP = 10
MAX_REQUEST_BYTES = 16 * 1024 * 1024
CLIENTS = 8
ROUNDS = 3
READY_SECONDS = 180.0


def edge_agent(*arguments: object, **environment: str) -> None:
    """Run a command to its end."""
    command = [sys.executable, "-m", "edge_agent", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, env={**clean_environment(), **environment})


def published(folder: Path) -> tuple[Path, list[str]]:
    """Publish the model in a catalogue of its own; return its file, and how to follow the catalogue."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *SHAPE[1:]])
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N", 3, 1, 1])
    graph = helper.make_graph([helper.make_node("GlobalAveragePool", ["image"], ["mean"])], "mean", [image], [mean])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model, samples, repository = folder / "mean.onnx", folder / "samples.npz", folder / "catalogue"
    onnx.save(made, model)
    np.savez(samples, image=np.random.default_rng(3).random((8, *SHAPE[1:]), np.float32))
    at = ("--repository", repository)
    edge_agent("catalogue", "init", repository)
    edge_agent("catalogue", "add", model, "--family", FAMILY, "--calibrate", samples, "--only", "fp32", *at)
    edge_agent("catalogue", "publish", *at)
    return model, [
        "--catalogue",
        f"{(repository / 'public').as_uri()}/",
        "--catalogue-root",
        str(repository / "root.json"),
    ]


def times_ms(base_url: str, body: bytes, headers: dict[str, str], calls: int) -> list[float]:
    """Time jobs, one after the other over one connection, milliseconds a job."""
    address = urllib.parse.urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    times = []
    for _ in range(calls + WARM_UP):
        started = time.perf_counter()
        connection.request("POST", f"/v2/models/{FAMILY}/infer", body, headers)
        response = connection.getresponse()
        answer = response.read()
        times.append((time.perf_counter() - started) * 1000)
        assert response.status == 200, answer
    return times[WARM_UP:]


def processor_ms(pids: dict[str, int | None]) -> dict[str, float]:
    """Return the processor time that each process of a network has used, milliseconds."""
    found = {}
    for name, pid in pids.items():
        if pid is not None:
            times = psutil.Process(pid).cpu_times()
            found[name] = (times.user + times.system) * 1000
    return found


def reading_ms(body: bytes, json_length: int | None) -> float:
    """Time what the coordinator does to read one request, the median in milliseconds."""
    header, given = None if json_length is None else str(json_length), bytearray(body)

    async def script() -> list[float]:
        reader, times = Reader(max_request_bytes=MAX_REQUEST_BYTES), []
        for _ in range(WARM_UP + 50):
            started = time.perf_counter()
            await reader.request(given, header)
            times.append((time.perf_counter() - started) * 1000)
        reader.close()
        return times[WARM_UP:]

    return statistics.median(asyncio.run(script()))


def bare_ms(model: Path, array: np.ndarray) -> float:
    """Time the same session in this process, one thread, the median in milliseconds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(200):
        started = time.perf_counter()
        session.run(None, {"image": array})
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


class Crowd(NamedTuple):
    """What eight clients got at once.

    Attributes:
        per_second: jobs.
        times_ms: of each job.
        coordinator_ms, clients_ms: processor time a job.
    """

    per_second: float
    times_ms: list[float]
    coordinator_ms: float
    clients_ms: float


def crowd(connect: Callable[[], Callable[[], None]], jobs: int, coordinator: psutil.Process) -> Crowd:
    """Let eight clients ask at once, each over a connection of its own."""
    times: list[float] = []
    failed: list[AssertionError] = []
    ready = threading.Barrier(CLIENTS + 1)

    def ask() -> None:
        call = connect()
        for _ in range(WARM_UP):
            call()
        ready.wait()
        try:
            for _ in range(jobs):
                started = time.perf_counter()
                call()
                times.append((time.perf_counter() - started) * 1000)
        except AssertionError as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    ready.wait()
    started, ours, theirs = time.perf_counter(), time.process_time(), coordinator.cpu_times()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"{len(failed)} of {CLIENTS} clients got an error: {failed[0]}")
    took, ours, after = time.perf_counter() - started, time.process_time() - ours, coordinator.cpu_times()
    spent = after.user + after.system - theirs.user - theirs.system
    done = len(times)
    return Crowd(done / took, times, spent / done * 1000, ours / done * 1000)


def crowds(ways: dict[str, Callable[[], Callable[[], None]]], jobs: int, coordinator: psutil.Process) -> None:
    """Let every way have its turn in each round, so that all see the same machine, and print what they got."""
    found: dict[str, list[Crowd]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name in [*ways][:: 1 if number % 2 == 0 else -1]:
            found[name].append(crowd(ways[name], max(1, jobs // ROUNDS), coordinator))
    first = [round_.per_second for round_ in next(iter(found.values()))]
    for name, rounds in found.items():
        times = [took for round_ in rounds for took in round_.times_ms]
        rates = [round_.per_second for round_ in rounds]
        share = statistics.median(rate / other for rate, other in zip(rates, first, strict=True))
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        print(
            f"{CLIENTS} clients, digits, {name:20} {statistics.median(rates):7.1f} jobs/s ({share:.2f} of the first)   "
            f"p50 {p50:6.2f} ms  p99 {p99:7.2f} ms   processor time a job: coordinator "
            f"{statistics.median(r.coordinator_ms for r in rounds):.2f} ms, client "
            f"{statistics.median(r.clients_ms for r in rounds):.2f} ms"
        )


def bare_client(base_url: str, form: OutputForm) -> Callable[[], None]:
    """Return a call in JSON or binary form over a connection of its own."""
    address = urllib.parse.urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    about = {"parameters": {"binary_data_output": form.binary}}
    body, length = body_of(about, "inputs", [input_of(load_scans()[0])], form)
    headers = {} if length is None else {LENGTH_HEADER: str(length)}

    def call() -> None:
        connection.request("POST", "/v2/models/digits/infer", body, headers)
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer

    return call


def triton_client(base_url: str) -> Callable[[], None]:
    """Return a call in binary form with tritonclient."""
    import tritonclient.http as triton  # noqa: PLC0415 - not everybody has it

    client = triton.InferenceServerClient(base_url.removeprefix("http://"))
    tensor = input_of(load_scans()[0])
    image = triton.InferInput("image", list(tensor.spec.shape), "FP32")
    image.set_data_from_numpy(np.frombuffer(tensor.data, "<f4").reshape(tensor.spec.shape))

    def call() -> None:
        client.infer("digits", [image])

    return call


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    args = parser.parse_args()
    array = np.random.default_rng(4).random(SHAPE, np.float32)
    image = Tensor(TensorSpec("image", DataType.FP32, SHAPE), array.tobytes())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(mosquitto(folder, "allow_anonymous true"))
        model, whom = published(folder)
        agent = {"EDGE_AGENT_AGENT_STATE_DIR": str(folder / "state" / "agent")}
        edge_agent("models", "refresh", *whom, **agent)
        edge_agent("models", "pull", FAMILY, *whom, **agent)
        network = stack.enter_context(
            running_network(folder, "--log-level", "info", "--broker", f"mqtt://127.0.0.1:{port}", *whom)
        )
        base_url = network.about["http"]
        end = time.monotonic() + READY_SECONDS
        while httpx.get(f"{base_url}/v2/models/{FAMILY}/ready", trust_env=False).status_code != 200:
            assert time.monotonic() < end, "the family is not offered"
            time.sleep(0.1)
        floor = bare_ms(model, array)
        print(f"onnxruntime {ort.__version__}; {args.jobs} jobs, one client; bare session {floor:.2f} ms")
        for name, form in (("JSON", OutputForm()), ("binary", OutputForm(binary=True))):
            parameters = {"parameters": {"binary_data_output": form.binary}}
            body, json_length = body_of(parameters, "inputs", [image], form)
            headers = {} if json_length is None else {LENGTH_HEADER: str(json_length)}
            before = processor_ms(network.about["pids"])
            times = times_ms(base_url, body, headers, args.jobs)
            after = processor_ms(network.about["pids"])
            spent = {of: (after[of] - before[of]) / (args.jobs + WARM_UP) for of in before}
            p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
            read = reading_ms(body, json_length)
            print(
                f"{name:7} {len(body):9,} bytes   whole way p50 {p50:7.2f} ms  p99 {p99:7.2f} ms   "
                f"added p50 {p50 - floor:7.2f} ms   of that, reading {read:6.2f} ms"
            )
            shares = ", ".join(f"{of} {ms:.1f}" for of, ms in spent.items())
            print(f"{'':7} processor time a job, ms: {shares}; {sum(spent.values()):.1f} together")
        ways = {
            "JSON": lambda: bare_client(base_url, OutputForm()),
            "binary": lambda: bare_client(base_url, OutputForm(binary=True)),
        }
        if importlib.util.find_spec("tritonclient") is not None:
            ways["tritonclient, binary"] = lambda: triton_client(base_url)
        try:
            crowds(ways, args.jobs, psutil.Process(network.about["pids"]["coordinator"]))
        except SystemExit:
            print(*(f"-- {name}\n{network.log(name)[-3000:]}" for name in ("agent", "coordinator")), sep="\n")
            raise
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
