"""Serves the application with uvicorn inside the coordinator's own loop and under its own signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from edge_agent.errors import SettingsError

KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 3
BACKLOG = 1024


class _Server(uvicorn.Server):
    """Leaves the signals to the coordinator, which stops more than HTTP."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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


async def serve(app: FastAPI, listener: socket.socket, stop: asyncio.Event, on_ready: Callable[[str], None]) -> None:
    """Serve until `stop` is set; `on_ready` is called with the base URL once answers are given."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        server_header=False,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110 uvicorn has a flag, not an event
        await asyncio.sleep(0.005)
    if not serving.done():
        host, port = listener.getsockname()[:2]
        on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    server.should_exit = True
    await serving
