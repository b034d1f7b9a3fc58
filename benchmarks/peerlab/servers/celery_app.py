"""Celery over Redis: a worker process, and clients that wait for each result."""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from typing import Any

from celery import Celery

URL = os.environ["PEER_REDIS"]
app = Celery("peer", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(
    task_serializer="pickle", result_serializer="pickle", accept_content=["pickle"], worker_prefetch_multiplier=1
)
_model: Any = None


@app.task(name="infer")  # worker and clients import this file under two names
def infer(body: bytes) -> bytes:
    """Run."""
    global _model  # noqa: PLW0603 one session a worker process
    if _model is None:
        from model import Model  # noqa: PLC0415 - clients need no onnxruntime

        _model = Model()
    found: bytes = _model(body)
    return found


def drive(body: bytes, clients: int, seconds: float) -> dict[str, float]:
    """Keep so many tasks under way; return the figures."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    def client() -> None:
        while (started := time.perf_counter()) < until:
            infer.delay(body).get(timeout=60, interval=0.0005)
            latencies.append((time.perf_counter() - started) * 1000)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"p50_ms": statistics.median(latencies), "per_second": len(latencies) / seconds}


if __name__ == "__main__":
    given = sys.stdin.buffer.read()
    drive(given, 1, 1.0)
    for line in sys.argv[1:]:
        clients, seconds = line.split("x")
        print(json.dumps(drive(given, int(clients), float(seconds))), flush=True)
