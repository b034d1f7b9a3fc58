"""The dashboard without a browser: who gets in, what the stream says, what each answer forbids."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import httpx
import pytest
from fakes import FakeAgent, ManualClock
from gateways import JOB, MAX_REQUEST_BYTES, FakeService, call

from edge_agent.coordinator.events import Commit, InsertJob, Submit
from edge_agent.coordinator.gateway.app import make_app
from edge_agent.coordinator.gateway.dashboard.feed import MAX_VIEWERS, MAX_WAITING, Feed, Viewer
from edge_agent.coordinator.gateway.dashboard.logins import (
    MAX_SESSIONS,
    SESSION_SECONDS,
    Logins,
)
from edge_agent.coordinator.gateway.pages import difference
from edge_agent.coordinator.registry import Agent, Presence
from edge_agent.errors import RefusedError, StateError
from edge_agent.models.catalogue import builtin
from edge_agent.notes import Note

STATIC = files("edge_agent.coordinator.gateway.dashboard") / "static"
KEY = "ea_operator"
CHANGE = {"x-edge-agent-dashboard": "1"}


class Caller:
    """What an API key allows."""

    def __init__(self, *scopes: str) -> None:
        self._scopes = scopes

    def may(self, scope: str) -> bool:
        """Whether it allows this."""
        return scope in self._scopes


class Keys:
    """Plays the API keys: one of an operator, one of a client."""

    def __init__(self, *, required: bool = True) -> None:
        self.required = required
        self.revoked = False

    def caller(self, token: str) -> Caller:
        """Say who shows a key."""
        if token == KEY and not self.revoked:
            return Caller("operator")
        if token == "ea_client":  # noqa: S105 a test's
            return Caller("infer")
        raise RefusedError("no such key")


def browse(service: FakeService, keys: Keys | None, *calls: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """Make calls with one browser's cookies."""

    async def answers() -> list[httpx.Response]:
        app = make_app(service, max_request_bytes=MAX_REQUEST_BYTES, wait_seconds=1.0)
        if keys is not None:
            app.state.door.access = keys
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [await client.request(method, path, **options) for method, path, options in calls]

    return asyncio.run(answers())


def log_in(key: str, **headers: str) -> tuple[str, str, dict[str, Any]]:
    """Return the call of the login form."""
    return "POST", "/dashboard/login", {"data": {"key": key}, "headers": headers}


@pytest.fixture
def service() -> FakeService:
    """A coordinator that is played."""
    return FakeService()


# -- what each answer forbids -----------------------------------------------------------------------------------------


