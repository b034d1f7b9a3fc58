"""A cold session: the time to the first answer, and memory, from the model's file and from its optimised copy.

    python benchmarks/cold.py [MODEL.onnx …] [--rounds 7]

For each model (by default `digits` as it comes with the program, and a network of MobileNetV2's shape in fp32) a copy
is made as the agent makes it. Then workers are started, by turns for the model and for the copy; each loads what it is
given and answers once, on made-up inputs. Medians: milliseconds from the order to load to the answer, hashing the file
included; the worker's processor time for it; the memory (PSS) that the model adds to an idle worker. The outputs are
compared bit for bit. Beside it, what is aimed at: 1.15 times the file, and 20 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import queue
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import psutil
from worker import VisionModel

from edge_agent.inference import samples
from edge_agent.inference.events import ModelLoaded, RunDone, WorkerEvent, WorkerStarted
from edge_agent.inference.handle import Worker
from edge_agent.inference.launch import Options
from edge_agent.inference.optimising import Optimising, Report, Request, judge
from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.models.content import Content
from edge_agent.models.optimised import OptimisedFiles

EXTENTS = {"N": 1, "batch": 1, "batch_size": 1, "sequence": 128}
VARIANT = "00" * 32


class Cold(NamedTuple):
    """One cold session; `held` is in bytes."""

    first_ms: float
    cpu_ms: float
    held: int
    outputs: tuple[bytes, ...]


def cold(path: Path, how: str, readable: tuple[str, ...]) -> Cold:
    """Start a worker, and have it load and answer once."""
    events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
    worker = Worker(events.put, threads=1, memory_limit_bytes=None, readable=readable, log=logging.getLogger("worker"))
    worker.start()
    try:
        assert isinstance(events.get(timeout=60), WorkerStarted)
        process = psutil.Process(worker.pid)
        idle, before = process.memory_full_info().pss, sum(process.cpu_times()[:2])
        started = time.perf_counter()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with open(fd, "rb", closefd=False) as file:
            hashlib.file_digest(file, "sha256")
        worker.load(bytes(32), fd, optimised=how)
        loaded = events.get(timeout=60)
        assert isinstance(loaded, ModelLoaded), loaded
        worker.run(1, bytes(32), samples.make(loaded.inputs, EXTENTS), (), 2**28)
        done = events.get(timeout=60)
        assert isinstance(done, RunDone), done
        elapsed = (time.perf_counter() - started) * 1e3
        cpu = (sum(process.cpu_times()[:2]) - before) * 1e3
        held = process.memory_full_info().pss - idle
        return Cold(elapsed, cpu, held, tuple(bytes(tensor.data) for tensor in done.outputs))
    finally:
        worker.stop(5)


def compare(name: str, model: Path, folder: Path, rounds: int) -> None:
    """Measure and print one model."""
    content = Content(folder / "store")
    content.prepare()
    files = OptimisedFiles(content, "here", 10**12, 0)
    readable = (str(model.parent), str(content.optimised_folder))
    size = model.stat().st_size
    scratch = files.scratch(size)
    assert scratch is not None
    fd = os.open(model, os.O_RDONLY | os.O_CLOEXEC)
    report = Optimising(Request(fd, scratch, b"", EXTENTS), Options(1, None, readable)).run()
    judged = judge(report) if isinstance(report, Report) else report
    files.keep(VARIANT, scratch, in_place=True)
    scratch.close()
    ways = {"model": (model, "")}
    if isinstance(report, Report):
        ways["copy"] = (
            content.optimised_path(VARIANT),
            "copied" if not getattr(judged, "in_place", True) else "in-place",
        )
    found: dict[str, list[Cold]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (path, how) in ways.items():
            found[way].append(cold(path, how, readable))
    assert len({entry.outputs for entries in found.values() for entry in entries}) == 1, "other bits"
    print(f"{name:34} {size / 1e6:6.1f} MB", end="")
    for way, entries in found.items():
        first, cpu = (statistics.median(figures) for figures in list(zip(*entries, strict=True))[:2])
        held = statistics.median(entry.held for entry in entries) / 1e6
        how = "" if way == "model" else f" {ways[way][1]}"
        print(f"   {way}{how}: first answer {first:6.1f} ms, cpu {cpu:5.0f} ms, holds {held:6.1f} MB", end="")
    print(f"   (allowed {1.15 * size / 1e6 + 20:.0f})   {judged if isinstance(judged, str) else 'used'}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="files; digits and a vision network by default")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        vision = Path(folder, "models", "vision.onnx")
        vision.parent.mkdir()
        vision.write_bytes(VisionModel().build())
        digits = BUILTIN_DIR / builtin().families[0].variants[0].file
        for model in options.models or (digits, vision):
            with tempfile.TemporaryDirectory() as store:
                compare(model.name, model.resolve(), Path(store), options.rounds)


if __name__ == "__main__":
    main()
