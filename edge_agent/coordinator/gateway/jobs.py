"""What the standard protocols have no words for: asynchronous jobs, receipts, agents (`/api/v1/…`)."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from edge_agent.coordinator.access import Caller, Scope
from edge_agent.coordinator.events import Verification
from edge_agent.coordinator.gateway.answers import JOB_HEADER, json_answer, receipt_path
from edge_agent.coordinator.gateway.guard import caller_of
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.gateway.operating import no_job, stored_job, variant_name
from edge_agent.coordinator.gateway.submission import submit
from edge_agent.coordinator.orders import Orders
from edge_agent.coordinator.registry import Agent
from edge_agent.coordinator.rows import StoredJob
from edge_agent.coordinator.service import AgentView, Service
from edge_agent.errors import DeniedError, InputError, JobFailedError, RefusedError
from edge_agent.wire import strict_json
from edge_agent.wire.oip_json import tensor_to_json

MAX_LISTED_JOBS = 1000
DEFAULT_LISTED_JOBS = 50


def add_job_routes(app: FastAPI, service: Service, intake: Intake) -> None:
    """Add the calls that submit, show and cancel jobs."""

    @app.post("/api/v1/models/{family}/jobs")
    @app.post("/api/v1/models/{family}/versions/{version}/jobs")
    async def submit_job(request: Request, family: str, version: str | None = None) -> Response:
        entry = service.catalogue.family(family)
        _, _, accepted = await submit(service, intake, request, entry, version, durable=True)
        where = f"/api/v1/jobs/{accepted.job_id.hex()}"
        state = {"job_id": accepted.job_id.hex(), "state": "queued", "repeated": accepted.repeated}
        return json_answer(state, 202, {"Location": where, JOB_HEADER: accepted.job_id.hex()})

    @app.get("/api/v1/jobs/{job_id}")
    async def job(request: Request, job_id: str) -> Response:
        stored = await _stored(service, job_id, caller_of(request))
        view = _job_view(stored, variant_name(service, stored))
        if stored.outputs:
            try:
                view["outputs"] = [tensor_to_json(tensor) for tensor in stored.outputs]
            except InputError as error:  # not the client's fault: NaN, infinity, BF16
                raise no_json_form(error) from error
        return Response(strict_json.written(view), media_type="application/json")

    @app.delete("/api/v1/jobs/{job_id}")
    async def cancel(request: Request, job_id: str) -> Response:
        caller = caller_of(request)
        stored = await _stored(service, job_id, caller)
        if stored.client != caller.name and not caller.may(Scope.OPERATOR):
            raise DeniedError(f"the job {job_id} is another client's", code="forbidden")
        service.cancel(stored.id)
        await service.outcome(stored.id, 5.0)
        after = await _stored(service, job_id, caller)
        return json_answer(_job_view(after, variant_name(service, after)))

    @app.get("/api/v1/jobs/{job_id}/receipt")
    async def receipt(request: Request, job_id: str) -> Response:
        stored = await _stored(service, job_id, caller_of(request))
        if stored.receipt is None:
            text = f"the job {job_id} is {stored.state}: only a job that succeeded has a receipt"
            raise RefusedError(text, code="unknown-job", hint="Look at /api/v1/jobs/ with the job's id.")
        name = f'attachment; filename="{job_id}.receipt"'
        return Response(stored.receipt, media_type="application/cose", headers={"Content-Disposition": name})


def add_overview_routes(app: FastAPI, service: Service) -> None:
    """Add the calls that list jobs and agents, and the coordinator's own."""

    @app.get("/api/v1/jobs")
    async def jobs(request: Request, limit: str = str(DEFAULT_LISTED_JOBS), client: str | None = None) -> Response:
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_LISTED_JOBS):
            text = f"limit must be a whole number from 1 to {MAX_LISTED_JOBS}"
            raise InputError(text, hint="Narrow the list down otherwise: by client, family or state.")
        caller = caller_of(request)
        if client is not None and not caller.owns(client):
            raise DeniedError("a key without the scope read sees its own jobs only", code="forbidden")
        found = await service.jobs(int(limit), client if caller.may(Scope.READ) else caller.name)
        return json_answer([_job_view(stored, variant_name(service, stored)) for stored in found])

    @app.get("/api/v1/coordinator")
    async def coordinator() -> Response:
        key = service.public_key
        return json_answer(
            {
                "network": service.network,
                "coordinator_id": key.id,
                "public_key": key.raw.hex(),
                "connected": service.ready,
                "counters": dict(service.counters),
            }
        )

    @app.get("/api/v1/agents")
    async def agents() -> Response:
        return json_answer([_agent_view(view, service.operations.registry.orders) for view in await service.agents()])

    @app.get("/api/v1/agents/{agent_id}/birth")
    async def birth(agent_id: str) -> Response:
        found = service.operations.registry.agents.get(agent_id)
        if found is None or not found.birth:
            raise RefusedError(
                f"the agent {agent_id[:64]!r} has not been here since the coordinator started",
                code="not-enrolled",
                hint="GET /api/v1/agents lists those that are known.",
            )
        return Response(found.birth, media_type="application/cose")

    @app.get("/api/v1/agents/{agent_id}/certificate")
    async def certificate(agent_id: str) -> Response:
        found = service.operations.registry.certificates.get(agent_id)
        if found is None:
            raise RefusedError(
                f"there is no certificate of the agent {agent_id[:64]!r}",
                code="no-certificate",
                hint="GET /api/v1/identity says whether this coordinator has a registrar at all.",
            )
        return Response(found.signed, media_type="application/cose")


