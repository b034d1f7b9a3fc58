"""What people would use instead: each peer in an environment of its own, started, loaded, measured and ended."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from peerlab.load import Call, drive
from peerlab.workloads import Workload

SERVERS = Path(__file__).resolve().parent / "servers"
START_SECONDS = 90.0
INSTALL_SECONDS = 900.0
BOUNDARY = "edgeagentpeers"


class SkippedError(Exception):
    """This peer, or this workload on it, cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A serving system.

    Attributes:
        packages: what is installed, beside onnxruntime and numpy; the first gives the version that is reported.
        command: to start it; `{python}`, `{port}` and `{servers}` are filled in.
        path: where it is asked.
        body: how it takes the input: as raw bytes, as a file of a form, in JSON as base64, or as JSON of the
            Open Inference Protocol.
    """

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    path: str
    body: str = "raw"
    env: str = ""


PEERS = (
    Peer(
        "FastAPI + onnxruntime, event loop",
        ("fastapi", "uvicorn", "httptools", "uvloop"),
        ("{python}", "-m", "uvicorn", "fastapi_app:app", "--port", "{port}", "--log-level", "error", "--no-access-log"),
        "/loop",
        env="fastapi",
    ),
    Peer(
        "FastAPI + onnxruntime, thread pool",
        ("fastapi", "uvicorn", "httptools", "uvloop"),
        ("{python}", "-m", "uvicorn", "fastapi_app:app", "--port", "{port}", "--log-level", "error", "--no-access-log"),
        "/pool",
        env="fastapi",
    ),
    Peer("LitServe", ("litserve",), ("{python}", "{servers}/litserve_app.py"), "/predict", "base64"),
    Peer(
        "MLServer (JSON)",
        ("mlserver",),
        ("{python}", "-c", "from mlserver.cli import main; main()", "start", "."),
        "/v2/models/peer/infer",
        "json",
        "mlserver",
    ),
    Peer(
        "BentoML",
        ("bentoml",),
        ("{python}", "-m", "bentoml", "serve", "bentoml_app:Service", "--port", "{port}"),
        "/infer",
        "form",
    ),
    Peer("Ray Serve", ("ray[serve]",), ("{python}", "{servers}/ray_app.py"), "/", env="ray"),
    Peer("Celery + Redis", ("celery", "redis"), (), "", env="celery"),
    Peer("Triton", (), (), ""),
)


def environment_of(peer: Peer, cache: Path) -> Path:
    """Return the peer's environment, made if it is not there yet.

    Raises:
        SkippedError: it cannot be installed.
    """
    if not peer.packages:
        raise SkippedError(
            "Triton comes as a container image of many gigabytes, or built from source; it is not installed"
        )
    folder = cache / "env" / (peer.env or peer.packages[0])
    if folder.exists():
        return folder
    made = folder.with_suffix(".tmp")
    shutil.rmtree(made, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", made], check=True, capture_output=True, timeout=INSTALL_SECONDS)
        pip = [made / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "onnxruntime", "numpy", *peer.packages], check=True, capture_output=True, timeout=INSTALL_SECONDS
        )
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", b"") or b"").decode(errors="replace").strip().splitlines()
        raise SkippedError(f"cannot be installed: {said[-1] if said else error}") from error
    made.rename(folder)
    return folder


def version_of(peer: Peer, environment: Path) -> str:
    """Return the version of a peer's first package."""
    name = peer.packages[0].partition("[")[0]
    script = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run(
        [environment / "bin" / "python", "-c", script], check=True, capture_output=True, text=True
    ).stdout.strip()


