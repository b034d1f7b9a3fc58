"""From a request's body to a job, and from the job to its end: what all of the gateway's interfaces have in common."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request as HttpRequest

from edge_agent.coordinator.access import Access, Caller, Scope
from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.gateway.answers import Problem, problem_of_job, still_running
from edge_agent.coordinator.gateway.guard import caller_of
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.service import Accepted, Service
from edge_agent.errors import DeniedError, EdgeAgentError, InputError, RefusedError
from edge_agent.models.catalogue import Family
from edge_agent.wire.job_options import MAX_IDEMPOTENCY_KEY_CHARS, JobOptions, options_from
from edge_agent.wire.oip_binary import LENGTH_HEADER
from edge_agent.wire.oip_json import Request
from edge_agent.wire.tensors import Tensor

DEADLINE_SLACK_SECONDS = 1.0
"""So much longer than a job's deadline its client is kept waiting, to be told how it ended."""


@dataclass(frozen=True, slots=True)
class Order:
    """A job but for its inputs.

    Attributes:
        variant: digest of the one that must be used; None for any.
        durable: answer only once it is stored.
    """

    family: str
    outputs: tuple[str, ...]
    variant: bytes | None
    options: JobOptions
    durable: bool = False


async def place(service: Service, access: Access, caller: Caller, order: Order, inputs: tuple[Tensor, ...]) -> Accepted:
    """Submit a job in a caller's name; it counts against its quota unless it is refused, or was known already.

    Raises:
        EdgeAgentError: what `Service.submit` refuses; `quota-exhausted`.
    """
    access.charge_jobs(caller)
    try:
        accepted = await service.submit(
            order.family, inputs, order.outputs, variant=order.variant, durable=order.durable, options=order.options
        )
    except EdgeAgentError:
        access.refund_job(caller)
        raise
    if accepted.repeated:
        access.refund_job(caller)
    return accepted


async def submit(  # noqa: PLR0913 what a request consists of
    service: Service, intake: Intake, http: HttpRequest, entry: Family, version: str | None, *, durable: bool
) -> tuple[Request, JobOptions, Accepted]:
    """Read a request of the Open Inference Protocol and take its job on.

    Raises:
        EdgeAgentError: what `Intake.body` and `Service.submit` refuse; `unknown-version`; or the body is no request.
    """
    variant = digest_of(entry, version)
    async with intake.body(http) as body:
        request = await intake.reader.request(body, http.headers.get(LENGTH_HEADER))
        inputs = tuple(request.inputs)
        # "0," takes two bytes in JSON and eight as INT64
        if sum(len(tensor.data) for tensor in inputs) > intake.max_request_bytes:
            raise intake.too_long()
        options = options_of(http, request.parameters)
        order = Order(entry.name, tuple(request.outputs), variant, options, durable=durable)
        accepted = await place(service, http.app.state.access, caller_of(http), order, inputs)
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
    return in_name_of(caller_of(http), options, http.client.host if http.client is not None else None)


def in_name_of(caller: Caller, options: JobOptions, address: str | None) -> JobOptions:
    """Return a job's options with the client that it counts for, and whose idempotency key is one of its own.

    Raises:
        DeniedError: `forbidden`: another client's name than the key's is given.
    """
    if caller.name is None:
        return options if options.client or address is None else replace(options, client=address[:64])
    if options.client not in {None, caller.name} and not caller.may(Scope.OPERATOR):
        raise DeniedError(
            f"the key of {caller.name} submits no jobs in the name of {options.client}",
            code="forbidden",
            hint="Leave the option `client` out: a job counts for the name of its key.",
        )
    key = options.idempotency_key
    if key is not None:
        key = f"{caller.name}/{key}"
        if len(key) > MAX_IDEMPOTENCY_KEY_CHARS - 16:  # some make several keys of one
            key = f"{caller.name}/sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    return replace(options, client=options.client or caller.name, idempotency_key=key)


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
