"""How soon the next job runs after a worker was killed, hung or crashed.

    python benchmarks/worker_death.py [--rounds 10] [--json]

A real worker serves the built-in digits network. It is killed (SIGKILL), killed as hung while it computes an endless
model, or crashed by a model (on x86). From the kill, the verdict or the crashing job on, it is measured how long it
takes until a new worker has started, loaded the network and answered the next job. `benchmarks/recovery.py` has the
same with a broker, a coordinator and clients around it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import queue
import signal
import statistics
import struct
import sys
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import onnx_models

from edge_agent.inference.handle import ModelLoaded, RunDone, Worker, WorkerDied, WorkerEvent, WorkerStarted
from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

SERVED, OTHER = bytes(32), bytes([1]) * 32
IMAGE = Tensor(TensorSpec("image", DataType.FP32, (1, 1, 8, 8)), bytes(256))
FLOAT = Tensor(TensorSpec("in0", DataType.FP32, (1,)), bytes(4))
NUMBER = Tensor(TensorSpec("in0", DataType.INT64, (1,)), struct.pack("<q", 1))


class Served:
    """A worker that serves one model, and is started again when it has died."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
        self.worker = Worker(self._events.put, threads=1, memory_limit_bytes=1 << 30, log=logging.getLogger("worker"))
        self._file = BUILTIN_DIR / builtin().families[0].variants[0].file

    def next(self, kind: type[WorkerEvent]) -> None:
        """Wait for the next event, which is of this kind."""
        event = self._events.get(timeout=60)
        assert isinstance(event, kind), event

    def starts_and_answers(self) -> None:
        """Start, load the model, run it once."""
        self.worker.start()
        self.worker.load(SERVED, os.open(self._file, os.O_RDONLY))
        self.worker.run(1, SERVED, [IMAGE], (), 1 << 20)
        for kind in (WorkerStarted, ModelLoaded, RunDone):
            self.next(kind)

    def holds(self, content: bytes) -> None:
        """Load another model."""
        self.worker.load(OTHER, onnx_models.file_of(content))
        self.next(ModelLoaded)

    def dies(self, way: str) -> float:
        """Let it die; return the moment from which on somebody waits."""
        pid = self.worker.pid
        assert pid is not None
        if way == "crashed":
            self.holds(onnx_models.crashing())
            since = time.perf_counter()
            self.worker.run(2, OTHER, [NUMBER], (), 1 << 20)
        else:
            self.holds(onnx_models.endless())
            self.worker.run(2, OTHER, [FLOAT], (), 1 << 20)
            since = time.perf_counter()
            if way == "hung":
                self.worker.kill("hung")
            else:
                os.kill(pid, signal.SIGKILL)
        self.next(WorkerDied)
        return since


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="deaths of each kind (default 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    ways = ["killed", "hung", *(["crashed"] if platform.machine() == "x86_64" else [])]
    took: dict[str, list[float]] = {way: [] for way in ways}
    served = Served()
    served.starts_and_answers()
    for _ in range(options.rounds):
        for way in ways:
            since = served.dies(way)
            served.starts_and_answers()
            took[way].append((time.perf_counter() - since) * 1e3)
    served.worker.stop(2)
    report = {way: {"median_ms": statistics.median(times), "most_ms": max(times)} for way, times in took.items()}
    if options.json:
        print(json.dumps(report))
        return
    for way, figures in report.items():
        print(f"{way:8} next answer after {figures['median_ms']:6.0f} ms, at most {figures['most_ms']:6.0f} ms")


if __name__ == "__main__":
    main()