def test_a_page_may_load_and_send_only_to_where_it_came_from(service: FakeService) -> None:
    """No inline script, no style, no frame, nothing from elsewhere."""
    for path in ("/dashboard/", "/dashboard/static/app.js", "/dashboard/api/models"):
        headers = call(service, "GET", path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_no_file_names_another_address() -> None:
    """Everything is served from here: nothing phones home, and it works without the internet."""
    for file in STATIC.iterdir():
        text = file.read_text().replace("http://www.w3.org/", "")
        assert not re.search(r"https?://", text), file.name
        assert not re.search(r"<script(?! type=\"module\" src)|\sstyle=|\son[a-z]+=\"|innerHTML|eval\(", text), (
            file.name
        )


def test_only_the_files_that_there_are_can_be_had(service: FakeService) -> None:
    """A path of a caller never reaches the disk."""
    for name in ("..%2froutes.py", "%2e%2e", "nothing.js", "routes.py"):
        assert call(service, "GET", f"/dashboard/static/{name}").status_code == 404


# -- who gets in ----------------------------------------------------------------------------------------------------


def test_without_a_session_there_is_nothing_to_see(service: FakeService) -> None:
    """Pages lead to the login; everything else says 401."""
    paths = (
        "events",
        "api/session",
        "api/jobs",
        f"api/jobs/{JOB.hex()}",
        f"api/jobs/{JOB.hex()}/receipt",
        "api/models",
    )
    index, *others = browse(
        service, Keys(), ("GET", "/dashboard/", {}), *(("GET", f"/dashboard/{path}", {}) for path in paths)
    )
    assert (index.status_code, index.headers["location"]) == (303, "/dashboard/login")
    assert [answer.status_code for answer in others] == [401] * len(paths)


def test_an_operators_key_opens_a_session_until_the_end_of_it(service: FakeService) -> None:
    """The cookie is out of reach for scripts and other sites; logging out ends it."""
    answers = browse(
        service,
        Keys(),
        log_in(KEY),
        ("GET", "/dashboard/api/session", {}),
        ("POST", "/dashboard/logout", {"headers": CHANGE}),
        ("GET", "/dashboard/api/session", {}),
    )
    assert [answer.status_code for answer in answers] == [303, 200, 200, 401]
    cookie = answers[0].headers["set-cookie"]
    assert KEY not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/dashboard"} <= set(cookie.split("; "))


@pytest.mark.parametrize("key", ["", "ea_client", "ea_nobody", "x" * 5000])
def test_another_key_does_not(service: FakeService, key: str) -> None:
    """A client's, an unknown one, none, one that is too long."""
    wrong, after = browse(service, Keys(), log_in(key), ("GET", "/dashboard/api/session", {}))
    assert wrong.status_code in {400, 401}
    assert "set-cookie" not in wrong.headers
    assert after.status_code == 401


def test_whoever_tries_wrong_keys_locks_the_operator_out_of_nothing(service: FakeService) -> None:
    """However many, from the same address, as behind a proxy all have one: the right key gets in at once."""
    answers = browse(service, Keys(), *(log_in("ea_wrong") for _ in range(100)), log_in(KEY))
    assert [answer.status_code for answer in answers] == [401] * 100 + [303]


def test_revoking_the_key_ends_the_session(service: FakeService) -> None:
    """The key is looked at with each call."""
    keys = Keys()
    logins = Logins(lambda token: keys.caller(token).may("operator") if not keys.revoked else False, lambda: 0.0)
    cookie = logins.log_in(KEY)
    assert logins.holds(cookie)
    keys.revoked = True
    assert not logins.holds(cookie)


def test_sessions_end_by_themselves_and_are_bounded() -> None:
    """After half a day, and the oldest when there are too many."""
    clock = ManualClock()
    logins = Logins(lambda _: True, lambda: clock.monotonic)
    cookies = [logins.log_in("k") for _ in range(MAX_SESSIONS + 1)]
    assert [logins.holds(cookies[0]), logins.holds(cookies[1])] == [False, True]
    clock.advance(SESSION_SECONDS)
    assert not logins.holds(cookies[-1])
    assert not logins.holds(None)
    assert not logins.holds("made up")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({**CHANGE, "origin": "http://evil.example"}, 403),
        ({**CHANGE, "sec-fetch-site": "cross-site"}, 403),
        ({**CHANGE, "sec-fetch-site": "same-site"}, 403),
        ({**CHANGE, "origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}, 200),
    ],
    ids=["a form of another site", "another origin", "another site", "a sister site", "our own page"],
)
def test_a_page_of_another_site_changes_nothing(service: FakeService, headers: dict[str, str], status: int) -> None:
    """Even with the cookie, which it would not get: the session goes on unless our own page ended it."""
    _, answer, after = browse(
        service,
        Keys(),
        log_in(KEY),
        ("POST", "/dashboard/logout", {"headers": headers}),
        ("GET", "/dashboard/api/session", {}),
    )
    assert answer.status_code == status
    assert after.status_code == (401 if status == 200 else 200)


def test_a_page_of_another_site_logs_nobody_in(service: FakeService) -> None:
    """Who is logged in as somebody else gives away what they do."""
    (answer,) = browse(service, Keys(), log_in(KEY, origin="http://evil.example"))
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


# -- what it shows ----------------------------------------------------------------------------------------------------


def test_a_jobs_page_has_its_way_and_says_why_it_failed(service: FakeService) -> None:
    """Stages from its own times; a receipt of another key leaves out the machine's part only."""
    page = call(service, "GET", f"/dashboard/api/jobs/{JOB.hex()}").json()
    assert (page["state"], page["ms"]) == ("succeeded", 1000)
    assert page["stages"] == [
        {"name": "storing", "text": "until it ended", "start_ms": 0.0, "took_ms": 1000.0, "agent_id": None}
    ]
    assert call(service, "GET", "/dashboard/api/jobs/ff").status_code == 404
    assert call(service, "GET", f"/dashboard/api/jobs/{JOB.hex()}/receipt").content == b"receipt"


def test_models_show_who_serves_what(service: FakeService) -> None:
    """With all variants of the catalogue."""
    agent = FakeAgent("someone", ManualClock())
    live = Agent("someone", agent.key.public, presence=Presence.ONLINE, offers={"digits": agent.offer()})
    service.operations.registry.agents["someone"] = live
    (digits,) = [entry for entry in call(service, "GET", "/dashboard/api/models").json() if entry["family"] == "digits"]
    assert {variant["variant"] for variant in digits["variants"]} >= {"fp32", "int8-static"}


def test_checks_show_who_lost_trust_and_what_was_refused(service: FakeService) -> None:
    """With what an operator may want to look into; a stranger's flood of refusals is a number, not a list."""
    digest = builtin().family("digits").variants[0].digest_bytes
    row = {"name": "someone", "variant": digest, "count": 0, "failures": 1, "unclear": 0, "resting_until_ms": 9}
    service.operations.trusted = [row, {**row, "name": "owner:=ada", "variant": b""}]
    service.observed.saw(Note(logging.WARNING, "A result is wrong", "wrong-result", (("agent_id", "someone"),)))
    service.observed.saw(Note(logging.INFO, "Agent is online", "agent-online"))
    for _ in range(1000):
        service.observed.saw(Note(logging.WARNING, "Refused a message", "refused", (("code", "bad-signature"),)))
    page = call(service, "GET", "/dashboard/api/checks").json()
    assert page["refused"] == {"bad-signature": 3}
    assert [(i["text"], i["agent_id"], i["job_id"]) for i in page["incidents"]] == [
        ("A result is wrong", "someone", None)
    ]
    assert [(s["name"], s["variant"]) for s in page["standings"]] == [("someone", "digits · fp32"), ("owner:=ada", "")]


def test_a_coordinator_without_a_ledger_shows_none(service: FakeService) -> None:
    """The page is not offered then; with one, balances and the latest entries are."""
    session, ledger = browse(service, None, ("GET", "/dashboard/api/session", {}), ("GET", "/dashboard/api/ledger", {}))
    kept = getattr(service, "books", None) is not None
    assert session.json()["ledger"] is kept
    if not kept:
        assert ledger.status_code == 404


def test_a_difference_holds_what_changed_and_what_is_gone() -> None:
    """Merged into the old, it gives the new."""
    before, after = {"a": 1, "b": [1], "c": 2}, {"a": 1, "b": [2], "d": 3}
    assert difference(before, after) == {"b": [2], "d": 3, "c": None}
    assert difference(after, after) == {}


# -- the stream -------------------------------------------------------------------------------------------------------


def streamed(service: FakeService, script: Callable[[Feed], Any]) -> list[tuple[str, dict[str, Any]]]:
    """Watch while the script runs, then end; return the events."""

    async def watch() -> list[bytes]:
        feed = Feed(service, look_seconds=0.0)
        found: list[bytes] = []

        async def read() -> None:
            async for message in feed.stream():
                found.append(message)  # noqa: PERF401 each is seen as it comes

        reading = asyncio.create_task(read())
        for step in script(feed):
            await asyncio.wait_for(_until(lambda step=step: step(found)), 20)
        feed.close()
        await asyncio.wait_for(reading, 20)
        return found

    return [_event(message) for message in asyncio.run(watch()) if not message.startswith(b":")]


async def _until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 nobody tells when
        await asyncio.sleep(0)  # gives the other tasks their turn


def _event(message: bytes) -> tuple[str, dict[str, Any]]:
    kind, data = re.fullmatch(rb"event: (\w+)\ndata: (.*)\n\n", message, re.DOTALL).groups()  # type: ignore[union-attr]
    return kind.decode(), json.loads(data)


def test_the_stream_begins_with_everything_and_goes_on_with_what_changed(service: FakeService) -> None:
    """A job that comes is in the next message, and nothing else is."""

    def script(feed: Feed) -> Any:  # noqa: ANN401 steps
        yield bool
        submit = Submit(b"j" * 16, bytes(32), "digits", (), (), None, None, b"", durable=False, deadline_seconds=1.0)
        service.observed.saw(Commit((InsertJob(submit, 0, 0, 5),)))
        yield lambda found: len(found) > 1

    events = streamed(service, script)
    assert service.observed.metrics.get_sample_value("edge_agent_dashboard_cpu_seconds_total") > 0
    assert [kind for kind, _ in events] == ["whole", "change"]
    assert set(events[0][1]["agents"]) == {"someone", "other"}
    assert set(events[1][1]) == {"jobs"}
    assert events[1][1]["jobs"]["latest"][0]["id"] == (b"j" * 16).hex()


def test_a_viewer_that_does_not_read_gets_the_whole_state_when_it_does() -> None:
    """It costs a few messages of memory, and nobody else anything."""
    viewer = Viewer()
    viewer.behind = False
    for number in range(100):
        viewer.put(str(number).encode())
    assert viewer.queue.qsize() == MAX_WAITING
    assert viewer.behind


def test_nobody_looks_while_nobody_watches(service: FakeService) -> None:
    """The task ends with the last viewer; too many viewers are turned away."""

    async def scene() -> None:
        feed = Feed(service, look_seconds=0.0)
        stream = feed.stream()
        await anext(stream)
        task = feed._task
        assert task is not None
        await stream.aclose()
        await asyncio.wait_for(task, 20)
        streams = [feed.stream() for _ in range(MAX_VIEWERS)]
        for one in streams:
            await anext(one)
        assert [message async for message in feed.stream()] == []
        feed.close()
        for one in streams:
            await one.aclose()

    asyncio.run(scene())


def test_a_database_that_cannot_be_read_for_a_while_ends_no_stream(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once in the log, and looked at again: nobody sits before figures of yesterday."""
    asked: list[None] = []
    real = service.operations.stored_agents

    async def failing() -> Any:  # noqa: ANN401 never returns
        asked.append(None)
        raise StateError("the database is locked")

    def script(feed: Feed) -> Any:  # noqa: ANN401 steps
        service.operations.stored_agents = failing  # type: ignore[method-assign] # from the first look on
        yield lambda _: len(asked) > 3
        service.operations.stored_agents = real  # type: ignore[method-assign] # it is back
        yield bool
        service.operations.stored_agents = failing  # type: ignore[method-assign] # and away once more
        feed.refresh()
        before = len(asked)
        yield lambda _: len(asked) > before + 3
        service.operations.stored_agents = real  # type: ignore[method-assign] # as above
        service.operations.stored = service.operations.stored[:1]
        yield lambda found: len(found) > 1

    events = streamed(service, script)
    assert [kind for kind, _ in events] == ["whole", "change"]
    assert set(events[0][1]["agents"]) == {"someone", "other"}
    assert events[1][1]["gone"] == ["other"]
    assert [record.message for record in caplog.records] == ["the database is locked"] * 2


@pytest.mark.parametrize("why", ["logged out", "key revoked", "twelve hours"])
def test_a_stream_ends_with_its_session(service: FakeService, why: str) -> None:
    """Nothing is told any more of what happens then; without that the stream goes on."""

    async def scene() -> None:
        app = make_app(service, max_request_bytes=MAX_REQUEST_BYTES, wait_seconds=1.0)
        door, keys, clock = app.state.door, Keys(), ManualClock()
        door.access, door.logins._monotonic = keys, lambda: clock.monotonic
        app.state.feed._look_seconds = 0.0
        cookie = door.logins.log_in(KEY)
        headers = [(b"host", b"127.0.0.1"), (b"cookie", f"edge_agent_session={cookie}".encode())]
        path = "/dashboard/events"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope |= {"headers": headers, "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 80)}
        told: list[bytes] = []

        async def receive() -> Any:  # noqa: ANN401 never returns
            await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:  # noqa: ANN401 as ASGI has it
            told.extend([message["body"]] if message.get("body") else [])

        def labelled(label: str) -> None:
            service.operations.registry.orders.labels["someone"] = frozenset({label})

        answering = asyncio.create_task(app(scope, receive, send))
        await asyncio.wait_for(_until(lambda: len(told) == 1), 20)
        labelled("seen")
        await asyncio.wait_for(_until(lambda: len(told) == 2), 20)
        assert b'"seen"' in told[1]
        match why:
            case "logged out":
                door.logins.log_out(cookie)
            case "key revoked":
                keys.revoked = True
            case _:
                clock.advance(SESSION_SECONDS)
        labelled("secret")
        await asyncio.wait_for(answering, 20)
        assert len(told) == 2
        assert app.state.feed._viewers == set()
        app.state.feed.close()

    asyncio.run(scene())
