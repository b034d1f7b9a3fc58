"""Log lines about jobs. Pure."""

from __future__ import annotations

from edge_agent.coordinator.jobs import Attempt, Job
from edge_agent.notes import Note


def note(level: int, sentence: str, action: str, job: Job, attempt: Attempt | None = None) -> Note:
    """Make a log line about a job, and about an attempt of it."""
    fields: list[tuple[str, str | int]] = [("job_id", job.id.hex()), ("epoch", attempt.epoch if attempt else job.epoch)]
    if attempt is not None:
        fields.append(("agent_id", attempt.agent_id))
    return Note(level, sentence, action, tuple(fields))
