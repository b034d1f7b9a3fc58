"""The HTTP application: routes, and nothing that a route does not need.

The Open Inference Protocol v2 in its JSON form (`/v2/…`), and what it has no words for: asynchronous jobs, receipts,
agents (`/api/v1/…`).
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from edge_agent import __version__
from edge_agent.coordinator.gateway.answers import (
    agent_view,
    error_answer,
    failed_job_answer,
    job_view,
    json_answer,
    outcome_parameters,
    still_running_error,
)
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.gateway.log_routes import add_log_routes
from edge_agent.coordinator.rows import StoredJob
from edge_agent.coordinator.service import Accepted, Service
from edge_agent.errors import EdgeAgentError, InputError, JobFailedError, RefusedError
from edge_agent.models.catalogue import Family, Port
from edge_agent.wire.job_options import JobOptions, options_from
from edge_agent.wire.oip_json import request_from_json, tensor_to_json
from edge_agent.wire.tensors import Tensor

MAX_LISTED_JOBS = 1000
DEFAULT_LISTED_JOBS = 50
DEADLINE_SLACK_SECONDS = 1.0
"""So much longer than a job's deadline its client is kept waiting, to be told how it ended."""
MAX_INTAKE_BYTES = 256 * 1024 * 1024


def make_app(
    service: Service, *, max_request_bytes: int, wait_seconds: float, max_intake_bytes: int = MAX_INTAKE_BYTES
) -> FastAPI:
    """Build the application.

    Args:
        service: the running coordinator.
        max_request_bytes: longer bodies are refused while they arrive.
        wait_seconds: how long a synchronous call waits for its result that names no deadline.
        max_intake_bytes: of all bodies that are being read at once.
    """
    # The generated documentation pages load scripts from elsewhere: nothing here phones home.
    app = FastAPI(title="edge-agent coordinator", version=__version__, docs_url=None, redoc_url=None)

    @app.exception_handler(EdgeAgentError)
    async def _on_error(_: Request, error: EdgeAgentError) -> Response:
        return error_answer(error)

    @app.exception_handler(HTTPException)
    async def _on_no_route(request: Request, error: HTTPException) -> Response:
        text = f"{request.method} {request.url.path[:200]}: {error.detail}"
        body = {"error": text, "code": "usage", "hint": "See /openapi.json for what there is.", "retry": False}
        return json_answer(body, error.status_code, dict(error.headers or {}))

    intake = Intake(max_request_bytes=max_request_bytes, max_bytes=max_intake_bytes)
    _add_inference_routes(app, service, intake, wait_seconds=wait_seconds)
    _add_job_routes(app, service, intake)
    _add_overview_routes(app, service)
    add_log_routes(app, service)
    return app


