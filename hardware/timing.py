"""What the benchmark's own process does: time memory, kernels and disk, and watch the heat meanwhile.

This module and `hardware.kernels` are the only ones here that use numpy and onnxruntime. They are imported by
`python -m hardware.benchmark` alone, never by a daemon.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware import thermal
from hardware.sysfs import Root

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA_VERSION = 1
SLICE_SECONDS = 0.25
"""How long one kernel is timed at one number of threads."""
MEMORY_SECONDS = 0.2
DISK_WRITE_SECONDS = 0.5
MAX_DISK_BYTES = 64 * 1024 * 1024
MAX_BUFFER_BYTES = 256 * 1024 * 1024
MIN_BUFFER_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_RESERVE_SECONDS = 1.5  # for the disk and the farewell


class Heat:
    """Temperature and throttling of this machine, sampled between the measurements."""

    def __init__(self) -> None:
        self._root = Root("/")
        self._start = time.monotonic()
        self._counts = thermal.throttle_counts(self._root)
        self.before = self.after = self._sample()
        self.highest = self.before
        self.throttled_after: float | None = None
        self.knows = self._counts is not None

    def _sample(self) -> float | None:
        now, _ = thermal.probe(self._root)
        if now.throttled is not None:
            self.knows = True
        if now.throttled:
            self._note()
        return now.cpu_celsius

    def _note(self) -> None:
        if getattr(self, "throttled_after", None) is None:
            self.throttled_after = time.monotonic() - self._start

    def sample(self) -> None:
        """Look again."""
        self.after = self._sample()
        if self.after is not None and (self.highest is None or self.after > self.highest):
            self.highest = self.after
        counts = thermal.throttle_counts(self._root)
        if counts is not None and self._counts is not None and counts > self._counts:
            self._note()

    def to_dict(self) -> dict[str, Any]:
        """Return what was seen; `throttled` is None where nothing tells."""
        return {
            "before_celsius": self.before,
            "after_celsius": self.after,
            "max_celsius": self.highest,
            "throttled": self.throttled_after is not None if self.knows else None,
            "throttled_after_seconds": None if self.throttled_after is None else round(self.throttled_after, 2),
        }


def run(threads: int, seconds: float, folder: str, free_bytes: int | None, started: float) -> dict[str, Any]:
    """Measure everything within `seconds` of `started` (monotonic) and return plain JSON values.

    What time or memory doesn't suffice for is left out, with the reason under `unknown`.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # noqa: PLC0415 - after the environment is set

    deadline = started + seconds
    unknown: dict[str, str] = {}
    heat = Heat()
    memory = read_bandwidth(threads, free_bytes, unknown)
    heat.sample()
    rates = _kernels(onnxruntime, threads, deadline, heat, unknown)
    disk = disk_speed(folder, unknown)
    heat.sample()
    return {
        "schema": SCHEMA_VERSION,
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
        "providers": list(onnxruntime.get_available_providers()),
        "memory": memory,
        "kernels": rates,
        "disk": disk,
        "thermal": heat.to_dict(),
        "seconds": round(time.monotonic() - started, 2),
        "unknown": unknown,
    }


