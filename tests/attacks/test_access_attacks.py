"""Whoever has no key, a key for something else, or a web page: what they may not do, and that nothing came of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from gateways import INFER, JOBS, REQUEST, FakeService

from edge_agent.clock import system_now
from edge_agent.coordinator.access import Access, KeyRecord, Scope
from edge_agent.coordinator.gateway.app import make_app
from edge_agent.coordinator.gateway.rules import RULES, Need, need_of
from edge_agent.coordinator.key_table import new_token
from edge_agent.wire.job_options import JobOptions

TOKENS: dict[str, str] = {}
KEYS: list[KeyRecord] = []
for _name in ("infer", "read", "operator", "mqtt"):
    _id, TOKENS[_name], _digest = new_token()
    KEYS.append(KeyRecord(_id, _name, _digest, frozenset({Scope(_name)}), 0, requests_per_minute=100, jobs_per_day=2))
SUBMIT = "/api/v1/models/digits/jobs"


@pytest.fixture
def service() -> FakeService:
    """Return a service that accepts and succeeds."""
    return FakeService()


def call(service: FakeService, method: str, path: str, key: str | None = None, **options: Any) -> httpx.Response:  # noqa: ANN401
    """Call an application that wants keys."""
    access = Access(required=options.pop("required", True), clock=system_now)
    access.adopt(KEYS)
    made = {name: options.pop(name) for name in ("origins", "own_names_only") if name in options}
    headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {TOKENS[key]}"} if key else {})
    base = options.pop("base", "http://here")

    async def answer() -> httpx.Response:
        app = make_app(service, max_request_bytes=20_000, wait_seconds=1.0, access=access, **made)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, headers=headers, **options)

    return asyncio.run(answer())


def test_every_route_says_who_may_call_it() -> None:
    """A route that nobody thought of would be the operator's alone; one that is gone would leave its rule behind."""
    app = make_app(FakeService(), max_request_bytes=1, wait_seconds=1.0)
    found = set()
    for route in app.routes:
        path = route.path  # type: ignore[attr-defined] # all of ours have one
        for method in getattr(route, "methods", None) or {"GET"}:
            if method in {"HEAD", "OPTIONS"}:
                continue
            sample = path.replace("{", "").replace("}", "")
            matching = [rule for rule in RULES if method in rule.methods.split() and rule.path.fullmatch(sample)]
            assert matching, f"{method} {path} has no rule"
            assert isinstance(route, APIRoute) or path == "/openapi.json"
            found.add(matching[0])
    assert [rule for rule in RULES if rule not in found] == []


@pytest.mark.parametrize(
    "path", ["/v2/health/live/../../../api/v1/agents", "//v2/health/live", "/v2/health/live/", "/api/v1/agents/x"]
)
def test_a_path_that_nearly_is_a_public_one_is_the_operators(path: str) -> None:
    """The whole path must be that of a rule."""
    assert need_of("GET", path) is Scope.OPERATOR


@pytest.mark.parametrize(("method", "path"), [("POST", INFER), ("POST", SUBMIT), ("GET", JOBS), ("GET", "/v2")])
def test_without_a_key_nothing_happens(service: FakeService, method: str, path: str) -> None:
    """Said with the header that clients of HTTP look for; the body is not even read."""
    answer = call(service, method, path, json=REQUEST)
    assert (answer.status_code, answer.json()["code"], answer.json()["retry"]) == (401, "unauthorized", False)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (service.submitted, service.cancelled) == ([], [])


def test_openais_client_is_told_in_its_own_form(service: FakeService) -> None:
    """And does not try again."""
    answer = call(service, "POST", "/v1/embeddings", json={"model": "x", "input": "y"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"
    assert answer.headers["x-should-retry"] == "false"


def test_who_watches_and_who_audits_need_no_key(service: FakeService) -> None:
    """Health tells nothing that others should not know."""
    assert call(service, "GET", "/v2/health/live").status_code == 200
    assert call(service, "GET", "/v2/health/ready").status_code == 200
    assert need_of("GET", "/api/v1/log/consistency") is Need.PUBLIC
    assert need_of("GET", "/api/v1/log/bundle") is not Need.PUBLIC


@pytest.mark.parametrize(
    ("key", "method", "path", "status"),
    [
        ("infer", "POST", INFER, 200),
        ("infer", "GET", "/api/v1/agents", 403),
        ("infer", "GET", "/v2/models/digits", 200),
        ("read", "POST", INFER, 403),
        ("read", "POST", SUBMIT, 403),
        ("read", "GET", "/api/v1/agents", 200),
        ("read", "GET", JOBS, 200),
        ("read", "DELETE", JOBS, 403),
        ("read", "GET", "/unknown", 403),
        ("operator", "POST", INFER, 200),
        ("operator", "DELETE", JOBS, 200),
        ("operator", "GET", "/unknown", 404),
    ],
)
def test_scopes(service: FakeService, key: str, method: str, path: str, status: int) -> None:
    """Each key does what it is for, and nothing else."""
    answer = call(service, method, path, key, json=REQUEST if method == "POST" else None)
    assert answer.status_code == status
    assert bool(service.submitted) == (status == 200 and method == "POST")
    assert bool(service.cancelled) == (status == 200 and method == "DELETE")


@pytest.mark.parametrize("required", [True, False], ids=["required", "open"])
def test_a_key_that_the_broker_sees_opens_nothing_over_http(service: FakeService, *, required: bool) -> None:
    """Whoever runs the broker can read a key of the scope `mqtt`: not even its client's own jobs are shown to it."""
    assert service.stored is not None
    service.stored = replace(service.stored, client="mqtt")
    calls = [("GET", JOBS), ("DELETE", JOBS), ("GET", f"{JOBS}/receipt"), ("GET", "/api/v1/jobs"), ("POST", INFER)]
    calls += [("GET", "/v2/models/digits"), ("GET", "/api/v1/ledger/balances"), ("GET", "/openapi.json")]
    for method, path in calls:
        answer = call(service, method, path, "mqtt", json=REQUEST if method == "POST" else None, required=required)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    assert (service.listed, service.submitted, service.cancelled) == ([], [], [])
    assert call(service, "GET", "/v2/health/ready", "mqtt", required=required).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("GET", JOBS), ("DELETE", JOBS), ("GET", f"{JOBS}/receipt")])
