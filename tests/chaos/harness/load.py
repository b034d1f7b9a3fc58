"""Clients that send numbered jobs at a steady rate, and keep what they were told of each."""

from __future__ import annotations

import json
import queue
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_agent.client import Client
from edge_agent.errors import EdgeAgentError
from edge_agent.local.demo import FAMILY
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.oip_json import tensor_from_json, tensor_to_json
from edge_agent.wire.tensors import Tensor
from harness.cluster import Cluster, in_thread
from harness.numbers import input_with

MOST_IN_FLIGHT = 96
CALL_SECONDS = 90.0
"""A client's own patience: longer than a job's deadline, so that the coordinator's word comes first."""
POLL_FIRST_SECONDS = 0.05
POLL_MAX_SECONDS = 4.0


@dataclass(slots=True)
class Record:
    """What a client knows of one job; times are seconds since the load began.

    Attributes:
        number: in the input.
        key: the idempotency key; it carries the number, too.
        waits: whether this was one synchronous call, or a submission that is asked after.
        acked_at: when the coordinator had confirmed the job: for a submission its 202, else the answer itself.
        state: the job's end as the client was told: `succeeded`, `failed`, `cancelled`; `refused` when it was never
            taken on, `unanswered` when the client gave up; empty while it runs.
    """

    number: int
    key: str
    waits: bool
    sent_at: float
    acked_at: float | None = None
    ended_at: float | None = None
    job_id: str = ""
    state: str = ""
    code: str = ""
    blame: str = ""
    variant: str = ""
    tries: int = 0
    outputs: tuple[Tensor, ...] = ()
    receipt: bytes = b""
    message: str = ""


