"""Serves the application with uvicorn inside the coordinator's own loop and under its own signals."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from edge_agent.coordinator.gateway.connections import Connection
from edge_agent.errors import SettingsError

KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 3
BACKLOG = 1024
OTHER_FILES = 256
"""Files, sockets and pipes that the coordinator opens besides HTTP connections."""


class _Server(uvicorn.Server):
    """Leaves the signals to the coordinator, which stops more than HTTP."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the coordinator's event loop: uvloop's where it is installed, else asyncio's own (None)."""
    try:
        import uvloop  # noqa: PLC0415 it may be missing
    except ImportError:
        return None
    return uvloop.new_event_loop


def listen(host: str, port: int) -> socket.socket:
    """Open the socket; port 0 takes a free one.

    Raises:
        SettingsError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: asyncio sets TCP_NODELAY only then, and without it each answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="Choose another address with --http HOST:PORT (port 0 takes a free one).",
        ) from error
    listener.listen(BACKLOG)
    return listener


async def serve(  # noqa: PLR0913 each is a part of a server
    app: FastAPI,
    listener: socket.socket,
    stop: asyncio.Event,
    on_ready: Callable[[str], None],
    *,
    connection: type[Connection] = Connection,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until `stop` is set; `on_ready` is called with the base URL once answers are given.

    Args:
        app: answers.
        listener: an open socket.
        stop: ends it.
        on_ready: is told the base URL.
        connection: makes connections; their limits are its attributes.
        tls: encrypts them.
    """
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        log_config=None,
        log_level="error",  # what strangers do wrong is told to them, not to our log
        access_log=False,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        server_header=False,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110 uvicorn has a flag, not an event
        await asyncio.sleep(0.005)
    if not serving.done():
        host, port = listener.getsockname()[:2]
        scheme = "http" if tls is None else "https"
        on_ready(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    app.state.feed.close()  # whoever watches would otherwise be waited for
    server.should_exit = True
    try:
        await serving
    finally:
        app.state.reader.close()


def connections_of(max_connections: int) -> type[Connection]:
    """Return what makes connections, so many at once, or as many as this process may have files open.

    Our own limit on open files is raised as far as it may be: idle connections must not use up what the rest needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return type("Connection", (Connection,), {"max_connections": max(1, allowed - OTHER_FILES)})