def _add_inference_routes(app: FastAPI, service: Service, intake: Intake, *, wait_seconds: float) -> None:
    @app.get("/v2")
    async def server_metadata() -> Response:
        return json_answer({"name": "edge-agent", "version": __version__, "extensions": []})

    @app.get("/v2/health/live")
    async def live() -> Response:
        return json_answer({"live": True})

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        return json_answer({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/v2/models/{family}")
    @app.get("/v2/models/{family}/versions/{version}")
    async def model_metadata(family: str, version: str | None = None) -> Response:
        entry = service.catalogue.family(family)
        _digest_of(entry, version)
        return json_answer(
            {
                "name": entry.name,
                "versions": [variant.name for variant in entry.variants],
                "platform": "onnxruntime_onnx",
                "inputs": [_port(port) for port in entry.inputs],
                "outputs": [_port(port) for port in entry.outputs],
            }
        )

    @app.get("/v2/models/{family}/ready")
    @app.get("/v2/models/{family}/versions/{version}/ready")
    async def model_ready(family: str, version: str | None = None) -> Response:
        entry = service.catalogue.family(family)
        _digest_of(entry, version)
        offered = service.offered(family)
        return json_answer({"name": family, "ready": offered}, 200 if offered else 503)

    @app.post("/v2/models/{family}/infer")
    @app.post("/v2/models/{family}/versions/{version}/infer")
    async def infer(request: Request, family: str, version: str | None = None) -> Response:
        entry = service.catalogue.family(family)
        submitted = await _submit(service, intake, request, entry, version, durable=False)
        given_id, options, accepted = submitted
        seconds = (options.deadline_seconds or wait_seconds) + DEADLINE_SLACK_SECONDS
        outcome = await service.outcome(accepted.job_id, seconds)
        if outcome is None:
            return error_answer(still_running_error(accepted.job_id, seconds), job_id=accepted.job_id)
        if outcome.error is not None:
            return failed_job_answer(accepted.job_id, outcome.error)
        served = entry.variant(outcome.variant) if outcome.variant else None
        answer: dict[str, Any] = {
            "model_name": family,
            "model_version": served.name if served else "",
            "outputs": _outputs(outcome.outputs),
            "parameters": outcome_parameters(outcome),
        }
        if given_id is not None:
            answer["id"] = given_id
        return json_answer(answer, headers={"Edge-Agent-Job": accepted.job_id.hex()})


def _add_job_routes(app: FastAPI, service: Service, intake: Intake) -> None:
    @app.post("/api/v1/models/{family}/jobs")
    @app.post("/api/v1/models/{family}/versions/{version}/jobs")
    async def submit(request: Request, family: str, version: str | None = None) -> Response:
        entry = service.catalogue.family(family)
        _, _, accepted = await _submit(service, intake, request, entry, version, durable=True)
        where = f"/api/v1/jobs/{accepted.job_id.hex()}"
        state = {"job_id": accepted.job_id.hex(), "state": "queued", "repeated": accepted.repeated}
        return json_answer(state, 202, {"Location": where, "Edge-Agent-Job": accepted.job_id.hex()})

    @app.get("/api/v1/jobs/{job_id}")
    async def job(job_id: str) -> Response:
        stored = await _stored(service, job_id)
        view = job_view(stored, _variant_name(service, stored))
        if stored.outputs:
            view["outputs"] = _outputs(stored.outputs)
        return json_answer(view)

    @app.delete("/api/v1/jobs/{job_id}")
    async def cancel(job_id: str) -> Response:
        stored = await _stored(service, job_id)
        service.cancel(stored.id)
        await service.outcome(stored.id, 5.0)
        after = await _stored(service, job_id)
        return json_answer(job_view(after, _variant_name(service, after)))

    @app.get("/api/v1/jobs/{job_id}/receipt")
    async def receipt(job_id: str) -> Response:
        stored = await _stored(service, job_id)
        if stored.receipt is None:
            text = f"the job {job_id} is {stored.state}: only a job that succeeded has a receipt"
            raise RefusedError(text, code="unknown-job", hint="Look at /api/v1/jobs/ with the job's id.")
        name = f'attachment; filename="{job_id}.receipt"'
        return Response(stored.receipt, media_type="application/cose", headers={"Content-Disposition": name})


def _add_overview_routes(app: FastAPI, service: Service) -> None:
    @app.get("/api/v1/jobs")
    async def jobs(limit: str = str(DEFAULT_LISTED_JOBS), client: str | None = None) -> Response:
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_LISTED_JOBS):
            raise InputError(f"limit must be a whole number from 1 to {MAX_LISTED_JOBS}")
        found = await service.jobs(int(limit), client)
        return json_answer([job_view(stored, _variant_name(service, stored)) for stored in found])

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
        return json_answer([agent_view(view) for view in await service.agents()])


async def _submit(  # noqa: PLR0913 what a request consists of
    service: Service, intake: Intake, request: Request, entry: Family, version: str | None, *, durable: bool
) -> tuple[str | None, JobOptions, Accepted]:
    variant = _digest_of(entry, version)
    async with intake.body(request) as body:
        given_id, inputs, outputs, parameters = request_from_json(body)
        # "0," takes two bytes in JSON and eight as INT64
        if sum(len(tensor.data) for tensor in inputs) > intake.max_request_bytes:
            raise intake.too_long()
        options = _options(request, parameters)
        accepted = await service.submit(
            entry.name, tuple(inputs), tuple(outputs), variant=variant, durable=durable, options=options
        )
        return given_id, options, accepted


def _options(request: Request, parameters: dict[str, Any]) -> JobOptions:
    """Read the options of a job: the parameters of the request, and what HTTP itself says of it."""
    options = options_from(parameters)
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        if options.idempotency_key not in {None, key}:
            raise InputError("the header Idempotency-Key and the parameter idempotency_key differ")
        options = replace(options, idempotency_key=key)
    if options.client is None and request.client is not None:
        options = replace(options, client=request.client.host[:64])
    return options


def _digest_of(entry: Family, version: str | None) -> bytes | None:
    if version is None:
        return None
    variant = entry.variant_named(version)
    if variant is None:
        known = ", ".join(v.name for v in entry.variants)
        raise RefusedError(
            f"{entry.name} has no version {version[:64]!r}", code="unknown-version", hint=f"It has: {known}."
        )
    return variant.digest_bytes


async def _stored(service: Service, job_id: str) -> StoredJob:
    try:
        raw = binascii.unhexlify(job_id)
    except (binascii.Error, ValueError):
        raw = b""
    stored = await service.job(raw) if len(raw) == 16 else None
    if stored is None:
        raise RefusedError(
            f"there is no job {job_id[:64]!r}",
            code="unknown-job",
            hint="It may be older than the coordinator keeps jobs (coordinator.retention_hours).",
        )
    return stored


def _outputs(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    try:
        return [tensor_to_json(tensor) for tensor in tensors]
    except InputError as error:  # not the client's fault: NaN, infinity, BF16
        raise JobFailedError(
            f"the job succeeded, but its result has no form in JSON: {error.message}",
            hint="The receipt has the digests of the outputs.",
        ) from error


def _variant_name(service: Service, job: StoredJob) -> str | None:
    variant = service.catalogue.family(job.family).variant(job.variant) if job.variant else None
    return variant.name if variant else None


def _port(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "datatype": port.datatype,
        "shape": [-1 if isinstance(size, str) else size for size in port.shape],
    }
