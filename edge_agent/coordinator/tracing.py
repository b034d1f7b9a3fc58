"""The coordinator's spans of a job's trace: the job from its submission to its end, and each attempt inside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from edge_agent.coordinator.events import EndAttempt, EndJob, InsertAttempt, InsertJob, Record
from edge_agent.telemetry import Tracer, span_id

MAX_TRACED: Final = 10_000
"""So many live jobs are traced; those above are not."""


@dataclass(slots=True)
class _Traced:
    family: str
    submitted_ms: int
    leased: dict[int, tuple[int, str]] = field(default_factory=dict)


class Traces:
    """Makes spans of the records that the core commits.

    Args:
        tracer: takes them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._jobs: dict[bytes, _Traced] = {}

    def saw(self, record: Record) -> None:
        """Take note of a record."""
        match record:
            case InsertJob(submit=submit):
                if len(self._jobs) < MAX_TRACED and self._tracer.wants(submit.job_id):
                    self._jobs[submit.job_id] = _Traced(submit.family, record.submitted_ms)
            case InsertAttempt():
                if (job := self._jobs.get(record.job_id)) is not None:
                    job.leased[record.epoch] = (record.leased_ms, record.agent_id)
            case EndAttempt():
                self._attempt(record.job_id, record.epoch, record.ended_ms, record.outcome)
            case EndJob():
                self._end(record)

    def _attempt(self, job_id: bytes, epoch: int, ended_ms: int, failed: str | None) -> None:
        job = self._jobs.get(job_id)
        if job is None or epoch not in job.leased:
            return
        leased_ms, agent_id = job.leased.pop(epoch)
        self._tracer.span(
            "attempt",
            job_id,
            own=span_id(job_id, epoch),
            parent=span_id(job_id),
            start_ms=leased_ms,
            end_ms=ended_ms,
            failed=failed,
            attributes={"edge_agent.epoch": epoch, "edge_agent.agent_id": agent_id},
        )

    def _end(self, record: EndJob) -> None:
        outcome = record.outcome
        error = outcome.error.code if outcome.error is not None else None
        self._attempt(outcome.job_id, record.epoch, record.ended_ms, error)
        job = self._jobs.pop(outcome.job_id, None)
        if job is not None:
            self._tracer.span(
                "job",
                outcome.job_id,
                own=span_id(outcome.job_id),
                parent=None,
                start_ms=job.submitted_ms,
                end_ms=record.ended_ms,
                failed=error,
                attributes={"edge_agent.family": job.family, "edge_agent.attempts": record.epoch},
            )
