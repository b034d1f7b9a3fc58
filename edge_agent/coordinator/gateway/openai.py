"""What clients of OpenAI's interface need (`/v1/…`): the models they can use here, and embeddings.

A model is a family; `family/variant` insists on a variant. Each kind of use has a test of its own for the families that
can serve it, and its own routes; what they have in common is here.

Source: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.gateway import embeddings
from edge_agent.coordinator.gateway.answers import (
    Problem,
    json_answer,
    outcome_headers,
    outcome_parameters,
    problem_of,
)
from edge_agent.coordinator.gateway.guard import caller_of
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.gateway.jobs import no_json_form
from edge_agent.coordinator.gateway.submission import Order, digest_of, ended, options_of, place
from edge_agent.coordinator.service import Accepted, Service
from edge_agent.errors import EdgeAgentError, InputError
from edge_agent.models.catalogue import Family
from edge_agent.wire.tensors import Tensor

USAGE_UNKNOWN = {"prompt_tokens": 0, "total_tokens": 0}
"""Tokens are made inside of the models, where nobody counts them."""


def add_openai_routes(app: FastAPI, service: Service, intake: Intake, *, wait_seconds: float) -> None:
    """Add the calls."""

    @app.get("/v1/models")
    async def models() -> Response:
        usable = [family for family in service.catalogue.families if _uses(family)]
        return json_answer({"object": "list", "data": [_model(service, family) for family in usable]})

    @app.get("/v1/models/{family}")
    async def model(family: str) -> Response:
        return json_answer(_model(service, _usable(service, family, "any use")))

    @app.post("/v1/embeddings")
    async def embed(request: Request) -> Response:
        async with intake.body(request) as body:
            wish = embeddings.wish_from(await intake.reader.embeddings(body))
        name, _, version = wish.model.partition("/")
        family = _usable(service, name, "embeddings")
        how = embeddings.embedder(family)
        assert how is not None  # noqa: S101 that is what it is usable for
        embeddings.check_dimensions(how, wish)
        inputs = list(embeddings.batches(how, wish.texts))
        variant = digest_of(family, version or None)
        order = Order(family.name, (how.output,), variant, options_of(request, {}))
        placed = partial(place, service, app.state.access, caller_of(request))
        ends = await _run_all(service, placed, order, inputs, wait_seconds)
        if isinstance(ends, Problem):
            return openai_answer(ends)
        outputs = [outcome.outputs[0] for outcome in ends]
        try:
            # Beside the loop and row by row: a million numbers take a second to write.
            data = await asyncio.to_thread(lambda: ",".join(embeddings.rows(how, outputs, wish)))
        except InputError as error:
            raise no_json_form(error) from error
        about = json_answer(
            {
                "object": "list",
                "model": wish.model,
                "usage": USAGE_UNKNOWN,
                "parameters": {"jobs": [outcome_parameters(outcome) for outcome in ends]},
            }
        )
        text = bytes(about.body)[:-1] + b',"data":[' + data.encode() + b"]}"
        return Response(text, 200, outcome_headers(ends[0]), media_type="application/json")


def openai_answer(problem: Problem) -> Response:
    """Answer with an error in OpenAI's form; what ours has more stands beside it."""
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    if problem.status == 429:
        kind = "rate_limit_error"
    error = {"message": problem.message, "type": kind, "param": None, **problem.details()}
    # Without it the client goes by the status alone.
    headers = {**problem.headers, "x-should-retry": "true" if problem.retry else "false"}
    return json_answer({"error": error}, problem.status, headers)


def _uses(family: Family) -> list[str]:
    """Return what a family can be used for through this interface."""
    return ["embeddings"] if embeddings.embedder(family) is not None else []


def _usable(service: Service, name: str, use: str) -> Family:
    family = service.catalogue.family(name)
    if not _uses(family) or use not in {"any use", *_uses(family)}:
        raise InputError(
            f"{family.name} cannot be used for {use} here: it does not turn a text into a vector",
            hint=f"GET /v1/models lists what can; POST /v2/models/{family.name}/infer takes its own inputs.",
        )
    return family


def _model(service: Service, family: Family) -> dict[str, Any]:
    # The catalogue has no dates.
    return {"id": family.name, "object": "model", "created": 0, "owned_by": service.network, "uses": _uses(family)}


def _numbered(order: Order, number: int) -> Order:
    """Return the order of one of the jobs: each has an idempotency key of its own."""
    key = order.options.idempotency_key
    if key is None or not number:
        return order
    return replace(order, options=replace(order.options, idempotency_key=f"{key}/{number}"))


async def _run_all(
    service: Service,
    placed: Callable[[Order, tuple[Tensor, ...]], Awaitable[Accepted]],
    order: Order,
    inputs: Sequence[Tensor],
    wait_seconds: float,
) -> list[Outcome] | Problem:
    """Run a job for each input; if one cannot be had or fails, cancel the others and say why.

    Under an idempotency key they go on: whoever sends the request again gets them.
    """
    taken: list[bytes] = []
    ends: list[Outcome] = []
    problem: Problem | None = None
    try:
        for number, tensor in enumerate(inputs):
            accepted = await placed(_numbered(order, number), (tensor,))
            taken.append(accepted.job_id)
        for job_id in taken:
            end = await ended(service, job_id, order.options, wait_seconds)
            if isinstance(end, Problem):
                problem = end
                break
            ends.append(end)
    except EdgeAgentError as error:
        problem = problem_of(error)
    if problem is None:
        return ends
    if order.options.idempotency_key is None:
        for job_id in taken[len(ends) :]:
            service.cancel(job_id)
    return problem
