"""How an error or an outcome becomes an HTTP answer: one table of statuses, and what a client is told of a problem."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.jobs import Blame, JobError
from edge_agent.errors import EdgeAgentError, JobFailedError

STATUS_OF_CODE = {
    "bad-input": 400,
    "malformed": 400,
    "usage": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown-family": 404,
    "wrong-kind": 400,
    "bad-signature": 400,
    "unknown-key": 403,
    "wrong-agent": 400,
    "wrong-network": 400,
    "unknown-job": 404,
    "unknown-version": 404,
    "not-logged": 404,
    "not-enrolled": 404,
    "no-certificate": 404,
    "timeout": 408,
    "idempotency-conflict": 409,
    "too-large": 413,
    "unsupported-encoding": 415,
    "queue-full": 429,
    "too-many-calls": 429,
    "quota-exhausted": 429,
    "not-supported": 501,
    "no-agent": 503,
    "loading": 503,
    "too-few-owners": 503,
    "no-taker": 503,
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

RETRY_AFTER_SECONDS = {"queue-full": 1, "no-agent": 2, "stopping": 1}

JOB_HEADER = "Edge-Agent-Job"
RECEIPT_HEADER = "Edge-Agent-Receipt"
VERIFICATION_HEADER = "Edge-Agent-Verification"
RETRY_HEADER = "Edge-Agent-Retry"
"""Of an error: whether the same call makes sense again, for who does not look into the body."""
NEVER = {"Cache-Control": "no-store"}
"""Of an answer that is of this moment, or secret."""
SIGNED = "signed"
"""The result is signed by the agent and countersigned: nobody else has computed it again."""


def verification_state(outcome: Outcome) -> str:
    """Return in one word what was done to verify a result; see `events.Verification`."""
    return SIGNED if outcome.verification is None else outcome.verification.state


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, before it has the form that the client's protocol gives it.

    Attributes:
        retry: whether the same call makes sense again.
        more: members of the body beside `error`, `code`, `hint` and `retry`.
    """

    status: int
    code: str
    message: str
    retry: bool
    hint: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        """Return what stands beside the message."""
        hint = {} if self.hint is None else {"hint": self.hint}
        return {"code": self.code, **hint, "retry": self.retry, **self.more}


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:  # noqa: ANN401 JSON is any
    """Answer with compact JSON; NaN has no form in JSON and must have been refused before."""
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers, media_type="application/json")


def problem_answer(problem: Problem) -> Response:
    """Answer as the Open Inference Protocol says: `error`; the rest is for those who look closer."""
    headers = {**problem.headers, RETRY_HEADER: "true" if problem.retry else "false"}
    return json_answer({"error": problem.message, **problem.details()}, problem.status, headers)


def problem_of(error: EdgeAgentError) -> Problem:
    """Say what an error means to a client."""
    code = error.error_code
    seconds = error.retry_after_seconds or RETRY_AFTER_SECONDS.get(code)
    headers = {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}
    if code == "unauthorized":
        headers["WWW-Authenticate"] = 'Bearer realm="edge-agent"'
    return Problem(
        STATUS_OF_CODE.get(code, 500), code, error.message, retry=error.retryable, hint=error.hint, headers=headers
    )


def problem_of_job(job_id: bytes, error: JobError) -> Problem:
    """Say why a job ended without a result."""
    return Problem(
        STATUS_OF_CODE[error.code] if error.code == "too-large" else STATUS_OF_BLAME[error.blame],
        error.code,
        f"the job failed: {error.message}",
        retry=error.blame in {Blame.DEADLINE, Blame.AGENT, Blame.COORDINATOR} and error.code != "too-large",
        more={"blame": error.blame.value, "job_id": job_id.hex()},
        headers={JOB_HEADER: job_id.hex()},
    )


def still_running(job_id: bytes, seconds: float) -> Problem:
    """Say that a synchronous call is over but its job is not."""
    error = JobFailedError(
        f"there was no result within {seconds:g} s",
        code="deadline",
        hint=f"Ask for it at /api/v1/jobs/{job_id.hex()}, or send the same Idempotency-Key again.",
    )
    told = problem_of(error)
    return Problem(
        told.status,
        told.code,
        told.message,
        retry=told.retry,
        hint=told.hint,
        more={"job_id": job_id.hex()},
        headers={JOB_HEADER: job_id.hex()},
    )


def receipt_path(job_id: bytes) -> str:
    """Where a job's receipt can be had."""
    return f"/api/v1/jobs/{job_id.hex()}/receipt"


def outcome_headers(outcome: Outcome) -> dict[str, str]:
    """What a successful answer says of itself in headers, for clients that show no parameters."""
    return {
        JOB_HEADER: outcome.job_id.hex(),
        RECEIPT_HEADER: receipt_path(outcome.job_id),
        VERIFICATION_HEADER: verification_state(outcome),
    }


def outcome_parameters(outcome: Outcome, *, inline: bool = False) -> dict[str, str | int]:
    """What it says in the parameters of the protocol's response; with `inline`, the receipt itself, in base64."""
    receipt = outcome.receipt if inline else None
    more: dict[str, str | int] = {} if receipt is None else {"receipt_cose": base64.b64encode(receipt).decode()}
    return more | {
        "job_id": outcome.job_id.hex(),
        "receipt": receipt_path(outcome.job_id),
        "agent_id": outcome.agent_id or "",
        "run_us": outcome.run_us or 0,
        "class": outcome.klass or "",
        "verification": verification_state(outcome),
    }
