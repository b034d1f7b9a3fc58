"""The operator's calls (`/api/v1/…`): how things stand, who serves what, one job's way, and what may be changed.

What is changed can only make a machine do less than its owner lets it: nothing here makes one work.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.responses import Response

from edge_agent.coordinator.gateway.answers import NEVER, json_answer
from edge_agent.coordinator.gateway.pages import job_page, models_page, overview
from edge_agent.coordinator.rows import StoredJob
from edge_agent.coordinator.service import Service
from edge_agent.coordinator.timeline import way_of
from edge_agent.errors import EdgeAgentError, InputError, PeerError, RefusedError
from edge_agent.wire.messages import LABEL_PATTERN, MAX_LABELS
from edge_agent.wire.receipts import verify_receipt
from edge_agent.wire.topics import AGENT_ID_PATTERN

ACTIONS: Final = ("approve", "revoke", "drain", "undrain", "label", "reinstate")
INVITED_SECONDS: Final = 3600.0
MAX_BODY_BYTES: Final = 16 * 1024
_AGENT_ID: Final = re.compile(AGENT_ID_PATTERN)
_LABEL: Final = re.compile(LABEL_PATTERN)
_OWNER: Final = re.compile(r"^[ -~]{1,64}$")


def add_operating_routes(app: FastAPI, service: Service) -> None:
    """Add the operator's calls."""

    @app.get("/api/v1/overview")
    async def look() -> Response:
        return json_answer(overview_of(service))

    @app.get("/api/v1/models")
    async def models() -> Response:
        return json_answer(models_page(service.catalogue, service.operations.registry.agents.values()))

    @app.get("/api/v1/jobs/{job_id}/way")
    async def way(job_id: str) -> Response:
        return json_answer(await way_page(service, await stored_job(service, job_id)))

    @app.post("/api/v1/tokens")
    async def token(request: Request) -> Response:
        return json_answer(await invite(service, request), headers=NEVER)

    @app.post("/api/v1/agents/{agent_id}/{action}")
    async def act(request: Request, agent_id: str, action: str) -> Response:
        return json_answer(await act_on(service, request, agent_id, action))


def overview_of(service: Service) -> dict[str, Any]:
    """Return how things stand."""
    live = service.operations.live_jobs()
    return overview(service.observed, live, connected=service.ready, network=service.network)


async def way_page(service: Service, job: StoredJob) -> dict[str, Any]:
    """Return everything about a job but its tensors."""
    attempts = await service.operations.attempts(job.id)
    receipt = None
    if job.receipt is not None:
        try:
            receipt = verify_receipt(job.receipt, service.public_key)
        except PeerError:  # signed with a key that was replaced: its way is shown without the machine's part
            receipt = None
    way = way_of(job, attempts, receipt, service.operations.clock().wall_ms)
    return job_page(job, way, variant_name(service, job))


async def stored_job(service: Service, job_id: str) -> StoredJob:
    """Return a job.

    Raises:
        RefusedError: `unknown-job`.
    """
    found = await service.job(bytes.fromhex(job_id)) if re.fullmatch(r"[0-9A-Fa-f]{32}", job_id) else None
    if found is None:
        raise no_job(job_id)
    return found


def no_job(job_id: str) -> RefusedError:
    """Make the error for a job that is not there, or that the caller may not know of."""
    return RefusedError(
        f"there is no job {job_id[:64]!r}",
        code="unknown-job",
        hint="It may be older than the coordinator keeps jobs (coordinator.retention_hours).",
    )


def variant_name(service: Service, job: StoredJob) -> str | None:
    """Return the name of the variant that computed a job; None if that, or its family, left the catalogue."""
    try:
        variant = service.catalogue.family(job.family).variant(job.variant) if job.variant else None
    except EdgeAgentError:
        return None
    return variant.name if variant else None


async def act_on(service: Service, request: Request, agent_id: str, action: str) -> dict[str, Any]:
    """Do what the operator wants with an agent.

    Raises:
        InputError: there is no such action, no such id, or what goes with it is wrong; nothing has changed.
    """
    if action not in ACTIONS:
        raise InputError(f"there is no action {action[:64]!r}", hint=f"There are {', '.join(ACTIONS)}.")
    if not _AGENT_ID.fullmatch(agent_id):
        raise InputError(f"an agent's id is 32 letters and digits, not {agent_id[:64]!r}")
    body = await json_body(request)
    operations = service.operations
    match action:
        case "approve":
            await operations.approve(agent_id, _owner(body))
        case "revoke":
            await operations.revoke(agent_id)
        case "reinstate":
            await operations.reinstate(agent_id)
        case "drain" | "undrain":
            await operations.drain(agent_id, drained=action == "drain")
        case _:
            await operations.label(agent_id, _labels(body))
    return {"agent_id": agent_id, "done": action}


async def invite(service: Service, request: Request) -> dict[str, Any]:
    """Make a token with which one machine enrols itself within an hour."""
    owner = _owner(await json_body(request))
    token = await service.operations.invite(service.network, service.public_key.id, owner, INVITED_SECONDS)
    return {"token": token, "owner": owner, "seconds": INVITED_SECONDS}


async def json_body(request: Request) -> dict[str, Any]:
    """Read a small JSON object; no body is an empty one.

    Raises:
        InputError: it is none, or too long.
    """
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > MAX_BODY_BYTES:
            raise InputError(f"the body has more than {MAX_BODY_BYTES} bytes")
    try:
        body = json.loads(raw) if raw else {}
    except (ValueError, RecursionError) as error:
        raise InputError("the body is no JSON") from error
    if not isinstance(body, dict):
        raise InputError("the body is no JSON object")
    return body


def _owner(body: dict[str, Any]) -> str | None:
    owner = body.get("owner")
    if owner is None or (isinstance(owner, str) and not owner.strip()):
        return None
    if not isinstance(owner, str) or not _OWNER.fullmatch(owner):
        raise InputError("an owner is a text of 1 to 64 printable ASCII characters")
    return owner


def _labels(body: dict[str, Any]) -> frozenset[str]:
    labels = body.get("labels")
    good = isinstance(labels, list) and len(labels) <= MAX_LABELS
    if not good or not all(isinstance(label, str) and _LABEL.fullmatch(label) for label in labels or ()):
        raise InputError(
            f"labels are a list of at most {MAX_LABELS} names",
            hint="Each has 1 to 64 characters a-z, 0-9, . _ = and -, and begins with a letter or digit.",
        )
    return frozenset(labels or ())
