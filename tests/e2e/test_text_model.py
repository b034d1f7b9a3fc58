"""A string goes in and a vector comes out, all the way: published from a model, fetched, measured, served, verified."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from minilm import minilm_graph, minilm_reference, tiny
from needs import module
from networks import clean_environment, running_network

module("onnxruntime_extensions")

pytestmark = pytest.mark.timeout(600)  # 20 s of work in many processes, on machines that may be busy

WORDS = ("hello", "world", "unaffable", "café", "a", "b", "c", "1", "worlding", "naive")


def edge_agent(*arguments: object, **environment: str) -> str:
    """Run a command to its end; return what it printed."""
    command = [sys.executable, "-m", "edge_agent", *map(str, arguments)]
    environ = {**clean_environment(), **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def published(folder: Path) -> list[str]:
    """Publish a tiny sentence encoder; return how to follow its catalogue."""
    model, repository = folder / "tiny.onnx", folder / "catalogue"
    model.write_bytes(minilm_graph.build(tiny()).SerializeToString())
    lines = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 3 + i % 5)) + "." for i in range(40)]
    (folder / "lines.txt").write_text("\n".join(dict.fromkeys(lines)), encoding="utf-8")
    at = ("--repository", repository)
    edge_agent("catalogue", "init", repository)
    offered = ("--only", "fp32,int8-weights", "--reference-seconds", "0", "--gate", "50")
    edge_agent("catalogue", "add", model, "--family", "tiny-text", "--calibrate", folder / "lines.txt", *offered, *at)
    edge_agent("catalogue", "publish", *at)
    return ["--catalogue", f"{(repository / 'public').as_uri()}/", "--catalogue-root", str(repository / "root.json")]


def openai_vectors(base_url: str, texts: list[str]) -> list[list[float]] | None:
    """Embed texts with the unmodified `openai` package, where it is installed."""
    if importlib.util.find_spec("openai") is None:
        return None
    import openai  # noqa: PLC0415 - see above

    with openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny-text"]
        made = client.embeddings.create(model="tiny-text/fp32", input=texts)
    return [entry.embedding for entry in made.data]


def test_text_goes_in_and_verified_vectors_come_out(tmp_path: Path) -> None:
    """Over HTTP, in a batch; the vectors are those of plain numpy, and the receipt proves who made them."""
    whom = published(tmp_path)
    state = {"EDGE_AGENT_AGENT_STATE_DIR": str(tmp_path / "state" / "agent")}
    edge_agent("models", "refresh", *whom, **state)
    edge_agent("models", "pull", "tiny-text", *whom, **state)
    texts = ["hello world", "Unaffable CAFÉ!", ""]
    tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": texts}
    request, receipt, answer = tmp_path / "in.json", tmp_path / "job.receipt", tmp_path / "out.json"
    request.write_text(json.dumps({"inputs": [tensor]}))
    with running_network(tmp_path, *whom) as network:
        about = network.about
        ports = httpx.get(f"{about['http']}/v2/models/tiny-text", trust_env=False).json()["inputs"]
        assert [(port["name"], port["datatype"]) for port in ports] == [("text", "BYTES")]
        to = ["--coordinator", about["http"], "--receipt", receipt, "--output", answer]
        edge_agent("submit", "tiny-text", "--input", request, "--version", "fp32", *to)
        key = ["--coordinator-key", about["coordinator_key"], "--input", request, "--output", answer]
        assert about["agent_id"] in edge_agent("verify", receipt, *key)
        vectors = openai_vectors(about["http"], texts[:2])
    (output,) = json.loads(answer.read_text())["outputs"]
    found = np.array(output["data"]).reshape(output["shape"])
    np.testing.assert_allclose(found, minilm_reference.embed(texts, tiny()), atol=1e-4)
    if vectors is not None:
        np.testing.assert_allclose(vectors, found[:2], atol=1e-4)
