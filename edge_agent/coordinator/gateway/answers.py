"""How an error or an outcome becomes an HTTP answer: one table of statuses, one form of body."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.jobs import Blame, JobError
from edge_agent.coordinator.rows import StoredJob
from edge_agent.coordinator.service import AgentView
from edge_agent.errors import EdgeAgentError, JobFailedError

STATUS_OF_CODE = {
    "bad-input": 400,
    "malformed": 400,
    "usage": 400,
    "unknown-family": 404,
    "unknown-job": 404,
    "unknown-version": 404,
    "not-logged": 404,
    "idempotency-conflict": 409,
    "too-large": 413,
    "queue-full": 429,
    "no-agent": 503,
    "stopping": 503,
    "deadline": 504,
}
"""Whatever is not here is 500."""

STATUS_OF_BLAME = {
    Blame.REQUESTER: 400,
    Blame.MODEL: 502,
    Blame.AGENT: 502,
    Blame.COORDINATOR: 500,
    Blame.DEADLINE: 504,
    Blame.CANCELLED: 409,
}
"""Of a job that ended without a result."""

RETRY_CODES = frozenset({"queue-full", "no-agent", "stopping", "deadline", "job-failed"})
RETRY_AFTER_SECONDS = {"queue-full": 1, "no-agent": 2, "stopping": 1}


def json_answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:  # noqa: ANN401 JSON is any
    """Answer with compact JSON; NaN has no form in JSON and must have been refused before."""
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers, media_type="application/json")


def error_answer(error: EdgeAgentError, *, job_id: bytes | None = None) -> Response:
    """Answer with an error: `error` for every client of the protocol, the rest for those who look closer."""
    code = error.error_code
    body = {"error": error.message, "code": code, "hint": error.hint, "retry": code in RETRY_CODES}
    headers = {}
    if code in RETRY_AFTER_SECONDS:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS[code])
    if job_id is not None:
        body["job_id"] = job_id.hex()
        headers["Edge-Agent-Job"] = job_id.hex()
    return json_answer(body, STATUS_OF_CODE.get(code, 500), headers)


def failed_job_answer(job_id: bytes, error: JobError) -> Response:
    """Answer for a job that ended without a result."""
    status = STATUS_OF_BLAME[error.blame]
    if error.code == "too-large":
        status = STATUS_OF_CODE[error.code]
    body = {
        "error": f"the job failed: {error.message}",
        "code": error.code,
        "blame": error.blame.value,
        "retry": error.blame in {Blame.DEADLINE, Blame.AGENT, Blame.COORDINATOR} and error.code != "too-large",
        "job_id": job_id.hex(),
    }
    return json_answer(body, status, {"Edge-Agent-Job": job_id.hex()})


def still_running_error(job_id: bytes, seconds: float) -> JobFailedError:
    """Say that a synchronous call is over but its job is not."""
    return JobFailedError(
        f"there was no result within {seconds:g} s",
        code="deadline",
        hint=f"Ask for it at /api/v1/jobs/{job_id.hex()}, or send the same Idempotency-Key again.",
    )


def receipt_path(job_id: bytes) -> str:
    """Where a job's receipt can be had."""
    return f"/api/v1/jobs/{job_id.hex()}/receipt"


def outcome_parameters(outcome: Outcome) -> dict[str, str | int]:
    """What a successful answer says of itself, as parameters of the protocol's response."""
    return {
        "job_id": outcome.job_id.hex(),
        "receipt": receipt_path(outcome.job_id),
        "agent_id": outcome.agent_id or "",
        "run_us": outcome.run_us or 0,
        "class": outcome.klass or "",
        "verification": "signed",
    }


def job_view(job: StoredJob, variant_name: str | None) -> dict[str, Any]:
    """Describe a job for a person or a script."""
    view: dict[str, Any] = {
        "job_id": job.id.hex(),
        "model": job.family,
        "state": job.state.value,
        "attempts": job.epoch,
        "submitted_ms": job.submitted_ms,
        "deadline_ms": job.deadline_ms,
        "ended_ms": job.ended_ms,
        "client": job.client,
        "priority": job.priority,
    }
    if job.error is not None:
        view["error"] = {"code": job.error.code, "message": job.error.message, "blame": job.error.blame.value}
    if job.receipt is not None:
        view |= {
            "agent_id": job.agent_id,
            "variant": variant_name,
            "class": job.klass,
            "run_us": job.run_us,
            "receipt": receipt_path(job.id),
        }
    return view


def agent_view(view: AgentView) -> dict[str, Any]:
    """Describe an agent for a person or a script."""
    stored, live = view.stored, view.live
    return {
        "agent_id": stored.id,
        "approved": stored.approved,
        "owner": stored.owner,
        "labels": sorted(live.labels or ()) if live else [],
        "presence": live.presence.value if live else "gone",
        "offers": list(live.offers) if live else [],
        "classes": {family: offer.klass.id for family, offer in live.offers.items()} if live else {},
        "loaded": [family for family, offer in live.offers.items() if offer.loaded] if live else [],
        "in_flight": len(live.in_flight) if live else 0,
        "clock_skew_ms": live.clock_skew_ms if live else None,
        "software": stored.software,
        "seen_ms": stored.seen_ms,
    }
