"""What the worker process costs: a run through it against the same run on a bare onnxruntime session.

    python benchmarks/worker.py [--seconds 6] [--threads 1] [--json]

Two workloads: `tiny` is the built-in digits network, `vision` a network of MobileNetV2's shape with random weights
(1×3×224×224 FP32 in, 600 KB; 1,000 numbers out). Bare and piped runs take turns in short blocks, so that both see the
same machine; the figures are medians over all blocks. Also printed: the time from start to ready, and memory (PSS).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
import psutil
from onnx import TensorProto, helper, numpy_helper

from edge_agent.inference.handle import ModelLoaded, RunDone, Worker, WorkerEvent, WorkerStarted
from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

BLOCKS = 20
STARTS = 5
# MobileNetV2 (Sandler et al. 2018, table 2): expansion, channels, repeats, stride.
MOBILENET_V2 = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


class VisionModel:
    """Builds a convolutional network of MobileNetV2's shape with random weights."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def build(self) -> bytes:
        """Return the model's file."""
        x, channels = self._conv("image", 3, 32, size=3, stride=2), 32
        for expansion, out, repeats, stride in MOBILENET_V2:
            for repeat in range(repeats):
                x = self._block(x, channels, out, expansion, stride if repeat == 0 else 1)
                channels = out
        x = self._conv(x, channels, 1280)
        x = self._node("Flatten", [self._node("GlobalAveragePool", [x])])
        weights = self._random.standard_normal((1280, 1000), np.float32) / 36
        self._weights.append(numpy_helper.from_array(weights, "classes"))
        self._nodes.append(helper.make_node("MatMul", [x, "classes"], ["scores"]))
        graph = helper.make_graph(
            self._nodes,
            "vision",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 224, 224))],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 1000))],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(model.SerializeToString())

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes
        output = f"{operator}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _conv(  # noqa: PLR0913 - the attributes of a convolution
        self, x: str, channels: int, out: int, *, size: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> str:
        fan_in = channels // groups * size * size
        weights = self._random.standard_normal((out, channels // groups, size, size), np.float32) * (2 / fan_in) ** 0.5
        names = [f"weights{len(self._nodes)}", f"bias{len(self._nodes)}"]
        self._weights.append(numpy_helper.from_array(weights.astype(np.float32), names[0]))
        self._weights.append(numpy_helper.from_array(np.zeros(out, np.float32), names[1]))
        y = self._node(
            "Conv", [x, *names], kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4, group=groups
        )
        return self._node("Relu", [y]) if relu else y

    def _block(self, x: str, channels: int, out: int, expansion: int, stride: int) -> str:
        wide = channels * expansion
        y = self._conv(x, channels, wide) if expansion > 1 else x
        y = self._conv(y, wide, wide, size=3, stride=stride, groups=wide)
        y = self._conv(y, wide, out, relu=False)
        return self._node("Add", [x, y]) if stride == 1 and channels == out else y


class Piped:
    """A worker with one model, used as a function."""

    def __init__(self, threads: int) -> None:
        self.events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
        self.worker = Worker(self.events.put, threads=threads, memory_limit_bytes=None, log=logging.getLogger("worker"))

    def start(self) -> float:
        """Start, and return the milliseconds until it was ready."""
        self.worker.start()
        event = self.events.get()
        assert isinstance(event, WorkerStarted)
        return event.start_ms

    def load(self, digest: bytes, content: bytes, lanes: int = 1, together: int = 1) -> float:
        """Load a model, and return the milliseconds that took."""
        fd = os.memfd_create("model")
        os.write(fd, content)
        self.worker.load(digest, fd, 1 if lanes > 1 else 0, lanes=lanes, together=together)
        event = self.events.get()
        assert isinstance(event, ModelLoaded), event
        return event.load_ms

    def run(self, digest: bytes, image: Tensor) -> RunDone:
        """Run the model once."""
        self.worker.run(1, digest, [image], (), 1 << 20)
        event = self.events.get()
        assert isinstance(event, RunDone), event
        return event

    def pss_mib(self) -> float:
        """Return the proportional memory of the worker."""
        return float(psutil.Process(self.worker.pid).memory_full_info().pss / 2**20)


def times_us(function: Callable[[], object], seconds: float) -> list[float]:
    """Return the times of single calls, made for this long."""
    times = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        function()
        times.append((time.perf_counter() - started) * 1e6)
    return times


def compare(content: bytes, image: np.ndarray[Any, Any], seconds: float, threads: int) -> dict[str, float]:
    """Return the figures of one workload."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    piped = Piped(threads)
    piped.start()
    idle = piped.pss_mib()
    load_ms = piped.load(bytes(32), content)
    tensor = Tensor(TensorSpec(next(iter(feed)), DataType.FP32, image.shape), image.tobytes())
    done = piped.run(bytes(32), tensor)
    expected = session.run(None, feed)
    assert [output.data for output in done.outputs] == [array.tobytes() for array in expected]
    bare: list[float] = []
    through: list[float] = []
    inside: list[int] = []
    for _ in range(BLOCKS):
        bare += times_us(lambda: session.run(None, feed), seconds / BLOCKS / 2)
        through += times_us(lambda: inside.append(piped.run(bytes(32), tensor).run_us), seconds / BLOCKS / 2)
    figures = {
        "bare_p50_us": statistics.median(bare),
        "worker_p50_us": statistics.median(through),
        "inside_worker_p50_us": statistics.median(inside),
        "load_ms": load_ms,
        "idle_pss_mib": idle,
        "loaded_pss_mib": piped.pss_mib(),
    }
    piped.worker.stop(5)
    figures["added_us"] = figures["worker_p50_us"] - figures["bare_p50_us"]
    figures["share_of_bare"] = figures["bare_p50_us"] / figures["worker_p50_us"]
    return {name: round(value, 3) for name, value in figures.items()}


def start_ms(threads: int) -> float:
    """Return the median time from start to ready."""
    times = []
    for _ in range(STARTS):
        piped = Piped(threads)
        times.append(piped.start())
        piped.worker.stop(5)
    return round(statistics.median(times), 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each workload (default 6)")
    parser.add_argument("--threads", type=int, default=1, help="inside an operator (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    family = builtin().families[0]
    digits = (BUILTIN_DIR / family.variants[0].file).read_bytes()
    size = [extent if isinstance(extent, int) else 1 for extent in family.inputs[0].shape]
    random = np.random.default_rng(1)
    report: dict[str, Any] = {"onnxruntime": onnxruntime.__version__, "threads": options.threads}
    report["start_to_ready_ms"] = start_ms(options.threads)
    for name, content, shape in (("tiny", digits, size), ("vision", VisionModel().build(), [1, 3, 224, 224])):
        image = random.random(shape, np.float32)
        report[name] = compare(content, image, options.seconds, options.threads)
    if options.json:
        print(json.dumps(report))
        return
    print(f"onnxruntime {report['onnxruntime']}, {options.threads} thread(s)")
    print(f"start to ready {report['start_to_ready_ms']} ms")
    for name in ("tiny", "vision"):
        figures = report[name]
        print(
            f"{name:7} bare {figures['bare_p50_us']:9.1f} µs   worker {figures['worker_p50_us']:9.1f} µs"
            f" (+{figures['added_us']:.0f} µs, {figures['share_of_bare']:.2f} of bare, "
            f"{figures['inside_worker_p50_us']:.0f} µs inside)   load {figures['load_ms']:.1f} ms"
            f"   PSS {figures['idle_pss_mib']:.1f} idle, {figures['loaded_pss_mib']:.1f} MiB loaded"
        )


if __name__ == "__main__":
    main()
