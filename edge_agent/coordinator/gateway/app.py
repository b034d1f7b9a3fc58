"""The HTTP application: the interfaces it has, and the form in which each of them is told what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from edge_agent import __version__
from edge_agent.coordinator.access import Access
from edge_agent.coordinator.gateway.answers import Problem, problem_answer, problem_of
from edge_agent.coordinator.gateway.book_routes import add_book_routes
from edge_agent.coordinator.gateway.dashboard.routes import add_dashboard
from edge_agent.coordinator.gateway.guard import Guard
from edge_agent.coordinator.gateway.identity_routes import add_identity_routes
from edge_agent.coordinator.gateway.inference import add_inference_routes, add_metadata_routes, add_repository_routes
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.gateway.jobs import add_job_routes, add_overview_routes
from edge_agent.coordinator.gateway.log_routes import add_log_routes
from edge_agent.coordinator.gateway.metrics import add_metrics
from edge_agent.coordinator.gateway.openai import add_openai_routes, openai_answer
from edge_agent.coordinator.gateway.operating import add_operating_routes
from edge_agent.coordinator.service import Service
from edge_agent.errors import EdgeAgentError

MAX_INTAKE_BYTES = 256 * 1024 * 1024


def make_app(  # noqa: PLR0913 what a gateway consists of
    service: Service,
    *,
    max_request_bytes: int,
    wait_seconds: float,
    max_intake_bytes: int = MAX_INTAKE_BYTES,
    intake: Intake | None = None,
    access: Access | None = None,
    origins: Sequence[str] = (),
    own_names_only: bool = False,
) -> FastAPI:
    """Build the application.

    Args:
        service: the running coordinator.
        max_request_bytes: longer bodies are refused while they arrive.
        wait_seconds: how long a synchronous call waits for its result that names no deadline.
        max_intake_bytes: of all bodies that are being read at once.
        intake: the memory for these bodies, if it is shared with other interfaces.
        access: knows the API keys; everybody may do everything without it.
        origins: web pages of these may call.
        own_names_only: see `Guard`.
    """
    # The generated documentation pages load scripts from elsewhere: nothing here phones home.
    app = FastAPI(
        title="edge-agent coordinator",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours tells of jobs, not of what carries them
    )

    app.state.access = access if access is not None else Access.open()

    def refuse(path: str, problem: Problem) -> Response:
        return (openai_answer if path.startswith("/v1/") else problem_answer)(problem)

    def tell(request: Request, problem: Problem) -> Response:
        return refuse(request.url.path, problem)

    @app.exception_handler(EdgeAgentError)
    async def _on_error(request: Request, error: EdgeAgentError) -> Response:
        return tell(request, problem_of(error))

    @app.exception_handler(HTTPException)
    async def _on_no_route(request: Request, error: HTTPException) -> Response:
        problem = Problem(
            error.status_code,
            "usage",
            f"{request.method} {request.url.path[:200]}: {error.detail}",
            retry=False,
            hint="See /openapi.json for what there is.",
            headers=dict(error.headers or {}),
        )
        return tell(request, problem)

    if intake is None:
        intake = Intake(max_request_bytes=max_request_bytes, max_bytes=max_intake_bytes)
    app.state.reader = intake.reader
    direct = add_inference_routes(app, service, intake, wait_seconds=wait_seconds)
    app.add_middleware(
        Guard,
        access=app.state.access,
        refuse=refuse,
        direct=direct,
        origins=tuple(origins),
        own_names_only=own_names_only,
    )
    add_metadata_routes(app, service)
    add_repository_routes(app, service, intake)
    add_openai_routes(app, service, intake, wait_seconds=wait_seconds)
    add_job_routes(app, service, intake)
    add_overview_routes(app, service)
    add_log_routes(app, service)
    add_operating_routes(app, service)
    add_identity_routes(app, service)
    add_book_routes(app, service)
    add_metrics(app, service.observed)
    app.state.feed = add_dashboard(app, service)
    return app
