"""Batches: a file of inputs becomes a file of results, over as many machines as there are, whatever is restarted.

The file of results is also the journal. Its first line names the batch; each further line is a row that has ended.
Every row's job has an idempotency key made of the two, so that a row whose answer was lost is asked for again and not
computed again, and of how often it failed, so that one that failed can be tried anew. What the coordinator keeps is
bounded by the jobs that are under way.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import IO, Any, Final

from edge_agent.client.http import Client
from edge_agent.client.procedures import NO_OPTIONS, Result
from edge_agent.client.rows import count_rows, digest_of_source, read_rows
from edge_agent.errors import DeniedError, EdgeAgentError, InputError, StateError
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.oip_json import tensor_to_json
from edge_agent.wire.tensors import Tensor

AT_ONCE: Final = 16
PRIORITY: Final = -10
"""Below what people wait for, among the jobs of the same client."""
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What a batch is.

    Attributes:
        source: where the inputs are: see `rows`.
        output: where the results go.
        mode: as for `Client.infer`.
        at_once: jobs under way.
        retry_failed: send rows again that ended with an error.
    """

    source: Path
    output: Path
    model: str
    mode: str = "signed"
    version: str | None = None
    outputs: tuple[str, ...] = ()
    options: JobOptions = NO_OPTIONS
    at_once: int = AT_ONCE
    retry_failed: bool = False
    verify: bool = True


@dataclass(slots=True)
class Progress:
    """How far a batch is.

    Attributes:
        failed: rows that ended with an error, among those that are done.
        unheard: rows whose agents may have been revoked, as far as one heard: there was no fresh list.
    """

    rows: int
    done: int = 0
    failed: int = 0
    unheard: int = 0


@dataclass(slots=True)
class Journal:
    """What the file of results says: the batch; which rows have ended, with a bit for each; how often some failed."""

    about: dict[str, Any]
    ended: bytearray
    failed: bytearray
    progress: Progress
    length: int
    failures: dict[int, int] = field(default_factory=dict)

    def has(self, row: int) -> bool:
        """Whether a row has ended."""
        return bool(self.ended[row >> 3] & 1 << (row & 7))

    def note(self, row: int, entry: dict[str, Any]) -> None:
        """A row has ended; what is said of it last counts."""
        bit = 1 << (row & 7)
        failed = "error" in entry
        self.progress.unheard += bool(entry.get("revocations", {}).get("problem"))
        self.progress.done += not self.ended[row >> 3] & bit
        self.progress.failed += failed - bool(self.failed[row >> 3] & bit)
        self.ended[row >> 3] |= bit
        if failed:
            self.failures[row] = self.failures.get(row, 0) + 1
            self.failed[row >> 3] |= bit
        else:
            self.failed[row >> 3] &= ~bit

    def key(self, row: int) -> str:
        """Return the idempotency key of a row's next job; one that failed stays so under the key that it had."""
        failures = self.failures.get(row, 0)
        return f"{self.about['batch']}/{row}" + (f"/{failures}" if failures else "")

    def forget_failed(self) -> None:
        """Take rows that failed as not ended."""
        for at, bits in enumerate(self.failed):
            self.ended[at] &= ~bits
        self.progress.done -= self.progress.failed
        self.progress.failed = 0
        self.failed = bytearray(len(self.failed))


def read_journal(path: Path) -> Journal | None:
    """Read a file of results; None if it is not there. A last line that was cut by a crash counts as not written.

    Raises:
        InputError: it is no file of results.
    """
    journal: Journal | None = None
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    if journal is None and not line.startswith(b'{"rows":'):
                        raise InputError(f"{path} holds something else than results of a batch")
                    break
                entry = json.loads(line)
                if journal is None:
                    size = entry["rows"] // 8 + 1
                    progress = Progress(entry["rows"])
                    journal = Journal(entry, bytearray(size), bytearray(size), progress, 0)
                else:
                    journal.note(entry["row"], entry)
                journal.length += len(line)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no file of results of a batch: {error}", hint="Name another file.") from error
    return journal


