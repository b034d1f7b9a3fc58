"""From a request's body to a job, and from the job to its end: what all of the gateway's interfaces have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request as HttpRequest

from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.gateway.answers import Problem, problem_of_job, still_running
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.service import Accepted, Service
from edge_agent.errors import InputError, RefusedError
from edge_agent.models.catalogue import Family
from edge_agent.wire.job_options import JobOptions, options_from
from edge_agent.wire.oip_binary import LENGTH_HEADER
from edge_agent.wire.oip_json import Request, request_from_body

DEADLINE_SLACK_SECONDS = 1.0
"""So much longer than a job's deadline its client is kept waiting, to be told how it ended."""


async def submit(  # noqa: PLR0913 what a request consists of
    service: Service, intake: Intake, http: HttpRequest, entry: Family, version: str | None, *, durable: bool
) -> tuple[Request, JobOptions, Accepted]:
    """Read a request of the Open Inference Protocol and take its job on.

    Raises:
        EdgeAgentError: what `Intake.body` and `Service.submit` refuse; `unknown-version`; or the body is no request.
    """
    variant = digest_of(entry, version)
    async with intake.body(http) as body:
        request = request_from_body(body, http.headers.get(LENGTH_HEADER))
        inputs = tuple(request.inputs)
        # "0," takes two bytes in JSON and eight as INT64
        if sum(len(tensor.data) for tensor in inputs) > intake.max_request_bytes:
            raise intake.too_long()
        options = options_of(http, request.parameters)
        accepted = await service.submit(
            entry.name, inputs, tuple(request.outputs), variant=variant, durable=durable, options=options
        )
        # The tensors are the coordinator's from here on: they need not be held for as long as the job runs.
        return request._replace(inputs=[]), options, accepted


async def ended(service: Service, job_id: bytes, options: JobOptions, wait_seconds: float) -> Outcome | Problem:
    """Wait for a job's end; a problem if it has no result, or none in time."""
    seconds = (options.deadline_seconds or wait_seconds) + DEADLINE_SLACK_SECONDS
    outcome = await service.outcome(job_id, seconds)
    if outcome is None:
        return still_running(job_id, seconds)
    return outcome if outcome.error is None else problem_of_job(job_id, outcome.error)


def options_of(http: HttpRequest, parameters: dict[str, Any]) -> JobOptions:
    """Read the options of a job: the parameters of the request, and what HTTP itself says of it.

    Raises:
        InputError: one is out of bounds, or given twice and not the same.
    """
    options = options_from(parameters)
    key = http.headers.get("Idempotency-Key")
    if key is not None:
        if options.idempotency_key not in {None, key}:
            raise InputError("the header Idempotency-Key and the parameter idempotency_key differ")
        options = replace(options, idempotency_key=key)
    if options.client is None and http.client is not None:
        options = replace(options, client=http.client.host[:64])
    return options


def digest_of(entry: Family, version: str | None) -> bytes | None:
    """Return the digest of the variant that a version names, or None for any.

    Raises:
        RefusedError: `unknown-version`.
    """
    if version is None:
        return None
    variant = entry.variant_named(version)
    if variant is None:
        known = ", ".join(v.name for v in entry.variants)
        raise RefusedError(
            f"{entry.name} has no version {version[:64]!r}", code="unknown-version", hint=f"It has: {known}."
        )
    return variant.digest_bytes
