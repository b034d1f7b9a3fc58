"""What is not written yet of jobs that nobody was promised: most end within the second, and then are written once.

The client of a synchronous job is told nothing before its end. Until then its records may be lost with the process: the
client's connection is lost as well, and its next request begins anew. So they wait here, and a job that ends in time is
written in one transaction, without its inputs, which nothing needs any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edge_agent.coordinator.events import (
    PENDING,
    Commit,
    EndAttempt,
    EndJob,
    InsertAttempt,
    InsertJob,
    Record,
    Verified,
)

SECONDS: Final = 1.0
"""So old a job is when it is written, whether it has ended or not."""


@dataclass(slots=True)
class _Job:
    due: float
    input_bytes: int
    records: list[Record] = field(default_factory=list)


def may_wait(commit: Commit) -> bool:
    """Return whether a commit says nothing but that jobs were taken on and went out, which nobody waits for."""
    if commit.urgent or commit.durable or commit.then:
        return False
    return all(isinstance(record, InsertJob | InsertAttempt | EndAttempt) for record in commit.records)


class YoungJobs:
    """Takes commits in order, and gives back what is to be written, in an order that leaves each job's own as it was.

    Args:
        max_bytes: with more inputs than this, the oldest are written.

    Attributes:
        input_bytes: of the jobs that wait.
    """

    def __init__(self, max_bytes: int) -> None:
        self.input_bytes = 0
        self._max_bytes = max_bytes
        self._jobs: dict[bytes, _Job] = {}

    def take(self, commit: Commit, now: float) -> Iterator[Record]:
        """Take a commit; give what is to be written at once.

        Args:
            commit: what happened; whatever follows from it is done when everything that it waits for is written.
            now: monotonic seconds at which it did.
        """
        if commit.durable:  # it may be about any of them
            yield from self.all()
        waits = may_wait(commit)
        for record in commit.records:
            job_id = job_of(record)
            if waits and isinstance(record, InsertJob):
                job = self._jobs[record.submit.job_id] = _Job(now + SECONDS, input_bytes(record))
                job.records.append(record)
                self.input_bytes += job.input_bytes
            elif job_id not in self._jobs:
                yield record
            elif isinstance(record, EndJob):
                yield from self._ended(job_id, record)
            elif waits:
                self._jobs[job_id].records.append(record)
            else:
                yield from self._pop(job_id)
                yield record
        while self.input_bytes > self._max_bytes:
            yield from self._pop(next(iter(self._jobs)))

    def due(self, now: float) -> Iterator[Record]:
        """Give the jobs that are old enough."""
        while self._jobs and next(iter(self._jobs.values())).due <= now:
            yield from self._pop(next(iter(self._jobs)))

    def all(self) -> Iterator[Record]:
        """Give every job."""
        while self._jobs:
            yield from self._pop(next(iter(self._jobs)))

    def next_due(self) -> float | None:
        """Return the monotonic second at which `due` has something to give, if any."""
        return next(iter(self._jobs.values())).due if self._jobs else None

    def _pop(self, job_id: bytes) -> Sequence[Record]:
        job = self._jobs.pop(job_id)
        self.input_bytes -= job.input_bytes
        return job.records

    def _ended(self, job_id: bytes, end: EndJob) -> Iterator[Record]:
        begin, *later = self._pop(job_id)
        if isinstance(begin, InsertJob) and not needs_inputs(end):
            begin = replace(begin, submit=replace(begin.submit, inputs=()))
        yield from (begin, *later, end)


def needs_inputs(end: EndJob) -> bool:
    """Return whether a job that ended is still checked, for which another machine is sent its inputs."""
    verification = end.outcome.verification
    return verification is not None and verification.state == PENDING


def input_bytes(record: InsertJob) -> int:
    """Return the size of a job's inputs."""
    return sum(len(tensor.data) for tensor in record.submit.inputs)


def job_of(record: Record) -> bytes:
    """Return the id of the job that a record is about; empty where it is about none."""
    match record:
        case InsertJob(submit=submit):
            return submit.job_id
        case EndJob(outcome=outcome):
            return outcome.job_id
        case InsertAttempt() | EndAttempt() | Verified():
            return record.job_id
    return b""


def commit_bytes(commit: Commit) -> int:
    """Return how many bytes of tensors a commit keeps in memory."""
    total = 0
    for record in commit.records:
        match record:
            case InsertJob():
                total += input_bytes(record)
            case EndJob():
                total += sum(len(tensor.data) for tensor in record.outcome.outputs)
    return total


def keys_of(records: Iterable[Record]) -> dict[str, tuple[bytes, bytes]]:
    """Return what `Store.request` will say of the jobs among these, by their idempotency keys."""
    submits = [record.submit for record in records if isinstance(record, InsertJob)]
    return {s.idempotency_key: (s.job_id, s.request_digest) for s in submits if s.idempotency_key is not None}
