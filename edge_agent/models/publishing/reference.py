"""The second opinion: ONNX's own reference implementation of the operators, in a process with a time limit.

A defect of onnxruntime on the operator's machine must not become the truth, so the original's golden outputs
come from here where they can. The reference is slow and knows neither onnxruntime's own operators nor those of
onnxruntime-extensions.

    python -m edge_agent.models.publishing.reference MODEL.onnx INPUTS.npz OUTPUTS.npz
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edge_agent.models.publishing.graphs import graphs
from edge_agent.models.publishing.runs import Array, Feed, reason

DEFAULT_SECONDS = 60.0
_STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def answers(path: Path, feeds: Sequence[Feed], seconds: float = DEFAULT_SECONDS) -> list[dict[str, Array]] | str:
    """Return the reference's outputs for each feed, or in words why there are none."""
    model = onnx.load(str(path))
    foreign = sorted({node.domain for graph in graphs(model.graph) for node in graph.node} - _STANDARD)
    if foreign:
        return f"it does not know the operators of {foreign[0]}"
    if any(array.dtype == object for feed in feeds for array in feed.values()):
        return "it is not asked about text"
    with tempfile.TemporaryDirectory(prefix="edge-agent-publish-") as name:
        inputs, outputs = Path(name) / "inputs.npz", Path(name) / "outputs.npz"
        np.savez(inputs, **{f"{index}/{key}": array for index, feed in enumerate(feeds) for key, array in feed.items()})  # type: ignore[arg-type]
        command = [sys.executable, "-m", __name__, str(path), str(inputs), str(outputs)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return f"it took more than {seconds:.0f} s"
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return f"it fails on this graph: {lines[-1][:200] if lines else done.returncode}"
        with np.load(outputs, allow_pickle=False) as archive:
            found: list[dict[str, Array]] = [{} for _ in feeds]
            for key in archive.files:
                index, _, output = key.partition("/")
                found[int(index)][output] = archive[key]
    return found


def main(arguments: Sequence[str]) -> int:
    """Answer for the process that started this one; return the exit status."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - half a second, for this process only

    model, inputs, outputs = arguments
    found: dict[str, Array] = {}
    try:
        evaluator = ReferenceEvaluator(model)
        with np.load(inputs, allow_pickle=False) as archive:
            feeds: dict[str, dict[str, Array]] = {}
            for key in archive.files:
                index, _, name = key.partition("/")
                feeds.setdefault(index, {})[name] = archive[key]
        for index, feed in feeds.items():
            values = evaluator.run(None, feed)
            found |= {f"{index}/{n}": np.asarray(v) for n, v in zip(evaluator.output_names, values, strict=True)}
    except Exception as error:  # noqa: BLE001 - any failure of the reference is an answer: there is no second opinion
        sys.stderr.write(f"{reason(error)}\n")
        return 1
    np.savez(Path(outputs), **found)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
