"""Judges a run: nothing lost, nothing accepted twice, nothing stuck, no wrong output. Pure.

The sequence number in each job's input ties together what the client was told, what the database says, and what the
agents' logs say; each rule below compares two of the three.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_agent.coordinator.rows import unpack_tensors
from edge_agent.errors import EdgeAgentError
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.receipts import verify_receipt
from edge_agent.wire.tensors import Tensor
from harness.evidence import Evidence, JobRow, ResultRow
from harness.load import Record
from harness.numbers import input_with, number_in

LOST, TWICE, STUCK, WRONG, DEFECT = "lost", "twice", "stuck", "wrong", "defect"
KINDS = (LOST, TWICE, STUCK, WRONG, DEFECT)


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise.

    Attributes:
        kind: of `KINDS`.
        rule: which comparison found it.
        text: what was found.
    """

    kind: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.rule}): {self.text}"


def judge(
    evidence: Evidence, coordinator: PublicKey, is_right: Callable[[int, str, Sequence[Tensor]], bool]
) -> list[Violation]:
    """Compare everything with everything.

    Args:
        evidence: of a run whose faults have ended and whose jobs have had their time.
        coordinator: the key that signs receipts.
        is_right: computes a variant once more for a number, and compares.
    """
    rows = {row.key: row for row in evidence.jobs if row.key is not None}
    results = {row.job_id: row for row in evidence.results}
    found: list[Violation] = []
    for record in evidence.records:
        found += _record(record, rows.get(record.key), results, coordinator, is_right)
    found += _database(evidence)
    found += _logs(evidence)
    for where, alarms in [(f"agent {i}", log.alarms) for i, log in evidence.logs.items()]:
        found += [Violation(DEFECT, "log", f"{where}: {alarm}") for alarm in alarms]
    found += [Violation(DEFECT, "log", f"coordinator: {alarm}") for alarm in evidence.coordinator_alarms]
    return found


def _record(
    record: Record,
    row: JobRow | None,
    results: dict[str, ResultRow],
    coordinator: PublicKey,
    is_right: Callable[[int, str, Sequence[Tensor]], bool],
) -> Iterator[Violation]:
    """What one client was told, against the database."""
    what = f"number {record.number} (job {record.job_id or 'unknown'})"
    if not record.state:
        yield Violation(STUCK, "client", f"{what}: the client has no answer yet")
    if row is None:
        if record.acked_at is not None:
            yield Violation(LOST, "acknowledged", f"{what} was acknowledged and is not in the database")
        return
    if record.job_id and row.id != record.job_id:
        yield Violation(TWICE, "one key", f"{what} is the job {row.id} in the database")
    if not row.final:
        yield Violation(STUCK, "database", f"{what} is {row.state}, attempt {row.epoch}")
    told = record.state
    if told in {"succeeded", "cancelled"} and row.state != told:
        yield Violation(LOST, "told", f"{what}: the client was told {told}, the database says {row.state}")
    if told == "failed" and row.state == "succeeded":
        yield Violation(LOST, "told", f"{what}: the client was told that it failed ({record.code}), but it succeeded")
    if told == "unanswered" and record.acked_at is not None:
        yield Violation(
            LOST, "answer", f"{what} was acknowledged, and the client never heard its end: {record.message}"
        )
    if told == "succeeded":
        yield from _success(record, row, results.get(row.id), coordinator, is_right)


def _success(
    record: Record,
    row: JobRow,
    result: ResultRow | None,
    coordinator: PublicKey,
    is_right: Callable[[int, str, Sequence[Tensor]], bool],
) -> Iterator[Violation]:
    what = f"number {record.number} (job {row.id})"
    if result is None:
        yield Violation(LOST, "result", f"{what}: the client has a result that is not in the database")
        return
    if result.receipt != record.receipt or unpack_tensors(result.outputs) != record.outputs:
        yield Violation(WRONG, "same result", f"{what}: the client has another result than the database")
    try:
        proof = verify_receipt(record.receipt, coordinator)
        proof.check_inputs([input_with(record.number)])
        proof.check_outputs(record.outputs)
    except EdgeAgentError as error:
        yield Violation(WRONG, "receipt", f"{what}: {error}")
    else:
        signed = (proof.result.job.hex(), proof.result.epoch, proof.result.agent_id)
        if signed != (row.id, result.epoch, result.agent_id):
            yield Violation(WRONG, "receipt", f"{what}: the receipt is for {signed}")
    if not is_right(record.number, record.variant, record.outputs):
        yield Violation(WRONG, "computed again", f"{what}: {record.variant} gives other outputs for this input")


