"""One job's whole way, cut into stages, from the times that coordinator and agent wrote down themselves. Pure.

The agent's clock is another one. Where its times do not lie between lease and acceptance, they are moved so that the
way there takes as long as the way back (RFC 5905, section 8), which is the best that four times can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.coordinator.rows import StoredAttempt, StoredJob
from edge_agent.wire.receipts import VerifiedReceipt


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a job's way.

    Attributes:
        name: a stable name.
        text: for people.
        start_ms: after the job's submission.
        took_ms: how long.
        agent_id: whose part it is, if an agent's.
    """

    name: str
    text: str
    start_ms: float
    took_ms: float
    agent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """All stages in order, and by how much the agent's times were moved."""

    stages: tuple[Stage, ...]
    moved_ms: float = 0.0


def way_of(job: StoredJob, attempts: Sequence[StoredAttempt], receipt: VerifiedReceipt | None, now_ms: int) -> Way:
    """Cut a job's way into stages.

    Args:
        job: the job.
        attempts: all of it, in the order of their epochs.
        receipt: of a job that succeeded.
        now_ms: Unix milliseconds; the end of what has not ended.
    """
    zero = job.submitted_ms
    end = job.ended_ms if job.ended_ms is not None else now_ms
    stages: list[Stage] = []
    moved = 0.0
    free_at = float(zero)  # since then, no attempt held the job
    for attempt in attempts:
        if attempt.leased_ms > free_at or not stages:
            text = "waited for a machine" if not stages else "waited for another machine"
            stages.append(_stage("waiting", text, free_at, attempt.leased_ms, zero))
        won = receipt is not None and attempt.epoch == receipt.result.epoch
        until = attempt.ended_ms if attempt.ended_ms is not None else end
        if won and receipt is not None:
            parts, moved = _accepted(attempt, receipt, zero)
            stages += parts
            until = receipt.accepted_ms
        else:
            how = attempt.outcome or "still at it"
            text = f"attempt {attempt.epoch}: {how}"
            stages.append(_stage("attempt", text, attempt.leased_ms, until, zero, attempt.agent_id))
        free_at = max(free_at, float(until))
    if job.ended_ms is None and all(attempt.ended_ms is not None for attempt in attempts):
        stages.append(_stage("waiting", "waits for a machine", free_at, end, zero))
    elif job.ended_ms is not None and job.ended_ms > free_at:
        text = "until it was stored" if receipt is not None else "until it ended"
        stages.append(_stage("storing", text, free_at, job.ended_ms, zero))
    return Way(tuple(stages), moved)


def _accepted(attempt: StoredAttempt, receipt: VerifiedReceipt, zero: int) -> tuple[list[Stage], float]:
    """Return the stages of the attempt whose result was accepted, and by how much the agent's times were moved."""
    result, leased, accepted = receipt.result, attempt.leased_ms, receipt.accepted_ms
    run_ms = result.run_us / 1000
    received, finished = float(result.received_ms), float(result.finished_ms)
    moved = 0.0
    if received < leased or finished > accepted:
        moved = ((leased - received) + (accepted - finished)) / 2
        received, finished = received + moved, finished + moved
    received = min(max(received, leased), accepted)
    finished = min(max(finished, received), accepted)
    began = max(received, finished - run_ms)
    agent = attempt.agent_id
    return [
        _stage("there", "on the way to the machine", leased, received, zero),
        _stage("queued", "waited at the machine", received, began, zero, agent),
        Stage("computing", "the model ran", began - zero, run_ms, agent),
        _stage("back", "on the way back, verified", finished, accepted, zero),
    ], moved


def _stage(name: str, text: str, start: float, end: float, zero: int, agent_id: str | None = None) -> Stage:  # noqa: PLR0913, PLR0917 a stage's parts
    return Stage(name, text, start - zero, max(0.0, end - start), agent_id)
