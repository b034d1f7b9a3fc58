"""The dashboard's addresses: files, login, the live stream, and what is looked up. Each answer forbids what it can.

Nothing here trusts a cookie alone: a call that changes something must come from a page of this very address
(`Sec-Fetch-Site`, `Origin`) and carry a header that no form of another site can set.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response, StreamingResponse

from edge_agent.coordinator.access import Access, Scope
from edge_agent.coordinator.gateway.answers import NEVER, json_answer
from edge_agent.coordinator.gateway.dashboard.feed import Feed
from edge_agent.coordinator.gateway.dashboard.logins import SESSION_SECONDS, Logins
from edge_agent.coordinator.gateway.operating import act_on, invite, stored_job, way_page
from edge_agent.coordinator.gateway.pages import checks_page, fits_of, models_page, stored_line
from edge_agent.coordinator.service import Service
from edge_agent.errors import EdgeAgentError, InputError, RefusedError

COOKIE: Final = "edge_agent_session"
HEADER: Final = "x-edge-agent-dashboard"
MAX_LOGIN_BYTES: Final = 2048
MAX_LISTED: Final = 200
SHOWN_ENTRIES: Final = 50
KINDS: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
SAFE: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


UNKNOWN: Final = b"That key is not known here, was revoked, or does not have the scope <code>operator</code>."


def _read() -> dict[str, tuple[bytes, str]]:
    """Read the files once; there are few, and no path of a caller ever reaches the disk."""
    folder = files("edge_agent.coordinator.gateway.dashboard") / "static"
    found = {}
    for file in folder.iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            found[file.name] = (file.read_bytes(), kind)
    return found


_STATIC: Final = _read()


def page(name: str, status: int = 200, wrong: bytes | None = None) -> Response:
    """Answer with one of our files; the login page shows what was wrong with the last try, HTML of ours."""
    body, kind = _STATIC[name]
    if wrong is not None:
        body = body.replace(b"<!-- wrong -->", b'<p class="wrong" role="alert">' + wrong + b"</p>")
    return Response(body, status, {**SAFE, "Cache-Control": "no-cache"}, media_type=kind)


class Door:
    """Lets operators in: everybody where no key is asked for, else whoever has a session."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.logins = Logins(self._may_operate, time.monotonic)

    @property
    def open(self) -> bool:
        """Whether nobody needs to log in."""
        return not self.access.required

    def _may_operate(self, token: str) -> bool:
        try:
            return self.access.caller(token).may(Scope.OPERATOR)
        except EdgeAgentError:
            return False

    def admits(self, request: Request) -> bool:
        """Whether this call is an operator's."""
        return self.open or self.logins.holds(request.cookies.get(COOKIE))

    def check(self, request: Request) -> None:
        """Let an operator's call through.

        Raises:
            HTTPException: 401 without a session, 403 for a change that another site's page may have asked for.
        """
        if not self.admits(request):
            raise HTTPException(401, "there is no session, or it is over: log in at /dashboard/login")
        if request.method != "GET":
            self.check_page(request)
            if request.headers.get(HEADER) != "1":
                raise HTTPException(403, f"a change needs the header {HEADER}")

    def check_page(self, request: Request) -> None:
        """Refuse what a page of another site sends.

        Raises:
            HTTPException: 403.
        """
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin")
        host = request.headers.get("host", "")
        if site not in {"same-origin", "none"} or origin not in {None, f"http://{host}", f"https://{host}"}:
            raise HTTPException(403, "pages of other sites may not do that here")