def _database(evidence: Evidence) -> Iterator[Violation]:
    """The database against itself and against the numbers that were sent."""
    sent = {record.key: record.number for record in evidence.records}
    yield from _jobs(evidence.jobs, sent)
    jobs = {row.id: row for row in evidence.jobs}
    counts = Counter(row.job_id for row in evidence.results)
    for job_id, count in counts.items():
        if count > 1:
            yield Violation(TWICE, "one result", f"job {job_id} has {count} results")
        if job_id not in jobs or jobs[job_id].state != "succeeded":
            yield Violation(LOST, "one end", f"job {job_id} has a result and is not succeeded")
    for row in evidence.jobs:
        if row.state == "succeeded" and row.id not in counts:
            yield Violation(LOST, "result", f"job {row.id} succeeded and has no result")
    ended = Counter(attempt.job_id for attempt in evidence.attempts if attempt.outcome == "succeeded")
    for job_id, count in ended.items():
        if count > 1:
            yield Violation(TWICE, "one attempt", f"{count} attempts of job {job_id} succeeded")
    for attempt in evidence.attempts:
        if attempt.outcome is None and attempt.job_id in jobs and jobs[attempt.job_id].final:
            text = f"attempt {attempt.epoch} of job {attempt.job_id}, which has ended, has no outcome"
            yield Violation(STUCK, "attempt", text)


def _jobs(rows: Sequence[JobRow], sent: dict[str, int]) -> Iterator[Violation]:
    numbers = Counter[int]()
    for row in rows:
        number = sent.get(row.key or "")
        if number is None:
            yield Violation(WRONG, "stored key", f"job {row.id} is under the key {row.key}, which nobody sent")
            continue
        numbers[number] += 1
        held = {number_in(tensor.data) for tensor in unpack_tensors(row.inputs)}  # none, once nothing needs them
        if not held <= {number}:
            yield Violation(WRONG, "stored input", f"job {row.id} under the key {row.key} holds the numbers {held}")
        if row.state == "failed" and not (row.error_code and row.error_blame):
            yield Violation(LOST, "reason", f"job {row.id} failed without a reason or without somebody to blame")
        if row.epoch > row.max_attempts:
            yield Violation(TWICE, "attempts", f"job {row.id} had {row.epoch} of {row.max_attempts} attempts")
    for number, count in numbers.items():
        if count > 1:
            yield Violation(TWICE, "one job", f"number {number} became {count} jobs")


def _logs(evidence: Evidence) -> Iterator[Violation]:
    """The agents' own logs against the database."""
    results = {row.job_id: row for row in evidence.results}
    accepted_by: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
    for agent_id, log in evidence.logs.items():
        finished = log.attempts["attempt-finished"]
        for job_id, epoch in finished & log.attempts["attempt-accepted"]:
            accepted_by[job_id].add((agent_id, epoch))
            result = results.get(job_id)
            if result is None:
                text = f"agent {agent_id} was told that its result for job {job_id} was accepted; it is not there"
                yield Violation(LOST, "settled", text)
    for job_id, holders in accepted_by.items():
        if len(holders) > 1:
            yield Violation(TWICE, "settled", f"results of job {job_id} were accepted from {sorted(holders)}")
        result = results.get(job_id)
        if result is not None and (result.agent_id, result.epoch) not in holders:
            text = f"job {job_id}: {sorted(holders)} were told of acceptance, the database has {result.agent_id}"
            yield Violation(TWICE, "settled", text)
    for row in evidence.results:
        log_of = evidence.logs.get(row.agent_id)
        if log_of is None or (row.job_id, row.epoch) not in log_of.attempts["attempt-finished"]:
            text = f"the result of job {row.job_id}, attempt {row.epoch}, is in no log of agent {row.agent_id}"
            yield Violation(WRONG, "origin", text)
