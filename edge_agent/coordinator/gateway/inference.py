"""The Open Inference Protocol v2 over HTTP (`/v2/…`), with the binary form and the index of what can be served.

Sources: https://github.com/open-inference/open-inference-protocol, specification/protocol/inference_rest.md, and of
https://github.com/triton-inference-server/server the documents docs/protocol/extension_binary_data.md and
docs/protocol/extension_model_repository.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_agent import __version__
from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.gateway.answers import (
    Problem,
    json_answer,
    outcome_headers,
    outcome_parameters,
    problem_answer,
)
from edge_agent.coordinator.gateway.encodings import PACKED_FROM_BYTES, packed, wanted_coding
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.gateway.jobs import no_json_form
from edge_agent.coordinator.gateway.submission import digest_of, ended, submit
from edge_agent.coordinator.service import Service
from edge_agent.errors import InputError, UsageError
from edge_agent.models.catalogue import Family, Port, Variant
from edge_agent.wire import strict_json
from edge_agent.wire.oip_binary import LENGTH_HEADER
from edge_agent.wire.oip_json import Request as InferenceRequest
from edge_agent.wire.oip_json import body_of

EXTENSIONS = ["binary_tensor_data", "model_repository"]
PLATFORM = "onnx_onnxv1"
"""As the protocol calls models for onnxruntime."""
MAX_INDEX_BYTES = 64 * 1024
"""Of a request for the index, which has one member."""


def add_inference_routes(
    app: FastAPI, service: Service, intake: Intake, *, wait_seconds: float
) -> Callable[[Scope], ASGIApp | None]:
    """Add inference; return what finds who answers a request for it, and nobody for any other.

    The search through the routes, and FastAPI's for what an endpoint may want, cost more than the endpoint itself.
    """

    async def infer(request: Request, family: str, version: str | None = None) -> Response:
        entry = service.catalogue.family(family)
        given, options, accepted = await submit(service, intake, request, entry, version, durable=False)
        end = await ended(service, accepted.job_id, options, wait_seconds)
        if isinstance(end, Problem):
            return problem_answer(end)
        return await _inference_answer(entry, given, end, request.headers.get("Accept-Encoding"))

    paths = ("/v2/models/{family}/infer", "/v2/models/{family}/versions/{version}/infer")
    for path in paths:
        app.post(path)(infer)
    routes = {route.path: route for route in app.routes if isinstance(route, APIRoute)}

    def direct(scope: Scope) -> ASGIApp | None:
        asked = _asked(scope["path"]) if scope["method"] == "POST" and not scope.get("root_path") else None
        if asked is None:
            return None
        family, version = asked
        scope["route"] = routes[paths[version is not None]]

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await (await infer(Request(scope, receive, send), family, version))(scope, receive, send)

        return answer

    return direct


def add_metadata_routes(app: FastAPI, service: Service) -> None:
    """Add what else the protocol itself has."""

    @app.get("/v2")
    @app.get("/v2/")
    async def server_metadata() -> Response:
        return json_answer({"name": "edge-agent", "version": __version__, "extensions": EXTENSIONS})

    @app.get("/v2/health/live")
    async def live() -> Response:
        return json_answer({"live": True})

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        # The protocol's text has `live` in this answer too.
        return json_answer({"live": True, "ready": service.ready}, 200 if service.ready else 503)

    @app.get("/v2/models/{family}")
    @app.get("/v2/models/{family}/versions/{version}")
    async def model_metadata(family: str, version: str | None = None) -> Response:
        entry = service.catalogue.family(family)
        digest_of(entry, version)
        return json_answer(
            {
                "name": entry.name,
                "versions": [variant.name for variant in entry.variants],
                "platform": PLATFORM,
                "inputs": [port_view(port) for port in entry.inputs],
                "outputs": [port_view(port) for port in entry.outputs],
            }
        )

    @app.get("/v2/models/{family}/ready")
    @app.get("/v2/models/{family}/versions/{version}/ready")
    async def model_ready(family: str, version: str | None = None) -> Response:
        entry = service.catalogue.family(family)
        offered = service.offered(family, digest_of(entry, version))
        return json_answer({"name": family, "ready": offered}, 200 if offered else 503)


def add_repository_routes(app: FastAPI, service: Service, intake: Intake) -> None:
    """Add Triton's extension that lists what could be served; what is, the agents and their owners decide."""

    @app.post("/v2/repository/index")
    async def index(request: Request) -> Response:
        async with intake.body(request, MAX_INDEX_BYTES) as body:
            only_ready = _only_ready(body)
        lines = [listed(service, entry, variant) for entry in service.catalogue.families for variant in entry.variants]
        return json_answer([line for line in lines if line["state"] == "READY" or not only_ready])

    @app.post("/v2/repository/models/{family}/load")
    @app.post("/v2/repository/models/{family}/unload")
    async def load(family: str) -> Response:
        service.catalogue.family(family)
        raise UsageError(
            f"{family} is neither loaded nor unloaded from here: each agent chooses what it serves",
            code="not-supported",
            hint="An agent's owner sets agent.families, and `edge-agent models pull` fetches what is missing.",
        )


def _asked(path: str) -> tuple[str, str | None] | None:
    """Return the family and version of a path for inference; None for other paths."""
    match path.split("/"):
        case ["", "v2", "models", family, "infer"] if family:
            return family, None
        case ["", "v2", "models", family, "versions", version, "infer"] if family and version:
            return family, version
    return None


async def _inference_answer(
    entry: Family, given: InferenceRequest, outcome: Outcome, accepted_codings: str | None
) -> Response:
    served = entry.variant(outcome.variant) if outcome.variant else None
    message: dict[str, Any] = {
        "model_name": entry.name,
        "model_version": served.name if served else "",
        "parameters": outcome_parameters(outcome, inline=given.parameters.get("receipt_inline") is True),
    }
    if given.id is not None:
        message["id"] = given.id
    try:
        body, json_length = body_of(message, "outputs", outcome.outputs, given.form)
    except InputError as error:  # not the client's fault: NaN, infinity, BF16
        raise no_json_form(error) from error
    headers = outcome_headers(outcome)
    if json_length is not None:
        headers[LENGTH_HEADER] = str(json_length)
    if len(body) >= PACKED_FROM_BYTES and (coding := wanted_coding(accepted_codings)) is not None:
        body = await packed(body, coding)
        headers |= {"Content-Encoding": coding, "Vary": "Accept-Encoding"}
    kind = "application/json" if json_length is None else "application/octet-stream"
    return Response(body, 200, headers, media_type=kind)


def _only_ready(body: bytearray) -> bool:
    given = strict_json.read(body) if body.strip() else {}
    wanted = given.get("ready", False) if isinstance(given, dict) else None
    if type(wanted) is not bool:
        raise InputError('the index takes {}, or {"ready": true} for what is ready')
    return wanted


def listed(service: Service, entry: Family, variant: Variant) -> dict[str, str]:
    """Return the line of a variant in the index."""
    if service.offered(entry.name, variant.digest_bytes):
        state, reason = "READY", ""
    elif not entry.servable:
        state, reason = "UNAVAILABLE", "its inputs and outputs are not known: it can be fetched, not served"
    else:
        state, reason = "UNAVAILABLE", "no machine offers it now"
    return {"name": entry.name, "version": variant.name, "state": state, "reason": reason}


def port_view(port: Port) -> dict[str, Any]:
    """Describe an input or output; extents that the caller chooses are -1."""
    return {
        "name": port.name,
        "datatype": port.datatype,
        "shape": [-1 if isinstance(size, str) else size for size in port.shape],
    }
