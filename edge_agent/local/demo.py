"""The main job on real input: scans of handwritten digits as jobs to a network, each receipt checked offline."""

from __future__ import annotations

import json
import queue
import statistics
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.client import Answer, Client
from edge_agent.errors import EdgeAgentError, JobFailedError
from edge_agent.models.catalogue import builtin
from edge_agent.models.scans import Scan
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.oip_json import tensor_to_json
from edge_agent.wire.receipts import verify_receipt
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

FAMILY = "digits"
CLIENTS = 4
"""Jobs in flight at once."""

EXAMPLE_JOB = 0
"""The job whose request and response are left beside the receipts, for people to check."""


@dataclass(slots=True)
class Tally:
    """What came of the jobs.

    Attributes:
        latencies_ms: of each job that succeeded, seen by the client, retries included.
        run_ms: of each such job, inside the worker.
        failures: a sentence for each job that did not.
    """

    jobs: int
    verified: int = 0
    right: int = 0
    retried: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    run_ms: list[float] = field(default_factory=list)
    variants: set[str] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def percentile_ms(self, percent: int) -> float | None:
        """Return the latency that this share of the jobs stayed below, by the nearest-rank method."""
        if not self.latencies_ms:
            return None
        ordered = sorted(self.latencies_ms)
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]

    def report(self) -> dict[str, Any]:
        """Return the figures as JSON has them; times in milliseconds, rounded to microseconds."""
        p50, p99 = self.percentile_ms(50), self.percentile_ms(99)
        done = len(self.latencies_ms)
        return {
            "jobs": self.jobs,
            "verified": self.verified,
            "failed": self.jobs - self.verified,
            "accuracy": round(self.right / done, 4) if done else None,
            "seconds": round(self.seconds, 3),
            "p50_ms": None if p50 is None else round(p50, 3),
            "p99_ms": None if p99 is None else round(p99, 3),
            "run_p50_ms": round(statistics.median(self.run_ms), 3) if self.run_ms else None,
            "retried": self.retried,
            "variant": ", ".join(sorted(self.variants)) or None,
        }


def input_of(scan: Scan) -> Tensor:
    """Make the input tensor of one scan, a batch of one."""
    port = builtin().family(FAMILY).inputs[0]
    shape = tuple(1 if isinstance(size, str) else size for size in port.shape)
    return Tensor(TensorSpec(port.name, DataType(port.datatype), shape), scan.image)


def run_jobs(  # noqa: PLR0913 all but the first two by name
    base_url: str,
    scans: Sequence[Scan],
    *,
    coordinator_key: PublicKey,
    receipts: Path,
    progress: Callable[[], None],
    stop: threading.Event,
    api_key: str | None = None,
) -> Tally:
    """Send every scan as a job, check its receipt offline, and keep the receipts.

    Args:
        base_url: of the coordinator.
        scans: one job each.
        coordinator_key: what the receipts are checked with.
        receipts: an existing folder; gets one file a job, `NNN-JOBID.receipt`.
        progress: called after each job, from several threads.
        stop: ends the work early.
        api_key: shown with each call.
    """
    tally = Tally(len(scans))
    todo: queue.SimpleQueue[tuple[int, Scan]] = queue.SimpleQueue()
    for number, scan in enumerate(scans):
        todo.put((number, scan))
    lock = threading.Lock()

    def work() -> None:
        with Client(base_url, api_key=api_key) as client:
            while not stop.is_set():
                try:
                    number, scan = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    answer, is_right = _one_job(client, number, scan, coordinator_key, receipts)
                except (EdgeAgentError, OSError) as error:  # OSError: the receipt cannot be written
                    with lock:
                        tally.failures.append(f"scan {number}: {error}")
                else:
                    with lock:
                        _count(tally, answer, is_right=is_right)
                progress()

    started = time.monotonic()
    threads = [threading.Thread(target=work, name=f"client-{n}", daemon=True) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.1)
    tally.seconds = time.monotonic() - started
    return tally


def _one_job(
    client: Client, number: int, scan: Scan, coordinator_key: PublicKey, receipts: Path
) -> tuple[Answer, bool]:
    tensor = input_of(scan)
    request = json.dumps({"inputs": [tensor_to_json(tensor)]}).encode()
    answer = client.infer_json(FAMILY, request)
    receipt = client.receipt(answer.job_id)
    proof = verify_receipt(receipt, coordinator_key)
    if proof.result.job.hex() != answer.job_id:
        raise JobFailedError("the receipt is for another job")
    proof.check_inputs([tensor])
    proof.check_outputs(answer.outputs)
    name = f"{number:03d}-{answer.job_id}"
    (receipts / f"{name}.receipt").write_bytes(receipt)
    if number == EXAMPLE_JOB:
        (receipts / f"{name}.input.json").write_bytes(request)
        (receipts / f"{name}.output.json").write_bytes(answer.body)
    return answer, predicted_digit(answer.outputs) == scan.label


def predicted_digit(outputs: Sequence[Tensor]) -> int:
    """Return the digit with the largest logit."""
    logits = next(tensor for tensor in outputs if tensor.spec.name == "logits")
    values = struct.unpack(f"<{logits.spec.element_count}f", logits.data)
    return max(range(len(values)), key=values.__getitem__)


def _count(tally: Tally, answer: Answer, *, is_right: bool) -> None:
    tally.verified += 1
    tally.right += is_right
    tally.retried += answer.tries > 1
    tally.latencies_ms.append(answer.seconds * 1000)
    tally.run_ms.append(answer.run_us / 1000)
    tally.variants.add(answer.variant)
    tally.agents.add(answer.agent_id)
