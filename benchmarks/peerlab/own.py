"""Our own network on this machine: Mosquitto, coordinator, agent and worker, started as users start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from peerlab.load import Call
from peerlab.workloads import ROOT, Workload, model_of, samples_of

sys.path.insert(0, str(ROOT / "tests"))
from brokers import mosquitto
from networks import clean_environment, running_network

from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.receipts import verify_receipt

OFFER_SECONDS = 120.0


def _edge_agent(*arguments: object, **environment: str) -> None:
    command = [sys.executable, "-m", "edge_agent", *map(str, arguments)]
    environ = {**clean_environment(), **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def published(workloads: Sequence[Workload], cache: Path) -> Path:
    """Publish the workloads' models, once for all runs; return the catalogue's folder."""
    repository = cache / "catalogue"
    done = repository / "done"
    if done.exists():
        return repository
    _edge_agent("catalogue", "init", repository)
    for workload in workloads:
        if workload.form is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model, samples = Path(folder, "model.onnx"), Path(folder, "samples.npz")
            model.write_bytes(model_of(workload))
            np.savez(samples, **samples_of(workload))
            forms = ",".join(dict.fromkeys(("fp32", workload.form)))
            # Weights are random: what is lost in 8 bits says nothing here.
            how = ("--only", forms, "--gate", "100", "--reference-seconds", "0", "--repository", repository)
            _edge_agent("catalogue", "add", model, "--family", workload.family, "--calibrate", samples, *how)
    _leave_one_form(repository / "catalogue.json", {w.family: w.form for w in workloads if w.form is not None})
    _edge_agent("catalogue", "publish", "--repository", repository)
    done.touch()
    return repository


def _leave_one_form(draft: Path, forms: dict[str, str]) -> None:
    """Leave each family the form that is measured: an agent that may choose would take another on another machine."""
    lines = []
    for line in draft.read_text().splitlines():
        bare = line.rstrip(",")
        if bare.startswith('{"name":'):
            family = json.loads(bare)
            wanted = forms.get(family["name"])
            family["variants"] = [entry for entry in family["variants"] if wanted in {None, entry["name"]}]
            line = json.dumps(family, separators=(",", ":")) + line[len(bare) :]  # noqa: PLW2901
        lines.append(line)
    draft.write_text("\n".join(lines) + "\n")


def file_of(repository: Path | None, family: str, variant: str) -> Path:
    """Return a variant's file in a published catalogue; without one, in the built-in one."""
    if repository is None:
        found = builtin().family(family).variant_named(variant)
        assert found is not None
        return BUILTIN_DIR / found.file
    for entry in json.loads((repository / "catalogue.json").read_text())["families"]:
        for listed in entry["variants"]:
            if (entry["name"], listed["name"]) == (family, variant):
                return repository / "public" / "sha256" / str(listed["digest"]).removeprefix("sha256:")
    raise SystemExit(f"the catalogue has no {family}/{variant}")


class Own:
    """A running network.

    Attributes:
        url: of the coordinator.
        about: what `edge-agent up` says of itself.
    """

    def __init__(self, about: dict[str, Any], state: Path, broker_port: int) -> None:
        self.url = str(about["http"])
        self.about = about
        self._state = state
        self._broker_port = broker_port

    def variant(self, family: str) -> str:
        """Wait until the family is offered; return the variant that the agent chose by measuring."""
        until = time.monotonic() + OFFER_SECONDS
        while time.monotonic() < until:
            status = json.loads((self._state / "agent" / "status.json").read_text())
            for entry in status["families"]:
                if entry["family"] == family and entry.get("chosen"):
                    return str(entry["chosen"])
            time.sleep(0.1)
        raise SystemExit(f"{family} was not offered within {OFFER_SECONDS:g} s")

    def call(self, workload: Workload, variant: str) -> Call:
        """Return the request for a workload."""
        headers, body = workload.body()
        return Call(f"/v2/models/{workload.family}/versions/{variant}/infer", headers, [body])

    def check(self, answer: bytes, expected: Sequence[bytes]) -> None:
        """Fail unless an answer has these outputs and a receipt that proves them, offline, by the pinned key."""
        head, _, body = answer.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
        length = int(fields["inference-header-content-length"])
        said = json.loads(body[:length])
        assert body[length:] == b"".join(expected), "the outputs are not those of the bare session"
        with urllib.request.urlopen(f"{self.url}{said['parameters']['receipt']}") as response:  # noqa: S310 - ours
            receipt = response.read()
        proof = verify_receipt(receipt, PublicKey.from_file(Path(self.about["coordinator_key"])))
        assert proof.result.job.hex() == said["parameters"]["job_id"], "the receipt is for another job"

    def processes(self) -> dict[str, psutil.Process]:
        """Return its processes by what they are."""
        found = {name: psutil.Process(pid) for name, pid in self._pids().items() if pid is not None}
        for process in psutil.process_iter(["name", "cmdline"]):
            command = process.info["cmdline"] or []
            if process.info["name"] == "mosquitto" and any(f"-{self._broker_port}.conf" in part for part in command):
                found["broker"] = process
        for child in found["agent"].children():
            if "edge_agent.inference.worker" in child.cmdline():
                found.setdefault("worker", child)
        return found

    def _pids(self) -> dict[str, int | None]:
        pids: dict[str, int | None] = json.loads((self._state.parent / "ready.json").read_text())["pids"]
        return pids


@contextmanager
def running(repository: Path | None, families: Sequence[str]) -> Iterator[Own]:
    """Start broker, coordinator and agent; the models are pulled before."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-agent-peers-")))
        lines = ("allow_anonymous true", "set_tcp_nodelay true", "persistence false")
        port = stack.enter_context(mosquitto(folder, *lines))
        more: list[str] = ["--broker", f"mqtt://127.0.0.1:{port}"]
        if repository is not None:
            public = f"{(repository / 'public').as_uri()}/"
            whom = ["--catalogue", public, "--catalogue-root", str(repository / "root.json")]
            more += whom
            state = {"EDGE_AGENT_AGENT_STATE_DIR": str(folder / "state" / "agent")}
            _edge_agent("models", "refresh", *whom, **state)
            for family in families:
                if family != "digits":
                    _edge_agent("models", "pull", family, *whom, **state)
        environment = {name: os.environ[name] for name in os.environ if name.startswith("EDGE_AGENT_PEERS_OWN_")}
        settings = {name.replace("PEERS_OWN_", ""): value for name, value in environment.items()}
        network = stack.enter_context(running_network(folder, "--log-level", "warning", *more, **settings))
        yield Own(network.about, network.state, port)
