"""The Open Inference Protocol over gRPC: the same jobs as over HTTP, for Triton's and KServe's clients.

Calls with one request are served as streams of one: who calls is then known before the request is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from edge_agent import __version__
from edge_agent.coordinator.access import Access, Caller, Scope
from edge_agent.coordinator.gateway.answers import Problem, outcome_headers, outcome_parameters, problem_of
from edge_agent.coordinator.gateway.connections import HEAD_SECONDS
from edge_agent.coordinator.gateway.guard import bearer
from edge_agent.coordinator.gateway.inference import EXTENSIONS, PLATFORM, listed, port_view
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.gateway.rules import Need, admit
from edge_agent.coordinator.gateway.submission import Order, digest_of, ended, in_name_of, place
from edge_agent.coordinator.service import Service
from edge_agent.errors import EdgeAgentError, InputError, SettingsError, TransportError, UsageError
from edge_agent.wire import oip_grpc
from edge_agent.wire.job_options import options_from
from edge_agent.wire.oip_grpc import infer_response

SERVICE = "inference.GRPCInferenceService"
MAX_CALLS = 1024
STREAM_JOBS = 16
"""Of one stream, so many jobs run at once."""
MESSAGE_SLACK_BYTES = 64 * 1024
STOP_SECONDS = 3.0

STATUS_OF_HTTP = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Whatever is not here is INTERNAL."""

Context = Any
"""grpc.aio's own has no useful type."""