def run_batch(
    client: Client, plan: Plan, on_progress: Callable[[Progress], None] = lambda _: None, stop: Event | None = None
) -> Progress:
    """Run a batch, or go on with it; return how it stands at the end, or when `stop` was set.

    Raises:
        InputError: the source cannot be read, or is another than the one that the results are of.
        DeniedError: the API key is missing or not enough.
        StateError: the results cannot be written.
    """
    try:
        rows = count_rows(plan.source)
    except OSError as error:
        raise InputError(f"{plan.source} cannot be read: {error.strerror}") from error
    about = {"rows": rows, "source": digest_of_source(plan.source), "model": plan.model, "mode": plan.mode}
    journal = read_journal(plan.output)
    if journal is not None:
        other = [name for name, value in about.items() if journal.about.get(name) != value]
        if other:
            raise InputError(
                f"{plan.output} has results of another batch: {', '.join(other)} differ",
                hint="Name another file for the results.",
            )
        if plan.retry_failed:
            journal.forget_failed()
    try:
        with plan.output.open("ab") as file:
            if journal is None:
                file.truncate(0)
                about |= {"version": VERSION, "batch": secrets.token_hex(12)}
                size = rows // 8 + 1
                journal = Journal(about, bytearray(size), bytearray(size), Progress(rows), 0)
                _write(file, about)
            else:
                file.truncate(journal.length)
            _run(client, plan, journal, file, on_progress, stop or Event())
            os.fsync(file.fileno())
    except OSError as error:
        raise StateError(f"{plan.output} cannot be written: {error.strerror}") from error
    return journal.progress


def _run(  # noqa: PLR0913, PLR0917 the parts of a run
    client: Client,
    plan: Plan,
    journal: Journal,
    file: IO[bytes],
    on_progress: Callable[[Progress], None],
    stop: Event,
) -> None:
    under_way: dict[Future[Result], int] = {}

    def end(done: Future[Result]) -> None:
        row = under_way.pop(done)
        error = done.exception()
        if isinstance(error, _StoppedError):
            return
        if error is not None and (not isinstance(error, EdgeAgentError) or isinstance(error, DeniedError)):
            raise error
        entry = _failure(error) if isinstance(error, EdgeAgentError) else _success(done.result())
        _write(file, {"row": row, **entry})
        journal.note(row, entry)
        on_progress(journal.progress)

    with ThreadPoolExecutor(plan.at_once, thread_name_prefix="batch") as pool:
        try:
            on_progress(journal.progress)
            ports = client.inputs(plan.model)
            for row, inputs in _left(plan, journal, ports):
                under_way[pool.submit(_one, client, plan, journal.key(row), inputs, stop)] = row
                while len(under_way) >= 2 * plan.at_once or (stop.is_set() and under_way):
                    for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                        end(done)
                if stop.is_set():
                    return
            while under_way:
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    end(done)
        finally:
            stop.set()  # whatever is still waiting for its turn is not begun any more


def _left(plan: Plan, journal: Journal, ports: Any) -> Iterator[tuple[int, Any]]:  # noqa: ANN401 as `read_rows`
    for row, inputs in enumerate(read_rows(plan.source, ports)):
        if not journal.has(row):
            yield row, inputs


class _StoppedError(Exception):
    """The batch was stopped before this row had its turn."""


def _one(client: Client, plan: Plan, key: str, inputs: Any, stop: Event) -> Result:  # noqa: ANN401 as `read_rows`
    options = replace(plan.options, idempotency_key=key, priority=plan.options.priority or PRIORITY)
    if isinstance(inputs, InputError):
        raise inputs
    while not stop.is_set():
        try:
            return client.infer(
                plan.model,
                inputs,
                plan.mode,
                outputs=plan.outputs,
                version=plan.version,
                options=options,
                verify=plan.verify,
            )
        except EdgeAgentError as error:
            # The client has tried for its whole deadline: but a coordinator may be away for longer than that. A job
            # that missed its own deadline stays so under its key. A day's jobs are used up for all rows alike.
            patient = error.retryable or error.error_code == "quota-exhausted"
            if not patient or error.error_code in {"deadline", "job-failed"}:
                raise
            client.on_retry(error)
            stop.wait(error.retry_after_seconds or 1.0)
    raise _StoppedError


def _success(result: Result) -> dict[str, Any]:
    entry: dict[str, Any] = {"job_id": result.job_id, "agent_id": result.agent_id, "variant": result.variant}
    entry["outputs"] = {tensor.name: _output(tensor) for tensor in result.tensors}
    if result.verified is not None:
        entry["verification"] = result.verification
        entry["receipt"] = base64.b64encode(result.verified.receipt_bytes).decode()
        if result.verified.revocations is not None:
            entry["revocations"] = asdict(result.verified.revocations)
    return entry


def _output(tensor: Tensor) -> dict[str, Any]:
    with suppress(InputError):  # NaN, infinity, BF16 have no form in JSON
        described = tensor_to_json(tensor)
        del described["name"]
        return described
    data = base64.b64encode(tensor.data).decode()
    return {"datatype": tensor.spec.datatype.value, "shape": list(tensor.spec.shape), "base64": data}


def _failure(error: EdgeAgentError) -> dict[str, Any]:
    return {"error": {"code": error.error_code, "message": error.message}}


def _write(file: IO[bytes], entry: dict[str, Any]) -> None:
    file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
    file.flush()
