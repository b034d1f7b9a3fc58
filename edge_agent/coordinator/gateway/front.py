"""The gateway as the settings want it: who may use it, its certificate, and how it is served."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI

from edge_agent.clock import system_now
from edge_agent.connection import gateway_link_options
from edge_agent.coordinator.access import Access
from edge_agent.coordinator.gateway.app import make_app
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.gateway.keeping import Keeper
from edge_agent.coordinator.gateway.mqtt_jobs import MqttJobs
from edge_agent.coordinator.gateway.server import connections_of, serve
from edge_agent.coordinator.gateway.tls import Certificate
from edge_agent.coordinator.service import Service
from edge_agent.coordinator.store import Store
from edge_agent.errors import SettingsError
from edge_agent.settings import Settings, is_loopback, parse_host_port

if TYPE_CHECKING:
    from edge_agent.coordinator.gateway.grpc_server import GrpcServer

log = logging.getLogger("edge_agent.coordinator")


class Front:
    """Everything that stands between clients and the coordinator.

    Args:
        settings: of the coordinator.
        store: the open database; keys are read from it at once.

    Raises:
        SettingsError: the certificate cannot be used.
        StateError: the keys cannot be read.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        gateway = settings.gateway
        self._settings = settings
        addresses = [settings.coordinator.http] + ([gateway.grpc] if gateway.grpc is not None else [])
        self._local = all(is_loopback(parse_host_port(address)[0]) for address in addresses)
        self._service: Service | None = None
        self._intake = Intake(
            max_request_bytes=settings.coordinator.max_request_bytes, max_bytes=settings.coordinator.max_queued_bytes
        )
        self.grpc_address: str | None = None
        self._certificate = None
        if gateway.tls_cert_file is not None and gateway.tls_key_file is not None:
            self._certificate = Certificate(gateway.tls_cert_file, gateway.tls_key_file)
        required = gateway.auth == "required" or (gateway.auth == "auto" and not self._local)
        self.access = Access(required=required, clock=system_now)
        self._keeper = Keeper(store, self.access, system_now, self._certificate)
        self._keeper.start()

    def app(self, service: Service) -> FastAPI:
        """Return the application in front of a coordinator."""
        own, gateway = self._settings.coordinator, self._settings.gateway
        self._service = service
        return make_app(
            service,
            max_request_bytes=own.max_request_bytes,
            intake=self._intake,
            wait_seconds=own.job_deadline_seconds,
            access=self.access,
            origins=gateway.cors_origins,
            own_names_only=gateway.auth == "auto" and self._local,
        )

    async def serve(
        self, app: FastAPI, listener: socket.socket, stop: asyncio.Event, on_ready: Callable[[str], None]
    ) -> None:
        """Serve until `stop` is set; see `server.serve`. `grpc_address` is known when it is ready."""
        if self.access.required and self._certificate is None and not self._local:
            text = "API keys travel unencrypted: set gateway.tls_cert_file, or put a proxy with TLS in front"
            log.warning(text, extra={"action": "plain-http"})
        connection = connections_of(self._settings.coordinator.max_connections)
        tls = self._certificate.context if self._certificate is not None else None
        rpc = self._grpc_server()
        if rpc is not None:
            await rpc.start()
            self.grpc_address = rpc.address
        chores = [asyncio.create_task(self._keeper.run())]
        if self._settings.gateway.mqtt_clients == "on" and self._service is not None:
            chores.append(asyncio.create_task(self._mqtt_jobs(self._service).run()))
        try:
            await serve(app, listener, stop, on_ready, connection=connection, tls=tls)
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.wait(chores)
            if rpc is not None:
                await rpc.stop()

    def _mqtt_jobs(self, service: Service) -> MqttJobs:
        own = self._settings.coordinator
        options = gateway_link_options(self._settings, f"ea1-gateway-{service.public_key.id}")
        return MqttJobs(service, self.access, self._intake, options, wait_seconds=own.job_deadline_seconds)

    def _grpc_server(self) -> GrpcServer | None:
        own, gateway = self._settings.coordinator, self._settings.gateway
        if gateway.grpc is None or self._service is None:
            return None
        try:
            from edge_agent.coordinator.gateway.grpc_server import GrpcGateway, GrpcServer  # noqa: PLC0415 an extra
        except ImportError as error:
            raise SettingsError(
                f"gateway.grpc is set, but {error.name} is not installed", hint="pip install 'edge-agent[grpc]'"
            ) from error
        calls = GrpcGateway(self._service, self.access, self._intake, wait_seconds=own.job_deadline_seconds)
        files = None
        if gateway.tls_cert_file is not None and gateway.tls_key_file is not None:
            files = (gateway.tls_cert_file, gateway.tls_key_file)
        return GrpcServer(gateway.grpc, calls, max_request_bytes=own.max_request_bytes, tls=files)
