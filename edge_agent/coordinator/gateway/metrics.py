"""`/metrics` for Prometheus, and the middleware that counts and times HTTP calls by their route."""

from __future__ import annotations

import time
from typing import Final

from fastapi import FastAPI, Request
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_agent.coordinator.observation import Observation

NO_ROUTE: Final = "none"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Measured:
    """Counts calls by route template, method and status; what strangers ask for beside the routes is one label."""

    def __init__(self, app: ASGIApp, observed: Observation) -> None:
        self._app = app
        self._observed = observed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.monotonic()

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._observed.http_calls(route, method, str(status)).inc()
            self._observed.http_seconds(route).observe(time.monotonic() - started)


def add_metrics(app: FastAPI, observed: Observation) -> None:
    """Add the route and the middleware."""
    app.add_middleware(Measured, observed=observed)

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        if "application/openmetrics-text" in request.headers.get("accept", ""):
            body, kind = openmetrics.generate_latest(observed.metrics), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
            return Response(body, headers={"Content-Type": kind})
        return Response(generate_latest(observed.metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})
