"""Median time of one scan in onnxruntime, for each variant of the built-in family: `python benchmarks/digits.py`."""

from __future__ import annotations

import os
import time

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime

from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.models.scans import load_scans

WARM_UP = 200
RUNS = 2000


def main() -> None:
    """Print one line for each variant: p50 and p95 in microseconds, one thread, one scan a run."""
    images = [np.frombuffer(scan.image, "<f4").reshape(1, 1, 8, 8) for scan in load_scans()]
    for variant in builtin().family("digits").variants:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = str(BUILTIN_DIR / variant.file)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        times = []
        for number in range(WARM_UP + RUNS):
            start = time.perf_counter_ns()
            session.run(None, {"image": images[number % len(images)]})
            times.append((time.perf_counter_ns() - start) / 1000)
        ranked = sorted(times[WARM_UP:])
        print(f"{variant.name:13} p50 {ranked[RUNS // 2]:6.1f} µs   p95 {ranked[RUNS * 95 // 100]:6.1f} µs")


if __name__ == "__main__":
    main()
