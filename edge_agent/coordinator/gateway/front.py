"""The gateway as the settings want it: who may use it, its certificate, and how it is served."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from fastapi import FastAPI

from edge_agent.clock import system_now
from edge_agent.coordinator.access import Access
from edge_agent.coordinator.gateway.app import make_app
from edge_agent.coordinator.gateway.keeping import Keeper
from edge_agent.coordinator.gateway.server import connections_of, serve
from edge_agent.coordinator.gateway.tls import Certificate
from edge_agent.coordinator.service import Service
from edge_agent.coordinator.store import Store
from edge_agent.settings import Settings, is_loopback, parse_host_port

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
        self._local = is_loopback(parse_host_port(settings.coordinator.http)[0])
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
        return make_app(
            service,
            max_request_bytes=own.max_request_bytes,
            wait_seconds=own.job_deadline_seconds,
            max_intake_bytes=own.max_queued_bytes,
            access=self.access,
            origins=gateway.cors_origins,
            own_names_only=gateway.auth == "auto" and self._local,
        )

    async def serve(
        self, app: FastAPI, listener: socket.socket, stop: asyncio.Event, on_ready: Callable[[str], None]
    ) -> None:
        """Serve until `stop` is set; see `server.serve`."""
        if self.access.required and self._certificate is None and not self._local:
            text = "API keys travel unencrypted: set gateway.tls_cert_file, or put a proxy with TLS in front"
            log.warning(text, extra={"action": "plain-http"})
        connection = connections_of(self._settings.coordinator.max_connections)
        tls = self._certificate.context if self._certificate is not None else None
        upkeep = asyncio.create_task(self._keeper.run())
        try:
            await serve(app, listener, stop, on_ready, connection=connection, tls=tls)
        finally:
            upkeep.cancel()
            await asyncio.wait([upkeep])
