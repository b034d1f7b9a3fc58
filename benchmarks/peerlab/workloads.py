"""The three workloads: models with random weights of well-known shapes, their inputs, and a bare session of each."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "minilm"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from edge_agent.models.catalogue import builtin

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edge-agent-peers"
Arrays = dict[str, np.ndarray[Any, Any]]
DATATYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
SEQUENCE = 128
SAMPLES = 24
MINILM_L6 = {"hidden": 384, "wide": 1536, "layers": 6, "heads": 12, "vocabulary": 30_522, "longest": 512}


@dataclass(frozen=True, slots=True)
class Workload:
    """A model and what it is asked.

    Attributes:
        family: as our catalogue calls it.
        form: of the file, as `edge-agent catalogue add` calls it; None for the built-in model.
        inputs: by name, one job's.
    """

    name: str
    family: str
    form: str | None
    inputs: Arrays

    def body(self) -> tuple[dict[str, str], bytes]:
        """Return headers and body of a request of the Open Inference Protocol with binary tensors, both ways."""
        entries = [
            {
                "name": name,
                "datatype": DATATYPES[array.dtype.name],
                "shape": list(array.shape),
                "parameters": {"binary_data_size": array.nbytes},
            }
            for name, array in self.inputs.items()
        ]
        head = json.dumps({"inputs": entries, "parameters": {"binary_data_output": True}}).encode()
        raw = b"".join(array.tobytes() for array in self.inputs.values())
        kind = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        return kind, head + raw


def workloads() -> list[Workload]:
    """Return the four of them: vision in two forms."""
    random = np.random.default_rng(1)
    port = builtin().family("digits").inputs[0]
    shape = [size if isinstance(size, int) else 1 for size in port.shape]
    image = random.random((1, 3, 224, 224), np.float32)
    ids = random.integers(1, MINILM_L6["vocabulary"], (1, SEQUENCE))
    return [
        Workload("tiny", "digits", None, {port.name: random.random(shape, np.float32)}),
        Workload("vision-int8", "vision-int8", "int8-reproducible", {"image": image}),
        Workload("vision-fp32", "vision-fp32", "fp32", {"image": image}),
        Workload("text", "text", "int8-dynamic-u8", {"ids": ids}),
    ]


def model_of(workload: Workload) -> bytes:
    """Return the float model behind a workload."""
    if workload.name == "text":
        return _text()
    from worker import VisionModel  # noqa: PLC0415 - benchmarks/worker.py, which has this network

    return VisionModel().build()


def samples_of(workload: Workload) -> dict[str, Any]:
    """Return inputs that set the ranges of 8-bit forms, as the publisher takes them: one axis more, of samples."""
    random = np.random.default_rng(2)
    found = {}
    for name, array in workload.inputs.items():
        shape = (SAMPLES, *array.shape[1:])
        if array.dtype == np.int64:
            found[name] = random.integers(1, MINILM_L6["vocabulary"], shape)
        else:
            found[name] = random.random(shape, np.float32)
    return found


def session_of(model: Path | bytes) -> ort.InferenceSession:
    """Open a model with one thread, spinning off."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class Bare:
    """One bare session with one thread, spinning off: what every share is of."""

    def __init__(self, model: Path | bytes, inputs: Arrays) -> None:
        self._session = session_of(model)
        self._inputs = inputs

    def outputs(self) -> list[bytes]:
        """Return the bytes of each output."""
        return [array.tobytes() for array in self._session.run(None, self._inputs)]

    def ms(self, seconds: float) -> tuple[float, float]:
        """Return the median of a run in milliseconds, and runs a second."""
        times = []
        started = time.perf_counter()
        while (now := time.perf_counter()) - started < seconds or len(times) < 5:
            self._session.run(None, self._inputs)
            times.append((time.perf_counter() - now) * 1000)
        return statistics.median(times), len(times) / (time.perf_counter() - started)


def _text() -> bytes:
    """Build an encoder of MiniLM-L6's shape: ids [N, 128] to a unit vector [N, 384] each."""
    import graph as minilm  # noqa: PLC0415 - examples/minilm
    import weights  # noqa: PLC0415
    from nodes import Nodes  # noqa: PLC0415

    hidden, wide = MINILM_L6["hidden"], MINILM_L6["wide"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (MINILM_L6["vocabulary"], hidden),
        "embeddings.position_embeddings.weight": (MINILM_L6["longest"], hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(MINILM_L6["layers"]):
        here = f"encoder.layer.{number}"
        for name, (out, size) in {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (wide, hidden),
            "output.dense": (hidden, wide),
        }.items():
            shapes |= {f"{here}.{name}.weight": (out, size), f"{here}.{name}.bias": (out,)}
        norms += [f"{here}.attention.output.LayerNorm", f"{here}.output.LayerNorm"]
    random = np.random.default_rng(3)
    tensors = {name: (random.standard_normal(shape, np.float32) * 0.05) for name, shape in shapes.items()}
    for name in norms:
        tensors |= {f"{name}.weight": np.ones(hidden, np.float32), f"{name}.bias": np.zeros(hidden, np.float32)}
    config = {
        "hidden_size": hidden,
        "layer_norm_eps": 1e-12,
        "num_attention_heads": MINILM_L6["heads"],
        "num_hidden_layers": MINILM_L6["layers"],
    }
    model = weights.Pretrained(tensors, (), config, SEQUENCE)
    nodes = Nodes()
    mask = nodes.add(
        "Cast", [nodes.add("Greater", ["ids", nodes.constant("zero", 0, np.int64)], "is_token")], "mask",
        to=TensorProto.FLOAT,
    )  # fmt: skip
    minilm._pool(nodes, minilm._encoder(nodes, model, "ids", mask), mask)  # noqa: SLF001 - the example's own parts
    proto = helper.make_graph(
        nodes.nodes,
        "text",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", SEQUENCE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", hidden])],
        nodes.constants,
    )
    made = helper.make_model(proto, opset_imports=[helper.make_opsetid("", minilm.OPSET)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())