def request_of(peer: Peer, workload: Workload) -> Call:
    """Return the request for a workload in the form that the peer takes."""
    ((name, array),) = workload.inputs.items()
    raw = array.tobytes()
    if peer.body == "raw":
        return Call(peer.path, {"Content-Type": "application/octet-stream"}, [raw])
    if peer.body == "base64":
        text = json.dumps({"data": base64.b64encode(raw).decode()}).encode()
        return Call(peer.path, {"Content-Type": "application/json"}, [text])
    if peer.body == "form":
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="data"; filename="d"\r\n'
        body = (
            f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + raw + f"\r\n--{BOUNDARY}--\r\n".encode()
        )
        return Call(peer.path, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}, [body])
    kind = {"float32": "FP32", "int64": "INT64"}[array.dtype.name]
    entry = {"name": name, "datatype": kind, "shape": list(array.shape), "data": array.ravel().tolist()}
    return Call(peer.path, {"Content-Type": "application/json"}, [json.dumps({"inputs": [entry]}).encode()])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(peer: Peer, environment: Path, workload: Workload, model: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Start a peer with a model; yields its address and its process id.

    Raises:
        SkippedError: it does not answer.
    """
    port = _free_port()
    fill = {"python": environment / "bin" / "python", "port": port, "servers": SERVERS}
    command = [part.format(**fill) for part in peer.command]
    ((name, array),) = workload.inputs.items()
    cwd = folder
    if peer.env == "mlserver":
        settings = {"http_port": port, "grpc_port": _free_port(), "metrics_port": _free_port(), "parallel_workers": 0}
        (folder / "settings.json").write_text(json.dumps({"debug": False, "host": "127.0.0.1", **settings}))
        (folder / "model-settings.json").write_text(
            json.dumps({"name": "peer", "implementation": "mlserver_app.Runtime"})
        )
    variables = {
        **os.environ,
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(SERVERS),
        "PEER_MODEL": str(model),
        "PEER_INPUT": name,
        "PEER_SHAPE": ",".join(map(str, array.shape)),
        "PEER_DTYPE": array.dtype.name,
        "PEER_PORT": str(port),
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=cwd, env=variables, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, request_of(peer, workload), process, folder / "log")
        yield url, process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(url: str, call: Call, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    why = "no answer"
    while time.monotonic() < until and process.poll() is None:
        request = urllib.request.Request(f"{url}{call.path}", call.bodies[0], call.headers)  # noqa: S310 - ours
        try:
            with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - as above
                response.read()
                return
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}: {error.read()[:200]!r}"
        except OSError as error:
            why = str(error)
        time.sleep(0.2)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise SkippedError(f"does not serve: {why}; its log ends: {' | '.join(lines[-2:])[-300:]}")


def pss_mib(pid: int) -> float:
    """Return the proportional memory of a process and all below it."""
    root = psutil.Process(pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 2**20


def loads(url: str, call: Call, *, clients: int, seconds: float) -> tuple[float, float]:
    """Return the median latency with one client in milliseconds, and answers a second with many."""
    one = drive(url, call, clients=1, seconds=seconds / 2, warm_up_seconds=0.3)
    many = drive(url, call, clients=clients, seconds=seconds, warm_up_seconds=0.3)
    ordered = sorted(one.latencies_ms)
    return ordered[len(ordered) // 2], many.per_second


def celery_loads(
    environment: Path, workload: Workload, model: Path, folder: Path, plan: list[str]
) -> list[dict[str, Any]]:
    """Return what Celery does with the loads of a plan, `CLIENTSxSECONDS` each; its clients are threads of one process.

    Raises:
        SkippedError: there is no Redis server.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise SkippedError("there is no redis-server on this machine")
    port = _free_port()
    ((name, array),) = workload.inputs.items()
    variables = {
        **os.environ,
        "PYTHONPATH": str(SERVERS),
        "PEER_MODEL": str(model),
        "PEER_INPUT": name,
        "PEER_SHAPE": ",".join(map(str, array.shape)),
        "PEER_DTYPE": array.dtype.name,
        "PEER_REDIS": f"redis://127.0.0.1:{port}",
        "C_FORCE_ROOT": "1",
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    redis = subprocess.Popen([program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], cwd=folder, **quiet)  # type: ignore[call-overload]
    worker = subprocess.Popen(  # type: ignore[call-overload]
        [
            environment / "bin" / "python",
            "-m",
            "celery",
            "-A",
            "celery_app",
            "worker",
            "--pool",
            "prefork",
            "-c",
            "2",
            "-l",
            "error",
        ],
        cwd=SERVERS,
        env=variables,
        **quiet,
    )
    try:
        client = [environment / "bin" / "python", SERVERS / "celery_app.py", *plan]
        done = subprocess.run(
            client, input=array.tobytes(), env=variables, cwd=SERVERS, capture_output=True, timeout=300, check=False
        )
        if done.returncode:
            raise SkippedError(f"does not serve: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")
        return [json.loads(line) for line in done.stdout.splitlines()]
    finally:
        for process in (worker, redis):
            process.terminate()
            process.wait(30)