def add_dashboard(app: FastAPI, service: Service) -> Feed:
    """Add everything under `/dashboard`; return the stream, which must be closed at the end."""
    door, feed = Door(app.state.access), Feed(service)
    app.state.door = door

    @app.get("/", include_in_schema=False)
    @app.get("/dashboard", include_in_schema=False)
    async def start() -> Response:
        return RedirectResponse("/dashboard/", 307)

    @app.get("/dashboard/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return page("index.html") if door.admits(request) else RedirectResponse("/dashboard/login", 303)

    @app.get("/dashboard/static/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in _STATIC:
            raise RefusedError(f"there is no file {name[:64]!r}", code="unknown-job")
        return page(name)

    @app.get("/dashboard/events", include_in_schema=False)
    async def events(request: Request) -> Response:
        door.check(request)
        headers = {**SAFE, **NEVER, "X-Accel-Buffering": "no"}
        return StreamingResponse(_watched(feed, door, request), headers=headers, media_type="text/event-stream")

    _add_login(app, door)
    _add_lookups(app, service, door, feed)
    return feed


async def _watched(feed: Feed, door: Door, request: Request) -> AsyncIterator[bytes]:
    """Give the stream's messages for as long as the session holds: a browser may leave its page open for weeks."""
    async with aclosing(feed.stream()) as messages:
        async for message in messages:
            if not door.admits(request):
                return
            yield message


def _add_login(app: FastAPI, door: Door) -> None:
    """Add how an operator gets in and out."""

    @app.get("/dashboard/login", include_in_schema=False)
    async def login_page(request: Request) -> Response:
        return RedirectResponse("/dashboard/", 303) if door.admits(request) else page("login.html")

    @app.post("/dashboard/login", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        door.check_page(request)
        cookie = door.logins.log_in(await _key_in(request))
        if cookie is None:
            return page("login.html", 401, UNKNOWN)
        answer = RedirectResponse("/dashboard/", 303)
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=int(SESSION_SECONDS),
            path="/dashboard",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    @app.post("/dashboard/logout", include_in_schema=False)
    async def log_out(request: Request) -> Response:
        door.check(request)
        door.logins.log_out(request.cookies.get(COOKIE))
        answer = json_answer({"login": not door.open})
        answer.delete_cookie(COOKIE, path="/dashboard")
        return answer


def _add_lookups(app: FastAPI, service: Service, door: Door, feed: Feed) -> None:
    """Add what a page asks for when somebody looks at it."""

    @app.get("/dashboard/api/session", include_in_schema=False)
    async def session(request: Request) -> Response:
        door.check(request)
        books = getattr(service, "books", None) is not None
        return _answer({"login": not door.open, "coordinator_id": service.public_key.id, "ledger": books})

    @app.post("/dashboard/api/agents/{agent_id}/{action}", include_in_schema=False)
    async def act(request: Request, agent_id: str, action: str) -> Response:
        door.check(request)
        done = await act_on(service, request, agent_id, action)
        feed.refresh()
        return _answer(done)

    @app.post("/dashboard/api/tokens", include_in_schema=False)
    async def token(request: Request) -> Response:
        door.check(request)
        return _answer(await invite(service, request))

    @app.get("/dashboard/api/agents/{agent_id}/fits", include_in_schema=False)
    async def fits(request: Request, agent_id: str) -> Response:
        door.check(request)
        return _answer(fits_of(service.operations.registry.agents.get(agent_id)))

    @app.get("/dashboard/api/models", include_in_schema=False)
    async def models(request: Request) -> Response:
        door.check(request)
        return _answer(models_page(service.catalogue, service.operations.registry.agents.values()))

    _add_job_lookups(app, service, door)
    _add_books(app, service, door)


def _add_books(app: FastAPI, service: Service, door: Door) -> None:
    """Add what says who is trusted and who earned what."""

    @app.get("/dashboard/api/checks", include_in_schema=False)
    async def checks(request: Request) -> Response:
        door.check(request)
        standings = await service.operations.standings()
        return _answer(checks_page(service.catalogue, service.observed, service.counters, standings))

    @app.get("/dashboard/api/ledger", include_in_schema=False)
    async def ledger(request: Request) -> Response:
        door.check(request)
        books: Any = getattr(service, "books", None)
        if books is None:
            raise RefusedError("this coordinator keeps no ledger", code="unknown-job")
        balances = await books.balances()
        after = max(0, balances.size - SHOWN_ENTRIES)
        entries = await books.entries(after=after, limit=SHOWN_ENTRIES, owner=None)
        told = [entry.as_json() for entry in reversed(entries)]
        return _answer({"size": balances.size, "accounts": balances.accounts, "entries": told})


def _add_job_lookups(app: FastAPI, service: Service, door: Door) -> None:
    """Add what shows and ends jobs."""

    @app.get("/dashboard/api/jobs", include_in_schema=False)
    async def jobs(request: Request, client: str | None = None) -> Response:
        door.check(request)
        return _answer([stored_line(job) for job in await service.jobs(MAX_LISTED, client)])

    @app.get("/dashboard/api/jobs/{job_id}", include_in_schema=False)
    async def job(request: Request, job_id: str) -> Response:
        door.check(request)
        page = await way_page(service, await stored_job(service, job_id))
        return _answer({**page, "receipt": page["receipt"] and f"/dashboard/api/jobs/{page['id']}/receipt"})

    @app.delete("/dashboard/api/jobs/{job_id}", include_in_schema=False)
    async def cancel(request: Request, job_id: str) -> Response:
        door.check(request)
        found = await stored_job(service, job_id)
        service.cancel(found.id)
        await service.outcome(found.id, 5.0)
        return _answer(stored_line(await stored_job(service, job_id)))

    @app.get("/dashboard/api/jobs/{job_id}/receipt", include_in_schema=False)
    async def receipt(request: Request, job_id: str) -> Response:
        door.check(request)
        found = await stored_job(service, job_id)
        if found.receipt is None:
            raise RefusedError("only a job that succeeded has a receipt", code="unknown-job")
        name = f'attachment; filename="{found.id.hex()}.receipt"'
        return Response(found.receipt, headers={**SAFE, "Content-Disposition": name}, media_type="application/cose")


async def _key_in(request: Request) -> str:
    """Return the key in a form of at most `MAX_LOGIN_BYTES`."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_LOGIN_BYTES:
            raise InputError("a login is no longer than an API key")
    return parse_qs(body.decode("ascii", "replace")).get("key", [""])[0].strip()


def _answer(body: Any) -> Response:  # noqa: ANN401 JSON is any
    return json_answer(body, headers={**SAFE, **NEVER})
