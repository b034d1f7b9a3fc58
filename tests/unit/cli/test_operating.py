"""`edge-agent agents`, `top`, `models served` and the filters of `jobs`, against a coordinator that is played."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from http_coordinators import HttpCoordinator

from edge_agent.cli import main
from edge_agent.cli.agents import state_of
from edge_agent.cli.top import sparkline

ONE = "7xq2lmp4czk3vwtyb5ahd6nfogr2sjue"
TWO = "abcdefghijklmnopqrstuvwxyz234567"
AGENTS = [
    {
        "agent_id": ONE,
        "approved": True,
        "owner": "ada",
        "labels": ["attic"],
        "presence": "online",
        "offers": ["digits"],
        "in_flight": 2,
        "drained": False,
        "board": "Raspberry Pi 5",
        "mode": "work",
        "reasons": [],
        "celsius": 61,
        "cpu_percent": 80,
        "seen_ms": 1,
    },
    {
        "agent_id": TWO,
        "approved": False,
        "owner": None,
        "labels": [],
        "presence": "gone",
        "offers": [],
        "in_flight": 0,
        "drained": False,
        "board": None,
        "mode": None,
        "reasons": [],
        "celsius": None,
        "cpu_percent": None,
        "seen_ms": None,
    },
]
JOBS = [
    {"job_id": f"{number:032x}", "model": "digits", "state": state, "attempts": 1, "client": "", "agent_id": ONE}
    for number, state in enumerate(["succeeded", "failed", "succeeded", "queued"])
]
OVERVIEW = {
    "network": "home",
    "connected": True,
    "live": {"queued": 3, "leased": 2, "hedged": 1},
    "ended": {"succeeded": 40, "failed": 2},
    "per_second": [0.0, 4.0, 8.0],
    "percentiles_ms": {"50": 12.5},
}
FIT = {"agent_id": ONE, "served": True, "predicted_us": 300, "measured_us": 2500, "predicted_bytes": 9_000_000}
MODELS = [
    {
        "family": "digits",
        "variants": [
            {"variant": "int8", "served_by": [ONE], "fits": [{**FIT, "measured_bytes": None}]},
            {"variant": "fp32", "served_by": [], "fits": []},
        ],
    }
]


@pytest.fixture
def coordinator(coordinator: HttpCoordinator) -> HttpCoordinator:
    """The stand-in, with a fleet, jobs and models."""
    found = {"agents": AGENTS, "jobs": JOBS, "overview": OVERVIEW, "models": MODELS}
    coordinator.answers |= {f"GET /api/v1/{name}": rows for name, rows in found.items()}
    return coordinator


def orders(coordinator: HttpCoordinator) -> list[tuple[str, dict[str, Any]]]:
    """Return what it was told to do."""
    return [(path, body) for method, path, body in coordinator.asked if method == "POST"]


def run(coordinator: HttpCoordinator, *arguments: str) -> int:
    """Run a command against it."""
    return main([*arguments, "--coordinator", coordinator.url])


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ([], {ONE, TWO}),
        (["--presence", "online"], {ONE}),
        (["--waiting"], {TWO}),
        (["--owner", "ada", "--serves", "digits", "--label", "attic"], {ONE}),
        (["--serves", "minilm-l6"], set()),
    ],
)
def test_agents_are_chosen(
    coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str], chosen: list[str], found: set[str]
) -> None:
    """By what is said of them, for people and for programs alike."""
    assert run(coordinator, "agents", *chosen, "--json") == 0
    assert {agent["agent_id"] for agent in json.loads(capsys.readouterr().out)} == found
    assert run(coordinator, "agents", *chosen) == 0
    text = capsys.readouterr().out
    assert all((agent in text) == (agent in found) for agent in (ONE, TWO))


def test_what_the_operator_orders_is_sent(coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str]) -> None:
    """Each action as one call, and said afterwards."""
    assert run(coordinator, "agents", "approve", ONE, "--owner", "ada") == 0
    assert run(coordinator, "agents", "drain", ONE) == 0
    assert run(coordinator, "agents", "label", ONE, "attic", "region=eu") == 0
    assert run(coordinator, "agents", "reinstate", ONE) == 0
    assert run(coordinator, "agents", "revoke", ONE) == 0
    assert orders(coordinator) == [
        (f"/api/v1/agents/{ONE}/approve", {"owner": "ada"}),
        (f"/api/v1/agents/{ONE}/drain", {}),
        (f"/api/v1/agents/{ONE}/label", {"labels": ["attic", "region=eu"]}),
        (f"/api/v1/agents/{ONE}/reinstate", {}),
        (f"/api/v1/agents/{ONE}/revoke", {}),
    ]
    assert "gets nothing new" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [["agents", "drain"], ["agents", "drain", "x"], ["agents", "list", ONE], ["agents", "drain", ONE, "attic"],
     ["agents", "drain", ONE, "--owner", "ada"], ["agents", "--watch", "0"], ["top", "--every", "0"]],
)  # fmt: skip
def test_what_makes_no_sense_is_told_and_nothing_is_sent(coordinator: HttpCoordinator, wrong: list[str]) -> None:
    """A usage error, with what would be right."""
    assert run(coordinator, *wrong) == 64
    assert orders(coordinator) == []


def test_jobs_are_chosen(coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str]) -> None:
    """By state and machine, up to the limit."""
    assert run(coordinator, "jobs", "--state", "succeeded", "--agent", ONE, "--limit", "1", "--json") == 0
    assert [job["job_id"] for job in json.loads(capsys.readouterr().out)] == [JOBS[0]["job_id"]]
    assert run(coordinator, "jobs", "--family", "nothing", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_models_that_are_served(coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody serves or has measured is left out, unless all is asked for."""
    assert run(coordinator, "models", "served") == 0
    text = capsys.readouterr().out
    assert "300 µs" in text
    assert "2.5 ms" in text
    assert "fp32" not in text
    assert run(coordinator, "models", "served", "--all") == 0
    assert "fp32" in capsys.readouterr().out
    assert run(coordinator, "models", "served", "--family", "nothing", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_top_shows_fleet_and_jobs_once(coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever works stands above whoever waits."""
    assert run(coordinator, "top", "--once") == 0
    text = capsys.readouterr().out
    assert "1 of 2 machines online" in text
    assert "3 waiting, 3 running" in text
    assert "p50 12.5 ms" in text
    assert text.index("attic") < text.index(TWO[:8])


def test_the_rate_is_drawn_to_scale() -> None:
    """The most is a full block, nothing is the least."""
    assert sparkline([0.0, 4.0, 8.0]) == "▁▄█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""


FAR_MS = 32_503_680_000_000
FAR = time.strftime("%Y-%m-%d %H:%M", time.localtime(FAR_MS / 1000))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "works"),
        ({"in_flight": 0}, "ready"),
        ({"mode": "rest", "reasons": ["hot", "hours"]}, "rests: hot, hours"),
        ({"drained": True}, "drained"),
        ({"resting_until_ms": 1}, "works"),
        ({"resting_until_ms": FAR_MS, "presence": "gone"}, "gone"),
        ({"resting_until_ms": FAR_MS}, f"distrusted until {FAR}: a result was proven wrong"),
        ({"presence": "gone"}, "gone"),
        ({"presence": "gone", "approved": False}, "waiting"),
        ({"offers": [], "in_flight": 0, "reasons": ["measuring"]}, "serves nothing: measuring"),
    ],
)
def test_how_a_machine_stands_in_few_words(changes: dict[str, Any], text: str) -> None:
    """What matters most first."""
    assert state_of({**AGENTS[0], **changes}) == text