class Load:
    """Sends a job every so often on an open loop: a slow answer does not slow the next job down.

    Args:
        cluster: where to.
        rate: jobs a second.
        seed: of the jitter.
        name: begins the idempotency keys.
        submissions_only: no synchronous jobs; otherwise every other one is.
    """

    def __init__(self, cluster: Cluster, *, rate: float, seed: int, name: str, submissions_only: bool = False) -> None:
        self.records: list[Record] = []
        self.began = time.monotonic()
        self._cluster = cluster
        self._rate = rate
        self._rng = random.Random(f"{seed}/load")
        self._name = name
        self._submissions_only = submissions_only
        self._todo: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to send."""
        self.began = time.monotonic()
        self._source = in_thread(self._offer, "load")

    def finish(self, patience_seconds: float) -> list[Record]:
        """Send nothing more, wait for the answers, and return the records; those without an answer are stuck."""
        self._stop.set()
        self._source.join()
        for _ in self._threads:
            self._todo.put(None)
        end = time.monotonic() + patience_seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return self.records

    def now(self) -> float:
        """Return the seconds since the load began."""
        return time.monotonic() - self.began

    def _offer(self) -> None:
        due = self.began
        number = 0
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            waits = number % 2 == 0 and not self._submissions_only
            record = Record(number, f"{self._name}-{number}", waits, self.now())
            self.records.append(record)
            with self._lock:
                self._idle -= 1
                if self._idle < 0 and len(self._threads) < MOST_IN_FLIGHT:
                    self._idle += 1
                    self._threads.append(in_thread(self._work, f"client-{len(self._threads)}"))
            self._todo.put(record)
            number += 1
            due += self._rng.uniform(0.5, 1.5) / self._rate

    def _work(self) -> None:
        self._cluster.enter()
        with Client(self._cluster.base_url, deadline_seconds=CALL_SECONDS) as client:
            while (record := self._todo.get()) is not None:
                try:
                    if record.waits:
                        self._call(client, record)
                    else:
                        self._submit(client, record)
                except EdgeAgentError as error:
                    _note_error(record, error)
                record.ended_at = self.now()
                with self._lock:
                    self._idle += 1

    def _call(self, client: Client, record: Record) -> None:
        answer = client.infer_json(FAMILY, request_of(record.number), options=JobOptions(idempotency_key=record.key))
        record.acked_at = self.now()
        record.job_id, record.variant = answer.job_id, answer.variant
        record.outputs, record.tries = answer.outputs, answer.tries
        record.receipt = client.receipt(answer.job_id)
        record.state = "succeeded"

    def _submit(self, client: Client, record: Record) -> None:
        record.job_id = client.submit_json(
            FAMILY, request_of(record.number), options=JobOptions(idempotency_key=record.key)
        )
        record.acked_at = self.now()
        wait, end = POLL_FIRST_SECONDS, time.monotonic() + CALL_SECONDS
        while time.monotonic() < end:
            if _ask(client, record):
                return
            time.sleep(wait)  # a client that asks again
            wait = min(2 * wait, POLL_MAX_SECONDS)
        record.state = "unanswered"


def _ask(client: Client, record: Record) -> bool:
    """Ask after a submission; return whether it has ended."""
    view = client.job(record.job_id)
    if view["state"] not in {"succeeded", "failed", "cancelled"}:
        return False
    if view["state"] == "succeeded":
        record.outputs = tuple(tensor_from_json(output) for output in view["outputs"])
        record.variant = str(view.get("variant") or "")
        record.receipt = client.receipt(record.job_id)
    else:
        error = view.get("error") or {}
        record.code, record.blame = str(error.get("code", "")), str(error.get("blame", ""))
    record.state = str(view["state"])
    return True


def ask_again(cluster: Cluster, records: list[Record], patience_seconds: float) -> None:
    """Ask after the jobs that were acknowledged and whose clients lost patience, as they may at any time."""

    def ask() -> None:
        cluster.enter()
        with Client(cluster.base_url, deadline_seconds=patience_seconds) as client:
            for record in records:
                with suppress(EdgeAgentError):  # it stays unanswered, and that is told
                    _ask(client, record)

    in_thread(ask, "ask-again").join()


def request_of(number: int) -> bytes:
    """Return the body of the request that carries this number."""
    return json.dumps({"inputs": [tensor_to_json(input_with(number))]}).encode()


def replay(cluster: Cluster, records: list[Record], patience_seconds: float) -> list[str]:
    """Send requests again under their old keys; say what came out differently. To be called once all have ended.

    The promise: the same request under the same key is one job, however often it is sent.
    """
    wrong: list[str] = []

    def ask() -> None:
        cluster.enter()
        with Client(cluster.base_url, deadline_seconds=patience_seconds) as client:
            for record in records:
                try:
                    again = client.infer_json(
                        FAMILY, request_of(record.number), options=JobOptions(idempotency_key=record.key)
                    )
                except EdgeAgentError as error:
                    wrong.append(f"number {record.number} failed when it was sent again: {error}")
                    continue
                if again.job_id != record.job_id:
                    wrong.append(f"number {record.number} became another job when it was sent again")
                elif again.outputs != record.outputs:
                    wrong.append(f"number {record.number} got other outputs when it was sent again")

    in_thread(ask, "replay").join()
    return wrong


def write_records(path: Path, records: list[Record]) -> None:
    """Keep the records, a JSON object a line, without the tensors."""
    with path.open("w") as file:
        for record in records:
            names = ("number", "key", "waits", "sent_at", "acked_at", "ended_at", "job_id", "state", "code", "blame")
            fields = {name: getattr(record, name) for name in (*names, "variant", "tries", "message")}
            file.write(json.dumps(fields) + "\n")


def _note_error(record: Record, error: EdgeAgentError) -> None:
    record.code, record.message = error.error_code, error.message
    if record.acked_at is not None:  # it has been taken on; what became of it could not be asked in time
        record.state = "unanswered"
    elif error.error_code in {"no-agent", "queue-full"}:
        record.state = "refused"
    elif error.error_code in {"unreachable", "timeout"}:
        record.state = "unanswered"
    else:
        record.state = "failed"
