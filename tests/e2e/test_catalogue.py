"""From an operator's folder to a client's verified result, with the commands that people type."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import needs
import numpy as np
import pytest
import tied
from networks import Network, clean_environment, running_network
from repositories import DIGITS, digits_files, digits_named

from edge_agent.local.demo import input_of
from edge_agent.models.scans import load_scans
from edge_agent.wire.oip_json import tensor_to_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(400)  # a dozen commands, each a process, on a machine that may be busy
OFFER_SECONDS = 180.0


def edge_agent(*arguments: object, status: int = 0, **environment: str) -> str:
    """Run a command to its end; return what it printed."""
    command = [sys.executable, "-m", "edge_agent", *map(str, arguments)]
    environ = {**clean_environment(), **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environ)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


@contextmanager
def served(repository: Path) -> Iterator[str]:
    """Run `edge-agent catalogue serve` on a free port; give the address that it logs."""
    command = [sys.executable, "-m", "edge_agent", "catalogue", "serve", "--repository", str(repository)]
    command += ["--http", "127.0.0.1:0"]
    with tied.start(command, stderr=subprocess.PIPE, text=True, env=clean_environment()) as process:
        assert process.stderr is not None
        try:
            found = re.search(r"Serving (http://\S+/)", process.stderr.readline())
            assert found is not None
            yield found[1]
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert process.returncode == 0


def described(folder: Path, name: str) -> list[str]:
    """Describe a family with one variant whose file nobody has yet; return what `catalogue add` is given."""
    import onnx  # noqa: PLC0415 only where the extra is installed

    variant = next(v for v in DIGITS.variants if v.name == "int8-static")
    files = digits_files()
    model = onnx.load(files[variant.digest])
    model.doc_string = name  # other bytes, so that the agent has to fetch them
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[:64]
    changed = variant.model_copy(update={"digest": digest, "size_bytes": path.stat().st_size, "file": f"{name}.onnx"})
    description = folder / f"{name}.json"
    description.write_text(digits_named(name, variants=(changed,)).model_dump_json())
    assert variant.golden is not None
    return [str(description), "--file", str(path), "--file", str(files[variant.golden.digest])]


def wait_for_offer(network: Network, family: str) -> set[str]:
    """Wait until the agent says that it offers a family; return all that it offers then."""
    end = time.monotonic() + OFFER_SECONDS
    offers: set[str] = set()
    while family not in offers and time.monotonic() < end:
        time.sleep(0.1)  # polls a file that another process writes; the deadline decides
        offers = set(json.loads((network.state / "agent" / "status.json").read_text())["offers"])
    return offers


def wait_for_family(network: Network, family: str) -> None:
    """Wait until the coordinator knows a family: it refreshes its catalogue beside its start."""
    url = f"{network.about['http']}/v2/models/{family}"
    with httpx.Client(trust_env=False) as client:
        while client.get(url).status_code != httpx.codes.OK:  # the test's own time limit ends it
            assert network.process.poll() is None


def test_published_family_is_served_and_verified(tmp_path: Path) -> None:
    """init, add, publish, serve; refresh, pull, up; submit, verify: all with a family that no program has built in."""
    needs.module("onnx")
    repository, state = tmp_path / "catalogue", tmp_path / "state"
    at = ["--repository", repository]
    edge_agent("catalogue", "init", repository)
    edge_agent("catalogue", "add", *described(tmp_path, "club-digits"), *at)
    edge_agent("catalogue", "publish", *at)
    with served(repository) as url:
        whom = ["--catalogue", url, "--catalogue-root", repository / "root.json"]
        agent = {"EDGE_AGENT_AGENT_STATE_DIR": str(state / "agent")}
        said = json.loads(edge_agent("models", "refresh", "--json", *whom, **agent))
        assert (said["new"], said["catalogue"], said["problem"]) == (["club-digits"], 1, "")
        assert "club-digits" in edge_agent("models", "list", *whom, **agent)
        pulled = json.loads(edge_agent("models", "pull", "club-digits", "--json", *whom, **agent))
        assert [(file["name"], file["was_here"]) for file in pulled["files"]] == [("club-digits/int8-static", False)]
        with running_network(tmp_path, *map(str, whom)) as network:
            about = network.about
            request, receipt, answer = tmp_path / "in.json", tmp_path / "job.receipt", tmp_path / "out.json"
            request.write_text(json.dumps({"inputs": [tensor_to_json(input_of(load_scans()[0]))]}))
            to = ["--coordinator", about["http"], "--receipt", receipt, "--output", answer]
            wait_for_family(network, "club-digits")
            edge_agent("submit", "club-digits", "--input", request, *to)
            key = ["--coordinator-key", about["coordinator_key"], "--input", request, "--output", answer]
            proven = edge_agent("verify", receipt, *key)
            assert about["agent_id"] in proven
            tensor = input_of(load_scans()[1])
            array = np.frombuffer(tensor.data, "<f4").reshape(tensor.spec.shape)
            np.save(tmp_path / "scan.npy", array)  # what it is for, the coordinator says
            done = edge_agent("submit", "club-digits", "--input", tmp_path / "scan.npy", "--coordinator", about["http"])
            assert json.loads(done)["model_name"] == "club-digits"
            assert wait_for_offer(network, "club-digits") == {"digits", "club-digits"}
            status = json.loads((network.state / "agent" / "status.json").read_text())
            assert (status["catalogue"]["version"], status["catalogue"]["problem"]) == (1, "")

            # Another family, while all goes on: nobody is started again.
            edge_agent("catalogue", "add", *described(tmp_path, "second"), *at)
            edge_agent("catalogue", "publish", *at)
            coordinator = {"EDGE_AGENT_AGENT_STATE_DIR": str(state / "coordinator")}
            for who in (coordinator, agent):
                assert json.loads(edge_agent("models", "refresh", "--json", *whom, **who))["new"] == ["second"]
            edge_agent("models", "pull", "second", *whom, **agent)
            assert wait_for_offer(network, "second") == {"digits", "club-digits", "second"}
            wait_for_family(network, "second")
            edge_agent("submit", "second", "--input", request, "--coordinator", about["http"])
            assert network.about["pids"]["agent"] == about["pids"]["agent"]


def test_an_agent_that_may_fetches_what_it_can_serve(tmp_path: Path) -> None:
    """Nobody pulls anything: a published family is fetched, measured and offered while the agent runs."""
    needs.module("onnx")
    repository = tmp_path / "catalogue"
    at = ["--repository", repository]
    edge_agent("catalogue", "init", repository)
    edge_agent("catalogue", "add", *described(tmp_path, "club-digits"), *at)
    edge_agent("catalogue", "publish", *at)
    with served(repository) as url:
        whom = ["--catalogue", url, "--catalogue-root", str(repository / "root.json")]
        with running_network(tmp_path, *whom, EDGE_AGENT_AGENT_DOWNLOAD="allowed") as network:
            assert wait_for_offer(network, "club-digits") == {"digits", "club-digits"}, network.log("agent")


def test_catalogue_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """With another operator's root, nothing of a catalogue is taken, and the built-in family stays."""
    for name in ("mine", "other"):
        edge_agent("catalogue", "init", tmp_path / name)
        edge_agent("catalogue", "publish", "--repository", tmp_path / name)
    with served(tmp_path / "other") as url:
        whom = ["--catalogue", url, "--catalogue-root", tmp_path / "mine" / "root.json"]
        agent = {"EDGE_AGENT_AGENT_STATE_DIR": str(tmp_path / "agent")}
        assert "is refused" in edge_agent("models", "refresh", *whom, status=76, **agent)
        assert json.loads(edge_agent("models", "--json", *whom, **agent))["families"][0]["name"] == "digits"


def test_refresh_without_a_catalogue_says_what_to_set(tmp_path: Path) -> None:
    """Nobody is asked."""
    agent = {"EDGE_AGENT_AGENT_STATE_DIR": str(tmp_path / "agent")}
    assert "No catalogue is set" in edge_agent("models", "refresh", status=64, **agent)
    assert not (tmp_path / "agent").exists()
    text = edge_agent("models", "refresh", "--catalogue", "http://127.0.0.1:9/", status=78, **agent)
    assert "must be set together" in text
