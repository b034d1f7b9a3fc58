"""HTTP about identities: enrolment, the registrar's public key, and the keys that count no more."""

from __future__ import annotations

import asyncio
from typing import Protocol

from fastapi import FastAPI, Request
from starlette.responses import Response

from edge_agent.coordinator.admissions import MAX_REQUEST_BYTES, Admissions
from edge_agent.coordinator.gateway.answers import NEVER, json_answer
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.wire.keys import PublicKey

MEDIA_TYPE = "application/edge-agent+cbor"
MAX_BODIES = 64
"""That are being read at once."""


class IdentityService(Protocol):
    """What these routes ask of a running coordinator."""

    admissions: Admissions
    network: str
    public_key: PublicKey


def add_identity_routes(app: FastAPI, service: IdentityService) -> None:
    """Add the routes."""
    intake = Intake(max_request_bytes=MAX_REQUEST_BYTES, max_bytes=MAX_BODIES * MAX_REQUEST_BYTES)

    @app.post("/api/v1/enrol")
    async def enrol(request: Request) -> Response:
        async with intake.body(request) as body:
            source = request.client.host if request.client is not None else "unknown"
            _, answer = await asyncio.to_thread(service.admissions.answer, bytes(body), source)
        return Response(answer, media_type=MEDIA_TYPE, headers=NEVER)

    @app.get("/api/v1/revocations")
    async def revocations() -> Response:
        answer = await asyncio.to_thread(service.admissions.revocations)
        return Response(answer, media_type=MEDIA_TYPE, headers=NEVER)

    @app.get("/api/v1/identity")
    async def identity() -> Response:
        key, found = service.public_key, service.admissions.registrar
        about = {"network": service.network, "coordinator_id": key.id, "public_key": key.raw.hex(), "registrar": None}
        if found is None:  # this coordinator asks for no certificates
            return json_answer(about)
        registrar = {"id": found.public.id, "public_key": found.public.raw.hex(), "offline": found.key is None}
        return json_answer(about | {"registrar": registrar})