def test_another_clients_job_is_as_if_it_were_not_there(service: FakeService, method: str, path: str) -> None:
    """Not even that there is one is told; its own, a client sees and cancels."""
    assert service.stored is not None
    service.stored = replace(service.stored, client="somebody")
    answer = call(service, method, path, "infer")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown-job")
    assert service.cancelled == []
    service.stored = replace(service.stored, client="infer")
    assert call(service, method, path, "infer").status_code == 200


def test_a_client_lists_its_own_jobs_only(service: FakeService) -> None:
    """Whatever it asks for."""
    assert call(service, "GET", "/api/v1/jobs", "infer").status_code == 200
    assert call(service, "GET", "/api/v1/jobs?client=somebody", "infer").status_code == 403
    assert call(service, "GET", "/api/v1/jobs", "read").status_code == 200
    assert service.listed == [(50, "infer"), (50, None)]


def test_a_job_counts_for_the_name_of_its_key(service: FakeService) -> None:
    """Nobody takes another's share of the machines, or the answers under another's idempotency keys."""
    named = {**REQUEST, "parameters": {"client": "somebody"}}
    assert call(service, "POST", INFER, "infer", json=named).status_code == 403
    assert service.submitted == []
    with_key = {**REQUEST, "parameters": {"idempotency_key": "1"}}
    for key in ("infer", "operator"):
        assert call(service, "POST", INFER, key, json=with_key).status_code == 200
    assert call(service, "POST", INFER, "operator", json=named).status_code == 200
    assert [submitted["options"] for submitted in service.submitted] == [
        JobOptions(client="infer", idempotency_key="infer/1"),
        JobOptions(client="operator", idempotency_key="operator/1"),
        JobOptions(client="somebody"),
    ]


def test_a_quota_ends_submissions_and_nothing_else(service: FakeService) -> None:
    """A repeated submission is no new job."""
    access = Access(required=True, clock=system_now)
    access.adopt(KEYS)

    async def script() -> list[int]:
        app = make_app(service, max_request_bytes=20_000, wait_seconds=1.0, access=access)
        headers = {"Authorization": f"Bearer {TOKENS['infer']}"}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", headers=headers) as client:
            found = []
            for repeated in (True, True, False, False, False):
                service.repeated = repeated
                answer = await client.post(INFER, json=REQUEST)
                found.append(answer.status_code)
            assert answer.json()["code"] == "quota-exhausted"
            assert int(answer.headers["retry-after"]) <= 86_400
            found.append((await client.get("/v2/models/digits")).status_code)
            return found

    assert asyncio.run(script()) == [200, 200, 200, 200, 429, 200]


# -- web pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("required", [False, True])
def test_a_page_of_another_site_cannot_use_the_machines(service: FakeService, *, required: bool) -> None:
    """A browser sends such a request without asking; it must not be carried out."""
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    answer = call(service, "POST", INFER, "operator", json=REQUEST, headers=headers, required=required)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "access-control-allow-origin" not in answer.headers
    assert service.submitted == []


def test_a_page_of_our_own_may(service: FakeService) -> None:
    """A browser names the origin there, too."""
    answer = call(service, "POST", INFER, json=REQUEST, headers={"Origin": "http://here"}, required=False)
    assert answer.status_code == 200


def test_a_name_that_was_made_to_point_here_is_refused(service: FakeService) -> None:
    """To a browser, page and coordinator then have one origin; only the name tells (DNS rebinding)."""
    for base, status in (
        ("http://evil.example:8420", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("http://localhost:8420", 200),
        ("http://127.0.0.1:8420", 200),
        ("http://[::1]:8420", 200),
    ):
        headers = {"Origin": base}
        answer = call(
            service, "GET", "/v2/models/digits", required=False, own_names_only=True, base=base, headers=headers
        )
        assert answer.status_code == status, base


def test_allowed_origins(service: FakeService) -> None:
    """With what browsers ask beforehand; others stay out; errors can be read by the page."""
    allowed = ("https://club.example",)
    ask = {"Origin": allowed[0], "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
    before = call(service, "OPTIONS", INFER, headers=ask, origins=allowed)
    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == allowed[0]
    assert "POST" in before.headers["access-control-allow-methods"]
    answer = call(service, "POST", INFER, "infer", json=REQUEST, headers={"Origin": allowed[0]}, origins=allowed)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, allowed[0])
    denied = call(service, "POST", INFER, json=REQUEST, headers={"Origin": allowed[0]}, origins=allowed)
    assert (denied.status_code, denied.headers["access-control-allow-origin"]) == (401, allowed[0])
    exposed = denied.headers["access-control-expose-headers"].split(", ")
    assert {"Edge-Agent-Retry", "Retry-After"} <= set(exposed)
    other = call(service, "OPTIONS", INFER, headers=ask | {"Origin": "https://club.example.evil"}, origins=allowed)
    assert other.status_code == 403