def no_json_form(error: InputError) -> JobFailedError:
    """Make the error for a result that JSON cannot hold."""
    return JobFailedError(
        f"the job succeeded, but its result has no form in JSON: {error.message}",
        hint="Ask for the binary form when you call /v2/…/infer; the receipt has the digests of the outputs.",
    )


async def _stored(service: Service, job_id: str, caller: Caller) -> StoredJob:
    stored = await stored_job(service, job_id)
    if not caller.owns(stored.client):  # of another client's job nothing is told, not even this
        raise no_job(job_id)
    return stored


def _job_view(job: StoredJob, variant_name: str | None) -> dict[str, Any]:
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
            "verification": _verification_view(job),
        }
    return view


def _fares(live: Agent | None) -> dict[str, Any]:
    """Say what an agent is and how it fares, as it told."""
    machine, status = (live.machine, live.status) if live is not None else (None, None)
    return {
        "board": machine.board if machine else None,
        "isa": machine.isa if machine else None,
        "mode": status.mode if status else None,
        "reasons": [reason.code for reason in status.reasons] if status else [],
        "celsius": status.celsius if status else None,
        "cpu_percent": status.cpu_percent if status else None,
    }


def _verification_view(job: StoredJob) -> dict[str, Any]:
    """Say what was done to verify a result, with what is needed to see that it was not steered."""
    found = job.verification or Verification("signed", "signed")
    return {
        "mode": found.mode,
        "state": found.state,
        "by": list(found.by),
        "probability": found.probability,
        "drawn": found.drawn,
        "period": found.period,
    }


def _agent_view(view: AgentView, orders: Orders) -> dict[str, Any]:
    """Describe an agent for a person or a script."""
    stored, live = view.stored, view.live
    return {
        "agent_id": stored.id,
        "approved": stored.approved,
        "owner": stored.owner,
        "sealing_key": live.sealing_key.hex() if live and live.sealing_key else None,
        "labels": sorted(
            ((live.labels or frozenset()) if live else frozenset()) | orders.labels.get(stored.id, frozenset())
        ),
        "drained": stored.id in orders.drained,
        "wrong_results": stored.wrong_results,
        "resting_until_ms": stored.resting_until_ms or None,
        "presence": live.presence.value if live else "gone",
        "offers": list(live.offers) if live else [],
        "classes": {family: offer.klass.id for family, offer in live.offers.items()} if live else {},
        "loaded": [family for family, offer in live.offers.items() if offer.loaded] if live else [],
        "in_flight": len(live.in_flight) if live else 0,
        "for_everybody": live is None or live.terms is None or not live.terms.restrict,
        **_fares(live),
        "clock_skew_ms": live.clock_skew_ms if live else None,
        "software": stored.software,
        "seen_ms": stored.seen_ms,
    }
