"""HTTP about the log of receipts: tree heads, proofs, and receipts with their proof."""

from __future__ import annotations

import re
from typing import Any, Protocol

from fastapi import FastAPI, Request
from starlette.responses import Response

from edge_agent.coordinator.access import ANYBODY, Caller
from edge_agent.coordinator.gateway.answers import NEVER, json_answer
from edge_agent.coordinator.gateway.guard import caller_of
from edge_agent.coordinator.receipt_log import ReceiptLog
from edge_agent.coordinator.rows import StoredJob
from edge_agent.errors import InputError, RefusedError
from edge_agent.wire import bundles
from edge_agent.wire.receipts import receipt_leaf

FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
"""What is proven between two sizes never changes."""


class LogService(Protocol):
    """What these routes ask of a running coordinator."""

    receipt_log: ReceiptLog

    async def job(self, job_id: bytes) -> StoredJob | None:
        """Look a job up."""


def add_log_routes(app: FastAPI, service: LogService) -> None:
    """Add the routes."""

    @app.get("/api/v1/log")
    async def tree_head() -> Response:
        head = await service.receipt_log.head()
        statement = head.statement
        about = {"size": statement.size, "root": statement.root.hex(), "issued_ms": statement.issued_ms}
        return json_answer(about | {"tree_head": head.signed.hex()}, headers=NEVER)

    @app.get("/api/v1/log/inclusion")
    async def inclusion(job: str | None = None, leaf: str | None = None, size: str | None = None) -> Response:
        wanted = await _leaf(service, job, leaf)
        found, head = await service.receipt_log.inclusion(wanted, None if size is None else _size("size", size))
        answer: dict[str, Any] = {"leaf": wanted.hex(), "index": found.index, "size": found.size}
        answer["path"] = [entry.hex() for entry in found.path]
        if size is None:
            answer["tree_head"] = head.signed.hex()
        return json_answer(answer, headers=NEVER if size is None else FOR_EVER)

    @app.get("/api/v1/log/consistency")
    async def consistency(request: Request) -> Response:
        asked = request.query_params
        old, new = _size("from", asked.get("from", "")), _size("to", asked.get("to", ""))
        path = await service.receipt_log.consistency(old, new)
        return json_answer({"from": old, "to": new, "path": [entry.hex() for entry in path]}, headers=FOR_EVER)

    @app.get("/api/v1/log/bundle")
    async def bundle(request: Request, job: str | None = None) -> Response:
        receipt = await _receipt(service, job, caller_of(request))
        found, head = await service.receipt_log.inclusion(receipt_leaf(receipt))
        data = bundles.Bundle(receipt, head.signed, found.index, tuple(found.path)).encode()
        name = {"Content-Disposition": f'attachment; filename="{job}.receipt"'}
        return Response(data, media_type=bundles.MEDIA_TYPE, headers=name | NEVER)


async def _leaf(service: LogService, job: str | None, leaf: str | None) -> bytes:
    if (job is None) == (leaf is None):
        raise InputError("ask for either job=ID or leaf=HASH")
    if leaf is None:
        return receipt_leaf(await _receipt(service, job, ANYBODY))  # a hash, for whoever knows the id
    if not re.fullmatch(r"[0-9a-f]{64}", leaf):
        raise InputError("leaf must be 64 hexadecimal digits in lower case")
    return bytes.fromhex(leaf)


async def _receipt(service: LogService, job: str | None, caller: Caller) -> bytes:
    if job is None or not re.fullmatch(r"[0-9a-f]{32}", job):
        raise InputError("job must be 32 hexadecimal digits in lower case")
    stored = await service.job(bytes.fromhex(job))
    if stored is None or stored.receipt is None or not caller.owns(stored.client):
        raise RefusedError(
            f"there is no receipt of a job {job}",
            code="unknown-job",
            hint="Only a job that succeeded has one, and jobs are kept for coordinator.retention_hours; "
            "with its receipt, ask with leaf= instead.",
        )
    return stored.receipt


def _size(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", text):
        raise InputError(f"{name} must be a whole number")
    return int(text)