class GrpcGateway:
    """The calls.

    Args:
        service: the running coordinator.
        access: knows the API keys.
        intake: the memory for requests, shared with HTTP.
        wait_seconds: how long a call waits for its result that names no deadline.
    """

    def __init__(self, service: Service, access: Access, intake: Intake, *, wait_seconds: float) -> None:
        self._service = service
        self._access = access
        self._intake = intake
        self._wait_seconds = wait_seconds

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what grpc serves."""
        calls: dict[str, tuple[Scope | Need, Callable[[bytes], bytes]]] = {
            "ServerLive": (Need.PUBLIC, lambda _: oip_grpc.flag(True)),
            "ServerReady": (Need.PUBLIC, lambda _: oip_grpc.flag(self._service.ready)),
            "ServerMetadata": (Need.ANY, lambda _: oip_grpc.server_metadata("edge-agent", __version__, EXTENSIONS)),
            "ModelReady": (Need.ANY, self._model_ready),
            "ModelMetadata": (Need.ANY, self._model_metadata),
            "RepositoryIndex": (Need.ANY, self._index),
            "RepositoryModelLoad": (Scope.OPERATOR, self._load),
            "RepositoryModelUnload": (Scope.OPERATOR, self._load),
        }
        found = {name: grpc.stream_unary_rpc_method_handler(self._plain(*call)) for name, call in calls.items()}
        found["ModelInfer"] = grpc.stream_unary_rpc_method_handler(self._infer)
        found["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(SERVICE, found)

    # -- calls that need no job -----------------------------------------------------------------------------------

    def _plain(
        self, need: Scope | Need, answer: Callable[[bytes], bytes]
    ) -> Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]:
        async def call(requests: AsyncIterator[bytes], context: Context) -> bytes:
            try:
                self._admit(context, need)
                # Whoever needs no key is not waited for: it could keep a call of the few that there are for ever.
                return answer(b"" if need is Need.PUBLIC else await _first(requests, HEAD_SECONDS))
            except EdgeAgentError as error:
                return await _abort(context, problem_of(error))

        return call

    def _model_ready(self, message: bytes) -> bytes:
        name, version = oip_grpc.model_named(message)
        entry = self._service.catalogue.family(name)
        return oip_grpc.flag(self._service.offered(entry.name, digest_of(entry, version or None)))

    def _model_metadata(self, message: bytes) -> bytes:
        name, version = oip_grpc.model_named(message)
        entry = self._service.catalogue.family(name)
        digest_of(entry, version or None)
        versions = [variant.name for variant in entry.variants]
        inputs, outputs = map(port_view, entry.inputs), map(port_view, entry.outputs)
        return oip_grpc.model_metadata(entry.name, versions, PLATFORM, inputs, outputs)

    def _index(self, message: bytes) -> bytes:
        only_ready = oip_grpc.only_ready(message)
        families = self._service.catalogue.families
        lines = [listed(self._service, entry, variant) for entry in families for variant in entry.variants]
        return oip_grpc.repository_index(line for line in lines if line["state"] == "READY" or not only_ready)

    def _load(self, _message: bytes) -> bytes:
        raise UsageError(
            "models are neither loaded nor unloaded from here: each agent chooses what it serves", code="not-supported"
        )

    # -- jobs -----------------------------------------------------------------------------------------------------

    async def _infer(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        try:
            caller = self._admit(context, Scope.INFER)
            self._intake.refuse_unless_room(0)
            message = await _first(requests, self._intake.patience_seconds)
            answer = await self._run(message, caller, context)
        except EdgeAgentError as error:
            answer = problem_of(error)
        if isinstance(answer, Problem):
            return await _abort(context, answer)
        response, headers = answer
        context.set_trailing_metadata([(name.lower(), value) for name, value in headers.items()])
        return response

    async def _stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        try:
            self._admit(context, Scope.INFER, charge=False)  # what counts are its messages
        except EdgeAgentError as error:
            await _abort(context, problem_of(error))
            return
        room, writing = asyncio.Semaphore(STREAM_JOBS), asyncio.Lock()

        async def one(message: bytes) -> None:
            try:
                try:
                    # A stream may last for days: its key is looked at for each job.
                    answer = await self._run(message, self._admit(context, Scope.INFER), context)
                except EdgeAgentError as error:
                    answer = problem_of(error)
                if isinstance(answer, Problem):
                    said = f"[{answer.code}] {answer.message}"
                    response = oip_grpc.stream_response(None, said, await self._id_of(message))
                else:
                    response = oip_grpc.stream_response(answer[0])
                async with writing:
                    await context.write(response)
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            await room.acquire()
            async for message in requests:
                group.create_task(one(message))
                await room.acquire()

    async def _run(self, message: bytes, caller: Caller, context: Context) -> tuple[bytes, dict[str, str]] | Problem:
        with self._intake.holding(len(message)):
            name, version, request = await self._intake.reader.protobuf(message)
            entry = self._service.catalogue.family(name)
            variant = digest_of(entry, version or None)
            inputs = tuple(request.inputs)
            if sum(len(tensor.data) for tensor in inputs) > self._intake.max_request_bytes:
                raise self._intake.too_long()
            options = options_from(request.parameters)
            left = context.time_remaining()
            if options.deadline_seconds is None and left is not None and 0 < left < self._wait_seconds:
                options = replace(options, deadline_seconds=left)  # nobody waits for it any longer
            key = dict(context.invocation_metadata()).get("idempotency-key")
            if key is not None:
                if options.idempotency_key not in {None, key}:
                    raise InputError("the metadata idempotency-key and the parameter idempotency_key differ")
                options = replace(options, idempotency_key=key)
            options = in_name_of(caller, options, _address(context))
            order = Order(entry.name, tuple(request.outputs), variant, options)
            accepted = await place(self._service, self._access, caller, order, inputs)
            inline = request.parameters.get("receipt_inline") is True
            request_id = request.id
            del message, request, inputs
        end = await ended(self._service, accepted.job_id, options, self._wait_seconds)
        if isinstance(end, Problem):
            return end
        served = entry.variant(end.variant) if end.variant else None
        parameters = outcome_parameters(end, inline=inline)
        response = infer_response(entry.name, served.name if served else "", request_id, parameters, end.outputs)
        return response, outcome_headers(end)

    async def _id_of(self, message: bytes) -> str | None:
        with contextlib.suppress(InputError):
            return (await self._intake.reader.protobuf(message))[2].id
        return None

    def _admit(self, context: Context, need: Scope | Need, *, charge: bool = True) -> Caller:
        token = bearer(dict(context.invocation_metadata()).get("authorization"))
        return admit(self._access, need, token, "this call", charge=charge)


async def _first(requests: AsyncIterator[bytes], seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            async for message in requests:
                return message
    except TimeoutError:
        raise TransportError(
            f"the call's request did not come within {seconds:g} s",
            code="timeout",
            hint="Send it again; look at the way there if it happens often.",
        ) from None
    raise InputError("the call came without a request")


async def _abort(context: Context, problem: Problem) -> bytes:
    more = [("edge-agent-code", problem.code), ("edge-agent-retry", "true" if problem.retry else "false")]
    more += [(name.lower(), value) for name, value in problem.headers.items()]
    status = STATUS_OF_HTTP.get(problem.status, grpc.StatusCode.INTERNAL)
    hint = f" ({problem.hint})" if problem.hint else ""
    await context.abort(status, f"[{problem.code}] {problem.message}{hint}", tuple(more))
    raise AssertionError("abort raises")


def _address(context: Context) -> str | None:
    """Return the address of whoever calls: `ipv4:127.0.0.1:5000` without kind and port."""
    _, _, rest = context.peer().partition(":")
    host = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return None


class GrpcServer:
    """Listens and serves; to be used in the coordinator's loop.

    Args:
        address: HOST:PORT; port 0 takes a free one.
        gateway: the calls.
        max_request_bytes: longer requests are refused while they arrive.
        tls: files with the certificate chain and its key, read again for each connection.

    Attributes:
        address: HOST:PORT that it listens on.

    Raises:
        SettingsError: the address is taken or not ours, or the certificate cannot be used.
    """

    def __init__(
        self, address: str, gateway: GrpcGateway, *, max_request_bytes: int, tls: tuple[Path, Path] | None
    ) -> None:
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=MAX_CALLS,
            options=[
                ("grpc.max_receive_message_length", max_request_bytes + MESSAGE_SLACK_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers((gateway.handlers(),))
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, _credentials(*tls))
        except RuntimeError as error:
            raise SettingsError(
                f"cannot listen on {address} for gRPC: {str(error)[:200]}",
                hint="Choose another address with --grpc HOST:PORT (port 0 takes a free one).",
            ) from error
        self.address = f"{address.rpartition(':')[0]}:{port}"

    async def start(self) -> None:
        """Begin."""
        await self._server.start()

    async def stop(self) -> None:
        """End; calls that run may end first."""
        await self._server.stop(STOP_SECONDS)


def _credentials(cert_file: Path, key_file: Path) -> grpc.ServerCredentials:
    def read() -> grpc.ServerCertificateConfiguration | None:
        try:
            return grpc.ssl_server_certificate_configuration([(key_file.read_bytes(), cert_file.read_bytes())])
        except OSError:
            return None  # the one in use stays

    first = read()
    if first is None:
        raise SettingsError(f"gateway.tls_cert_file {cert_file} and its key cannot be read.")
    return grpc.dynamic_ssl_server_credentials(first, read)