def median_seconds(call: Callable[[], object], seconds: float) -> float:
    """Return the median duration of `call`, timed for about `seconds` after one call that doesn't count."""
    call()
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while not durations or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def read_bandwidth(threads: int, free_bytes: int | None, unknown: dict[str, str]) -> dict[str, Any]:
    """Return how fast memory is read (GB/s, 10^9 bytes) by 1 and by `threads` threads, beyond the caches.

    Every thread reduces its own part of one buffer that was written before (pages that never were are all the
    same page of zeros). numpy lets other threads run meanwhile.
    """
    import numpy as np  # noqa: PLC0415 - only this process has it

    size = MAX_BUFFER_BYTES if free_bytes is None else min(MAX_BUFFER_BYTES, free_bytes // 4)
    if size < MIN_BUFFER_BYTES:
        unknown["memory"] = f"only {free_bytes} bytes are free: too few to reach past the caches"
        return {"buffer_bytes": None, "read_gb_s_1": None, "read_gb_s": None}
    buffer = np.full(size // 8, 0x3F8000003F800000, np.uint64)
    # Which reduction is the fastest differs between processors; the memory shows in the better one.
    reductions: tuple[Callable[[Any], object], ...] = (
        np.bitwise_or.reduce,
        lambda part: np.max(part.view(np.float32)),
    )

    def rate(count: int) -> float:
        parts = np.array_split(buffer, count)
        best = 0.0
        with ThreadPoolExecutor(count) as pool:
            for reduce in reductions:
                took = median_seconds(lambda reduce=reduce: list(pool.map(reduce, parts)), MEMORY_SECONDS / 2)  # type: ignore[misc]
                best = max(best, buffer.nbytes / took / 1e9)
        return round(best, 2)

    one = rate(1)
    return {"buffer_bytes": buffer.nbytes, "read_gb_s_1": one, "read_gb_s": rate(threads) if threads > 1 else one}


def _kernels(
    onnxruntime: Any,  # noqa: ANN401 - it ships no types
    threads: int,
    deadline: float,
    heat: Heat,
    unknown: dict[str, str],
) -> dict[str, Any]:
    """Return each kernel's rate in GMAC/s (10^9 multiply-accumulates) at 1 and at `threads` threads."""
    from hardware.kernels import kernels  # noqa: PLC0415 - imports numpy

    todo = kernels()
    counts = (1,) if threads == 1 else (1, threads)
    left = deadline - time.monotonic() - _RESERVE_SECONDS
    portion = min(SLICE_SECONDS, max(0.02, left / (len(todo) * len(counts)) - 0.02))
    rates: dict[str, Any] = {}
    for kernel in todo:
        if time.monotonic() > deadline - _RESERVE_SECONDS:
            unknown[f"kernels.{kernel.name}"] = "the time ran out"
            continue
        data, inputs = kernel.build()
        found: dict[str, float] = {}
        for count in counts:
            try:
                session = _session(onnxruntime, data, count)
                took = median_seconds(lambda s=session, i=inputs: s.run(None, i), portion)  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - an operator that this build lacks costs its own figure only
                unknown[f"kernels.{kernel.name}"] = str(error).split("\n", maxsplit=1)[0][:200]
                break
            found["gmac_s_1" if count == 1 else "gmac_s"] = round(kernel.macs / took / 1e9, 3)
        if found:
            rates[kernel.name] = {"macs": kernel.macs, "gmac_s_1": found["gmac_s_1"]}
            rates[kernel.name]["gmac_s"] = found.get("gmac_s", found["gmac_s_1"])
        heat.sample()
    return rates


def _session(onnxruntime: Any, data: bytes, threads: int) -> Any:  # noqa: ANN401 - it ships no types
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # As models are served here: threads that spin slow down a small machine's other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def disk_speed(folder: str, unknown: dict[str, str]) -> dict[str, Any]:
    """Return how fast `folder`'s disk is written and read, in MB/s (10^6 bytes). Leaves nothing behind."""
    written = 0
    chunk = os.urandom(_CHUNK_BYTES)  # file systems that compress must not gain by it
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            start = time.monotonic()
            while written < MAX_DISK_BYTES and (written == 0 or time.monotonic() - start < DISK_WRITE_SECONDS):
                for _ in range(4):
                    written += file.write(chunk) or 0
                os.fsync(file.fileno())
            wrote = time.monotonic() - start
            # Out of the page cache, or the reading would measure memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            start = time.monotonic()
            while file.read(_CHUNK_BYTES):
                pass
            read = time.monotonic() - start
    except OSError as error:
        unknown["disk"] = f"{folder}: {error.strerror}"
        return {"bytes": None, "write_mb_s": None, "read_mb_s": None}
    return {
        "bytes": written,
        "write_mb_s": round(written / max(wrote, 1e-6) / 1e6, 1),
        "read_mb_s": round(written / max(read, 1e-6) / 1e6, 1),
    }
