"""What stands in front of all of HTTP: whose call it is, whether it may be made, and from which web pages.

A browser lets a page of any site send requests to this address, and where no key is asked for, that would be enough to
use the machines at home. So calls from pages of origins that are not allowed are refused, and so are calls under
foreign names of this host, behind which a site hides that lets its own name point here (DNS rebinding).

Sources: RFC 6750 (bearer tokens), the Fetch standard (CORS, https://fetch.spec.whatwg.org).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from edge_agent.coordinator.access import ANYBODY, Access, Caller
from edge_agent.coordinator.gateway.answers import Problem, problem_of
from edge_agent.coordinator.gateway.rules import admit, need_of
from edge_agent.errors import DeniedError, EdgeAgentError

METHODS = "GET, POST, DELETE, OPTIONS"
ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, Inference-Header-Content-Length"
EXPOSED_HEADERS = (
    "Edge-Agent-Job, Edge-Agent-Receipt, Edge-Agent-Retry, Edge-Agent-Verification, "
    "Inference-Header-Content-Length, Location, Retry-After"
)
PREFLIGHT_SECONDS = "600"
_CALLER = "edge_agent.caller"


def caller_of(request: Request) -> Caller:
    """Return whose call it is."""
    found = request.scope.get(_CALLER, ANYBODY)
    assert isinstance(found, Caller)  # noqa: S101 the guard put it there
    return found


class Guard:
    """Lets through what may be, and says no to the rest in the form of the interface that was called.

    Args:
        app: the application behind it.
        access: knows the keys.
        refuse: makes an answer of a problem.
        direct: finds who answers a call without the application's own search; None for most.
        origins: web pages of these may call; `*` stands for all.
        own_names_only: refuse calls under names that are not a loopback address or `localhost`.
    """

    def __init__(  # noqa: PLR0913 what stands in front of everything knows it
        self,
        app: ASGIApp,
        *,
        access: Access,
        refuse: Callable[[str, Problem], Response],
        direct: Callable[[Connection], ASGIApp | None] = lambda _: None,
        origins: Sequence[str] = (),
        own_names_only: bool = False,
    ) -> None:
        self._app = app
        self._access = access
        self._refuse = refuse
        self._direct = direct
        self._origins = frozenset(origins)
        self._own_names_only = own_names_only

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Look at a call."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = origin is not None and bool({"*", origin} & self._origins)
        if allowed and origin is not None:
            send = _with_cors(send, origin)
        try:
            self._check_names(headers, origin, allowed=allowed)
            preflight = scope["type"] == "http" and scope["method"] == "OPTIONS" and allowed
            if preflight and "access-control-request-method" in headers:
                await _preflight(headers)(scope, receive, send)
                return
            scope[_CALLER] = self._admit(scope.get("method", "GET"), scope["path"], headers)
            answer = self._direct(scope) if scope["type"] == "http" else None
            if answer is not None:
                await answer(scope, receive, send)
                return
        except EdgeAgentError as error:
            problem = problem_of(error)
            await self._refuse(scope["path"], problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, method: str, path: str, headers: Headers) -> Caller:
        token = bearer(headers.get("authorization"))
        return admit(self._access, need_of(method, path), token, f"{method} {path}")

    def _check_names(self, headers: Headers, origin: str | None, *, allowed: bool) -> None:
        host = headers.get("host", "")
        if self._own_names_only and not _is_loopback(host):
            raise DeniedError(
                f"this address is not known here as {host[:100]!r}",
                code="forbidden",
                hint="Without API keys only localhost and loopback addresses are names of this machine: a web page "
                "could hide behind another. Set gateway.auth to `required`, or to `off` if a proxy asks for a login.",
            )
        if origin is not None and not allowed and origin.lower() not in {f"http://{host}", f"https://{host}"}:
            raise DeniedError(
                f"calls from web pages of {origin[:100]!r} are not allowed",
                code="forbidden",
                hint="The operator can allow that origin with gateway.cors_origins.",
            )


def bearer(authorization: str | None) -> str | None:
    """Return the key in the header `Authorization`, or None where there is none or of another scheme."""
    match = re.fullmatch(r"(?i:bearer) +([!-~]{1,512})", authorization or "")
    return match[1] if match else None


@lru_cache(maxsize=64)  # names may be long, and are not ours
def _is_loopback(host: str) -> bool:
    name = re.sub(r":[0-9]{1,5}$", "", host)
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _with_cors(send: Send, origin: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
            headers.add_vary_header("Origin")
        await send(message)

    return sending


def _preflight(headers: Headers) -> Response:
    answer = {
        "Access-Control-Allow-Methods": METHODS,
        # Clients of other protocols have headers of their own; a name is no danger, and the origin is allowed.
        "Access-Control-Allow-Headers": headers.get("access-control-request-headers", ALLOWED_HEADERS)[:1000],
        "Access-Control-Max-Age": PREFLIGHT_SECONDS,
    }
    return Response(status_code=204, headers=answer)
